"""One cell of the benchmark, (task, estimator), from task file to result files.

Each worker checkpoints its run, so a cell that was killed at any moment continues from the last whole checkpoint and ends
with the same bytes as one that was not.
"""

import hashlib
import os
import platform
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files, workers
from maxpo_bench.pipeline.base import base_folder, base_hash, load_base
from maxpo_bench.pipeline.jobs import code_hash, counting, jobs_of, prepare, versions
from maxpo_bench.settings.task_file import load, root

RUN_FILES = ("curve.csv", "ladder.csv", "timing.json", "metrics.json")


def checkpoint_seconds():
    """Seconds between checkpoints: MAXPO_BENCH_CHECKPOINT_SECONDS, else 10. How often never changes a result."""
    text = os.environ.get("MAXPO_BENCH_CHECKPOINT_SECONDS", "10")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"MAXPO_BENCH_CHECKPOINT_SECONDS must be a number, got {text!r}") from None


def check_cell(name, estimator_name):
    """The task and the estimator of a cell, checked together. InputError names what does not fit."""
    from maxpo_bench.estimators import get

    task, estimator = load(name), get(estimator_name)
    if task.k not in estimator.valid_k(task.group_size):
        legal = list(estimator.valid_k(task.group_size))
        allowed = f"{legal[0]}..{legal[-1]}" if legal else "none"
        raise InputError(
            f"{task.path.parent.name}/{task.path.name}: k: {task.k} is not valid for estimator {estimator.name} "
            f"with group_size {task.group_size}; valid: {allowed}"
        )
    return task, estimator


def run_cell(name, estimator_name, results=None):
    """Train one cell, all seeds, and write results/runs/<task>/<estimator>/. Returns the exit code.

    Exit code 0 for ok, diverged and not_applicable (scientific outcomes), 1 for failed (something broke; 2 where that is a
    reward that is not a number).
    """
    from maxpo_bench import problems
    from maxpo_bench.training.checkpoints import Checkpoints
    from maxpo_bench.training.loop import NotApplicable, train

    task, estimator = check_cell(name, estimator_name)
    results = Path(results or root() / "results")
    folder = results / "runs" / task.name / estimator.name
    label = f"{task.name}-{estimator.name}"
    key = hashlib.sha256(f"{task.sha256} {code_hash(task)} {base_hash(task, results)}".encode()).hexdigest()[:16]
    scratch = root() / ".resume" / label / key
    start, earlier = time.perf_counter(), 0.0  # earlier: seconds of the sessions before this one

    def work(job, tick):
        problem = problems.build(task, job, base_folder(task, results))
        checkpoints = Checkpoints(scratch, job)
        saved = checkpoints.load()
        if saved is not None:
            run = checkpoints.restore(task, problem, saved)
            states = None
        else:
            run, states = None, load_base(task, job, results)[0]
        last_save = time.monotonic()

        def after_step(run):
            nonlocal last_save
            tick(run.step)
            if time.monotonic() - last_save >= checkpoint_seconds() and run.step < task.steps:
                checkpoints.save(run, problem, earlier + time.perf_counter() - start)
                last_save = time.monotonic()

        with counting(problem):
            run = train(task, estimator, problem, states, run, after_step)
        if saved is None or saved[1]["step"] < task.steps:
            checkpoints.save(run, problem, earlier + time.perf_counter() - start)
        tick(run.step)
        return None

    with files.lock(root() / ".resume" / "locks" / label, f"cell {label}"):
        _, base_rows, base_ladders = load_base(task, range(task.seeds), results)
        _discard_other_keys(scratch)
        with _replacing(folder, commit=False):
            pass  # a folder that cannot be written to shows now, not after the training
        metrics = _about(task, estimator)
        try:
            row_wise, max_workers = prepare(task, base_folder(task, results))
            jobs = jobs_of(task, row_wise)
            earlier = max(Checkpoints(scratch, job).wall_s() for job in jobs)
            workers.run(jobs, work, label, task.steps, max_workers)
        except NotApplicable as error:
            return _end_early(folder, {**metrics, "status": "not_applicable", "reason": str(error)}, label, scratch, 0)
        except files.CannotWrite:
            raise
        except Fault as error:
            ending = {"status": "failed", "reason": str(error), "verifier_errors": error.verifier_errors}
            return _end_early(folder, {**metrics, **ending}, label, None, error.exit_code)
        parts = [Checkpoints(scratch, job).load() for job in jobs]
        with _replacing(folder) as new:
            wall_s = earlier + time.perf_counter() - start
            num_workers = min(max_workers or workers.num_workers(), len(jobs))
            _write_results(new, task, metrics, jobs, parts, base_rows, base_ladders, (wall_s, num_workers))
        shutil.rmtree(scratch.parent, ignore_errors=True)
    status = "diverged" if any(about["diverged"] for _, about in parts) else "ok"
    print(f"{label}: {status}, {task.seeds} seeds x {task.steps} steps in {time.perf_counter() - start:.1f} s")
    return 0


def _discard_other_keys(scratch):
    """Checkpoints of other code or another task file are of no use any more."""
    if scratch.parent.is_dir():
        for other in scratch.parent.iterdir():
            if other != scratch:
                shutil.rmtree(other, ignore_errors=True)


