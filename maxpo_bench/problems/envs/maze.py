"""A maze with a near decoy and a far, guarded goal: the mean and the maximum of K prefer different exits.

The decoy is a few steps from the start and pays `decoy`, every time. The goal is the farthest cell and pays 1, but its
guard ends the episode with nothing in a share `guard` of the arrivals. With decoy .5 and guard .6 the best mean is the
decoy's .5 and the best maximum of four is the goal's 1 - .6^4 = .87. Everything else pays 0: a sparse outcome.
"""

from collections import deque

import gymnasium
import numpy as np

MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # left, down, right, up, as in FrozenLake


class Maze(gymnasium.Env):
    """Observation: cell number, row * size + column. Actions: left, down, right, up; a wall leaves one in place.

    size: odd side length, walls included. layout: seed of the layout, the same maze for the same number.
    openings: share of the inner walls removed from a perfect maze. decoy_distance: steps from the first start to the
    decoy. num_starts: cells nearest to the first one that an episode may start in, drawn uniformly.
    Publishes P and initial_state_distrib, as gymnasium's toy-text environments do.
    """

    metadata = {"render_modes": ["ansi"]}

    def __init__(self, size=11, layout=0, openings=0.15, decoy=0.5, guard=0.6, decoy_distance=5, num_starts=8, render_mode=None):
        if size < 5 or size % 2 == 0:
            raise ValueError(f"Maze: size={size}, must be odd and at least 5")
        if not (0 <= guard <= 1 and 0 <= openings <= 1 and num_starts >= 1 and layout >= 0 and np.isfinite(decoy)):
            raise ValueError(
                f"Maze: guard={guard}, openings={openings}: must be in [0, 1]; num_starts={num_starts}: at least 1; "
                f"layout={layout}: at least 0; decoy={decoy}: finite"
            )
        self.size, self.render_mode = size, render_mode
        self.open = carve(size, np.random.Generator(np.random.PCG64(np.random.SeedSequence([layout, size]))), openings)
        distance = distances(self.open, (1, 1))
        cells = sorted(distance, key=lambda cell: (distance[cell], cell))
        self.goal = cells[-1]
        route = shortest_path(self.open, (1, 1), self.goal)
        off_route = [cell for cell in cells[1:] if cell not in route]
        self.decoy = min(off_route, key=lambda cell: (abs(distance[cell] - decoy_distance), cell))
        starts = [cell for cell in cells if cell not in (self.goal, self.decoy)][:num_starts]
        self.observation_space = gymnasium.spaces.Discrete(size * size)
        self.action_space = gymnasium.spaces.Discrete(4)
        self.initial_state_distrib = np.zeros(size * size)
        self.initial_state_distrib[[self._number(cell) for cell in starts]] = 1 / len(starts)
        self.P = {s: {a: self._outcomes(s, a, decoy, guard) for a in range(4)} for s in range(size * size)}
        self.s = self._number(starts[0])

    def _number(self, cell):
        return cell[0] * self.size + cell[1]

    def _outcomes(self, state, action, decoy, guard):
        """[(probability, next state, reward, done)] of one action, gymnasium's toy-text format."""
        cell = divmod(state, self.size)
        if cell in (self.goal, self.decoy) or not self.open[cell]:
            return [(1.0, state, 0.0, True)]
        target = (cell[0] + MOVES[action][0], cell[1] + MOVES[action][1])
        if not self.open[target]:
            target = cell
        number = self._number(target)
        if target == self.goal:
            return [(1 - guard, number, 1.0, True), (guard, number, 0.0, True)]
        return [(1.0, number, decoy if target == self.decoy else 0.0, target == self.decoy)]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.s = int(self.np_random.choice(self.size**2, p=self.initial_state_distrib))
        return self.s, {}

    def step(self, action):
        outcomes = self.P[self.s][int(action)]
        index = int(self.np_random.choice(len(outcomes), p=[outcome[0] for outcome in outcomes]))
        probability, self.s, reward, done = outcomes[index]
        return self.s, reward, done, False, {"prob": probability}

    def render(self):
        """The maze as text: # wall, G goal, D decoy, s start cells, @ the walker."""
        rows = [["." if self.open[row, column] else "#" for column in range(self.size)] for row in range(self.size)]
        for number in np.flatnonzero(self.initial_state_distrib):
            rows[number // self.size][number % self.size] = "s"
        for cell, letter in ((self.goal, "G"), (self.decoy, "D"), (divmod(self.s, self.size), "@")):
            rows[cell[0]][cell[1]] = letter
        return "\n".join("".join(row) for row in rows)


def carve(size, rng, openings):
    """A perfect maze by depth-first search, then a share of its inner walls opened: [size, size] bool, True = floor."""
    floor = np.zeros((size, size), dtype=bool)
    floor[1, 1] = True
    stack = [(1, 1)]
    while stack:
        row, column = stack[-1]
        targets = [(row + 2 * i, column + 2 * j) for i, j in MOVES]
        targets = [t for t in targets if 0 < t[0] < size and 0 < t[1] < size and not floor[t]]
        if not targets:
            stack.pop()
            continue
        target = targets[rng.integers(len(targets))]
        floor[target] = floor[(row + target[0]) // 2, (column + target[1]) // 2] = True
        stack.append(target)
    walls = [(r, c) for r in range(1, size - 1) for c in range(1, size - 1) if (r + c) % 2 and not floor[r, c]]
    for index in rng.permutation(len(walls))[: round(openings * len(walls))]:
        floor[walls[index]] = True
    return floor


def distances(floor, start):
    """Steps from the start to every cell that can be reached: {(row, column): steps}."""
    found, queue = {start: 0}, deque([start])
    while queue:
        cell = queue.popleft()
        for i, j in MOVES:
            target = (cell[0] + i, cell[1] + j)
            if floor[target] and target not in found:
                found[target] = found[cell] + 1
                queue.append(target)
    return found


def shortest_path(floor, start, goal):
    """The cells of one shortest path, both ends included."""
    to_goal = distances(floor, goal)
    path = [start]
    while path[-1] != goal:
        neighbours = [(path[-1][0] + i, path[-1][1] + j) for i, j in MOVES]
        path.append(min((cell for cell in neighbours if cell in to_goal), key=lambda cell: to_goal[cell]))
    return path
