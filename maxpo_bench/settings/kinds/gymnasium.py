"""`kind: gymnasium`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from maxpo_bench.settings.environment import Env, Outcome
from maxpo_bench.settings.models import Section
from maxpo_bench.settings.task import Common

Width = Annotated[int, Field(ge=2, le=10_000)]


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


MODEL = Gymnasium
