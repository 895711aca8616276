"""How long stages take on a number of slots, from the committed times of cells."""

import shlex

from maxpo_bench.errors import InputError
from maxpo_bench.machine import files
from maxpo_bench.pipeline.plan import START_S


def seconds(root, stage, cpus=1):
    """Seconds that a stage takes on so many cores, by what it took when it last ran; None where nothing is known."""
    words = shlex.split(stage.command)[1:]
    if words[:1] == ["train"]:
        folder = "estimators" if "--beside" in words else "runs"
        path = root / "results" / folder / words[1] / words[2] / "timing.json"
    elif words[:1] == ["trained"]:
        path = root / "results" / "trained" / words[1] / f"{words[2]}.timing.json"
    else:
        return None
    try:
        timing = files.read_json(path)
        return timing["wall_s"] * timing.get("num_workers", 1) / cpus + START_S
    except (OSError, InputError, KeyError, TypeError):
        return None


def followers(stages):
    """{stage: those of the stages that wait for it}."""
    after = {stage: [] for stage in stages}
    for stage in stages:
        for other in stage.waits & after.keys():
            after[other].append(stage)
    return after


def ranks(after, known):
    """{stage: seconds until the last of those that wait for it has ended}: the largest goes first."""
    found = {}

    def rank(stage):
        if stage not in found:
            found[stage] = (known.get(stage) or START_S) + max(map(rank, after[stage]), default=0.0)
        return found[stage]

    for stage in after:
        rank(stage)
    return found


def left(stages, known, cpus, rank, slots):
    """Seconds for these stages: their sum over the slots, or the longest way through them. cpus: {stage: cores it takes}."""
    total = sum((known.get(stage) or START_S) * cpus[stage] for stage in stages)
    return max(total / slots, max((rank[stage] for stage in stages), default=0.0))


def in_words(number_of_seconds):
    minutes = number_of_seconds / 60
    return f"{number_of_seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
