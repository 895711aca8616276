"""Every legal key of a task file, with its type, range, default and meaning: a class per kind of task, and one per section.

A new kind of task is one class here, found by its `kind`. What pydantic says of a wrong file becomes one line in models.py; files
are found and read by task_file.py; tasks/schema.json, for editors, is written from these classes by `maxpo-bench schema`.
"""

import datetime
from typing import Annotated, ClassVar, Literal, Union

from pydantic import Field, field_validator, model_validator

from maxpo_bench.settings.models import Section
from maxpo_bench.settings.task_file import TUNED_ON

FIRST_TUNING_SEED = 10_000  # reported seeds lie below it; pilots, tuning and sweeps begin there
MOST_SEEDS = FIRST_TUNING_SEED - len(TUNED_ON)
Beta = Annotated[float, Field(ge=0, le=1 - 1e-9)]
Width = Annotated[int, Field(ge=2, le=10_000)]
Device = Literal["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7"]


# ------------------------------------------------------------------------------------------------- sections of every task


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


# ---------------------------------------------------------------------------------------------- bandit, tabular, gymnasium


class Arms(Section):
    """The arms and the first policy."""

    count: int = Field(ge=2, description="how many arms")
    rewards: Literal["linear", "exponential", "gaussian", "local_optimum", "risky"] = Field("linear", description="what arms pay")
    start: Literal["uniform", "local_optimum"] = Field("uniform", description="the first policy")
    start_prob: float = Field(0.9, ge=1e-6, le=1 - 1e-6, description="start: local_optimum: chance of arm 0")


class Bandit(Common):
    kind: Literal["bandit"]
    arms: Arms


class Env(Section):
    """The environment."""

    id: str = Field(description="any registered gymnasium id")
    kwargs: dict = Field({}, description="what gymnasium.make is given besides")
    wrappers: list[str] = Field([], description="module:Class of wrappers, innermost first")
    max_episode_steps: int = Field(0, ge=0, description="0: the environment's own time limit")
    backend: Literal["gymnasium", "envpool"] = Field("gymnasium", description="what steps the environments")


class Outcome(Section):
    """What an episode is worth."""

    type: Literal["return", "success", "final", "normalised"] = Field("return", description="what of an episode is its reward")
    threshold: float = Field(1.0, description="success: reward 1 when the return is at least this, else 0")
    low: float = Field(0.0, description="normalised: the return that counts 0")
    high: float = Field(1.0, description="normalised: the return that counts 1")

    @model_validator(mode="after")
    def _said(self):
        if self.type == "normalised" and not self.high > self.low:
            raise ValueError(f"high: {self.high} must be larger than outcome.low {self.low}")
        if self.type == "success" and "threshold" not in self.model_fields_set:
            raise ValueError("threshold: missing (the return from which an episode is a success)")
        return self


class Tabular(Common):
    kind: Literal["tabular"]
    env: Env
    outcome: Outcome = Outcome()


class Policy(Section):
    """The multilayer perceptron."""

    hidden: list[Width] = Field([32], description="widths of the hidden layers")
    observation_scale: float = Field(1.0, ge=1e-9, le=1e9, description="what observations are multiplied by")
    log_std: float = Field(-0.5, ge=-10, le=10, description="continuous actions: log of the first standard deviation")


class Gymnasium(Common):
    kind: Literal["gymnasium"]
    env: Env
    outcome: Outcome = Outcome()
    policy: Policy = Policy()

    @model_validator(mode="after")
    def _passing_is_told(self):
        """pass@k is defined: it is said what an episode must reach. (The rewards of a table are 0/1 or normalised.)"""
        if self.outcome.type in ("return", "final") and "success" not in self.score.model_fields_set:
            what = "return" if self.outcome.type == "return" else "last reward"
            raise ValueError(f"score.success: missing (pass@k needs the {what} from which an episode passes)")
        return self


# ---------------------------------------------------------------------------------------------------------------- language


class Model(Section):
    """A model that is trained from nothing."""

    architecture: Literal["llama", "qwen2"] = Field("llama", description="of transformers")
    hidden_size: int = Field(64, ge=8, description="width; an even number per head")
    layers: int = Field(2, ge=1, description="decoder layers")
    heads: int = Field(4, ge=1, description="attention heads of a layer")
    mlp_size: int = Field(128, ge=8, description="width inside a layer's MLP")

    @model_validator(mode="after")
    def _heads_fit(self):
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size: {self.hidden_size} is not an even number for each of {self.heads} heads")
        return self


class WarmStart(Section):
    """Supervised training before the RL."""

    steps: int = Field(ge=0, description="supervised steps before the RL starts")
    batch_size: int = Field(128, ge=1, description="examples per step")
    lr: float = Field(3e-3, ge=0, description="learning rate of Adam")
    betas: list[Beta] = Field([0.9, 0.98], min_length=2, max_length=2, description="Adam's two averages")
    warmup_steps: int = Field(50, ge=0, description="linear warm-up of the learning rate")


class Sampling(Section):
    """How completions are drawn."""

    max_new_tokens: int = Field(ge=1, description="tokens after which a completion is cut off")
    temperature: float = Field(1.0, ge=1e-3, description="of sampling, in training and evaluation")
    truncated: Literal["as_is", "zero"] = Field("as_is", description="a completion that was cut off: scored as it is, or reward 0")
    stop: list[Annotated[str, Field(min_length=1)]] = Field([], description="texts that end a completion where they appear")


