"""Few large groups or many small ones: the group size N at a fixed number of samples per step."""

from maxpo_bench.errors import InputError
from maxpo_bench.studies.trainings import Training

TITLE = "Group size at a fixed number of samples"
ESTIMATORS, SIZES = ("maxpo", "pkpo", "grpo"), (8, 16, 32)
TRAININGS_EACH = len(SIZES)  # per estimator, of which `plan` guesses how long it takes


def trainings(task, estimators, table):
    samples = task.groups * task.group_size
    for n in SIZES:
        if samples % n:
            raise InputError(f"tasks/{task.name}.yaml: groups x group_size = {samples} samples, no whole number of groups of {n}")
    return [Training(e, {"group_size": n, "groups": samples // n}) for e in ESTIMATORS for n in SIZES]
