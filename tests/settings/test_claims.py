"""claims.yaml: what may be claimed, and that a broken claim is one line that names it."""

import json

import pytest
import yaml

from maxpo_bench.errors import InputError
from maxpo_bench.report import verdicts
from maxpo_bench.settings import claims
from maxpo_bench.settings.task_file import root

CLAIM = {"id": "a", "statement": "b", "measure": "max@K", "against": "default", "margin": 0.02, "source": "c"}


def test_the_project_s_own_claims():
    assert claims.read(root() / "claims.yaml") == yaml.safe_load((root() / "claims.yaml").read_text())


@pytest.mark.parametrize("measure", verdicts.VIEWS)
def test_every_measure_that_is_judged_may_be_claimed(tmp_path, measure):
    path = tmp_path / "claims.yaml"
    path.write_text(json.dumps({"method": "maxpo", "claims": [CLAIM | {"measure": measure, "against": ["rloo"]}]}))
    found = claims.read(path)
    assert found["claims"][0]["measure"] == measure and found["claims"][0]["against"] == ["rloo"] and found["properties"] == []


@pytest.mark.parametrize(
    "change, message",
    [
        ({"measure": "max@k"}, "claims[a].measure: unknown value 'max@k', did you mean 'max@K'?"),
        ({"margn": 1}, "claims[a].margn: unknown key, did you mean 'claims[a].margin'?"),
        ({"margin": "5%"}, "claims[a].margin: must be a number, got '5%'"),
        ({"margin": True}, "claims[a].margin: must be a number, got True"),
        ({"margin": 0}, "claims[a].margin: must be above 0, got 0"),
        ({"margin": 1}, "claims[a].margin: must be below 1, got 1"),
        ({"against": "non_centred"}, "claims[a].against: unknown value 'non_centred'"),
        ({"against": []}, "claims[a].against: must be one of"),
        ({"against": [1]}, "claims[a].against"),
        ({"against": 3}, "claims[a].against: must be a text or a list, got 3"),
        ({"source": None}, "claims[a].source: must be a text, got None"),
        ({"id": None}, "claims[0].id: must be a text, got None"),
    ],
)
def test_a_broken_claim_is_one_line(tmp_path, change, message):
    path = tmp_path / "claims.yaml"
    path.write_text(json.dumps({"method": "maxpo", "claims": [CLAIM | change]}))
    with pytest.raises(InputError) as error:
        claims.read(path)
    assert f"claims.yaml: {message}" in str(error.value) and "\n" not in str(error.value)


PROPERTY = {"id": "a", "statement": "b", "column": "c", "is": "yes", "source": "d"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("claims: []", "method: missing"),
        ("method: maxpo", "claims: missing"),
        ("method: [", "not valid YAML"),
        ("method: maxpo\nmethod: pkpo\nclaims: []", "not valid YAML"),
        (json.dumps({"method": "maxpo", "claims": [CLAIM, CLAIM]}), "claims[a].id: there twice"),
        (json.dumps({"method": "maxpo", "claims": [CLAIM], "properties": [PROPERTY]}), "properties[a].id: there twice"),
        (json.dumps({"method": "maxpo", "claims": ["x"]}), "claims[0]: must be a section with keys id, statement"),
        (json.dumps({"method": "maxpo", "claims": [{"id": "a"}]}), "claims[a].statement: missing"),
        (json.dumps({"method": "maxpo", "claims": [], "clams": []}), "clams: unknown key, did you mean 'claims'?"),
        (json.dumps({"method": "maxpo", "claims": [], "properties": [PROPERTY | {"is": 1}]}), "properties[a].is: must be a text"),
        (json.dumps({"method": "maxpo", "claims": [], "properties": [{"id": "p"}]}), "properties[p].statement: missing"),
    ],
)
def test_a_broken_claims_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        claims.read(path)
    assert message in str(error.value) and "\n" not in str(error.value)
