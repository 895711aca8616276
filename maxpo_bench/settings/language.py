"""What the kinds of language tasks have in common (kinds/countdown.py and others): any data, any model, any verifier."""

import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from maxpo_bench.settings.models import Section
from maxpo_bench.settings.task import Beta, Common

Device = Literal["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7"]
GRADED = Field(False, description="partial rewards for near misses, instead of 0/1")


class Asking(Section):
    """How a prompt of the data becomes what the model reads. The data section of every language kind has these."""

    template: str = Field("{prompt}", description="what the model reads: {prompt} is the question, {examples} all examples")
    examples: int = Field(0, ge=0, le=256, description="few-shot examples of the training split, which are then no prompts")
    example: str = Field("{prompt}{answer}\n", description="one example, of {prompt} and {answer}")
    examples_seed: int = Field(0, ge=0, description="which examples; the same for all seeds of the task")
    chat: bool = Field(False, description="wrap in the tokenizer's chat template")
    date: str = Field("2026-01-01", description="the day that a chat template sees, year-month-day")

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

    @model_validator(mode="after")
    def _examples_are_shown(self):
        if self.examples and "{examples}" not in self.template:
            raise ValueError(f"template: {self.template[:100]!r} has no {{examples}}, and data.examples is {self.examples}")
        if "{examples}" in self.template and not self.examples:
            raise ValueError("examples: must be at least 1 where data.template has {examples}")
        if self.examples and not ("{prompt}" in self.example and "{answer}" in self.example):
            raise ValueError(f"example: {self.example[:100]!r} must have {{prompt}} and {{answer}}")
        return self


class Model(Section):
    """A pretrained model by its name, or a new one of this shape, which is trained from nothing."""

    name: str = Field("", description="hub id, local folder or packaged model (smollm2); empty: a new model")
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

    @model_validator(mode="after")
    def _one_or_the_other(self):
        if self.name and (shape := self.model_fields_set - {"name"}):
            raise ValueError(f"{min(shape)}: model {self.name[:100]} is pretrained and has its shape; leave it out")
        return self


class Verifier(Section):
    """What a completion earns."""

    name: Literal["data", "exact", "last_number", "marked", "boxed", "whole"] = Field(
        "data",
        description="data: as the data's kind judges; exact: the answer's text; the others read a number: the last one, after #### "
        "or in \\boxed{} or <answer>, in \\boxed{} alone, or the whole completion",
    )
    tolerance: float = Field(0.0, ge=0, description="how far from the right number an answer may be")


class Lora(Section):
    """Low-rank adapters: the model's own weights stay as they are."""

    rank: int = Field(0, ge=0, description="of each adapter; 0: all weights of the model are trained")
    targets: list[str] = Field(["q_proj", "v_proj"], min_length=1, description="names of the linear layers that get one")
    alpha: float = Field(32.0, gt=0, description="the adapter counts alpha / rank times")


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


class Distributed(Section):
    """One seed over several processes (torchrun)."""

    shards: int = Field(1, ge=1, le=1024, description="parts of a step; as many processes as divide it give the same bytes")


class Language(Common):
    """What the kinds of language tasks have in common."""

    base_policy: ClassVar[bool] = True
    model_is_told: ClassVar[bool] = False  # whether there is no usual model for the kind
    device: Device = Field("auto", description="auto: a GPU where there is one")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the forward: bfloat16 on a GPU, float32 on a CPU; weights are float32"
    )
    model: Model = Model()
    lora: Lora = Lora()
    warm_start: WarmStart = WarmStart(steps=0)
    sampling: Sampling
    verifier: Verifier = Verifier()
    distributed: Distributed = Distributed()

    @model_validator(mode="after")
    def _starts_somewhere(self):
        if self.model_is_told and "model" not in self.model_fields_set:
            raise ValueError("model.name: missing (hub id, local folder or packaged model; or the shape of a new model)")
        if self.model.name and self.warm_start.steps:
            raise ValueError(
                f"warm_start.steps: must be at most 0, got {self.warm_start.steps}: a pretrained model starts as it is"
            )
        if not self.model.name and "warm_start" not in self.model_fields_set:
            raise ValueError("warm_start.steps: missing (supervised steps before the RL starts)")
        return self

    @model_validator(mode="after")
    def _shards_are_even(self):
        shards, evaluation = self.distributed.shards, self.evaluation
        counts = {"groups": self.groups, "evaluation.prompts": evaluation.prompts}
        counts["evaluation.curve_prompts"] = evaluation.curve_prompts
        for key, count in counts.items():
            if count % shards:
                raise ValueError(f"distributed.shards: {shards} does not divide {key} {count}")
        return self
