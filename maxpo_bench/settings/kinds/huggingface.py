"""`kind: huggingface`."""

from typing import ClassVar, Literal

from pydantic import Field

from maxpo_bench.settings.language import Asking, Language


class HuggingFaceData(Asking):
    """A data set of questions with numbers for answers."""

    source: str = Field(description="hub id, local folder or JSONL file of questions")
    subset: str = Field("", description="configuration of a hub data set")
    split: str = Field("train", description="where the prompts for training come from")
    held_out_split: str = Field("", description="empty: 15% of split, by a hash of the prompt")
    prompt_column: str = Field("question", description="the column of questions")
    answer_column: str = Field("answer", description="the column of right answers")
    chat: bool = Field(True, description="wrap in the tokenizer's chat template")
    answer: Literal["last_number", "marked", "boxed", "whole"] = Field(
        "last_number",
        description="marked: after ####, in \\boxed{} or <answer>; boxed: in \\boxed{}; whole: the completion is the number alone",
    )
    answer_tolerance: float = Field(0.0, ge=0, description="how far from the right number an answer may be")


class HuggingFace(Language):
    model_is_told: ClassVar[bool] = True
    kind: Literal["huggingface"]
    data: HuggingFaceData


MODEL = HuggingFace
