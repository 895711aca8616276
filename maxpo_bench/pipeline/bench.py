"""The performance suite and the gate against getting slower. Imports no torch.

`maxpo-bench bench` runs tests/performance and writes results/performance.json. `maxpo-bench bench --against REV` times
the cases of bench_cases.py in this tree and in REV, burst by burst in turn, and exits 1 on a slowdown that is both
larger than its threshold and beyond chance.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files
from maxpo_bench.pipeline import bench_cases
from maxpo_bench.settings import loader, task_file

THRESHOLDS = Path("tests") / "performance" / "thresholds.yaml"
NUM_BURSTS = 25
LEVEL = 1e-3  # of the rank test; with the threshold and the second look, 20 runs of A against A stay quiet


def main(args):
    """`maxpo-bench bench [--against REV]`. Returns the exit code."""
    root = task_file.root()
    return gate(root, args.against) if args.against else suite(root)


# --------------------------------------------------------------------------------------------------------------- suite


def suite(root):
    """Run tests/performance and time the cases; write results/performance.json. Returns 0, or 1 when a test failed."""
    folder = root / "tests" / "performance"
    if not folder.is_dir():
        raise InputError(f"{folder}: no performance tests here; run this from the project's folder")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "benchmarks.json"
        command = [sys.executable, "-m", "pytest", str(folder), "-m", "performance", f"--benchmark-json={out}", "-q"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment["OMP_NUM_THREADS"] = "1"
        code = subprocess.run(command, cwd=root, env=environment, check=False).returncode
        measured = files.read_json(out)["benchmarks"] if out.is_file() and out.stat().st_size else []
    if code not in (0, 1):
        raise Fault(f"pytest ended with exit code {code}")
    with serving(root) as server:
        seconds = {case: smallest(server, case) for case in (bench_cases.REFERENCE, *bench_cases.CASES)}
    reference = seconds.pop(bench_cases.REFERENCE)
    report = {
        "passed": code == 0,
        "reference": "one sort of [1024, 64] float64, same process, one thread",
        "ratio_to_reference": {case: value / reference for case, value in seconds.items() if value is not None},
        "tests": {one["fullname"]: one["extra_info"] for one in measured if one["extra_info"]},
        "peak_memory_in_inputs": peak_memory(),
        "information": {  # of this machine, this minute
            "reference_s": reference,
            "seconds": {one["fullname"]: one["stats"]["min"] for one in measured},
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        },
    }
    files.write_json(root / "results" / "performance.json", report)
    print(f"{root / 'results' / 'performance.json'}: {len(seconds)} cases, {len(measured)} benchmarks")
    return code


def smallest(server, case, num_bursts=10):
    """Seconds of the fastest call in a few bursts; None when the case does not run here."""
    answers = [server(case) for _ in range(num_bursts)]
    return None if "error" in answers[0] else min(answer["seconds"] for answer in answers)


def peak_memory():
    """Peak memory of each estimator at [64, 1024], in multiples of its input's bytes."""
    from maxpo_bench.estimators import get, names
    from maxpo_bench.studies import cost

    found = {}
    for name in names():
        estimator, rewards = get(name), cost.draw(name, 64, 1024)
        k = 4 if 4 in estimator.valid_k(1024) else 1024
        found[name] = cost.peak_memory(lambda call=estimator, r=rewards, k=k: call(r, k=k)) / rewards.nbytes
    return found


# ---------------------------------------------------------------------------------------------------------------- gate


@dataclass
class Row:
    """One case, this tree beside the other revision."""

    case: str
    ratio: float | None = None
    """fastest call here / fastest call there"""
    p_value: float | None = None
    """one-sided rank test on the bursts: the chance of such an order when nothing got slower"""
    threshold: float = 0.15
    note: str = ""

    @property
    def flagged(self):
        return self.ratio is not None and self.ratio > 1 + self.threshold and self.p_value < LEVEL


