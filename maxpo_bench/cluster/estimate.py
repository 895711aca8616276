"""How long stages take on a number of slots: from the committed times of cells, as a list scheduler would place them."""

import heapq
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


def ranks(stages, known):
    """{stage: seconds until the last of those that wait for it has ended}: who goes first."""
    after = {stage: [] for stage in stages}
    for stage in stages:
        for other in stage.waits & after.keys():
            after[other].append(stage)
    found = {}

    def rank(stage):
        if stage not in found:
            found[stage] = (known.get(stage) or START_S) + max(map(rank, after[stage]), default=0.0)
        return found[stage]

    for stage in stages:
        rank(stage)
    return found


def makespan(stages, known, cpus, slots):
    """Seconds for all of the stages, the longest way first, where `slots` cores are free. cpus: {stage: cores it takes}."""
    rank, waiting = ranks(stages, known), {stage: len(stage.waits & stages) for stage in stages}
    after = {stage: [other for other in stages if stage in other.waits] for stage in stages}
    ready = [(-rank[stage], stage.key, stage) for stage in stages if not waiting[stage]]
    heapq.heapify(ready)
    running, now, free = [], 0.0, slots
    while ready or running:
        while ready and (free >= min(slots, cpus.get(ready[0][2], 1)) or not running):
            stage = heapq.heappop(ready)[2]
            free -= min(slots, cpus.get(stage, 1))
            heapq.heappush(running, (now + (known.get(stage) or START_S), stage.key, stage))
        now, _, stage = heapq.heappop(running)
        free += min(slots, cpus.get(stage, 1))
        for other in after[stage]:
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(ready, (-rank[other], other.key, other))
    return now


def in_words(number_of_seconds):
    minutes = number_of_seconds / 60
    return f"{number_of_seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
