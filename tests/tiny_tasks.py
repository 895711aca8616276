"""Task files, as texts, that train in a second. Imported by name."""

MAZE = """
version: 1
kind: tabular
title: Tiny maze
env: {id: maxpo_bench/Maze-v0, kwargs: {size: 9, num_starts: 8}, max_episode_steps: 20}
k: 2
group_size: 4
groups: 2
steps: 3
seeds: 2
optimiser: {name: adam, lr: 0.1}
evaluation: {prompts: 2, samples: 4}
variance: {groups: 8}
"""
COUNTDOWN = """
version: 1
kind: countdown
title: Tiny countdown
data: {digits: 2}
model: {hidden_size: 16, layers: 1, heads: 2, mlp_size: 16}
warm_start: {steps: 4, batch_size: 8}
sampling: {max_new_tokens: 5}
k: 2
group_size: 4
groups: 4
steps: 3
seeds: 2
optimiser: {lr: 1e-3}
evaluation: {prompts: 4, samples: 8}
variance: {groups: 8}
"""
