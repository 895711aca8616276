"""`kind: huggingface`."""

import datetime
from typing import Literal

from pydantic import Field, field_validator

from maxpo_bench.settings.language import Language
from maxpo_bench.settings.models import Section


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


MODEL = HuggingFace
