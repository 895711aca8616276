"""Compare what this machine produced with the published results of a git revision. Imports no torch.

For every declared cell and metric: identical (to the byte), reproduced (the 95% interval of the same-seed differences holds
0), differs (by how much), or what else happened. Exit code 1 when learning got worse: a drop of max@K beyond chance on a cell
or over an estimator's tasks (Holm, 5%), a cell that ran and no longer does, or other advantages on the fixed probe.
"""

import io
import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.measure import statistics
from maxpo_bench.settings import task_file

METRICS = ("max@K", "pass@K", "pass@1", "mean_reward")
GATED = "max@K"
LEVEL = 0.05
TIMES = {"results/studies/cost.csv": ("time_us_per_group",)}  # columns that differ from run to run
ROUNDING = 1e-9  # relative; below it two numbers differ by the machine's rounding only


@dataclass
class Row:
    """One line of the comparison: a cell and a metric, or one results file."""

    what: str
    metric: str
    verdict: str  # identical | reproduced | differs | not recomputed | new | missing here | ...
    published: float | None = None
    here: float | None = None
    gap: statistics.Interval | None = None  # here - published
    note: str = ""


def main(args):
    """`maxpo-bench compare [--against REV]`: prints the table as Markdown. Returns 0, or 1 when learning got worse."""
    rows, failures = compare(task_file.root(), args.against)
    print(as_markdown(rows, failures, args.against))
    return 1 if failures else 0


def compare(root=".", against="HEAD"):
    """(rows, failures): every Row, and one line per reason to fail. InputError for a revision git does not know."""
    from maxpo_bench.pipeline.freshness import computed_here
    from maxpo_bench.report.load import read_params

    root = Path(root)
    params = read_params(root)
    cells = [(t, e) for t in dict.fromkeys(params["tasks"]) for e in dict.fromkeys(params["estimators"])]
    paths = {(t, e): f"results/runs/{t}/{e}/metrics.json" for t, e in cells}
    others = [f"results/variance/{t}.csv" for t in params["tasks"]] + [
        f"results/studies/{s}.csv" for s in params.get("studies", [])
    ]
    published = read_revision(root, against, [*paths.values(), *others])
    rows, failures, gaps = [], [], {}
    for (task, estimator), path in paths.items():
        mine = (root / path).read_bytes() if (root / path).is_file() else None
        found, broken = _compare_cell(f"{task}, {estimator}", published.get(path), mine, computed_here((root / path).parent))
        rows += found
        failures += broken
        for row in found:
            if row.metric == GATED and row.gap is not None:
                gaps[task, estimator] = row
    failures += _worse(gaps)
    for path in others:
        row = _compare_file(path, published.get(path), (root / path).read_bytes() if (root / path).is_file() else None)
        rows += [row] if row else []
    return rows, failures


def read_revision(root, revision, paths):
    """{path: bytes} of the files of a revision that exist in it; paths are relative to root. One git process."""
    try:
        known = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"],
            cwd=root,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise Fault("git is not installed, so there are no published results to read") from None
    if known.returncode:
        raise InputError(f"--against {revision}: git knows no such revision here")
    commit = known.stdout.decode().strip()
    request = "".join(f"{commit}:./{path}\n" for path in paths).encode()
    answer = subprocess.run(["git", "cat-file", "--batch"], cwd=root, input=request, capture_output=True, check=False)
    if answer.returncode:
        raise Fault(f"git cat-file: {answer.stderr.decode(errors='replace').strip()}")
    found, stream = {}, io.BytesIO(answer.stdout)
    for path in paths:
        head = stream.readline().split()
        if len(head) == 3 and head[1] == b"blob":
            found[path] = stream.read(int(head[2]))
            stream.read(1)
    return found


