"""Max@K after training against the learning rate, on seeds that are never reported; the shared rate and each estimator's own best.

Rates are the task's times powers of 2: five around it, then further ones while the best lies at the edge, at most MOST_RATES:
for an estimator alone while its own best does, for all while the shared one does.
"""

from maxpo_bench.studies.trainings import Training, tuning_seeds

TITLE = "Learning rates"
AROUND, MOST_RATES = 2, 9
TRAININGS_EACH = 6  # per estimator, about, of which `plan` guesses how long it takes
TUNING = True  # on tuning seeds


def trainings(task, estimators, table):
    """Every estimator at every rate, in the order in which rates were added."""
    rate = task.optimiser["lr"]
    wanted = {estimator: [rate * 2.0**j for j in range(-AROUND, AROUND + 1)] for estimator in estimators}
    while True:
        known = table.loc[[row in wanted.get(e, ()) for e, row in zip(table["estimator"], table["lr"], strict=True)]]
        added = _added(wanted, known)
        if not added:
            break
        for estimator, new in added:
            wanted[estimator].append(new)
    return [Training(e, {"optimiser.lr": lr}, tuning_seeds(task)) for e, rates in wanted.items() for lr in rates]


def _added(wanted, table):
    """[(estimator, rate)] that are wanted besides; none while some of what is wanted is not finished."""
    run = set(zip(table["estimator"], table["lr"], strict=True))
    if not all((estimator, lr) in run for estimator, rates in wanted.items() for lr in rates):
        return []
    means, added = mean_by_rate(table), []
    for estimator, (best, low, high) in _bests(means, wanted).items():
        if best in (low, high) and len(wanted[estimator]) < MOST_RATES:
            added.append((estimator, best / 2 if best == low else best * 2))
    if added or not len(means):
        return added
    best, ranks = shared_rate(table)
    low, high = min(ranks.index), max(ranks.index)
    if best not in (low, high):
        return []
    new = best / 2 if best == low else best * 2
    lacking = [estimator for estimator in means.index if new not in wanted[estimator]]
    return [(estimator, new) for estimator in lacking] if all(len(wanted[e]) < MOST_RATES for e in lacking) else []


def _bests(means, wanted):
    """{estimator: (its best rate, lowest, highest rate tried)}; of equal means one that lies inside, the lowest of these."""
    found = {}
    for estimator in means.index:
        rates = sorted(wanted[estimator]) if wanted else list(means.columns[means.loc[estimator].notna()])
        values = means.loc[estimator].reindex(rates).fillna(float("-inf"))
        inside = values.iloc[1:-1]
        best = inside if len(inside) and inside.max() == values.max() else values
        found[estimator] = (best.idxmax(), rates[0], rates[-1])
    return found


def mean_by_rate(table):
    """Mean final max@K: a row per estimator, a column per rate. Empty where not run, or where a seed diverged.

    table: estimator, lr, seed, status, max_at_k, a row per seed. Estimators that do not apply have no row.
    """
    used = table[table["status"] != "not_applicable"]
    order = list(dict.fromkeys(used["estimator"]))
    means = used.groupby(["estimator", "lr"])["max_at_k"].agg(lambda values: values.mean(skipna=False))
    return means.unstack("lr").reindex(order).sort_index(axis=1)


def tried(table):
    """{estimator: its rates, rising}, those at which it diverged too."""
    return {e: sorted(rates) for e, rates in table[table["status"] != "not_applicable"].groupby("estimator")["lr"].unique().items()}


def best_rates(table):
    """{estimator: the rate of its best mean}; of equal ones a rate between others, the lowest of these."""
    return {estimator: best for estimator, (best, _, _) in _bests(mean_by_rate(table), tried(table)).items()}


def at_the_edge(table):
    """{estimator: whether its best is the lowest or the highest rate tried}."""
    return {estimator: best in (low, high) for estimator, (best, low, high) in _bests(mean_by_rate(table), tried(table)).items()}


def shared_rate(table):
    """(rate, mean rank by rate): of the rates that all estimators were trained at, the one with the best mean rank over them.

    Rank 1 is the best mean final max@K; equals share theirs; a rate at which a seed diverged is last. Of equal mean ranks one
    that lies between others, the lowest of these.
    """
    means, rates = mean_by_rate(table), tried(table)
    common = [rate for rate in means.columns if all(rate in found for found in rates.values())]
    ranks = means[common].rank(axis=1, ascending=False, na_option="bottom").mean().round(9)
    inside = ranks.iloc[1:-1]
    best = inside if len(inside) and inside.min() == ranks.min() else ranks
    return float(best.idxmin()), ranks