class Language(Common):
    """What the kinds of language tasks have in common."""

    base_policy: ClassVar[bool] = True
    device: Device = Field("auto", description="auto: a GPU where there is one")
    model: Model = Model()
    warm_start: WarmStart
    sampling: Sampling


GRADED = Field(False, description="partial rewards for near misses, instead of 0/1")


class CountdownData(Section):
    """Digits, and a number to reach with them."""

    digits: int = Field(ge=2, le=5, description="how many digits 1-9 a prompt gives")
    max_target: int = Field(99, ge=1, le=999, description="largest target asked for")
    graded: bool = GRADED


class Countdown(Language):
    kind: Literal["countdown"]
    data: CountdownData


class TextMazeData(Section):
    """Mazes as text."""

    size: int = Field(5, ge=3, le=9, description="cells on a side")
    min_distance: int = Field(3, ge=1, description="moves from start to goal on a shortest way, at least")
    max_distance: int = Field(8, ge=1, description="the same, at most")
    walk_length: int = Field(12, ge=1, description="moves of a warm-start walk that misses the goal")
    walk_tries: int = Field(1, ge=1, description="warm-start walks tried until one hits the goal")
    graded: bool = GRADED

    @model_validator(mode="after")
    def _distances_are_a_range(self):
        if self.min_distance > self.max_distance:
            raise ValueError(f"min_distance: {self.min_distance} is larger than data.max_distance {self.max_distance}")
        return self


class TextMaze(Language):
    kind: Literal["text_maze"]
    data: TextMazeData = TextMazeData()


class SubsetSumData(Section):
    """Digits, some of which add up to a number."""

    digits: int = Field(6, ge=3, le=7, description="how many digits 1-9 a prompt gives")
    graded: bool = GRADED


class SubsetSum(Language):
    kind: Literal["subset_sum"]
    data: SubsetSumData = SubsetSumData()


class ReasoningGymData(Section):
    """A data set of reasoning-gym."""

    dataset: str = Field(description="name of the data set in reasoning-gym")
    options: dict = Field({}, description="its configuration")
    seed: int = Field(0, ge=0, description="of the data set, not of the run")
    num_train: int = Field(4096, ge=1, description="items for training")
    num_held_out: int = Field(512, ge=1, description="items before them, for evaluation")
    scorer: Literal["exact", "own"] = Field("exact", description="own: the data set's, where it is safe")
    threshold: float = Field(1.0, description="scorer: own: reward 1 when the score is at least this")


class ReasoningGym(Language):
    kind: Literal["reasoning_gym"]
    data: ReasoningGymData


class Pretrained(Section):
    """Pretrained weights."""

    name: str = Field(description="hub id or local folder of a causal language model (safetensors)")


class NoWarmStart(Section):
    """Pretrained models have none."""

    steps: int = Field(0, ge=0, le=0, description="a pretrained model starts as it is")


class HuggingFaceData(Section):
    """A data set of questions with numbers for answers."""

    source: str = Field(description="hub id, local folder or JSONL file of questions")
    subset: str = Field("", description="configuration of a hub data set")
    split: str = Field("train", description="where the prompts for training come from")
    held_out_split: str = Field("", description="empty: 15% of split, by a hash of the prompt")
    prompt_column: str = Field("question", description="the column of questions")
    answer_column: str = Field("answer", description="the column of right answers")
    template: str = Field("{prompt}", description="what the model reads; {prompt} is the question")
    chat: bool = Field(True, description="wrap in the tokenizer's chat template")
    date: str = Field("2026-01-01", description="the day that a chat template sees, year-month-day")
    answer: Literal["last_number", "marked", "boxed", "whole"] = Field(
        "last_number",
        description="marked: after ####, in \\boxed{} or <answer>; boxed: in \\boxed{}; whole: the completion is the number alone",
    )
    answer_tolerance: float = Field(0.0, ge=0, description="how far from the right number an answer may be")

    @field_validator("template")
    @classmethod
    def _asks(cls, template):
        if "{prompt}" not in template:
            raise ValueError(f"{template[:100]!r} has no {{prompt}}: every prompt would be the same text")
        return template

    @field_validator("date")
    @classmethod
    def _is_a_day(cls, date):
        try:
            datetime.datetime.strptime(date, "%Y-%m-%d")
        except ValueError:
            raise ValueError(f"must be a day like 2026-01-01, got {date[:100]!r}") from None
        return date


class HuggingFace(Language):
    kind: Literal["huggingface"]
    model: Pretrained
    warm_start: NoWarmStart = NoWarmStart()
    data: HuggingFaceData


# ------------------------------------------------------------------------------------------------------------------- kinds


class Custom(Common):
    """A kind from a Python file beside the task file."""

    base_policy: ClassVar[bool] = True
    kind: str = Field(pattern=r"^[^:]+\.py:\w+$", description="path.py:Class, a file beside the task file")
    options: dict = Field({}, description="whatever that class takes")


BUILT_IN = (Bandit, Tabular, Gymnasium, Countdown, TextMaze, SubsetSum, ReasoningGym, HuggingFace)
KINDS = {model.model_fields["kind"].annotation.__args__[0]: model for model in BUILT_IN}


def json_schema():
    """The JSON schema of task files, for editors' completion: one of the kinds, as a dict of plain values."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Union[(*BUILT_IN, Custom)]).json_schema()  # noqa: UP007 (a union of a tuple has no other form)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A task file of maxpo-bench", **schema}
