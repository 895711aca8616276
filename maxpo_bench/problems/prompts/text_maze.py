"""A maze as text: `.` free, `#` wall, `S` start, `G` goal, row by row, ask for moves U D L R to the goal, `RRDDL`."""

import functools

import numpy as np

from maxpo_bench.problems.prompts import PromptSource, is_held_out
from maxpo_bench.training import streams

MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
WALL_PROBABILITY = 0.3
NUM_TRAIN, NUM_HELD_OUT = 4096, 512


class Source(PromptSource):
    """Random solvable mazes, the goal min_distance..max_distance moves away; many ways lead to it."""

    alphabet = ".#SG:UDLR"

    def __init__(self, data, where=""):
        super().__init__(data, where)
        self._prompts = _mazes(data["size"], data["min_distance"], data["max_distance"])

    def rows(self, split):
        return {"prompt": self._prompts[split]}

    def demonstrations(self, rng, size):
        """Self-avoiding random walks over training mazes: of walk_tries the first to hit the goal, else the last."""
        prompts = self._prompts["train"]
        pairs = []
        for at in rng.integers(len(prompts), size=size):
            for turns in rng.random((self.data["walk_tries"], self.data["walk_length"])):
                walk, arrived = self._random_walk(prompts[at], turns)
                if arrived:
                    break
            pairs.append((prompts[at], walk))
        return pairs

    def _random_walk(self, prompt, turns):
        """The moves of one self-avoiding walk, its choices taken from turns in [0, 1), and whether it hit the goal."""
        size = self.data["size"]
        at, goal = (divmod(prompt.index(mark), size) for mark in "SG")
        seen, moves = {at}, ""
        for turn in turns:
            steps = [
                (move, (at[0] + down, at[1] + right))
                for move, (down, right) in MOVES.items()
                if _free(prompt, size, at[0] + down, at[1] + right) and (at[0] + down, at[1] + right) not in seen
            ]
            if not steps:
                break
            move, at = steps[int(turn * len(steps))]
            seen.add(at)
            moves += move
            if at == goal:
                return moves, True
        return moves, False

    def verify(self, row, text):
        """1 if the moves walk over free cells and end on the goal, else 0.

        Graded: a legal walk that ends elsewhere earns 1 - distance / (2 size), Manhattan distance from its end.
        """
        prompt, size = row["prompt"], self.data["size"]
        if not 0 < len(text) <= size * size * 4:
            return 0.0
        down, right = divmod(prompt.index("S"), size)
        for char in text:
            if char not in MOVES:
                return 0.0
            down, right = down + MOVES[char][0], right + MOVES[char][1]
            if not _free(prompt, size, down, right):
                return 0.0
        goal = divmod(prompt.index("G"), size)
        if (down, right) == goal:
            return 1.0
        distance = abs(down - goal[0]) + abs(right - goal[1])
        return 1 - distance / (2 * size) if self.data["graded"] else 0.0


def _free(prompt, size, down, right):
    return 0 <= down < size and 0 <= right < size and prompt[down * size + right] != "#"


def _distance(prompt, size):
    """Moves on a shortest way from S to G, -1 if there is none."""
    start, goal = prompt.index("S"), prompt.index("G")
    reached, seen, moves = {start}, {start}, 0
    while reached:
        if goal in reached:
            return moves
        cells = {
            (at // size + down) * size + at % size + right
            for at in reached
            for down, right in MOVES.values()
            if _free(prompt, size, at // size + down, at % size + right)
        }
        reached = cells - seen
        seen |= reached
        moves += 1
    return -1


@functools.cache  # pure; forked workers inherit it
def _mazes(size, min_distance, max_distance):
    """Different mazes, the same on every call: {"train": [prompt], "held_out": [prompt]}."""
    rng = streams.generator("text_maze", 0, "mazes")
    mazes, wanted = {"train": {}, "held_out": {}}, {"train": NUM_TRAIN, "held_out": NUM_HELD_OUT}
    while any(len(mazes[split]) < wanted[split] for split in mazes):
        walls = rng.random((256, size * size)) < WALL_PROBABILITY
        ends = rng.random((256, size * size)).argsort(axis=1, kind="stable")[:, :2]
        for wall, (start, goal) in zip(walls, ends, strict=True):
            cells = np.where(wall, "#", ".")
            cells[start], cells[goal] = "S", "G"
            prompt = "".join(cells) + ":"
            split = "held_out" if is_held_out(prompt) else "train"
            if len(mazes[split]) < wanted[split] and min_distance <= _distance(prompt, size) <= max_distance:
                mazes[split][prompt] = None
    return {split: list(found) for split, found in mazes.items()}
