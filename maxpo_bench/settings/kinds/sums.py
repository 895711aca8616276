"""`kind: sums`."""

from typing import Annotated, Literal

from pydantic import Field

from maxpo_bench.settings.language import Asking, Language


class SumsData(Asking):
    """Two numbers to add."""

    digits: list[Annotated[int, Field(ge=1, le=9)]] = Field(
        [2],
        min_length=1,
        max_length=9,
        description="digits of both numbers: one of these for each prompt",
    )
    num_train: int = Field(4096, ge=1, le=100_000, description="different prompts for training, where there are so many")
    num_held_out: int = Field(512, ge=1, le=100_000, description="the same for evaluation")


class Sums(Language):
    kind: Literal["sums"]
    data: SumsData = SumsData()


MODEL = Sums
