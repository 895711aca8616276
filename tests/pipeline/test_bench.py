"""The gate against getting slower: it sees a planted slowdown and does not see one where there is none."""

import argparse
import json
import random
import shutil
from pathlib import Path

import pytest

from maxpo_bench.errors import InputError
from maxpo_bench.pipeline import bench, bench_cases

CASE = "advantages maxpo batch"

SLOWED = """
    import time

    start = time.perf_counter()
    advantages = _quick(rewards, k)
    end = start + FACTOR * (time.perf_counter() - start)
    while time.perf_counter() < end:
        pass
    return advantages
"""


def slow_down(project, factor):
    """Plant a slowdown by that factor into the project's maxpo.py."""
    path = project / "maxpo_bench" / "estimators" / "maxpo.py"
    head, mark, body = path.read_text().partition("\ndef maxpo(rewards, k):\n")
    decorator = head[head.rindex("@estimator(") :]
    head = head[: -len(decorator)]
    slowed = SLOWED.replace("FACTOR", str(factor))
    path.write_text(f"{head}def _quick(rewards, k):\n{body}\n\n{decorator}{mark}{slowed}")


def test_a_planted_slowdown_of_maxpo_is_caught(project, run_cli, capsys):
    slow_down(project, 1.3)
    assert bench.gate(project, "HEAD", [CASE]) == 1
    text = capsys.readouterr().out
    assert "looking again" in text and "SLOWER" in text
    assert not list((project / ".git" / "worktrees").glob("*")), "the temporary worktree is still registered"


def test_a_against_a_is_quiet(project):
    for _ in range(2):
        assert bench.gate(project, "HEAD", [CASE, "advantages rloo small"]) == 0


@pytest.mark.performance
def test_a_against_a_is_quiet_20_times(project, capsys):
    """As `maxpo-bench bench --against HEAD` runs: new processes every time, a second look at what is flagged, the thresholds."""
    cases = [CASE, "advantages rloo small", "evaluation ladder", "training step bandit"]
    limits = project / bench.THRESHOLDS
    limits.parent.mkdir(parents=True)
    shutil.copy(Path(bench.__file__).parents[2] / bench.THRESHOLDS, limits)
    for number in range(20):
        code, text = bench.gate(project, "HEAD", cases), capsys.readouterr().out
        assert code == 0 and "not compared" not in text, f"run {number}: {text}"
        assert "0 of 4 cases slower than HEAD" in text


@pytest.mark.slow
def test_every_case_runs_in_this_tree():
    with bench.serving(bench_cases.Path(bench.__file__).parents[2]) as server:
        for case in bench_cases.CASES:
            if case.split()[-1] not in ("countdown3",):  # imports transformers; `make bench` runs it
                assert 0 < server(case)["seconds"] < 5


def noisy(scale, seed):
    """A server whose bursts take `scale`, with a tail of disturbed ones."""
    noise = random.Random(seed)
    return lambda case: {"seconds": scale * (1 + noise.expovariate(20) + (noise.random() < 0.2) * noise.random())}


def test_the_verdict_needs_both_a_large_ratio_and_a_low_rank():
    assert bench.judge("x", noisy(1.0, 0), noisy(1.3, 1), 0.15).flagged
    assert not bench.judge("x", noisy(1.0, 0), noisy(1.3, 1), 0.5).flagged  # within its threshold
    assert not bench.judge("x", noisy(1.0, 0), noisy(1.05, 1), 0.15).flagged
    assert not bench.judge("x", noisy(1.3, 0), noisy(1.0, 1), 0.15).flagged  # faster
    lucky = iter([{"seconds": 2.0}, {"seconds": 0.5}] + [{"seconds": 1.0}] * 100)  # one lucky burst of the other tree
    assert not bench.judge("x", lambda case: next(lucky), lambda case: {"seconds": 1.0}, 0.15).flagged


def test_no_false_alarm_in_300_runs_of_noise():
    assert not any(bench.judge("x", noisy(1.0, i), noisy(1.0, -1 - i), 0.15).flagged for i in range(300))


def test_what_the_other_revision_lacks_is_not_compared():
    row = bench.judge("x", lambda case: {"error": "InputError: unknown estimator"}, noisy(1.0, 1), 0.15)
    assert row.ratio is None and not row.flagged and "unknown estimator" in row.note


def test_an_unknown_revision_is_one_line(project, run_cli):
    with pytest.raises(InputError, match="no such revision"):
        bench.gate(project, "no-such-thing")
    with pytest.raises(InputError, match="no such revision"):
        bench.gate(project, "--upload-pack=x")


@pytest.mark.parametrize(
    "text, words", [("maxpoo: 0.1", "no case 'maxpoo'"), ("default: fast", "number"), ("default: 0", "number")]
)
def test_thresholds_are_checked(text, words, tmp_path):
    path = tmp_path / bench.THRESHOLDS
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        bench.thresholds(tmp_path)


def test_the_suite_writes_performance_json(project, monkeypatch):
    """One test that passes and one that fails: both are run, what was measured is written, the exit code is 1."""
    folder = project / "tests" / "performance"
    folder.mkdir(parents=True)
    (folder / "test_two.py").write_text(
        "import pytest\npytestmark = pytest.mark.performance\ndef test_one(benchmark):\n"
        "    benchmark.extra_info['slope'] = 1.05\n    benchmark.pedantic(sum, ((1, 2),), rounds=3)\n"
        "def test_other():\n    assert False\n"
    )
    (project / "pytest.ini").write_text("[pytest]\nmarkers = performance: x\n")
    monkeypatch.chdir(project)
    monkeypatch.setattr(bench_cases, "CASES", (CASE,))
    assert bench.main(argparse.Namespace(against=None)) == 1
    report = json.loads((project / "results" / "performance.json").read_text())
    assert report["passed"] is False and 0.5 < report["ratio_to_reference"][CASE] < 10
    assert list(report["tests"].values()) == [{"slope": 1.05}]
    assert 0 < report["peak_memory_in_inputs"]["maxpo"] <= 10
