"""`kind: bandit`."""

from typing import Literal

from pydantic import Field

from maxpo_bench.settings.models import Section
from maxpo_bench.settings.task import Common


class Arms(Section):
    """The arms and the first policy."""

    count: int = Field(ge=2, description="how many arms")
    rewards: Literal["linear", "exponential", "gaussian", "local_optimum", "risky"] = Field("linear", description="what arms pay")
    start: Literal["uniform", "local_optimum"] = Field("uniform", description="the first policy")
    start_prob: float = Field(0.9, ge=1e-6, le=1 - 1e-6, description="start: local_optimum: chance of arm 0")


class Bandit(Common):
    kind: Literal["bandit"]
    arms: Arms


MODEL = Bandit
