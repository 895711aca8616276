"""The table of what trainers ship: it parses, the page is made from it, and the property table knows it."""

from pathlib import Path

import pytest

from maxpo_bench.check import properties, shipped
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import names

ROOT = Path(__file__).resolve().parents[2]


def test_every_row_names_a_registry_entry_or_says_why_not():
    rows = shipped.rows()
    assert len(rows) >= 60 and {"verl", "TRL", "OpenRLHF", "NeMo-RL", "tinker-cookbook"} <= {row["trainer"] for row in rows}
    for row in rows:
        if row["formula"]:
            name, options = shipped.parse(row["formula"])
            assert name in names()
            properties.form(name, **options)  # refuses options that the formula does not take
    assert len({(row["trainer"], row["name"]) for row in rows}) == len(rows)


def test_the_committed_page_is_what_is_rendered():
    assert (ROOT / shipped.PAGE).read_text(encoding="utf-8") == shipped.render()


@pytest.mark.parametrize(
    "line, message",
    [
        ("a,1,f,n,grpp,", "unknown estimator 'grpp', did you mean 'grpo'"),
        ('a,1,f,n,"grpo(dof=1)",', "'grpo.dof=1.': options of grpo are eps, ddof"),
        ("a,1,f,n,grpo ddof 1,", "is not written as name"),
        ("a,1,f,n,,", "line 2: no formula, and no note"),
        ("a,1,f,n", "line 2: columns must be trainer"),
    ],
)
def test_a_row_that_cannot_be_right_is_refused(tmp_path, monkeypatch, line, message):
    path = tmp_path / "shipped.csv"
    path.write_text(",".join(shipped.COLUMNS) + "\n" + line + "\n")
    monkeypatch.setattr(shipped, "PATH", path)
    shipped.rows.cache_clear()
    try:
        with pytest.raises(InputError, match=message):
            shipped.rows()
    finally:
        shipped.rows.cache_clear()


def test_the_property_table_says_where_a_formula_runs(monkeypatch):
    monkeypatch.setattr(properties, "derive", lambda estimator: {"estimator": estimator.name})
    cells = properties.table().set_index("estimator")["shipped_as"]
    assert "TRL: GRPOTrainer, scale_rewards='group' [ddof=1, eps=1e-4]" in cells["grpo"]
    assert cells["grpo_loo_std"] == "NeMo-RL: grpo [eps=1e-6]" and cells["maxpo"] == ""


def test_words_for_a_gradient():
    def words(**row):
        return shipped.gradient({"parallel_to": "none", "scale": "not parallel", "direction": "none"} | row)

    assert words() == "no known objective"
    assert words(parallel_to="J_1", scale="1") == "grad J_1"
    assert words(parallel_to="J_1", scale="1 - 1/N") == "(1 - 1/N) x grad J_1"
    assert words(parallel_to="J_1", scale="varies") == "c(N, K) x grad J_1"
    assert words(direction="J_1") == "along grad J_1, size by policy"
    assert words(direction="J_1 on binary rewards") == "along grad J_1, size by policy, on binary rewards only"
