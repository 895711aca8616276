"""One seed over several processes of one machine: torchrun, plain torch.distributed, and the same bits from any number of them.

A step's groups are dealt into V shards, V from the task file. Each shard is sampled, scored and differentiated by itself,
whoever does it, and what the shards give is added in their order: so 1, 2 and 4 processes make the same numbers. Every
process draws the random numbers of all shards and holds all parameters; the first one alone writes files.
"""

import os
from contextlib import contextmanager

import torch

from maxpo_bench.errors import InputError

CHUNK = 2**22  # gradient entries exchanged at once


def rank():
    """The number of this process among those that torchrun started; 0 without torchrun."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def world_size():
    """How many processes torchrun started; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def local_rank():
    """The number of this process on its machine."""
    return int(os.environ["LOCAL_RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


@contextmanager
def joined(name):
    """The processes of torchrun are one process group while the block runs; nothing at all without torchrun."""
    if world_size() == 1:
        yield
        return
    from torch import distributed

    store = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = distributed.PrefixStore(name, store)
    distributed.init_process_group(backend, store=store, rank=rank(), world_size=world_size())
    try:
        yield
    finally:
        distributed.destroy_process_group()


class Shards:
    """V shards, of which this process works on an even share, in order. where: the task file, for messages.

    InputError when the number of processes does not divide V.
    """

    def __init__(self, count, where):
        self.count, self.world = count, world_size()
        if count % self.world:
            raise InputError(
                f"{where}: distributed.shards: {count} cannot be dealt to the {self.world} processes of torchrun; "
                f"start a number that divides it"
            )
        share = count // self.world
        self.own = range(rank() * share, (rank() + 1) * share)

    def split(self, rows):
        """A sequence in V equal parts."""
        size = len(rows) // self.count
        return [rows[shard * size : (shard + 1) * size] for shard in range(self.count)]

    def exchange(self, values):
        """What each of the own shards gave (small, picklable) -> what all V gave, in order, in every process."""
        if self.world == 1:
            return values
        from torch import distributed

        parts = [None] * self.world
        distributed.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def add(self, gradients):
        """Flat gradients of the own shards, an iterable of [D] -> their sum over all V, added in the order of shards: [D]."""
        if self.world == 1:
            total = None
            for gradient in gradients:
                total = gradient if total is None else total.add_(gradient)
            return total
        from torch import distributed

        own = torch.stack(list(gradients))
        total = torch.empty_like(own[0])
        for start in range(0, own.shape[1], CHUNK):
            part = own[:, start : start + CHUNK].contiguous()
            found = [torch.empty_like(part) for _ in range(self.world)]
            distributed.all_gather(found, part)
            rows = torch.cat(found)
            summed = rows[0].clone()
            for row in rows[1:]:
                summed.add_(row)
            total[start : start + CHUNK] = summed
        return total
