"""Is what was computed here the same as the published results of a git revision? Imports no torch.

One question with one error rate, 5% over the whole comparison. Byte equality decides at once, seed by seed; where bytes differ
(native numerics, other versions of libraries), final values are compared as samples (same.py), tables by their intervals.
Worse, and exit code 1: a drop beyond chance, a cell or a seed that ran and no longer does, other advantages on the fixed probe.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path

from maxpo_bench.errors import InputError
from maxpo_bench.pipeline.sides import CELL_FILES, Cell, of_its_seeds, read_cell, read_revision, same_bytes
from maxpo_bench.settings import task_file

METRICS = ("max@K", "pass@K", "pass@1", "mean_reward")
LEVELS = {METRICS[:1]: 0.03, METRICS[1:]: 0.01}  # error rate of each family of tests; with that of the tables, 5% in all
TABLES_LEVEL = 0.01
RAN = ("ok", "diverged")
NUM_SHOWN = 20
# From bad to good; the first three and `better` are "what differs".
VERDICTS = ("worse", "differs", "better", "another task", "not judged", "reproduced", "same bytes", "new", "not recomputed")


@dataclass
class Row:
    """One line of the comparison: a cell, cells added up, or a table."""

    what: str
    verdict: str  # one of VERDICTS
    note: str = ""
    metric: str = ""
    gap: float | None = None  # here - published, in the task's rewards
    low: float | None = None  # its 95% interval, not corrected for how many are compared
    high: float | None = None
    p: float | None = None  # corrected for how many are compared
    num_seeds: int | None = None

    def __str__(self):
        return f"{self.what}: {self.note}"


@dataclass
class Comparison:
    """What came out, and why bytes could not be expected to repeat."""

    rows: list
    reasons: list = field(default_factory=list)  # lines: native numerics, other versions of libraries

    @property
    def failures(self):
        """One line per reason for exit code 1."""
        return [str(row) for row in self.rows if row.verdict == "worse"]

    @property
    def ending(self):
        """the same bytes | reproduced | differs: worse | differs: better | differs | nothing to compare"""
        verdicts = {row.verdict for row in self.rows}
        for verdict in ("worse", "better"):
            if verdict in verdicts:
                return f"differs: {verdict}"
        if "differs" in verdicts:
            return "differs"
        if "reproduced" in verdicts or verdicts >= {"same bytes", "not judged"}:
            return "reproduced"
        return "the same bytes" if "same bytes" in verdicts else "nothing to compare"


def main(args):
    """`maxpo-bench compare [--against REV] [--results DIR] [--all]`: prints Markdown. Returns 0, or 1 for worse."""
    comparison = compare(task_file.root(), args.against, args.results)
    print(as_markdown(comparison, args.against, args.all))
    return 1 if comparison.failures else 0


def compare(root=".", against="HEAD", results=None):
    """Comparison of every declared cell and table in `results` (root/results) with those of a git revision: of the default cells,
    those of other estimators and at own best rates, and of the studies, those that train too.

    results: another folder laid out like root/results; seeds and cells that it lacks are not compared. In root/results, where
    published files lie too, a cell counts as recomputed where its checkpoints are, which are never published.
    InputError for an unknown revision.
    """
    from maxpo_bench.settings import params as params_file

    root = Path(root)
    folder = root / "results" if results is None else Path(results)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of results; `maxpo-bench repro` makes one")
    params = params_file.read(root)
    trained = params_file.trained_studies(params)
    cells = [("runs", t, e) for t in params["tasks"] for e in params["estimators"]]
    cells += [("estimators", t, e) for t, e in params_file.trained_cells(params)]
    cells += [("own_best", t, e) for study, t in trained if study == "own_best" for e in params["estimators"]]
    tables = [f"variance/{t}.csv" for t in params["tasks"]] + [f"studies/{s}.csv" for s in params["studies"]]
    trainings = [f"trained/{study}/{t}.csv" for study, t in trained]
    wanted = ["/".join((*cell, name)) for cell in cells for name in CELL_FILES] + tables + trainings
    published = {
        path.removeprefix("results/"): data for path, data in read_revision(root, against, [f"results/{p}" for p in wanted]).items()
    }
    comparison, changed = Comparison([]), {}
    for kind, task, estimator in cells:
        path, name = f"{kind}/{task}/{estimator}", task if kind == "runs" else f"{kind} {task}"
        old, new = (Cell(files) for files in read_cell(published, folder, path))
        row = _compare_cell(f"{name}, {estimator}", old, new, results is None and not _computed(folder / path), kind != "runs")
        if row is None:
            changed.setdefault(kind, {})[name, estimator] = old, new
            comparison.reasons += [line for line in _reasons(old, new) if line not in comparison.reasons]
        elif kind == "runs" or old.there or new.there:
            comparison.rows.append(row)
    for same_kind in changed.values():  # kinds share seeds, and some cells, so they are not added up
        comparison.rows += _judge_cells(same_kind, len(changed))
    ran = results is not None or any(row.verdict != "not recomputed" for row in comparison.rows) or changed
    comparison.rows += _compare_tables(tables, published, folder, ran)
    others = {row.what.partition(",")[0] for row in comparison.rows if row.verdict == "another task"}
    for row in _compare_tables(trainings, published, folder, results is not None):
        if row.verdict == "differs" and Path(row.what).stem in others:
            row = Row(row.what, "another task", "its task file changed, so the numbers do not compare")
        comparison.rows.append(row)
    comparison.rows.sort(key=_badness)
    return comparison


def _badness(row):
    # What failed outright comes before what was tested; then by p.
    return VERDICTS.index(row.verdict), -1.0 if row.p is None else row.p, -abs(row.gap or 0.0)


def _computed(folder):
    return (folder / "checkpoints.safetensors").is_file()


def _compare_cell(what, old, new, not_recomputed, summary_only):
    """The Row of a cell that needs no test; None where final values must be compared.

    not_recomputed: told from equal files. summary_only: no curve and ladder are kept of it.
    """
    if not new.there:
        return Row(what, "not recomputed")
    if not old.there:
        return Row(what, "new", "not in the published results")
    if not_recomputed and old.files == new.files:
        return Row(what, "not recomputed")
    if old.broken:
        return Row(what, "differs", f"published {old.broken} is damaged")
    if new.broken:
        return Row(what, "worse", f"{new.broken} here is damaged; run the cell again")
    lost = [table for table in ("curve.csv", "ladder.csv") if old.has(table) and not new.has(table)]
    if lost and not summary_only:
        return Row(what, "worse", f"{lost[0]}.gz is missing here; run the cell again")
    if old.provenance.get("task_sha256") != new.provenance.get("task_sha256"):
        return Row(what, "another task", "its task file changed, so the numbers do not compare")
    if old.provenance.get("overrides") != new.provenance.get("overrides"):
        return Row(what, "another task", "it was trained with other settings, so the numbers do not compare")
    probe = _probe_change(old.provenance.get("probe"), new.provenance.get("probe"))
    if probe:
        return Row(what, "worse", f"other advantages on the fixed probe ({probe})")
    before, now = old.metrics.get("status"), new.metrics.get("status")
    if before not in RAN or now not in RAN:
        return _compare_status(what, before, now, new.metrics.get("reason", ""))
    seeds = sorted(set(old.seeds) & set(new.seeds))
    if not seeds:
        return Row(what, "not recomputed", "no seed in common")
    if same_bytes(old, new, seeds, summary_only):
        few = len(seeds) < len(old.seeds)
        return Row(what, "same bytes", f"{len(seeds)} of {len(old.seeds)} seeds" if few else "")
    ended = sorted(s for s in seeds if s in old.values(METRICS[0]) and s not in new.values(METRICS[0]))
    if ended:
        reason = f"was {before}, now {now}: {new.metrics.get('reason', '')}"
        return Row(what, "worse", f"no value any more for seed {', '.join(map(str, ended))} ({reason})")
    return None


def _compare_status(what, before, now, reason):
    if before == now:
        return Row(what, "same bytes", before)
    if before in RAN or now == "failed":
        return Row(what, "worse", f"was {before}, now {now}: {reason}")
    return Row(what, "better" if before == "failed" else "differs", f"was {before}, now {now}")


def _probe_change(old, new):
    """What changed on the probe vector, in words; "" when nothing did or there is no probe in common."""
    if not old or not new or old.get("rewards") != new.get("rewards") or old.get("k") != new.get("k"):
        return ""
    before, now = old.get("advantages"), new.get("advantages")
    if not isinstance(before, list) or not isinstance(now, list):
        return "" if before == now else f"{before}, now {now}"
    if len(before) != len(now):
        return f"{len(before)} of them, now {len(now)}"
    for i, (a, b) in enumerate(zip(before, now, strict=True)):
        if not abs(a - b) <= 1e-6 * max(1.0, abs(a)):
            return f"sample {i}: {a:.6g}, now {b:.6g}"
    return ""


def _reasons(old, new):
    """Why the bytes of two cells need not be the same, a line each."""
    lines = [
        f"Native numerics ({where}): bytes need not repeat, so runs are compared as samples."
        for cell, where in ((old, "published"), (new, "here"))
        if cell.provenance.get("numerics", "portable") != "portable"
    ]
    before, now = (cell.provenance.get("versions") or {} for cell in (old, new))
    others = [f"{name} {before[name]}, here {now[name]}" for name in sorted(before) if now.get(name, before[name]) != before[name]]
    return lines + ([f"Other versions: {'; '.join(others)}."] if others else [])


def _judge_cells(changed, num_kinds):
    """Rows of the cells whose bytes differ, and of what is seen only when cells are added up. changed: {(t, e): (old, new)}.

    num_kinds: of cells that are judged, each apart, and share the error rate.
    """
    from maxpo_bench.pipeline import same

    tested = {f"{task}, {estimator}": [] for task, estimator in changed}  # what -> [(finding, level)], max@K first
    for metrics, level in LEVELS.items():
        family = {}
        for metric in metrics:
            values = {key: (old.values(metric), new.values(metric)) for key, (old, new) in changed.items()}
            family[metric] = {k: v for k, v in values.items() if len(v[0]) >= same.MIN_PUBLISHED and set(v[0]) & set(v[1])}
        for finding in same.judge(family):
            tested.setdefault(finding.what, []).append((finding, level / num_kinds))
    rows = []
    for what, found in tested.items():
        # The first metric that differs speaks for the cell: a drop of max@K is worse, whatever the mean reward did.
        real = [finding for finding, level in found if finding.p < level]
        if real:
            rows.append(_row(real[0], "worse" if real[0].sign < 0 else "better"))
        elif not found:
            rows.append(Row(what, "not judged", f"fewer than {same.MIN_PUBLISHED} published seeds with a value"))
        elif " over " not in what:
            rows.append(_row(found[0][0], "reproduced"))
    return rows


def _row(finding, verdict):
    size = f" by {abs(finding.gap):.4g}" if finding.gap is not None else ""
    change = "within chance" if verdict == "reproduced" else f"{'dropped' if finding.sign < 0 else 'rose'}{size}"
    note = f"{finding.metric} {change}, p = {finding.p:.2g}"
    seeds = finding.num_seeds or None
    return Row(finding.what, verdict, note, finding.metric, finding.gap, finding.low, finding.high, finding.p, seeds)


def _compare_tables(paths, published, folder, ran):
    """Rows of the variance and study tables. ran: whether equal tables count as recomputed."""
    rows, p_values = [], {}
    for path in paths:
        old, new = published.get(path), (folder / path).read_bytes() if (folder / path).is_file() else None
        if old is None and new is None:
            continue
        if new is None or (old == new and not ran):
            rows.append(Row(path, "not recomputed"))
        elif old is None:
            rows.append(Row(path, "new", "not in the published results"))
        elif of_its_seeds(old, new) == new:
            rows.append(Row(path, "same bytes"))
        else:
            row, p = _compare_table(path, of_its_seeds(old, new), new)
            rows.append(row)
            p_values[path] = p
    count = sum(len(p) for p in p_values.values())
    for row in rows:
        p = p_values.get(row.what, ())
        if row.verdict == "reproduced" and len(p):
            row.p = min(1.0, count * min(p))  # Bonferroni over the intervals of all tables
            row.verdict = "differs" if row.p < TABLES_LEVEL else "reproduced"
            row.note = f"{len(p)} intervals, p = {row.p:.2g}; {row.note}"
    return rows


def _compare_table(path, old, new):
    """(Row, p values of its intervals) of a table whose bytes changed; the p values are yet to be judged with all others."""
    import pandas as pd

    from maxpo_bench import studies
    from maxpo_bench.pipeline import same

    try:
        old, new = (pd.read_csv(io.BytesIO(data)) for data in (old, new))
    except (ValueError, pd.errors.ParserError):
        return Row(path, "differs", "not readable as a table"), []
    if list(old) != list(new) or len(old) != len(new):
        shapes = f"{len(old)} rows of {len(old.columns)} columns, now {len(new)} of {len(new.columns)}"
        return Row(path, "differs", f"other rows or columns: {shapes}"), []
    if "task_sha256" in old and not old["task_sha256"].equals(new["task_sha256"]):
        return Row(path, "another task", "its task file changed, so the numbers do not compare"), []
    times = [name for name in old if name.startswith("time_")]
    if path in [f"studies/{name}.csv" for name in studies.TIMED]:
        times += [name for columns in same.interval_columns(old) for name in columns]
    dropped = times + [name for name in old if name.endswith("_sha256") or name == "reason"]
    old, new = old.drop(columns=dropped), new.drop(columns=dropped)
    note = f"; {', '.join(times)} not compared: times never repeat" if times else ""
    words = [n for n in old if not (pd.api.types.is_numeric_dtype(old[n]) and pd.api.types.is_numeric_dtype(new[n]))]
    for name in words:
        if not old[name].equals(new[name]):
            return Row(path, "differs", f"other entries in {name}{note}"), []
    intervals = same.interval_columns(old)
    p_values, gaps = [], {}
    for value, low, high in intervals:
        first, second = (table[[value, low, high]].to_numpy(float) for table in (old, new))
        p = same.interval_p_values(first, second)
        p_values += p[p == p].tolist()
        gaps[value] = same.relative_differences(first[p != p, 0], second[p != p, 0])  # exact values have no interval
    if not intervals:
        gaps = {n: same.relative_differences(old[n].to_numpy(float), new[n].to_numpy(float)) for n in old if n not in words}
    largest = {name: float(gap.max()) for name, gap in gaps.items() if len(gap)}
    column = max(largest, key=largest.get, default="")
    worst = largest.get(column, 0.0)
    numbers = f"largest relative difference {worst:.2g}" + (f", in {column}" if worst else "")
    return Row(path, "reproduced" if worst <= same.SAME else "differs", numbers + note), p_values


def as_markdown(comparison, against, everything=False):
    """The ending first, then counts and why bytes may differ, then what differs, worst first: at most 20 rows, or everything."""
    counts = {verdict: sum(row.verdict == verdict for row in comparison.rows) for verdict in VERDICTS}
    ending = comparison.ending[0].upper() + comparison.ending[1:]
    lines = [f"**{ending}.** Results here against {against}: " + ", ".join(f"{n} {v}" for v, n in counts.items() if n) + "."]
    if comparison.ending == "nothing to compare":
        lines += ["", "Nothing that was published was recomputed here, or too few seeds of it. `make repro` does."]
    lines += ["", *comparison.reasons] if comparison.reasons else []
    quiet = ("reproduced", "same bytes", "new", "not recomputed")
    rows = [row for row in comparison.rows if everything or row.verdict not in quiet]
    shown = rows if everything else rows[:NUM_SHOWN]
    if shown:
        lines += ["", "| what | verdict | difference [95% interval] | seeds | |", "| --- | --- | ---: | ---: | --- |"]
    for row in shown:
        gap = "" if row.gap is None else f"{row.gap:+.4g}" + (f" [{row.low:+.4g}, {row.high:+.4g}]" if row.low is not None else "")
        lines.append(f"| {row.what} | {row.verdict} | {gap} | {row.num_seeds or ''} | {row.note} |")
    if len(rows) > len(shown):
        lines += ["", f"{len(rows) - len(shown)} more rows: --all"]
    return "\n".join(lines)
