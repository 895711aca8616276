"""`maxpo-bench report` draws in two processes: a Ctrl-C at any moment is one line within 5 s and leaves none of them."""

import os
import signal
import subprocess
import sys
import time

import pytest
import synthetic

from maxpo_bench.report import render


def interrupt(root, number, group, ready):
    """Stop the report when ready() holds: (exit code, seconds it took to end, what it said). group: its workers hear it too."""
    command = [sys.executable, "-m", "maxpo_bench.cli", "report"]
    environment = {**os.environ, "PYTHONPATH": str(synthetic.ROOT)}
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
    )  # fmt: skip
    while not ready() and process.poll() is None:
        time.sleep(0.005)
    start = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    try:
        said = process.communicate(timeout=20)[1]  # ends when no worker holds the pipe any more
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = process.communicate()[1]
    return process.returncode, time.monotonic() - start, said


@pytest.mark.parametrize("number, group", [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False)])
def test_a_stop_while_figures_are_drawn_is_one_line(number, group, tmp_path):
    root = synthetic.write(tmp_path, synthetic.TASKS[:6], synthetic.ESTIMATORS)
    drawn = []

    def begun():
        drawn[:] = (root / "results" / "figures").glob("*.svg")
        return drawn

    code, seconds, said = interrupt(root, number, group, begun)
    assert code == 130 and seconds < 5, (code, seconds, said)
    assert said.count("\n") == 1 and "report interrupted" in said, said
    assert len(list((root / "results" / "figures").glob("*.svg"))) <= len(drawn) + 2, "it went on drawing"


def test_a_ctrl_c_between_the_fork_and_the_handlers_is_held_back(monkeypatch, capfd):
    hear_no_stop = render._hear_no_stop

    def interrupted_at_once():
        os.kill(os.getpid(), signal.SIGINT)
        hear_no_stop()

    monkeypatch.setattr(render, "_hear_no_stop", interrupted_at_once)
    with render._two_processes() as pool:
        assert len(pool._processes) == 2, "both are forked while the signals are held back"
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(render.STOP_SIGNALS), "the parent hears them"
        assert all(not pool.submit(held_back).result(20) for _ in range(4)), "and so does a worker, by its own handlers"
    assert "Traceback" not in capfd.readouterr().err


def held_back():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(render.STOP_SIGNALS)
