"""Files that are either whole or not there: atomic writes, checkpoints without pickle, hashes, locks."""

import csv
import fcntl
import gzip
import hashlib
import io
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path

from maxpo_bench.errors import Fault, InputError


class CannotWrite(Fault):
    """The disk is full or closed to us: not the cell's fault, so it does not end as a status of the cell."""


def write_bytes(path, data):
    """Write, fsync, rename: a reader sees the old file or the new one, never half of one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)  # the rename too must outlive a power cut
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:  # Ctrl-C too: nothing is left lying about
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CannotWrite(f"cannot write {path}: {error.strerror}") from None
        raise


def json_text(value):
    """JSON that repeats byte for byte: sorted keys, shortest exact floats, NaN refused."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path, value):
    write_bytes(path, json_text(value).encode())


def read_json(path):
    """The value in a JSON file; InputError with the path when it is half-written or edited into nonsense."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it and run its stage again") from None


def write_csv(path, rows):
    """rows: list of dicts; the columns are the keys in order of first appearance, floats to 12 significant digits.

    A path that ends in .gz is compressed, the same bytes each time; pandas reads it as it is.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.12g}" if isinstance(value, float) else value for key, value in row.items()})
    data = text.getvalue().encode()
    write_bytes(path, _gzip(data) if str(path).endswith(".gz") else data)


def _gzip(data):
    """gzip without a time or a name, by zlib's own deflate."""
    return gzip.compress(data, compresslevel=9, mtime=0)


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def save_tensors(path, tensors, about=None):
    """Tensors (a flat dict) and a JSON-able `about` in one safetensors file, atomically."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(tensors, {"about": json.dumps(about)}))


def load_about(path):
    """The `about` of a file by save_tensors, without its tensors. InputError as load_tensors."""
    return load_tensors(path, names=())[1]


def load_tensors(path, names=None):
    """(tensors, about) of a file by save_tensors; names: those tensors alone. InputError when it is truncated or not one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "null"))
            return {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}, about
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None


def save_states(path, states):
    """State dicts of several seeds ({seed: {name: tensor}}) in one safetensors file, atomically."""
    save_tensors(path, {f"{seed}/{name}": tensor for seed, state in states.items() for name, tensor in state.items()})


def load_states(path, seeds=None):
    """{seed: state dict} of a file by save_states, by number; of `seeds` alone, as given. InputError when one is not there."""
    names = _names(path)
    if seeds is not None:
        missing = [seed for seed in seeds if not any(name.startswith(f"{seed}/") for name in names)]
        if missing:
            raise InputError(f"{path}: seed {missing[0]} is missing; make it again by its stage")
        names = [name for name in names if int(name.split("/")[0]) in seeds]
    states = {}
    for name, tensor in load_tensors(path, names)[0].items():
        seed, _, own = name.partition("/")
        states.setdefault(int(seed), {})[own] = tensor
    return {seed: states[seed] for seed in (sorted(states) if seeds is None else seeds)}  # the file has 10 before 2


def saved_seeds(path):
    """The seeds in a file by save_states; none where it is not a whole one."""
    with suppress(InputError, ValueError):
        return sorted({int(name.split("/")[0]) for name in _names(path)})
    return []


def _names(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from None


def tensors_sha256(tensors):
    """One hash of named tensors: names, shapes and every bit."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def lock(path, what):
    """Hold an exclusive lock while the block runs. InputError, at once, when another process holds it."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise InputError(f"{what} is already being run by process {owner or '?'}; wait for it or stop it") from None
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
    os.register_at_fork(after_in_child=file.close)  # a worker that outlives us must not keep the lock
    try:
        yield file
    finally:
        file.close()  # closing drops the lock
