"""`kind: reasoning_gym`."""

from typing import Literal

from pydantic import Field

from maxpo_bench.settings.language import Asking, Language


class ReasoningGymData(Asking):
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


MODEL = ReasoningGym
