"""The keys of every task file, with type, range, default and meaning: a class per section. Each kind adds its own (kinds/).

What pydantic says of a wrong file becomes one line in models.py; files are found and read by task_file.py; tasks/schema.json, for
editors, is written from these classes by `maxpo-bench schema`.
"""

import importlib
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Union

from pydantic import Field, model_validator

from maxpo_bench.settings.models import Section
from maxpo_bench.settings.task_file import TUNED_ON

FIRST_TUNING_SEED = 10_000  # reported seeds lie below it; pilots, tuning and sweeps begin there
MOST_SEEDS = FIRST_TUNING_SEED - len(TUNED_ON)
Beta = Annotated[float, Field(ge=0, le=1 - 1e-9)]


class Optimiser(Section):
    """What takes the policy steps."""

    name: Literal["adam", "adamw", "sgd"] = Field("adam", description="Adam, Adam with decoupled weight decay, or plain steps")
    lr: float = Field(ge=0, description="learning rate")
    betas: list[Beta] = Field([0.9, 0.999], min_length=2, max_length=2, description="Adam's two averages")
    weight_decay: float = Field(0.0, ge=0, description="by which weights shrink, times the learning rate")
    warmup_steps: int = Field(0, ge=0, description="linear warm-up of the learning rate")


class Evaluation(Section):
    """How often, on how much."""

    every: int = Field(0, ge=0, description="steps between evaluations along training; 0: only first and last")
    prompts: int = Field(1, ge=1, description="held-out prompts or start states, first and last evaluation")
    samples: int = Field(64, ge=2, description="n samples per prompt, first and last evaluation")
    curve_prompts: int = Field(0, ge=0, description="prompts for the evaluations in between; 0: as above")
    curve_samples: int = Field(0, ge=0, description="samples for the evaluations in between; 0: as above")


class Score(Section):
    """When a sample passes."""

    success: float = Field(1.0, description="a sample passes when its reward is at least this")


class Variance(Section):
    """The variance stage."""

    groups: int = Field(256, ge=8, description="M, groups drawn to measure the gradient estimator")


class Loss(Section):
    """The loss that the advantages enter."""

    clip: float = Field(0.0, ge=0, description="PPO clip range; 0: plain policy gradient")
    epochs: int = Field(1, ge=1, description="passes over each batch; more than 1 wants a clip")
    kl: float = Field(0.0, ge=0, description="weight of KL(policy || base policy)")
    micro_batch: int = Field(0, ge=0, description="rows per backward pass; 0: all at once")
    max_grad_norm: float = Field(0.0, ge=0, description="0: no clipping (it binds for max@k and not for means)")

    @model_validator(mode="after")
    def _clipped(self):
        if self.epochs > 1 and self.clip == 0:
            raise ValueError(f"epochs: {self.epochs} passes over a batch need loss.clip > 0")
        return self


class Resources(Section):
    """What a cell takes of a machine."""

    cpus: int = Field(1, ge=1, description="processor cores that a cell takes where cells run side by side")
    gpus: float = Field(0.0, ge=0, description="GPUs that a cell takes; .5: two cells share one")
    memory: str = Field("", pattern=r"^(\d{1,6} ?[MGT]B)?$", description='like "8 GB", or empty: whatever there is')


class Common(Section):
    """The keys of every task file."""

    base_policy: ClassVar[bool] = False  # whether there is a base policy for loss.kl to stay close to

    version: int = Field(ge=1, le=1, description="format of this file: 1")
    kind: str = Field(description="what is sampled: a kind of the suite, or path.py:Class beside the YAML")
    tags: list[str] = Field([], description="words to filter by")
    title: str = Field(description="one line for the report")
    k: int = Field(ge=1, description="the target: J_k = E[max of k samples]")
    group_size: int = Field(ge=2, description="N, completions per prompt or episodes per start state")
    groups: int = Field(1, ge=1, description="prompts or start states per step")
    steps: int = Field(ge=1, description="policy updates")
    seeds: int = Field(10, ge=1, le=MOST_SEEDS, description="how many a cell runs, from first_seed on, without 100-109")
    first_seed: int = Field(0, ge=0, le=10**9, description="0; pilots, tuning and sweeps: from 10000 on, and never reported")
    seed_budget_s: float = Field(0.0, ge=0, description="seconds that a cell may take, which limits its seeds; 0: no limit")
    numerics: Literal["portable", "native"] = Field(
        "portable", description="portable: the same bytes on every x86-64 with AVX2; native: fast on GPUs, compared by interval"
    )
    resources: Resources = Resources()
    optimiser: Optimiser
    evaluation: Evaluation = Evaluation()
    score: Score = Score()
    variance: Variance = Variance()
    loss: Loss = Loss()

    @model_validator(mode="after")
    def _keys_agree(self):
        k, evaluation = self.k, self.evaluation
        if 0 < self.first_seed < FIRST_TUNING_SEED:
            raise ValueError(f"first_seed: must be 0 or from {FIRST_TUNING_SEED} on, got {self.first_seed}")
        if self.loss.kl and not self.base_policy:
            raise ValueError(f"loss.kl: kind {self.kind} has no base model to stay close to; leave it out")
        if k > self.group_size:
            raise ValueError(f"k: {k} is larger than group_size {self.group_size}")
        if evaluation.samples < k:
            raise ValueError(f"evaluation.samples: {evaluation.samples} is fewer than k {k}")
        if 0 < evaluation.curve_samples < k:
            raise ValueError(f"evaluation.curve_samples: {evaluation.curve_samples} is fewer than k {k}")
        return self


class Custom(Common):
    """A kind from a Python file beside the task file."""

    base_policy: ClassVar[bool] = True
    kind: str = Field(pattern=r"^[^:]+\.py:\w+$", description="path.py:Class, a file beside the task file")
    options: dict = Field({}, description="whatever that class takes")


def kinds():
    """Names of the suite's kinds, sorted: the files in kinds/. Imports none of them."""
    return sorted(path.stem for path in Path(__file__).with_name("kinds").glob("*.py") if not path.stem.startswith("_"))


def model_of(kind):
    """The class of the task files of a kind, by its name."""
    return importlib.import_module(f"maxpo_bench.settings.kinds.{kind}").MODEL


def json_schema():
    """The JSON schema of task files, for editors' completion: one of the kinds, as a dict of plain values."""
    from pydantic import TypeAdapter

    models = [model_of(kind) for kind in kinds()]
    schema = TypeAdapter(Union[(*models, Custom)]).json_schema()  # noqa: UP007 (a union of a tuple has no other form)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A task file of maxpo-bench", **schema}
