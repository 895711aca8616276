"""claims.yaml: what is claimed of the method under test, and by whom. report/verdicts.py judges it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from maxpo_bench.errors import did_you_mean
from maxpo_bench.settings import loader
from maxpo_bench.settings.models import Section, checked

AGAINST = ("default", "same gradient")


class Claim(Section):
    id: str
    statement: str
    measure: Literal["max@K", "pass@1", "gradient variance", "time"]
    against: str | list[str] = Field(description="default, same gradient or a list of names")
    margin: Annotated[float, Field(gt=0, lt=1)] = Field(description="what does not matter: a number between 0 and 1")
    source: str

    @field_validator("against")
    @classmethod
    def _somebody(cls, against):
        if isinstance(against, str) and against not in AGAINST:
            raise ValueError(f"unknown value {against!r}{did_you_mean(against, AGAINST)}; legal: {', '.join(AGAINST)}, or a list")
        if not against:
            raise ValueError(f"must be one of {', '.join(AGAINST)} or a list of names")
        return against


class Property(Section):
    id: str
    statement: str
    column: str
    value: str = Field(alias="is")
    source: str


class Claims(Section):
    method: str = Field(description="the estimator that is under test")
    claims: list[Claim] = Field(description="one measure against each rival on each aggregate of tasks")
    properties: list[Property] = Field([], description="a column of results/studies/properties.csv and what it must be")

    @model_validator(mode="after")
    def _ids_are_names(self):
        seen = set()
        for kind, entries in (("claims", self.claims), ("properties", self.properties)):
            for entry in entries:
                if entry.id in seen:
                    raise ValueError(f"{kind}[{entry.id}].id: there twice")
                seen.add(entry.id)
        return self


def read(path):
    """claims.yaml as {"method": str, "claims": [...], "properties": [...]}.

    InputError names the claim, the key and the value that is wrong.
    """
    return checked(Claims, loader.read(path), Path(path)).model_dump(by_alias=True)
