"""Does training for K maximise max@K? The K trained for against the k evaluated at."""

from maxpo_bench.studies.trainings import Training

TITLE = "Trained for K, evaluated at k"
ESTIMATORS, KS = ("maxpo", "pkpo", "grpo"), (1, 2, 4, 8)
LADDER = True
TRAININGS_EACH = len(KS)  # per estimator, of which `plan` guesses how long it takes


def trainings(task, estimators, table):
    return [Training(e, {"k": k}) for e in ESTIMATORS for k in KS]
