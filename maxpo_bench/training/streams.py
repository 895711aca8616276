"""Random streams. Every random number of a run comes from here.

A stream is keyed by (task, seed, purpose, step), so two runs never share one by accident (as seed + i does), the numbers
of a seed do not depend on which seeds run beside it, and a run can resume at any step without saving a random state.
All estimators of a task read the same streams: common random numbers.
"""

import hashlib

import numpy as np


def sequence(task_name, seed, purpose, step=0):
    """The numpy SeedSequence of one stream. task_name, purpose: str; seed, step: int in [0, 2^32)."""
    words = hashlib.sha256(f"{task_name}\0{purpose}".encode()).digest()[:16]
    key = [*np.frombuffer(words, dtype="<u4").tolist(), int(seed), int(step)]
    return np.random.SeedSequence(np.array(key, dtype=np.uint32))  # as an array: four times faster than as a list


def generator(task_name, seed, purpose, step=0):
    """A fresh numpy Generator at the start of the stream (task_name, seed, purpose, step)."""
    return np.random.Generator(np.random.PCG64(sequence(task_name, seed, purpose, step)))


def seed_ints(task_name, seed, purpose, step, size):
    """`size` 31-bit ints from a stream, for what wants a seed of its own: environment resets, data-set builders."""
    return sequence(task_name, seed, purpose, step).generate_state(size, dtype=np.uint32).astype(np.int64) >> 1