def _compare_cell(what, published, mine, recomputed):
    """(rows, failures) of one cell from the bytes of its two metrics.json (None: not there)."""
    if published is None and mine is None:
        return [], []
    if published is None or mine is None:
        return [Row(what, "", "new" if published is None else "missing here")], []
    if published == mine:
        return [Row(what, "", "identical" if recomputed else "not recomputed")], []
    try:
        old = json.loads(published)
    except ValueError:
        return [Row(what, "", "published file is broken")], []
    try:
        new = json.loads(mine)
    except ValueError:
        return [Row(what, "", "not valid JSON here")], [f"{what}: metrics.json here is not valid JSON"]
    if old.get("task_sha256") != new.get("task_sha256"):
        return [Row(what, "", "another task", note="its task file changed, so the numbers do not compare")], []
    failures = []
    probe = _probe_change(old.get("probe"), new.get("probe"))
    if probe:
        failures.append(f"{what}: other advantages on the fixed probe ({probe})")
    if old.get("status") != new.get("status"):
        if old.get("status") in ("ok", "not_applicable"):
            failures.append(f"{what}: was {old.get('status')}, now {new.get('status')}: {new.get('reason', '')}")
        return [Row(what, "", "status changed", note=f"{old.get('status')} to {new.get('status')}")], failures
    rows = [
        _compare_metric(what, metric, _by_seed(old, metric), _by_seed(new, metric))
        for metric in METRICS
        if metric in old.get("final", {}) or metric in new.get("final", {})
    ]
    return rows or [Row(what, "", "reproduced", note="same outcome, other text")], failures


def _by_seed(metrics, metric):
    values = metrics.get("final", {}).get(metric) or []
    return {
        int(s): float(v)
        for s, v in zip(metrics.get("seeds", []), values, strict=False)
        if isinstance(v, int | float) and math.isfinite(v)
    }


def _compare_metric(what, metric, old, new):
    pairs, seeds = statistics.pair(new, old)
    row = Row(what, metric, "", _mean(old, seeds), _mean(new, seeds))
    lost = sorted(set(old) - set(new))
    row.note = f"no value here for seed {', '.join(map(str, lost))}" if lost else ""
    if not len(pairs):
        row.verdict = "no seed in common"
    elif old == new:
        row.verdict = "identical"
    elif max(abs(p) for p in pairs) <= ROUNDING * max(1.0, *(abs(old[s]) for s in seeds)):
        row.verdict = "reproduced" if not lost else "differs"
    else:
        row.gap = statistics.mean_interval(pairs)
        if row.gap.low is None:
            row.verdict = "differs"
            row.note = "; ".join(filter(None, [row.note, row.gap.reason]))
        else:
            row.verdict = "reproduced" if row.gap.low <= 0 <= row.gap.high else "differs"
    return row


def _mean(values, seeds):
    return sum(values[s] for s in seeds) / len(seeds) if seeds else None


def _probe_change(old, new):
    """What changed on the probe vector, in words; "" when nothing did or there is no probe in common."""
    if not old or not new or old.get("rewards") != new.get("rewards") or old.get("k") != new.get("k"):
        return ""
    for i, (a, b) in enumerate(zip(old.get("advantages", []), new.get("advantages", []), strict=False)):
        if abs(a - b) > 1e-6 * max(1.0, abs(a)):
            return f"sample {i}: {a:.6g}, now {b:.6g}"
    return ""


def _worse(gaps):
    """One line for each cell, and each estimator over its tasks, whose max@K dropped beyond chance."""
    tests = [(f"{task}, {estimator}", row.gap) for (task, estimator), row in gaps.items()]
    constant = [
        f"{what}: max@K dropped by {-gap.estimate:.4g} on every seed"
        for what, gap in tests
        if gap.low is None and gap.num_pairs >= statistics.MIN_PAIRS and gap.estimate < 0
    ]
    for estimator in dict.fromkeys(e for _, e in gaps):
        own = [row for (_, e), row in gaps.items() if e == estimator and row.gap.error]
        if len(own) > 1:  # each task by its own p value, so that tasks with other reward scales can be added
            from scipy.stats import norm

            # Each p value as a normal score (Stouffer): t statistics of few seeds have variance dof/(dof-2), not 1.
            scores = [math.copysign(norm.isf(max(row.gap.p, 1e-300) / 2), row.gap.estimate) for row in own]
            z = sum(scores) / math.sqrt(len(scores))
            p = float(2 * norm.sf(abs(z)))
            tests.append((f"{estimator} over {len(own)} tasks", statistics.Interval(z, None, None, len(own), p)))
    lines = []
    for (what, gap), p in zip(tests, statistics.holm([gap.p for _, gap in tests]), strict=True):
        if p is not None and p < LEVEL and gap.estimate < 0:
            size = f" by {-gap.estimate:.4g} [{-gap.high:.4g}, {-gap.low:.4g}]" if gap.low is not None else ""
            lines.append(f"{what}: max@K dropped{size}, {gap.num_pairs} {'pairs' if size else 'tasks'}, p = {p:.2g} (Holm)")
    return constant + lines


