"""The one training loop and what it is made of: random streams, optimisers, warm start, checkpoints, evaluation.

No estimator and no task is known here by name. A change of a number here changes every cell."""
