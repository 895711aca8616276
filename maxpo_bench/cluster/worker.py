"""What a node does: one stage, its ordinary command in a scratch folder. Sent to the nodes by value: the standard library alone."""

import fcntl
import io
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

LOG_BYTES = 2000
LOCK_S = 30.0  # until a lost copy of the same stage has ended on this machine
# In the group of the command: kills it when the pipe's other end, which dies with whoever started it, is closed.
GUARD = 'exec 3<&0 </dev/null; { trap "" INT TERM; read -r _ <&3 || kill -KILL 0; } & exec 3<&-; exec "$@"'


def run(stage, code, data, keeper):
    """One stage, as a Ray task. Returns its outcome: node, host, unfit (why this node may not: then nothing else), exit code,
    seconds, the end of its log, a tar of its outputs.

    stage: dict of id, command, env, outs, checkpoint_s, wanted (see `about`). code, data: tars. keeper: actor handle of Keeper.
    """
    import ray

    start = time.monotonic()
    outcome = {"node": ray.get_runtime_context().get_node_id(), "host": socket.gethostname(), "unfit": unfit(stage["wanted"])}
    if outcome["unfit"]:
        return outcome
    with scratch(stage["id"]) as (folder, lock):
        for tar in (code, data):
            unpack(tar, folder)
        for name, content in ray.get(keeper.load.remote(stage["id"])).items():
            write(folder / ".resume" / name, content)
        relay = Relay(keeper, stage["id"], folder / ".resume")
        log = folder / ".output.txt"
        process = start_command(stage["command"], folder, {**os.environ, **stage["env"], "PYTHONPATH": str(folder)}, log, (lock,))
        try:
            exit_code = _wait(process, relay, stage["checkpoint_s"])
        finally:
            kill(process)
        return outcome | {
            "exit_code": exit_code,
            "seconds": time.monotonic() - start,
            "log": tail(log),
            "files": pack(folder, stage["outs"]),
        }


def about(names):
    """What must be the same on every node: versions of these packages, Python's, and whether the processor has AVX2."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    with suppress(OSError):
        found["AVX2"] = "yes" if " avx2 " in Path("/proc/cpuinfo").read_text() else "no"
    return found


def unfit(wanted):
    """Why this node may not run stages, in words; "" where it may."""
    here = about(set(wanted) - {"python", "AVX2"})
    other = [name for name in wanted if here.get(name) != wanted[name]]
    return ", ".join(f"{name} is {here.get(name, 'unknown')} there, {wanted[name]} here" for name in other)


def start_command(command, folder, env, log, fds=()):
    """The process of a stage's command, in a folder, a group of its own that does not outlive this process."""
    words = shlex.split(command)
    own = words[0] == "maxpo-bench"
    argv = [sys.executable, "-m", "maxpo_bench.cli", *words[1:]] if own else ["sh", "-c", command]
    with open(log, "wb") as file:
        return subprocess.Popen(
            ["sh", "-c", GUARD, "guard", *argv],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=fds,
        )


def kill(process):
    """End a process of start_command with its group. A killed cell goes on from its last whole checkpoint."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()


def _wait(process, relay, every):
    due = time.monotonic() + every
    while True:
        try:
            return process.wait(max(0.02, due - time.monotonic()))
        except subprocess.TimeoutExpired:
            due = time.monotonic() + max(every, 20 * relay.send())  # sending large ones takes a twentieth of the time


@contextmanager
def scratch(name):
    """(folder, file descriptor of its lock): the same path whichever node it is, gone after the block. What nobody holds is swept.

    The command inherits the lock: the folder is in use as long as any of its processes lives.
    """
    parent = Path(tempfile.gettempdir()) / f"maxpo-bench-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    for path in parent.glob("*.lock"):
        if path.stem != name and (held := _lock(path)) is not None:
            _drop(path, held)
    path, deadline = parent / f"{name}.lock", time.monotonic() + LOCK_S
    while (held := _lock(path)) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path}: the same stage still runs on this machine")
        time.sleep(0.1)
    folder = path.with_suffix("")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder, held
    finally:
        _drop(path, held)


def _lock(path):
    """A descriptor that holds the lock of a path; None where another has it."""
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(held), os.stat(path)):  # nobody removed it in between
            return held
    os.close(held)
    return None


def _drop(path, held):
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    path.unlink(missing_ok=True)
    os.close(held)


def write(path, content):
    """A whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def tail(log):
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - LOG_BYTES))
        return file.read().decode(errors="replace")


def pack(folder, names):
    """A tar (bytes) of these files and folders below a folder, as far as they exist."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in names:
            if (Path(folder) / name).exists():
                tar.add(Path(folder) / name, name, filter=_plain)
    return file.getvalue()


def _plain(info):
    name = info.name.rpartition("/")[2]
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return None if name in (".new", "__pycache__") or ".tmp-" in name else info


def unpack(tar, folder):
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        file.extractall(folder, filter="data")


class Relay:
    """Sends the checkpoints of a running command to the driver's machine: by value, since what a node owns dies with it."""

    def __init__(self, keeper, stage_id, folder):
        self.keeper, self.stage_id, self.folder, self.sent = keeper, stage_id, folder, {}

    def send(self):
        """Send what is new, and wait until it is kept. Returns the seconds it took."""
        import ray

        start, now, changed = time.monotonic(), {}, {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            with suppress(FileNotFoundError):  # replaced or finished meanwhile
                if path.is_file() and ".tmp-" not in name and not name.startswith("locks/"):
                    now[name] = path.stat().st_mtime_ns
                    if self.sent.get(name) != now[name]:
                        changed[name] = path.read_bytes()
        if now != self.sent:
            ray.get(self.keeper.save.remote(self.stage_id, changed, sorted(now)))
            self.sent = now
        return time.monotonic() - start


class Keeper:
    """An actor on the driver's machine: the last checkpoints of what runs, in a folder there, for when a node is lost."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def save(self, stage_id, changed, present):
        """changed: {path: bytes}; present: all paths that are still there."""
        for name, content in changed.items():
            write(self.folder / stage_id / name, content)
        for name in set(self._names(stage_id)) - set(present):
            (self.folder / stage_id / name).unlink()

    def load(self, stage_id):
        """{path: bytes} of what was saved last."""
        return {name: (self.folder / stage_id / name).read_bytes() for name in self._names(stage_id)}

    def _names(self, stage_id):
        folder = self.folder / stage_id
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and ".tmp-" not in path.name]
