"""Sections of the kinds that play an environment of gymnasium (kinds/tabular.py, kinds/gymnasium.py)."""

from typing import Literal

from pydantic import Field, model_validator

from maxpo_bench.settings.models import Section


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
