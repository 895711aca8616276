"""maxpo_bench: a reproducible benchmark of advantage estimators for group-based RL post-training."""

__version__ = "0.1.0"
