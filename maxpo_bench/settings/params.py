"""params.yaml: what the pipeline runs."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from maxpo_bench.errors import InputError
from maxpo_bench.settings import loader
from maxpo_bench.settings.models import Section, checked
from maxpo_bench.settings.task_file import NAME

Names = Annotated[list[str], Field(description="a list of names")]


class Lists(Section):
    @field_validator("*")
    @classmethod
    def _names_of_stages(cls, names, info: ValidationInfo):
        """Names become names of stages and folders; each is there once."""
        if isinstance(names, dict):
            for key, tasks in names.items():
                cls._names_of_stages([key], info)
                cls._names_of_stages(tasks, info)
        for number, name in enumerate(names if isinstance(names, list) else ()):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name[:100]!r}: a name has letters, digits and _ only")
            if name in names[:number]:
                raise ValueError(f"{name!r} is listed twice")
        return names


class Trained(Lists):
    """Estimators besides the default ones, trained on cheap tasks."""

    estimators: Names = Field([], description="those that take any rewards: on all of tasks")
    binary_only: Names = Field([], description="those for rewards that are 0 or 1: on binary_tasks")
    tasks: Names = []
    binary_tasks: Names = []
    seeds: int = Field(100, ge=1, description="the first so many of a task's seeds")


class Params(Lists):
    tasks: Names
    estimators: Names
    studies: Names
    variance_policy: str = Field(description="the estimator whose checkpoints the variance stage looks at")
    studies_of_tasks: Names = Field([], description="studies that train or time the tasks themselves, a few minutes each")
    task_studies: dict[str, Names] = Field({}, description="studies that train for hours: on which tasks")
    trained_estimators: Trained = Field(Trained(), description="a larger list of estimators, on the tasks that are cheap")
    long_tasks: Names = Field([], description="tasks that take hours: `maxpo-bench run --long` alone runs them")
    long_estimators: Names = Field([], description="the estimators on long_tasks")

    @model_validator(mode="after")
    def _policy_is_trained(self):
        if self.variance_policy not in self.estimators:
            raise ValueError(f"variance_policy: must be one of the estimators, got {self.variance_policy!r}")
        if self.long_tasks and not self.long_estimators:
            raise ValueError("long_estimators: must have at least one name where there are long_tasks")
        return self


def read(root):
    """<root>/params.yaml with every default filled in, as a dict: the keys of Params.

    Whether there is a task, an estimator or a study of each name is not asked: see pipeline.plan.declared.
    InputError: no such file, or a file that is not as it must be.
    """
    path = Path(root) / "params.yaml"
    if not path.is_file():
        raise InputError("params.yaml not found; run this from the project's folder")
    return checked(Params, loader.read(path, path.name), path.name).model_dump()


def trained_cells(params):
    """[(task, estimator)] of the estimators besides the default ones, of params as `read` gives them; no pair of a default cell."""
    more = params["trained_estimators"]
    pairs = [(task, name) for task in more["tasks"] for name in more["estimators"]]
    pairs += [(task, name) for task in more["binary_tasks"] for name in more["binary_only"]]
    return [(task, name) for task, name in pairs if task in params["tasks"] and name not in params["estimators"]]


def trained_studies(params):
    """[(study, task)] of the studies that train, of params as `read` gives them."""
    return [(study, task) for study, tasks in params["task_studies"].items() for task in tasks if task in params["tasks"]]