def _compare_file(path, published, mine):
    """A variance or study CSV: identical, or the largest relative difference of a number in it."""
    if published is None or mine is None or published == mine:
        return None if published is None or mine is None else Row(path, "", "identical file")
    import pandas as pd

    try:
        old, new = (pd.read_csv(io.BytesIO(data)) for data in (published, mine))
    except (ValueError, pd.errors.ParserError):
        return Row(path, "", "differs", note="not readable as a table")
    if list(old) != list(new) or len(old) != len(new):
        return Row(path, "", "differs", note=f"{len(old)} rows of {len(old.columns)} columns, now {len(new)} of {len(new.columns)}")
    if {"ratio_to_maxpo", "ratio_low", "ratio_high"} <= set(old):
        known = old[["ratio_low", "ratio_high"]].notna().all(axis=1) & new["ratio_to_maxpo"].notna()
        inside = ((new["ratio_to_maxpo"] >= old["ratio_low"]) & (new["ratio_to_maxpo"] <= old["ratio_high"]))[known]
        verdict = "reproduced" if inside.mean() >= 0.9 else "differs"  # each published interval misses now and then
        return Row(
            path, "", verdict, note=f"{int(inside.sum())} of {int(known.sum())} variance ratios inside the published interval"
        )
    untimed = [name for name in TIMES.get(path, ()) if name in old]
    old, new = old.drop(columns=untimed), new.drop(columns=untimed)
    worst, column = 0.0, ""
    for name in old.select_dtypes("number"):
        gap = ((new[name] - old[name]).abs() / old[name].abs().clip(lower=1e-12)).max()
        if gap > worst:
            worst, column = float(gap), name
    note = f"largest relative difference {worst:.2g}, in {column}" if column else "the same numbers"
    note += f"; {', '.join(untimed)} not compared: times never repeat" if untimed else ""
    return Row(path, "", "reproduced" if worst <= 1e-6 else "differs", note=note)


def as_markdown(rows, failures, against):
    """The comparison as Markdown to paste in a pull request: the verdict, counts, then every row that is not identical."""
    counts = {}
    for row in rows:
        counts[row.verdict] = counts.get(row.verdict, 0) + 1
    lines = [f"### Results here against {against}", ""]
    lines += [f"**{'Worse' if failures else 'No loss found'}.** " + ", ".join(f"{n} {v}" for v, n in sorted(counts.items())) + "."]
    if not any(row.verdict not in ("not recomputed", "missing here", "identical file") for row in rows):
        lines[-1] = "**Nothing to compare:** no cell was recomputed on this machine. Run `make repro` first."
    lines += [""] + [f"- {failure}" for failure in failures] + [""] * bool(failures)
    shown = [row for row in rows if row.verdict not in ("identical", "not recomputed", "identical file")]
    if shown:
        lines += [
            "| cell | metric | published | here | difference [95% interval] | pairs | verdict |",
            "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        ]
    for row in shown:
        gap, text = row.gap, ""
        if gap is not None:
            text = f"{gap.estimate:+.4g}" + (f" [{gap.low:+.4g}, {gap.high:+.4g}]" if gap.low is not None else "")
        note = f" ({row.note})" if row.note else ""
        number = ["" if v is None else f"{v:.4f}" for v in (row.published, row.here)]
        lines.append(
            f"| {row.what} | {row.metric} | {number[0]} | {number[1]} | {text} "
            f"| {gap.num_pairs if gap else ''} | {row.verdict}{note} |"
        )
    return "\n".join(lines)
