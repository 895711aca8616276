"""Forked workers: results in order, failures with their reason, nobody left behind."""

import multiprocessing
import os
import signal
import time

import pytest

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files, workers


@pytest.fixture(autouse=True)
def nobody_is_left_behind():
    yield
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
        process.join()
    assert not left


def test_results_come_in_the_order_of_the_jobs():
    def work(job, tick):
        time.sleep(0.05 * (3 - job))
        tick(1)
        return job * 10

    assert workers.run([0, 1, 2], work, "test", 1, workers=3) == [0, 10, 20]


def test_an_input_error_comes_back_as_itself():
    class Special(InputError):
        pass

    def work(job, tick):
        raise InputError("k: too large")

    with pytest.raises(InputError, match="k: too large"):
        workers.run([0], work, "test", 1)


@pytest.mark.parametrize(
    "action, words",
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: os._exit(7), "exit code 7"),
        (lambda: os.kill(os.getpid(), 9), "perhaps out of memory"),
        (lambda: (_ for _ in ()).throw(MemoryError()), "out of memory"),
    ],
)
def test_a_broken_worker_is_a_fault_with_the_reason(action, words):
    with pytest.raises(Fault, match=words):
        workers.run([0], lambda job, tick: action(), "test", 1)


def test_a_worker_does_not_hear_ctrl_c():
    """A terminal sends it to the whole group: the parent alone decides what it means."""

    def work(job, tick):
        os.kill(os.getpid(), signal.SIGINT)
        return "done"

    assert workers.run([0], work, "test", 1) == ["done"]


def test_ctrl_c_before_a_worker_has_its_own_handlers_is_held_back(monkeypatch, capfd):
    child = workers._child

    def interrupted_at_once(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        child(*arguments)

    monkeypatch.setattr(workers, "_child", interrupted_at_once)
    assert workers.run([0], lambda job, tick: "done", "test", 1) == ["done"]
    assert "Traceback" not in capfd.readouterr().err
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(workers.STOP_SIGNALS), "the parent hears it again"


def test_the_first_failure_stops_the_others(tmp_path):
    def work(job, tick):
        if job == 1:
            time.sleep(0.3)
            raise Fault("broken")
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    start = time.monotonic()
    with pytest.raises(Fault, match="broken"):
        workers.run([0, 1], work, "test", 1, workers=2)
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_worker_that_hears_nothing_is_killed():
    def work(job, tick):
        if job == 1:
            time.sleep(0.3)
            raise Fault("broken")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    start = time.monotonic()
    with pytest.raises(Fault, match="broken"):
        workers.run([0, 1], work, "test", 1, workers=2)
    assert time.monotonic() - start < 10


def test_a_worker_that_is_stopped_while_it_writes_takes_its_half_file_away(tmp_path):
    def work(job, tick):
        if job == 1:
            time.sleep(0.3)
            raise Fault("broken")
        while True:
            files.write_bytes(tmp_path / "file", bytes(3_000_000))

    for _ in range(3):
        with pytest.raises(Fault, match="broken"):
            workers.run([0, 1], work, "test", 1, workers=2)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_workers_is_bad_input(text, monkeypatch):
    monkeypatch.setenv("MAXPO_BENCH_WORKERS", text)
    with pytest.raises(InputError, match="MAXPO_BENCH_WORKERS"):
        workers.num_workers()
