"""Exact references, the gradient variance of all estimators on the same samples, and the statistics of the claims.

Each function says its source and its error; what draws or writes belongs elsewhere."""
