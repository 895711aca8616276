"""A scaffolded estimator is found, derived and tested with no other edit; bad names are refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from maxpo_bench.commands.new_estimator import create
from maxpo_bench.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path):
    """A copy of the package and the estimators' tests."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "maxpo_bench", tmp_path / "maxpo_bench", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "estimators", tmp_path / "tests" / "estimators", ignore=ignore)
    for file in ("pyproject.toml", "tests/check/test_properties.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_new_estimator_is_everywhere_at_once(copy, capsys):
    path = create("fresh_idea", copy)
    assert path == copy / "maxpo_bench" / "estimators" / "fresh_idea.py"
    assert "maxpo-bench check maxpo_bench.estimators.fresh_idea:fresh_idea" in capsys.readouterr().out
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    code = """
import pytest
from maxpo_bench.estimators import get, names
from maxpo_bench.check.properties import table
assert "fresh_idea" in names()
assert table(["fresh_idea"]).loc[0, ["unbiased_for", "centred", "k_1"]].tolist() == ["J_1", "yes", "rloo"]
raise SystemExit(pytest.main(["-k", "fresh_idea", "-p", "no:cacheprovider", "tests"]))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=copy, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    num_passed = int(result.stdout.split(" passed")[0].split()[-1])
    assert num_passed >= 20, result.stdout[-3000:]


@pytest.mark.slow
def test_a_wrong_declaration_fails_the_tests(copy):
    """The scaffold's file with a biased formula and the same declaration: the property tests must object."""
    path = create("wrong_claim", copy)
    path.write_text(path.read_text().replace("mul_(n / (n - 1))", "mul_(n)"))
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-k",
        "wrong_claim and objective",
        "-p",
        "no:cacheprovider",
        "tests/check/test_properties.py",
    ]
    result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and "1 failed" in result.stdout, result.stdout[-3000:]


@pytest.mark.parametrize("name", ["", "two words", "1st", "Upper", "class", "_hidden", "a-b", "../evil"])
def test_bad_names(name, tmp_path):
    with pytest.raises(InputError, match="estimator name"):
        create(name, tmp_path)


@pytest.mark.parametrize("name", ["maxpo", "contract", "order_statistics"])
def test_taken_names(name, copy):
    with pytest.raises(InputError, match="exists already"):
        create(name, copy)


def test_wrong_root(tmp_path):
    with pytest.raises(InputError, match="run this from the root"):
        create("fresh_idea", tmp_path)
