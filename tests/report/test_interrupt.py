"""`maxpo-bench report` draws in its own process: a Ctrl-C at any moment is one line within 5 s, and there is nobody to leave
behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import matplotlib.font_manager  # noqa: F401 - which asks fc-list for the machine's fonts, once a machine
import pytest
import synthetic

from maxpo_bench.report import build


def interrupt(root, number, ready):
    """Stop the report when ready() holds: (exit code, seconds it took to end, what it said). None: it was done before we looked."""
    command = [sys.executable, "-m", "maxpo_bench.cli", "report"]
    environment = {**os.environ, "PYTHONPATH": str(synthetic.ROOT)}
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
    )  # fmt: skip
    while not ready() and process.poll() is None:
        time.sleep(0.005)
    if process.poll() is not None:
        assert process.returncode == 0, process.stderr.read()
        return None
    start = time.monotonic()
    os.kill(process.pid, number)
    try:
        said = process.communicate(timeout=20)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = process.communicate()[1]
    return process.returncode, time.monotonic() - start, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_figures_are_drawn_is_one_line(number, tmp_path):
    found = None
    for attempt in range(5):  # on a busy machine all may be drawn while this process waits for its turn
        root, drawn = synthetic.write(tmp_path / str(attempt), synthetic.TASKS[:6], synthetic.ESTIMATORS), []

        def begun(root=root, drawn=drawn):
            drawn[:] = (root / "results" / "figures").glob("*.svg")
            return drawn

        if found := interrupt(root, number, begun):
            break
    code, seconds, said = found
    assert code == 130 and seconds < 5, (code, seconds, said)
    assert said.count("\n") == 1 and "report interrupted" in said, said
    assert len(list((root / "results" / "figures").glob("*.svg"))) <= len(drawn) + 2, "it went on drawing"


def test_no_process_is_started(tmp_path, monkeypatch):
    """What is not there cannot leave a traceback when it is stopped."""

    def refuse(*_, **__):
        raise AssertionError("the report started a process")

    for place, name in ((os, "fork"), (os, "posix_spawn"), (subprocess, "Popen"), (multiprocessing.Process, "start")):
        monkeypatch.setattr(place, name, refuse)
    root = synthetic.write(tmp_path, synthetic.TASKS[:2], ("pkpo", "maxpo"), studies=False)
    assert build(root) == 0
