"""Jobs in forked one-thread processes, with progress, and nobody left behind.

A cell spreads its seeds over the cores this way. Forking after `import torch` costs milliseconds where a new process
costs seconds. Small results travel through a pipe; tensors go through files.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import wait

from maxpo_bench.errors import Fault, InputError


def num_workers():
    """Processes to use: MAXPO_BENCH_WORKERS, else the cores this process may run on."""
    text = os.environ.get("MAXPO_BENCH_WORKERS", "")
    if text:
        if not text.isdigit() or int(text) < 1:
            raise InputError(f"MAXPO_BENCH_WORKERS must be a whole number of at least 1, got {text!r}")
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def single_thread():
    """One thread per process: results do not depend on the number of cores, and two processes do not fight for them."""
    import torch

    torch.set_num_threads(1)


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
    """work(job, tick) for each job in forked processes; tick(n) tells that n of its steps are done. Returns the results.

    Results come in the order of the jobs and must be picklable. A worker's InputError is raised here as itself; any
    other exception, or a worker that is killed, as a Fault with the reason. The first failure stops the rest.
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
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(work, jobs[index], counters, index, sender, os.getpid()))
                process.start()
                sender.close()
                running[receiver] = (index, process)
            for receiver in wait(list(running), timeout=0.2):
                index, process = running.pop(receiver)
                try:
                    kind, value = receiver.recv()
                except EOFError:
                    process.join()
                    code = process.exitcode
                    cause = "killed, perhaps out of memory" if code == -signal.SIGKILL else f"exit code {code}"
                    kind, value = "fault", f"a worker process ended without a result ({cause})"
                process.join()
                if kind != "ok":
                    raise value if isinstance(value, Exception) else Fault(value)
                results[index] = value
            progress.update(sum(counters))
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join(timeout=2)
            if process.is_alive():
                process.kill()
        progress.close()
    return results


def _child(work, job, counters, index, sender, parent):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and stops us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def tick(done):
        counters[index] = done
        if os.getppid() != parent:  # the parent was killed: do not run on as an orphan
            os._exit(1)

    try:
        sender.send(("ok", work(job, tick)))
    except InputError as error:
        sender.send(("error", error))
    except MemoryError:
        sender.send(("fault", "out of memory"))
    except Fault as error:
        sender.send(("fault", str(error)))
    except BaseException as error:  # noqa: BLE001 (the parent must hear of whatever it was)
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        text = "out of memory" if "not enough memory" in str(error) else f"{type(error).__name__}: {error} ({where})"
        sender.send(("fault", " ".join(text.split())))
