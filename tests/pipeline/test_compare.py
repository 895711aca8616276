"""compare: the three endings, what is worse, what is not judged, and what it says when git or a file is in the way."""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
import synthetic  # noqa: E402

from maxpo_bench.errors import InputError  # noqa: E402
from maxpo_bench.pipeline import compare  # noqa: E402
from maxpo_bench.pipeline.sides import of_its_seeds  # noqa: E402

TASKS, ESTIMATORS = ("maze", "frozenlake", "countdown3"), ("rloo", "pkpo", "maxpo")


@pytest.fixture
def project(tmp_path):
    """A committed project whose every cell counts as recomputed here."""
    root = synthetic.write(tmp_path / "project", TASKS, ESTIMATORS, studies=False)
    for folder in (root / "results" / "runs").glob("*/*"):
        (folder / "checkpoints.safetensors").write_bytes(b"")
    (root / ".gitignore").write_text("checkpoints.safetensors\nquick\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    commit(root)
    return root


def commit(root):
    for command in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "published"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def shift(amount, seeds=None, noise=0.0, metric="max@K"):
    def change(metrics):
        values = metrics["final"][metric]
        for i in range(len(values)):
            if seeds is None or i in seeds:
                values[i] += amount + noise * ((-1) ** i)

    return change


def edit_provenance(root, task, estimator, **changes):
    folder = root / "results" / "runs" / task / estimator
    path = next(folder / name for name in ("provenance.json", "metrics.json") if (folder / name).is_file())
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def split_provenance(folder):
    """The present layout, whatever the folder has: provenance apart, tables packed."""
    metrics = json.loads((folder / "metrics.json").read_text())
    apart = ("task_sha256", "source_sha256", "probe", "versions")
    provenance = {"numerics": "portable"} | {key: metrics.pop(key) for key in apart if key in metrics}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if not (folder / "provenance.json").is_file():
        (folder / "provenance.json").write_text(json.dumps(provenance))
    for name in ("curve.csv", "ladder.csv"):
        if (folder / name).is_file():
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes(), mtime=0))
            (folder / name).unlink()


def first_seeds(folder, count):
    """Keep the first seeds of a cell, as a quick run of it writes them."""
    split_provenance(folder)
    metrics = json.loads((folder / "metrics.json").read_text())

    def cut(node):
        return {k: cut(v) for k, v in node.items()} if isinstance(node, dict) else node[:count]

    metrics |= {"seeds": metrics["seeds"][:count], "final": cut(metrics["final"])}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    for name in ("curve.csv.gz", "ladder.csv.gz"):
        header, *lines = gzip.decompress((folder / name).read_bytes()).decode().splitlines()
        kept = [header, *(line for line in lines if int(line.split(",")[0]) < count)]
        (folder / name).write_bytes(gzip.compress(("\n".join(kept) + "\n").encode(), mtime=0))


def verdict(comparison, what):
    return [row.verdict for row in comparison.rows if row.what == what]


def run(project, monkeypatch, capsys, **arguments):
    monkeypatch.chdir(project)
    code = compare.main(argparse.Namespace(**{"against": "HEAD", "results": None, "all": False} | arguments))
    return code, capsys.readouterr().out


def test_untouched_results_are_the_same_bytes(project, monkeypatch, capsys):
    comparison = compare.compare(project)
    assert {row.verdict for row in comparison.rows} == {"same bytes"} and comparison.ending == "the same bytes"
    code, out = run(project, monkeypatch, capsys)
    assert code == 0 and out.startswith("**The same bytes.**") and len(out.splitlines()) == 1


def test_committed_results_are_not_called_reproduced(project, monkeypatch, capsys):
    for path in (project / "results" / "runs").glob("*/*/checkpoints.safetensors"):
        path.unlink()
    assert {row.verdict for row in compare.compare(project).rows} == {"not recomputed"}
    code, out = run(project, monkeypatch, capsys)
    assert code == 0 and out.startswith("**Nothing to compare.**") and "12 not recomputed" in out


