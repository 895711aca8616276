"""`kind: countdown`."""

from typing import Literal

from pydantic import Field

from maxpo_bench.settings.language import GRADED, Asking, Language


class CountdownData(Asking):
    """Digits, and a number to reach with them."""

    digits: int = Field(ge=2, le=5, description="how many digits 1-9 a prompt gives")
    max_target: int = Field(99, ge=1, le=999, description="largest target asked for")
    graded: bool = GRADED


class Countdown(Language):
    kind: Literal["countdown"]
    data: CountdownData


MODEL = Countdown
