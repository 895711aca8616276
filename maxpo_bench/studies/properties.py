"""The property table: what every estimator does, by exact enumeration."""

TITLE = "What each estimator really estimates"
CAPTION = (
    "Derived, not declared: every group of softmax bandits with 3 arms (binary, graded, negative and tied rewards; "
    "uniform, mild and peaked policies; N = 4 and 5; every valid K > 1) is enumerated, and E[g] is compared with the "
    "exact gradients of J_1, J_K and the sum over K = 1..N-1 of J_K/K. `bias_j1` and `bias_jk` are the worst "
    "||E[g] - grad J|| / ||grad J|| over the (N, K); `scale` is c where E[g] = c grad J for one c over all policies "
    "and rewards."
)


def run():
    """The property table as a DataFrame, one row per estimator of the registry. About 0.1 s per estimator."""
    from maxpo_bench.properties import table

    data = table()
    for column in ("bias_j1", "bias_jk"):  # below this only rounding is left, which differs between machines
        data[column] = data[column].where(data[column] > 1e-10, 0.0).round(6)
    return data


def figure(data):
    """None: the study is a table."""
    return None
