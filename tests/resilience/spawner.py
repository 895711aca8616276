"""Starts `maxpo-bench` commands by forking, so that forty of them cost one import of torch. Run by conftest.py.

Reads one JSON request per line: {"argv", "cwd", "env", "output", "file_limit"}; answers with the process id. When asked
{"wait": pid, "seconds": s}, answers with the exit code (null when it still runs). Each command is a session of its own.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from maxpo_bench.cli import console
from maxpo_bench.pipeline import jobs
from maxpo_bench.settings import task_file

with tempfile.TemporaryDirectory() as folder:  # what the cells would each import for themselves
    for text in json.loads(sys.stdin.readline()):
        path = Path(folder) / "task.yaml"
        path.write_text(text)
        jobs.prepare(task_file.load(path))
assert not torch.cuda.is_initialized()


def start(request):
    ready, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        os.read(ready, 1)  # it is a session now, which signals can be sent to
        os.close(ready)
        started.add(pid)
        return pid
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    with open(request["output"], "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    if request["file_limit"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write past the limit is an OSError, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"], request["file_limit"]))
    os.write(tell, b"!")
    code = 70
    try:
        console(request["argv"])
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 71
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(pid, seconds):
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            started.discard(pid)
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)


started = set()  # and not yet ended
for line in sys.stdin:
    request = json.loads(line)
    answer = wait(request["wait"], request["seconds"]) if "wait" in request else start(request)
    print(json.dumps(answer), flush=True)
for pid in started:  # of a test that failed
    os.killpg(pid, signal.SIGKILL)
