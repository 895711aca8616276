"""The command line: quick where nothing runs, one clear line and exit code 2 where the input is wrong."""

import os
import subprocess
import sys

import pytest


def one_line(result, code, *words):
    lines = result.stderr.strip().splitlines()
    assert result.returncode == code, result.stderr + result.stdout
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    "words, expected",
    [
        (["train", "bandti", "maxpo"], ["tasks/bandti.yaml", "did you mean 'bandit'"]),
        (["train", "bandit", "maxop"], ["'maxop'", "did you mean 'maxpo'"]),
        (["base", "../bandit"], ["task name"]),
        (["base", "nowhere.yaml"], ["nowhere.yaml", "no such task file"]),
        (["study", "centrin"], ["did you mean 'centring'"]),
        (["repro", "bandti"], ["'bandti'", "did you mean 'bandit'"]),
        (["variance", "bandti"], ["did you mean 'bandit'"]),
    ],
)
def test_wrong_names(project, run_cli, words, expected):
    before = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts)
    one_line(run_cli(project, *words), 2, *expected)
    after = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts and ".resume" not in path.parts)
    assert before == after


def test_k_too_large_for_maxpo_names_file_key_and_range(project, run_cli):
    path = project / "tasks" / "bandit.yaml"
    path.write_text(path.read_text().replace("k: 2", "k: 4"))
    one_line(run_cli(project, "train", "bandit", "maxpo"), 2, "tasks/bandit.yaml", "k: 4", "maxpo", "1..3")
    assert not (project / "results").exists()


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("rloo", "rlo", ["params.yaml", "estimators", "did you mean 'rloo'"]),
        ("[bandit,", "[bandti,", ["params.yaml", "tasks", "did you mean 'bandit'"]),
        ("variance_policy: maxpo", "variance_policy: grpo", ["variance_policy", "grpo"]),
        ("estimators:", "estimator:", ["params.yaml", "did you mean 'estimators'"]),
        ("[bandit, countdown3]", "[]", ["params.yaml", "tasks"]),
        ("[bandit, countdown3]", "[bandit, bandit]", ["twice"]),
    ],
)
def test_a_broken_params_file(project, run_cli, old, new, words):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace(old, new))
    one_line(run_cli(project, "plan"), 2, *words)


def test_training_without_a_base_says_what_to_run(project, run_cli):
    one_line(run_cli(project, "train", "bandit", "maxpo"), 2, "base.json is missing", "maxpo-bench base bandit")


def test_plan_and_help_import_no_torch(project, run_cli):
    code = (
        "import sys; from maxpo_bench.cli import main; main({!r}); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(project)}
    result = subprocess.run([sys.executable, "-c", code.format(["plan"])], cwd=project, env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert run_cli(project, "--help").returncode == 0


def test_plan_lists_every_stage_and_counts_what_is_to_run(project, run_cli):
    text = run_cli(project, "plan").stdout
    assert "train@countdown3-maxpo" in text and "variance@bandit" in text and "study@centring" in text
    assert "12 stages, 12 to run" in text and text.count("never run") == 12
