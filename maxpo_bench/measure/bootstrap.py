"""The percentile bootstrap: 95% intervals of what has no closed one, ratios of means and of medians.

Whoever calls says what one draw of M observations gives; here they are drawn, and the draws made into bounds.
"""

import numpy as np

NUM_RESAMPLES = 2000


def counts(noise, size, resamples=NUM_RESAMPLES):
    """How often each of M = size observations is drawn: [resamples, M] int64. `counts @ values / M` are the means of the draws."""
    return noise.multinomial(size, np.full(size, 1 / size), size=resamples)


def picks(noise, size, resamples=NUM_RESAMPLES):
    """Which of M = size observations are drawn: [resamples, M] int64, for statistics that need the values themselves."""
    return noise.integers(size, size=(resamples, size))


def bounds(draws):
    """(low, high) of the central 95% of the draws [resamples, ...], along the first axis."""
    return np.quantile(draws, (0.025, 0.975), axis=0)
