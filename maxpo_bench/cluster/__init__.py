"""Stages of the pipeline on a Ray cluster: one driver that talks to DVC, stages as Ray tasks, the same bytes as `dvc repro`.

No stage imports this room; it starts their ordinary commands.
"""
