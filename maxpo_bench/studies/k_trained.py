"""Does training for K maximise max@K? The K trained for against the k evaluated at."""

from maxpo_bench.studies.trainings import Training

TITLE = "Trained for K, evaluated at k"
ESTIMATORS, KS = ("maxpo", "pkpo", "grpo"), (1, 2, 4, 8)
LADDER = True


def trainings(task, estimators, table):
    return [Training(e, {"k": k}) for e in ESTIMATORS for k in KS]
