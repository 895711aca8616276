"""`kind: tabular`."""

from typing import Literal

from maxpo_bench.settings.environment import Env, Outcome
from maxpo_bench.settings.task import Common


class Tabular(Common):
    kind: Literal["tabular"]
    env: Env
    outcome: Outcome = Outcome()


MODEL = Tabular
