"""Where a seed is trained: the device that a task asks for, and how many seeds run at once on this machine's."""

import torch

from maxpo_bench.errors import InputError
from maxpo_bench.machine import workers
from maxpo_bench.training.shards import local_rank, world_size


def num_workers(task, device):
    """Seeds at once, each in a process of its own: one per GPU, None for one per core; one where a seed has several processes."""
    if world_size() > 1:
        return 1
    if device.type != "cuda":
        return None
    return torch.cuda.device_count() if task.section("device") == "auto" else 1


def find_device(name, where):
    """The torch device of a task's `device` key. InputError when this machine has none of that name."""
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        mine = local_rank() if world_size() > 1 else workers.slot()
        return torch.device("cuda", mine % torch.cuda.device_count())
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        raise InputError(f"{where}: device: {name}: this machine has no such GPU; device: auto takes what there is")
    return device
