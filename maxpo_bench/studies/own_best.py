"""Every estimator at its own best learning rate of the sweep, on the seeds that are reported."""

from maxpo_bench.errors import InputError
from maxpo_bench.settings.task_file import root
from maxpo_bench.studies.learning_rate import best_rates
from maxpo_bench.studies.trainings import Training

TITLE = "Each estimator at its own best learning rate"
CELLS = True
NEEDS = ("learning_rate",)
TRAININGS_EACH = 1  # per estimator, of which `plan` guesses how long it takes


def trainings(task, estimators, table):
    import pandas as pd

    path = root() / "results" / "trained" / "learning_rate" / f"{task.name}.csv"
    first = f"run `maxpo-bench trained learning_rate {task.name}` first"
    if not path.is_file():
        raise InputError(f"results/trained/learning_rate/{task.name}.csv is missing; {first}")
    sweep = pd.read_csv(path)
    rates, swept = best_rates(sweep), set(sweep["estimator"])
    for estimator in estimators:
        if estimator not in swept:
            raise InputError(f"results/trained/learning_rate/{task.name}.csv has no {estimator}; {first}")
    return [Training(e, {"optimiser.lr": float(rates.get(e, task.optimiser["lr"]))}) for e in estimators]
