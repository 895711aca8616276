"""Jobs in forked one-thread processes, with progress, and nobody left behind.

A cell spreads its seeds over the cores this way. Forking after `import torch` costs milliseconds where a new process
costs seconds. Small results travel through a pipe; tensors go through files.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


def num_workers():
    """Processes to use: MAXPO_BENCH_WORKERS, else the cores this process may run on."""
    text = os.environ.get("MAXPO_BENCH_WORKERS", "")
    if text:
        if not text.isdigit() or int(text) < 1:
            raise InputError(f"MAXPO_BENCH_WORKERS must be a whole number of at least 1, got {text!r}")
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_slot = 0


def slot():
    """The place among those that run at once, from 0, of the worker that asks; 0 outside of one."""
    return _slot


def single_thread():
    """One thread per process: results do not depend on the number of cores, and two processes do not fight for them."""
    import torch

    torch.set_num_threads(1)


class Stopped(BaseException):
    """The parent wants this worker to end: unwinds, so that a file half written is taken away."""


class Progress:
    """A bar with an ETA on a terminal, a plain line now and then elsewhere."""

    def __init__(self, label, total):
        self.label, self.total, self.done = label, total, 0
        self.start = self.last_line = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=label, unit="step", dynamic_ncols=True, leave=False)

    def update(self, done):
        if self.bar is not None:
            self.bar.update(done - self.done)
        elif done > self.done and time.monotonic() - self.last_line > 15:
            self.last_line = time.monotonic()
            left = (self.last_line - self.start) / done * (self.total - done)
            print(f"{self.label}: {done}/{self.total} steps, about {left:.0f} s left", flush=True)
        self.done = done

    def close(self):
        if self.bar is not None:
            self.bar.close()


def run(jobs, work, label, steps_per_job, workers=None):
    """work(job, tick) for each job in forked processes; tick(n) says that n of its steps are done. Returns the results.

    Results come in the order of the jobs and must be picklable. A worker's InputError or CannotWrite is raised here as
    itself, any other exception or a killed worker as a Fault with the reason (and its count of verifier errors). The first
    failure stops the rest.
    """
    single_thread()
    context = multiprocessing.get_context("fork")
    counters = context.Array("q", len(jobs), lock=False)
    progress = Progress(label, steps_per_job * len(jobs))
    results, waiting, running = [None] * len(jobs), list(range(len(jobs))), {}
    workers = workers or num_workers()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index = waiting.pop(0)
                place = min(set(range(workers)) - {place for _, _, place in running.values()})
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(work, jobs[index], counters, index, sender, os.getpid(), place))
                # Held back until the child has its own handlers: a Ctrl-C in between would end in a traceback.
                signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
                try:
                    process.start()
                    running[receiver] = (index, process, place)
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
                sender.close()
            for receiver in wait(list(running), timeout=0.2):
                index, process, _ = running.pop(receiver)
                try:
                    kind, value = receiver.recv()
                except EOFError:
                    process.join()
                    code = process.exitcode
                    if code in (-signal.SIGTERM, -signal.SIGINT):  # whoever stops the whole group stops us too
                        raise KeyboardInterrupt from None
                    cause = "killed, perhaps out of memory" if code == -signal.SIGKILL else f"exit code {code}"
                    kind, value = "fault", (f"a worker process ended without a result ({cause})", 0, 1)
                process.join()
                if kind == "error":
                    raise value
                if kind == "fault":
                    fault = Fault(value[0])
                    fault.verifier_errors, fault.exit_code = value[1:]
                    raise fault
                results[index] = value
            progress.update(sum(counters))
    finally:
        with _undisturbed():
            _stop([process for _, process, _ in running.values()])
            progress.close()
    return results


@contextmanager
def _undisturbed():
    """No second Ctrl-C while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(processes):
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + 2
    for process in processes:
        process.join(timeout=max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def _child(work, job, counters, index, sender, parent, place):
    global _slot
    _slot = place
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and stops us
        signal.signal(signal.SIGTERM, _stopped)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

        def tick(done):
            counters[index] = done
            if os.getppid() != parent:  # the parent was killed: do not run on as an orphan
                os._exit(1)

        answer = _answer(work, job, tick)
        with suppress(BrokenPipeError):  # nobody is left to hear it
            sender.send(answer)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except Stopped:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _answer(work, job, tick):
    try:
        return "ok", work(job, tick)
    except (InputError, files.CannotWrite) as error:
        return "error", error
    except Stopped:
        raise
    except BaseException as error:  # noqa: BLE001 (the parent must hear of whatever it was)
        return "fault", (reason(error), getattr(error, "verifier_errors", 0), getattr(error, "exit_code", 1))


def _stopped(number, frame):
    signal.signal(number, signal.SIG_IGN)  # `timeout` and the parent may both send one
    raise Stopped


def reason(error):
    """One line that says what went wrong, for the status of a cell."""
    if isinstance(error, Fault):
        return str(error)
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY):
        return "out of memory"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}{where}".split())
