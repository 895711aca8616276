"""The report is a function of the results alone: the same bytes anywhere."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import synthetic
from pages import ESTIMATORS, TASKS, Page, outputs

from maxpo_bench.report import build

OLD_PROCESSOR = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR", "OPENBLAS_CORETYPE": "Prescott"}


def test_two_runs_give_the_same_bytes(built, tmp_path):
    """Also in another process, folder, time zone, order of hashing, and with the arithmetic and the sorts of an older processor."""
    shutil.copytree(built, tmp_path / "else where")
    for name in ("report.md", "report.html", "claims.json", "metrics.json", "figures", "tables"):
        path = tmp_path / "else where" / "results" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    where = str(tmp_path / "else where")
    command = f"import sys; from maxpo_bench.report import build; build({where!r}); assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C", **OLD_PROCESSOR}
    subprocess.run([sys.executable, "-c", command], check=True, env=environment, cwd=synthetic.ROOT, capture_output=True)
    first, second = outputs(built), outputs(tmp_path / "else where")
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def shake(value, rng):
    """The value with every float in it moved in its last bits, as another processor might."""
    if isinstance(value, dict):
        return {k: shake(v, rng) for k, v in value.items()}
    if isinstance(value, list):
        return [shake(v, rng) for v in value]
    return value * (1 + rng.choice([-1, 1]) * 1e-12) if isinstance(value, float) else value


def test_noise_in_the_last_bits_of_the_results_does_not_show(tmp_path):
    """Tables, figures and pages: rounding is far above what another processor's arithmetic moves."""
    first, second = (synthetic.write(tmp_path / name, TASKS, ESTIMATORS) for name in ("first", "second"))
    rng = np.random.default_rng(0)
    for path in (second / "results" / "runs").rglob("metrics.json"):
        path.write_text(json.dumps(shake(json.loads(path.read_text()), rng)))
    measured = [*(second / "results").rglob("*.csv.gz"), *(second / "results" / "variance").glob("*.csv")]
    for path in [*measured, second / "results" / "studies" / "regimes.csv"]:
        floats = lambda t: t.apply(lambda c: c * (1 + rng.choice([-1, 1], len(c)) * 1e-12) if c.dtype == float else c)  # noqa: E731
        synthetic.edit_table(second, path.relative_to(second / "results"), floats)
    assert build(first) == build(second) == 0
    one, two = outputs(first), outputs(second)
    assert [name for name in one if one[name] != two[name]] == []


def test_the_report_is_a_function_of_the_results_alone(built, tmp_path):
    """Neither provenance, dvc.lock, checkpoints, leftovers of a stopped run nor git change a byte; times change the last section
    alone."""
    shutil.copytree(built, tmp_path / "p")
    root = tmp_path / "p"
    lock = {"variance@maze": {"outs": [{"path": "results/variance/maze.csv", "md5": "older"}]}}
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": lock}))
    cell = root / "results" / "runs" / "bandit" / "maxpo"
    (cell / "checkpoints").mkdir()
    (cell / ".resume").mkdir()
    (cell / "provenance.json").write_text(json.dumps({"task_sha256": "older", "versions": {"python": "3.99"}}))
    subprocess.run(["git", "init", "-q", root], check=True)
    build(root)
    assert outputs(built) == outputs(root)
    timing = json.loads((cell / "timing.json").read_text())
    timing["phases"]["sample"] *= 7
    (cell / "timing.json").write_text(json.dumps(timing))
    build(root)
    one, two = outputs(built), outputs(root)
    changed = {name for name in one if one[name] != two[name]}
    assert changed == {f"results/{n}" for n in ("report.html", "report.md", "tables/wall_clock.csv")}
    start = [text["results/report.html"].split(b'<section id="time"')[0] for text in (one, two)]
    assert start[0] == start[1] and b'id="every-cell"' in start[0]


def test_sorts_are_stable():
    """numpy's default sort orders equal values by what the processor can do."""
    package = synthetic.ROOT / "maxpo_bench"
    sorts = [
        (path.name, line.strip())
        for path in [*(package / "report").glob("*.py"), *(package / "studies").glob("*.py")]
        for line in path.read_text().splitlines()
        if re.search(r"\.sort_values\(|\bargsort\(", line)
    ]
    assert len(sorts) > 5 and [found for found in sorts if "stable" not in found[1]] == []


def test_no_word_of_this_machine(built):
    text = " ".join(Page((built / "results" / "report.html").read_text()).words).lower()
    text = text.replace("was not computed on this machine, is said by", "")  # how to read: what the report does not say
    for word in ("this machine", "stale:", "committed", "computed here", "recomputed", "not used: older"):
        assert word not in text, word
