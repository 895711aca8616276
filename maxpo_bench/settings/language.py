"""What the kinds of language tasks have in common (kinds/countdown.py and others)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from maxpo_bench.settings.models import Section
from maxpo_bench.settings.task import Beta, Common

Device = Literal["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7"]
GRADED = Field(False, description="partial rewards for near misses, instead of 0/1")


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
