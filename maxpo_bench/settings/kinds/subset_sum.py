"""`kind: subset_sum`."""

from typing import Literal

from pydantic import Field

from maxpo_bench.settings.language import GRADED, Asking, Language


class SubsetSumData(Asking):
    """Digits, some of which add up to a number."""

    digits: int = Field(6, ge=3, le=7, description="how many digits 1-9 a prompt gives")
    graded: bool = GRADED


class SubsetSum(Language):
    kind: Literal["subset_sum"]
    data: SubsetSumData = SubsetSumData()


MODEL = SubsetSum
