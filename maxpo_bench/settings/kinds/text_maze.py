"""`kind: text_maze`."""

from typing import Literal

from pydantic import Field, model_validator

from maxpo_bench.settings.language import GRADED, Asking, Language


class TextMazeData(Asking):
    """Mazes as text."""

    size: int = Field(5, ge=3, le=9, description="cells on a side")
    min_distance: int = Field(3, ge=1, description="moves from start to goal on a shortest way, at least")
    max_distance: int = Field(8, ge=1, description="the same, at most")
    walk_length: int = Field(12, ge=1, description="moves of a warm-start walk that misses the goal")
    walk_tries: int = Field(1, ge=1, description="warm-start walks tried until one hits the goal")
    graded: bool = GRADED

    @model_validator(mode="after")
    def _distances_are_a_range(self):
        if self.min_distance > self.max_distance:
            raise ValueError(f"min_distance: {self.min_distance} is larger than data.max_distance {self.max_distance}")
        return self


class TextMaze(Language):
    kind: Literal["text_maze"]
    data: TextMazeData = TextMazeData()


MODEL = TextMaze
