"""Two passes over each batch with PPO's clip, the setting that trainers use, against the single one of all other results."""

from maxpo_bench.studies.trainings import Training

TITLE = "Two passes over each batch"
ESTIMATORS, PASSES = ("maxpo", "pkpo", "grpo"), ((1, 0.0), (2, 0.2))  # epochs, clip
TRAININGS_EACH = len(PASSES)  # per estimator, of which `plan` guesses how long it takes


def trainings(task, estimators, table):
    return [Training(e, {"loss.epochs": epochs, "loss.clip": clip}) for e in ESTIMATORS for epochs, clip in PASSES]
