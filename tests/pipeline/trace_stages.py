"""Runs stage commands, each in a process of its own, and notes what each executed and read. For the dependency gate.

Standard input: {"root", "package", "stages": [{"name", "argv"} or {"name", "import"}]}.
Standard output: {name: {"code", "executed", "read"}}; executed: modules of the package, relative to its parent; read:
other files, relative to root or to that parent.
"""

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 (imported once here, not in every stage)
import pandas  # noqa: F401
import scipy.stats  # noqa: F401
import torch
from transformers.models.llama import modeling_llama  # noqa: F401

torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # the warm start's; imports its part of torch

WRITES = os.O_WRONLY | os.O_RDWR


def listen(root, package, log):
    """Append a line to `log` for each module of the package that is executed and each file that is read."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def hook(event, args):
        if event == "exec":
            name = getattr(args[0], "co_filename", "")
            if name.startswith(package + os.sep):
                os.write(descriptor, f"executed\t{os.path.relpath(name, os.path.dirname(package))}\n".encode())
        elif event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
            path, mode, flags = os.path.abspath(os.fsdecode(args[0])), args[1], args[2] or 0
            reads = not set(mode or "r") & set("wax+") and not flags & WRITES
            if reads and not path.endswith((".py", ".pyc")) and os.path.isfile(path):
                for base in (root, os.path.dirname(package)):
                    if path.startswith((root + os.sep, package + os.sep)) and path.startswith(base + os.sep):
                        os.write(descriptor, f"read\t{os.path.relpath(path, base)}\n".encode())
                        break

    sys.addaudithook(hook)


def trace(root, package, stage):
    log = Path(tempfile.mkdtemp()) / "log"
    log.touch()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(2, 1)
            os.chdir(root)
            listen(root, package, log)
            if "import" in stage:
                importlib.import_module(stage["import"])
                code = 0
            else:
                from maxpo_bench.cli import main

                code = main(stage["argv"])
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code or 0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lines = {tuple(line.split("\t")) for line in log.read_text().splitlines()}
    return {
        "code": code,
        "executed": sorted(path for kind, path in lines if kind == "executed"),
        "read": sorted(path for kind, path in lines if kind == "read"),
    }


request = json.load(sys.stdin)
torch.set_num_threads(1)
assert not any(name.partition(".")[0] == "maxpo_bench" for name in sys.modules)
answer = {stage["name"]: trace(request["root"], request["package"], stage) for stage in request["stages"]}
print(json.dumps(answer))
