"""Environments of the suite's own, registered with gymnasium when this package is imported."""

import gymnasium

if "maxpo_bench/Maze-v0" not in gymnasium.registry:
    gymnasium.register("maxpo_bench/Maze-v0", entry_point="maxpo_bench.problems.envs.maze:Maze", max_episode_steps=100)