def gate(root, revision, cases=bench_cases.CASES):
    """Compare this tree with a git revision and print the table. Returns 1 when a case got slower, else 0."""
    limits = thresholds(root)
    with worktree(root, revision) as base:
        rows = compare(base, root, cases, limits)
        again = [row.case for row in rows if row.flagged]
        if again:  # in new processes and for longer: a slowdown that is real shows twice
            print(f"looking again at {', '.join(again)}", flush=True)
            second = {row.case: row for row in compare(base, root, again, limits, 2 * NUM_BURSTS)}
            rows = [second.get(row.case, row) for row in rows]
    slower = [row for row in rows if row.flagged]
    for row in rows:
        if row.ratio is None:
            print(f"{row.case:<32}  not compared: {row.note}")
        else:
            verdict = f"SLOWER than the limit {1 + row.threshold:.2f}" if row.flagged else ""
            print(f"{row.case:<32}  {row.ratio:5.2f} x  p {row.p_value:.1e}  {verdict}".rstrip())
    print(f"{len(slower)} of {len(rows)} cases slower than {revision}")
    return 1 if slower else 0


def thresholds(root):
    """case -> the slowdown it may have, with the default under "default": tests/performance/thresholds.yaml."""
    path = root / THRESHOLDS
    limits = {"default": 0.15, **(loader.read(path) if path.is_file() else {})}
    for case, limit in limits.items():
        if case not in ("default", *bench_cases.CASES):
            raise InputError(f"{path}: no case {case!r}; cases: {', '.join(bench_cases.CASES)}")
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
            raise InputError(f"{path}: {case}: must be a number above 0 (0.15: 15% slower), got {limit!r}")
    return limits


def compare(base, head, cases, limits, num_bursts=NUM_BURSTS):
    """A Row per case: bursts of the two trees in turn, in two processes that live side by side."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(folder)) for folder in (base, head)]
        return [judge(case, *servers, limits.get(case, limits["default"]), num_bursts) for case in cases]


def judge(case, base, head, threshold, num_bursts=NUM_BURSTS):
    """The Row of one case. base, head: functions case -> {"seconds"} or {"error"}."""
    from scipy.stats import mannwhitneyu

    times = {base: [], head: []}
    for turn in range(num_bursts + 1):
        for server in (base, head) if turn % 2 else (head, base):
            answer = server(case)
            if "error" in answer:
                return Row(case, threshold=threshold, note=answer["error"])
            if turn:  # the first burst warms up
                times[server].append(answer["seconds"])
    p_value = mannwhitneyu(times[head], times[base], alternative="greater").pvalue
    return Row(case, min(times[head]) / min(times[base]), float(p_value), threshold)


@contextmanager
def worktree(root, revision):
    """The files of a revision in a temporary git worktree, removed at the end."""
    git = ["git", "-C", str(root)]
    known = subprocess.run(
        [*git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if known.returncode:
        raise InputError(f"--against {revision}: git knows no such revision here")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "base"
        added = subprocess.run(
            [*git, "worktree", "add", "--detach", "--quiet", str(folder), known.stdout.strip()],
            capture_output=True,
            text=True,
            check=False,
        )
        if added.returncode:
            raise Fault(f"git worktree: {added.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(folder)], capture_output=True, check=False)


@contextmanager
def serving(folder):
    """A process that times cases with the maxpo_bench of `folder`: a function case -> {"seconds"} or {"error"}."""
    folder = Path(folder).resolve()
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    script = Path(bench_cases.__file__).resolve()
    process = subprocess.Popen(
        [sys.executable, "-P", script],  # -P: the script's folder, with its statistics.py, is no place to import from
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def read():
        line = process.stdout.readline()
        if not line:
            raise Fault(f"the process that times {folder} ended with exit code {process.wait()}")
        return json.loads(line)

    def ask(case):
        process.stdin.write(json.dumps({"case": case}) + "\n")
        process.stdin.flush()
        return read()

    try:
        package = Path(read()["package"])
        if not package.is_relative_to(folder):
            raise InputError(f"{folder} has no package maxpo_bench to time (found {package})")
        yield ask
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()