def _about(task, estimator):
    """What ran: the part of metrics.json that is known before the run."""
    import torch

    from maxpo_bench.estimators import shared_sha256

    n = max(3, task.group_size)
    rewards = torch.zeros(n, dtype=torch.float64)
    rewards[:: max(2, n // 3)] = 1.0  # a fixed probe with a few successes, legal for every estimator
    return {
        "task": task.name,
        "estimator": estimator.name,
        "reason": "",
        "k": task.k,
        "group_size": task.group_size,
        "seeds": list(range(task.seeds)),
        "task_sha256": task.sha256,
        "source_sha256": files.sha256(estimator.path),
        "shared_sha256": shared_sha256(),
        "probe": {"rewards": rewards.tolist(), "k": task.k, "advantages": estimator(rewards[None], k=task.k)[0].tolist()},
        "versions": versions(),
    }


@contextmanager
def _replacing(folder, commit=True):
    """A new folder to write a cell's files into. When all are written they replace the old ones, metrics.json last.

    A disk that fills up or a Ctrl-C on the way leaves the old files as they were.
    """
    new = folder / ".new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        (new / "checkpoints").mkdir(parents=True)
        yield new
        if commit:
            (folder / "metrics.json").unlink(missing_ok=True)  # from here to the end there is no result
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            for name in ("checkpoints", *RUN_FILES):
                os.replace(new / name, folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _end_early(folder, metrics, label, scratch, code):
    """A cell that has no curve: its metrics.json says why, and nothing of an older run stays beside it."""
    with _replacing(folder) as new:
        files.write_csv(new / "curve.csv", [])
        files.write_csv(new / "ladder.csv", [])
        files.write_json(new / "timing.json", {})
        files.write_json(new / "metrics.json", metrics)
    if scratch is not None:
        shutil.rmtree(scratch.parent, ignore_errors=True)
    print(f"{label}: {metrics['status']}: {metrics['reason']}", flush=True)
    return code


def _write_results(folder, task, metrics, jobs, parts, base_rows, base_ladders, clock):
    rows, final, phases, ladder_rows, diverged, errors = list(base_rows), {}, {}, [], {}, 0
    for seed, rungs in enumerate(base_ladders):
        ladder_rows += [{"seed": seed, "step": 0, "k": int(k), **values} for k, values in rungs.items()]
    for job, (tensors, about) in zip(jobs, parts, strict=True):
        rows += about["rows"]
        errors += about["verifier_errors"]
        diverged.update({int(seed): reason for seed, reason in about["diverged"].items()})
        for phase, seconds in about["phases"].items():
            phases[phase] = phases.get(phase, 0.0) + seconds
        for s, seed in enumerate(job):
            final[seed] = {int(k): values for k, values in about["ladders"][s].items()}
            if seed not in diverged:
                ladder_rows += [{"seed": seed, "step": task.steps, "k": k, **v} for k, v in final[seed].items()]
            for when in ("initial", "middle", "final"):
                prefix = f"{when}/{s}/"
                state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
                if state:
                    files.save_tensors(folder / "checkpoints" / f"{when}-seed{seed}.safetensors", state)
    first = ("seed", "step", "samples", "mean_reward", "pass_at_1", "pass_at_k", "max_at_k")
    rows = [{**{key: row[key] for key in first}, **row} for row in rows]
    rows.sort(key=lambda row: (row["seed"], row["step"]))
    ladder_rows.sort(key=lambda row: (row["seed"], row["step"], row["k"]))
    ks = sorted(final[0])
    ends = {row["seed"]: row for row in rows if row["step"] == task.steps}
    seeds = sorted(final)
    named = {"mean_reward": "mean_reward", "pass@1": "pass_at_1", "pass@K": "pass_at_k", "max@K": "max_at_k"}
    exact = {"mean_reward": "exact_mean_reward", "max@K": "exact_max_at_k"}
    known = {"seed", "step", "samples", *named.values(), *exact.values()}

    def column(key):  # one value per seed, null for a seed that diverged
        return [ends[seed].get(key) if seed in ends else None for seed in seeds]

    def rungs(what):
        return {str(k): [None if s in diverged else final[s][k][what] for s in seeds] for k in ks}

    metrics = {
        **metrics,
        "status": "diverged" if diverged else "ok",
        "reason": "; ".join(diverged[seed] for seed in sorted(diverged)),
        "final": {
            **{name: column(key) for name, key in named.items()},
            "ladder": rungs("max"),
            "pass_ladder": rungs("pass"),
        },
        "exact": {n: column(key) for n, key in exact.items()} if "exact_max_at_k" in base_rows[0] else None,
        "extras": {key: column(key) for key in base_rows[0] if key not in known},
        "verifier_errors": errors,
    }
    files.write_csv(folder / "curve.csv", rows)
    files.write_csv(folder / "ladder.csv", ladder_rows)
    timing = {
        "wall_s": clock[0],
        "phases": {phase: seconds / len(final) for phase, seconds in phases.items()},  # seconds per seed, on one core
        "num_seeds": len(final),
        "num_workers": clock[1],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    files.write_json(folder / "timing.json", timing)
    files.write_json(folder / "metrics.json", metrics)
