"""The same bits on every x86-64 processor with AVX2: what a process must say before numpy or torch is loaded.

torch, MKL, oneDNN, OpenBLAS and numpy each choose their kernels by the processor; told to use those of AVX2 they all give
the same bits on Intel and AMD. Only the stages that write results ask for this; importing the package sets nothing. What is
left after it is torch.sqrt (MKL computes it from the processor's approximate reciprocal): see `sqrt`.
"""

import os
import platform
import sys
from pathlib import Path

SETTINGS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
MODES = ("portable", "native")
CPUINFO = Path("/proc/cpuinfo")


def unsupported():
    """Why this machine cannot give the portable bits, in a few words; "" where it can."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"this is {platform.machine()}, not x86-64"
    try:
        flags = next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return ""  # not Linux: torch.backends says it later, see `mode`
    return "" if {"avx2", "fma"} <= set(flags) else "this processor has no AVX2"


def ask(mode="portable"):
    """Make this process (and those it starts) compute in a mode. Before numpy and torch are imported, else it has no effect.

    Says in one line on standard error when the machine cannot: the bytes of the results will then not repeat.
    """
    if mode == "native":
        for name in SETTINGS:
            if os.environ.get(name) == SETTINGS[name] and not name.endswith("THREADS"):
                del os.environ[name]
        return
    why = unsupported()
    if why:
        print(f"note: {why}; results will not have the published bytes, comparisons go by interval", file=sys.stderr, flush=True)
        return
    os.environ.update(SETTINGS)


def asked():
    """Whether this process's environment asks for portable numerics."""
    return all(os.environ.get(name) == value for name, value in SETTINGS.items())


def mode():
    """What this process really computes in: "portable", or "native" where the environment or the processor is another.

    Imports torch.
    """
    import torch

    return "portable" if asked() and torch.backends.cpu.get_cpu_capability() == "AVX2" else "native"


def unique(values):
    """np.unique(values, return_inverse=True) by the stable sort: numpy's quick one is another for each instruction set.

    values: array of any shape. Returns (sorted unique values [U], their place for each value, flat).
    """
    import numpy as np

    found, _, inverse = np.unique(values, return_index=True, return_inverse=True)
    return found, inverse.reshape(-1)


def sqrt(tensor):
    """The square root, correctly rounded (IEEE 754): torch.sqrt on a CPU is not, and differs between processors.

    A new tensor of the same shape, dtype and device, without gradient.
    """
    import numpy as np
    import torch

    if tensor.device.type != "cpu":
        return tensor.sqrt()
    return torch.from_numpy(np.asarray(np.sqrt(tensor.detach().numpy())))