def test_a_revision_with_provenance_beside_the_numbers_has_the_same_bytes(project):
    """Versions and hashes in metrics.json, tables unpacked: the layout of earlier revisions."""
    folders = list((project / "results" / "runs").glob("*/*"))
    for folder in folders:
        split_provenance(folder)
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(metrics | json.loads((folder / "provenance.json").read_text())))
        for name in ("curve.csv", "ladder.csv"):
            (folder / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
            (folder / f"{name}.gz").unlink()
        (folder / "provenance.json").unlink()
    commit(project)
    for folder in folders:
        split_provenance(folder)
    assert compare.compare(project).ending == "the same bytes"


def test_first_seeds_below_another_folder_are_compared_seed_by_seed(project, monkeypatch, capsys):
    shutil.copytree(project / "results", project / "quick")
    first_seeds(project / "quick" / "runs" / "maze" / "pkpo", 2)
    shutil.rmtree(project / "quick" / "runs" / "frozenlake")
    comparison = compare.compare(project, results=project / "quick")
    assert comparison.ending == "the same bytes"
    assert next(row.note for row in comparison.rows if row.what == "maze, pkpo") == "2 of 10 seeds"
    assert verdict(comparison, "frozenlake, pkpo") == ["not recomputed"]
    code, out = run(project, monkeypatch, capsys, results=str(project / "quick"))
    assert code == 0 and out.startswith("**The same bytes.**") and "3 not recomputed" in out


@pytest.mark.parametrize("name", ["curve.csv.gz", "ladder.csv.gz", "metrics.json"])
def test_one_digit_of_one_seed_is_another_byte(project, name):
    quick = project / "quick"
    shutil.copytree(project / "results", quick)
    folder = quick / "runs" / "maze" / "pkpo"
    first_seeds(folder, 2)
    if name == "metrics.json":
        metrics = json.loads((folder / name).read_text())
        metrics["final"]["ladder"]["8"][1] += 1e-15
        (folder / name).write_text(json.dumps(metrics))
    else:
        text = gzip.decompress((folder / name).read_bytes()).decode().rstrip("\n")
        (folder / name).write_bytes(gzip.compress((text + "1\n").encode(), mtime=0))
    comparison = compare.compare(project, results=quick)
    assert verdict(comparison, "maze, pkpo") == ["reproduced"] and comparison.ending == "reproduced"


@pytest.mark.parametrize("name", ["curve.csv.gz", "ladder.csv.gz"])
def test_a_table_that_one_side_lacks_is_not_passed_over(project, name):
    quick = project / "quick"
    shutil.copytree(project / "results", quick)
    for folder in (project / "results", quick):
        split_provenance(folder / "runs" / "maze" / "pkpo")
    commit(project)
    (quick / "runs" / "maze" / "pkpo" / name).unlink()
    (row,) = [row for row in compare.compare(project, results=quick).rows if row.what == "maze, pkpo"]
    assert row.verdict == "worse" and f"{name} is missing here" in row.note
    commit_without = project / "results" / "runs" / "maze" / "maxpo" / name
    split_provenance(commit_without.parent)
    split_provenance(quick / "runs" / "maze" / "maxpo")
    commit_without.unlink()
    commit(project)
    assert verdict(compare.compare(project, results=quick), "maze, maxpo") == ["reproduced"]


def test_a_folder_that_is_not_there_is_one_line(project):
    with pytest.raises(InputError, match="no such folder of results"):
        compare.compare(project, results=project / "nowhere")


def test_noise_is_reproduced_and_a_gain_is_no_failure(project, monkeypatch, capsys):
    synthetic.edit(project, "maze", "pkpo", shift(0.0, noise=0.01))
    assert compare.compare(project).ending == "reproduced"
    synthetic.edit(project, "maze", "maxpo", shift(0.2, noise=0.01))
    comparison = compare.compare(project)
    assert verdict(comparison, "maze, pkpo") == ["reproduced"] and verdict(comparison, "maze, maxpo") == ["better"]
    code, out = run(project, monkeypatch, capsys)
    assert code == 0 and out.startswith("**Differs: better.**")
    assert "| maze, maxpo | better | +0.2 [" in out and "maze, pkpo" not in out
    assert "| maze, pkpo | reproduced |" in run(project, monkeypatch, capsys, all=True)[1]


def test_a_drop_fails_and_names_the_cell(project, monkeypatch, capsys):
    synthetic.edit(project, "maze", "maxpo", shift(-0.1, noise=0.01))
    code, out = run(project, monkeypatch, capsys)
    assert code == 1 and out.startswith("**Differs: worse.**")
    assert "| maze, maxpo | worse | -0.1 [" in out and "max@K dropped by 0.1, p = " in out


def test_a_drop_of_another_metric_is_worse_too(project):
    synthetic.edit(project, "maze", "maxpo", shift(-0.1, noise=0.01, metric="pass@1"))
    assert compare.compare(project).failures[0].startswith("maze, maxpo: pass@1 dropped by 0.1")


@pytest.mark.parametrize("metric", ["mean_reward", "pass@1"])
def test_max_at_k_speaks_first(project, metric):
    """A cell whose max@K rose at the cost of the mean reward is better; the other way round it is worse."""
    for sign, expected in ((1, "better"), (-1, "worse")):
        subprocess.run(["git", "checkout", "-q", "--", "results"], cwd=project, check=True)
        synthetic.edit(project, "maze", "maxpo", shift(0.2 * sign, noise=0.01))
        synthetic.edit(project, "maze", "maxpo", shift(-0.3 * sign, noise=0.01, metric=metric))
        assert verdict(compare.compare(project), "maze, maxpo") == [expected]


def test_a_drop_too_small_on_each_task_is_seen_over_all(project):
    for task in TASKS:
        synthetic.edit(project, task, "maxpo", shift(-0.012, noise=0.01))
    failures = compare.compare(project).failures
    assert "maxpo over 3 tasks" in [line.split(":")[0] for line in failures]
    assert not any(", maxpo:" in line for line in failures)


def test_the_same_drop_on_every_seed_fails(project):
    synthetic.edit(project, "maze", "maxpo", shift(-0.1))
    assert "max@K dropped by 0.1" in compare.compare(project).failures[0]


def test_a_difference_of_rounding_is_reproduced(project):
    for task in TASKS:
        for estimator in ESTIMATORS:
            synthetic.edit(project, task, estimator, shift(-1e-9))
    assert compare.compare(project).ending == "reproduced"


def test_other_advantages_on_the_probe_fail(project):
    """An off-by-one in k that learning hides is still seen."""
    edit_provenance(project, "maze", "maxpo", probe={"rewards": [1, 0, 0, 1], "k": 4, "advantages": [0.5, -1.0, -1.0, 1.0]})
    assert "other advantages on the fixed probe (sample 0: 1, now 0.5)" in compare.compare(project).failures[0]


def test_a_cell_that_broke_fails(project):
    synthetic.edit(project, "maze", "pkpo", lambda m: (m.update(status="failed", reason="the env raised"), m.pop("final")))
    assert compare.compare(project).failures == ["maze, pkpo: was ok, now failed: the env raised"]


def test_a_seed_that_diverges_fails_and_one_beyond_the_common_seeds_does_not(project):
    def diverge(metrics):
        metrics.update(status="diverged", reason="seed 7: not finite")
        metrics["final"]["max@K"][7] = None

    synthetic.edit(project, "maze", "pkpo", diverge)
    expected = "maze, pkpo: no value any more for seed 7 (was ok, now diverged: seed 7: not finite)"
    assert compare.compare(project).failures == [expected]
    commit(project)
    shutil.copytree(project / "results", project / "quick")
    folder = project / "quick" / "runs" / "maze" / "pkpo"
    first_seeds(folder, 3)
    metrics = json.loads((folder / "metrics.json").read_text()) | {"status": "ok", "reason": ""}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert compare.compare(project, results=project / "quick").ending == "the same bytes"


def test_too_few_published_seeds_are_not_judged(project):
    def two_seeds(metrics):
        metrics["seeds"] = [0, 1]
        metrics["final"] = {"max@K": [0.1, 0.9]}

    synthetic.edit(project, "maze", "pkpo", two_seeds)
    commit(project)
    synthetic.edit(project, "maze", "pkpo", lambda m: m["final"].update({"max@K": [0.5, 0.2]}))
    assert verdict(compare.compare(project), "maze, pkpo") == ["not judged"]


def test_another_task_is_not_compared(project):
    edit_provenance(project, "maze", "pkpo", task_sha256="other")
    assert verdict(compare.compare(project), "maze, pkpo") == ["another task"]


@pytest.mark.parametrize("text", ['{"half', "[1, 2]", '{"final": 3}', '{"seeds": {"a": 1}}'])
def test_broken_and_absent_files_are_said(project, text):
    folder = project / "results" / "runs" / "maze"
    (folder / "pkpo" / "metrics.json").write_text(text)
    (folder / "rloo" / "metrics.json").unlink()
    comparison = compare.compare(project)
    assert comparison.failures == ["maze, pkpo: metrics.json here is damaged; run the cell again"]
    assert verdict(comparison, "maze, rloo") == ["not recomputed"]


def test_native_numerics_and_other_versions_are_one_line_each(project, monkeypatch, capsys):
    for estimator in ("pkpo", "maxpo"):
        synthetic.edit(project, "maze", estimator, shift(0.0, noise=0.001))
        edit_provenance(project, "maze", estimator, numerics="native", versions={"torch": "9.0.0", "numpy": "2.4.6"})
    code, out = run(project, monkeypatch, capsys)
    assert code == 0 and out.startswith("**Reproduced.**")
    assert out.count("Native numerics (here): bytes need not repeat") == 1
    assert out.count("Other versions: torch 2.13.0, here 9.0.0.") == 1


def test_no_more_than_twenty_rows_unless_asked(tmp_path, monkeypatch, capsys):
    root = synthetic.write(tmp_path / "project", synthetic.TASKS, ESTIMATORS, studies=False)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    commit(root)
    for task in synthetic.TASKS:
        for estimator in ESTIMATORS:
            synthetic.edit(root, task, estimator, shift(-0.5 if task == "maze" else -0.3, noise=0.01))
    monkeypatch.chdir(root)
    code, out = run(root, monkeypatch, capsys)
    rows = [line for line in out.splitlines() if "| worse |" in line]
    assert code == 1 and len(rows) == 20 and "more rows: --all" in out
    assert len([line for line in run(root, monkeypatch, capsys, all=True)[1].splitlines() if "| worse |" in line]) > 30


def table_verdict(old, new, path="studies/some.csv"):
    rows = compare._compare_tables([path], {path: old.to_csv(index=False).encode()}, write_table(new, path), True)
    return rows[0].verdict, rows[0].note


def write_table(frame, path):
    import tempfile

    folder = Path(tempfile.mkdtemp())
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_text(frame.to_csv(index=False))
    return folder


def test_times_are_not_compared():
    old = pd.DataFrame({"estimator": ["maxpo"], "time_us_per_group": [1.5], "peak_memory_per_input": [4.0]})
    slower, larger = old.assign(time_us_per_group=3.5), old.assign(peak_memory_per_input=9.0)
    found, note = table_verdict(old, slower)
    assert found == "reproduced" and "time_us_per_group not compared" in note
    assert table_verdict(old, larger)[0] == "differs"
    steps = pd.DataFrame({"estimator": ["pkpo"], "time_ms": [2.0], "ratio": [1.1], "low": [1.05], "high": [1.15], "num_rounds": 40})
    slower = steps.assign(ratio=2.1, low=2.05, high=2.15)
    found, note = table_verdict(steps, slower, "studies/step_time.csv")
    assert found == "reproduced" and "time_ms, ratio, low, high not compared" in note
    assert table_verdict(steps, slower, "studies/other.csv")[0] == "differs"
    assert table_verdict(steps, steps.assign(num_rounds=30), "studies/step_time.csv")[0] == "differs"


def test_tables_without_intervals_go_by_the_largest_relative_difference():
    old = pd.DataFrame({"kind": ["a", "b"], "bias": [0.5, 1e-17], "note": [np.nan, 2.0]})
    assert table_verdict(old, old.assign(bias=[0.5 * (1 + 1e-9), -3e-17]))[0] == "reproduced"
    found, note = table_verdict(old, old.assign(bias=[0.5001, 1e-17]))
    assert found == "differs" and "0.0002, in bias" in note
    assert table_verdict(old, old.assign(note=[1.0, 2.0]))[0] == "differs"
    assert table_verdict(old, old.assign(kind=["a", "c"]))[0] == "differs"
    assert table_verdict(old, old.iloc[:1])[0] == "differs"
    reasons = old.assign(reason=["3 of 64 groups", ""])
    assert table_verdict(reasons, reasons.assign(reason=["4 of 64 groups", ""]))[0] == "reproduced"


def test_tables_with_intervals_alarm_in_one_of_a_hundred():
    """300 ratios, estimated twice with their own intervals; beside them columns without one that never repeat."""
    rng, alarms = np.random.default_rng(3), 0
    for _ in range(200):
        tables = []
        for _ in range(2):
            value, half = 1 + 0.05 * rng.normal(size=300), np.full(300, 1.96 * 0.05)
            columns = {"trace": rng.random(300), "ratio_to_maxpo": value, "ratio_low": value - half, "ratio_high": value + half}
            tables.append(pd.DataFrame(columns))
        alarms += table_verdict(*tables)[0] != "reproduced"
    assert alarms <= 6
    tables[1].loc[7, ["ratio_to_maxpo", "ratio_low", "ratio_high"]] += 1.0
    assert table_verdict(*tables)[0] == "differs"


def test_exact_rows_of_a_table_with_intervals_must_be_equal():
    old = pd.DataFrame({"ratio": [1.5, 2.0], "low": [np.nan, 1.9], "high": [np.nan, 2.1]})
    assert table_verdict(old, old.assign(ratio=[1.5, 2.01]))[0] == "reproduced"
    assert table_verdict(old, old.assign(ratio=[1.501, 2.0]))[0] == "differs"


def test_a_variance_table_of_another_task_is_not_compared(project):
    path = project / "results" / "variance" / "maze.csv"
    table = pd.read_csv(path)
    table.assign(task_sha256="a").to_csv(path, index=False)
    commit(project)
    table.assign(task_sha256="b").to_csv(path, index=False)
    assert verdict(compare.compare(project), "variance/maze.csv") == ["another task"]


@pytest.mark.parametrize("revision", ["nowhere", "--help", "HEAD:params.yaml"])
def test_unknown_revision_is_one_line(project, revision):
    with pytest.raises(InputError, match="git knows no such revision"):
        compare.compare(project, revision)


def test_git_s_own_reason_is_passed_on(project, monkeypatch):
    """A repository of another user, and a folder that is in none."""
    with monkeypatch.context() as patch:
        patch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        with pytest.raises(InputError, match="dubious ownership.*safe.directory") as dubious:
            compare.compare(project)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    shutil.rmtree(project / ".git")
    with pytest.raises(InputError, match="not a git repository") as none:
        compare.compare(project)
    assert "\n" not in f"{dubious.value}{none.value}"


def test_a_variance_table_of_fewer_seeds_is_compared_by_its_own():
    """`repro` trains the first seeds only, so a language task's table has fewer policies."""
    old = b"checkpoint,seed,estimator,snr\ninitial,0,maxpo,1.5\ninitial,1,maxpo,2.5\nfinal,0,maxpo,3\nfinal,1,maxpo,4\n"
    new = b"checkpoint,seed,estimator,snr\ninitial,0,maxpo,1.5\nfinal,0,maxpo,3\n"
    assert of_its_seeds(old, new) == new
    assert of_its_seeds(old, new.replace(b",3\n", b",3.1\n")) != new.replace(b",3\n", b",3.1\n")
    assert of_its_seeds(b"estimator,snr\n", new) == b"estimator,snr\n" and of_its_seeds(b"", new) == b""


@pytest.fixture
def trained(project):
    """The same with a study's table, cells at own best rates and cells of another estimator, all committed."""
    synthetic.write_trained(project, ("maze", "countdown3"), ESTIMATORS)
    synthetic.write_cheap(project, {"opo": 0.0}, ("maze",), seeds=6)
    for path in (project / "results" / "own_best").rglob("checkpoints.safetensors"):
        path.unlink()  # not kept there
    with open(project / "params.yaml", "a") as file:
        file.write("task_studies: {learning_rate: [maze, countdown3], own_best: [maze, countdown3]}\n")
    commit(project)
    return project


def test_what_was_trained_besides_is_compared_too(trained):
    what = ("own_best maze, maxpo", "estimators maze, opo", "trained/learning_rate/maze.csv")
    here = compare.compare(trained)
    assert [verdict(here, name) for name in what] == [["not recomputed"]] * 3 and here.ending == "the same bytes"
    quick = trained / "quick"
    shutil.copytree(trained / "results", quick)
    assert [verdict(compare.compare(trained, results=quick), name) for name in what] == [["same bytes"]] * 3

    for path in ("own_best/maze/maxpo", "estimators/maze/opo"):
        metrics = json.loads((quick / path / "metrics.json").read_text())
        shift(-0.5)(metrics)
        (quick / path / "metrics.json").write_text(json.dumps(metrics))
    table = pd.read_csv(quick / "trained" / "learning_rate" / "maze.csv")
    table["max_at_k"] += 0.1
    table.to_csv(quick / "trained" / "learning_rate" / "maze.csv", index=False)
    found = compare.compare(trained, results=quick)
    assert [verdict(found, name) for name in what] == [["worse"], ["worse"], ["differs"]]
    assert not [row.what for row in found.rows if " over " in row.what], "kinds were added up"


def test_other_settings_and_another_task_do_not_compare(trained):
    quick = trained / "quick"
    shutil.copytree(trained / "results", quick)
    path = quick / "own_best" / "maze" / "maxpo" / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"overrides": {"optimiser.lr": 0.2}}))
    edit_provenance(trained, "countdown3", "maxpo", task_sha256="other")
    table = quick / "trained" / "learning_rate" / "countdown3.csv"
    table.write_text(table.read_text().replace("0.", "1.", 1))
    assert verdict(compare.compare(trained, results=quick), "own_best maze, maxpo") == ["another task"]
    shutil.copy(table, trained / "results" / "trained" / "learning_rate")
    shutil.copytree(trained / "results", quick, dirs_exist_ok=True)
    assert verdict(compare.compare(trained, results=quick), "trained/learning_rate/countdown3.csv") == ["another task"]
