"""One cell of the benchmark, (task, estimator), from task file to result files.

Each worker checkpoints its run, so a cell that was killed at any moment continues from the last whole checkpoint and ends
with the same bytes as one that was not. metrics.json, curve.csv.gz and ladder.csv.gz hold what must repeat and nothing else.
"""

import hashlib
import os
import platform
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files, numerics, workers
from maxpo_bench.pipeline import sources
from maxpo_bench.pipeline.base import WEIGHTS, base_folder, base_hash, load_base
from maxpo_bench.pipeline.index import write_index
from maxpo_bench.pipeline.jobs import counting, jobs_of, prepare, provenance, versions
from maxpo_bench.settings.task_file import load, root

CURVE, LADDER, CHECKPOINTS = "curve.csv.gz", "ladder.csv.gz", "checkpoints.safetensors"
SUMMARY_FILES = ("timing.json", "provenance.json", "metrics.json")  # the last says how it ended
RUN_FILES = (CURVE, LADDER, *SUMMARY_FILES)
KEPT_SEEDS = 3  # whose policies the variance stage may ask for: CHECKPOINTS holds them, unpublished


def checkpoint_seconds():
    """Seconds between checkpoints: MAXPO_BENCH_CHECKPOINT_SECONDS, else 10. How often never changes a result."""
    text = os.environ.get("MAXPO_BENCH_CHECKPOINT_SECONDS", "10")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"MAXPO_BENCH_CHECKPOINT_SECONDS must be a number, got {text!r}") from None


def check_cell(name, estimator_name, overrides=None):
    """The task and the estimator of a cell, checked together. InputError names what does not fit."""
    from maxpo_bench.estimators import get

    task, estimator = load(name, overrides), get(estimator_name)
    if task.k not in estimator.valid_k(task.group_size):
        legal = list(estimator.valid_k(task.group_size))
        allowed = f"{legal[0]}..{legal[-1]}" if legal else "none"
        raise InputError(
            f"{task.path.parent.name}/{task.path.name}: k: {task.k} is not valid for estimator {estimator.name} "
            f"with group_size {task.group_size}; valid: {allowed}"
        )
    return task, estimator


def resume_key(task, estimator, results):
    """What a checkpoint hangs on: another task, code, version, numerics or base policy starts anew."""
    code = sources.digest(sources.of_cell(task, estimator.name))
    text = f"{task.sha256} {code} {versions()} {numerics.mode()} {base_hash(task, results)}"
    text += f" {task.overrides}" if task.overrides else ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_cell(name, estimator_name, results=None, seeds=None, overrides=None, folder=None):
    """Train one cell, all seeds, and write results/runs/<task>/<estimator>/. Returns the exit code.

    Exit code 0 for ok, diverged and not_applicable (scientific outcomes), 1 for failed (something broke; 2 where that is a
    reward that is not a number). seeds: others than the task's own (for another `results` or `folder`). overrides: values in place
    of the task file's, see task_file.load. folder: where to write instead.
    """
    from maxpo_bench import problems
    from maxpo_bench.training import shards
    from maxpo_bench.training.checkpoints import Checkpoints
    from maxpo_bench.training.loop import NotApplicable, train

    task, estimator = check_cell(name, estimator_name, overrides)
    if shards.world_size() > 1 and not task.section("distributed"):
        raise InputError(f"tasks/{task.path.name}: kind {task.kind} runs in one process a seed; leave torchrun out")
    seeds = list(task.reported_seeds if seeds is None else seeds)
    results = Path(results or root() / "results")
    where, base = folder, base_folder(task, results)
    folder = Path(where or results / "runs" / task.name / estimator.name)
    label = f"{task.name}-{estimator.name}"
    if where:  # beside the published cell, which may be running
        label += "-" + hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]
    scratch = root() / ".resume" / label / resume_key(task, estimator, results)
    start, earlier = time.perf_counter(), 0.0  # earlier: seconds of the sessions before this one

    def work(job, tick):
        with shards.joined(f"{label}-{job[0]}"):
            trained(job, tick)

    def trained(job, tick):
        problem = problems.build(task, job, base)
        checkpoints = Checkpoints(scratch, job)
        saved = checkpoints.load()
        run = states = None
        if saved is not None:
            run = checkpoints.restore(task, problem, saved)
        elif (base / WEIGHTS).is_file():
            states = list(files.load_states(base / WEIGHTS, job).values())
        last_save = time.monotonic()

        def after_step(run):
            nonlocal last_save
            tick(run.step)
            if shards.rank():
                return
            if time.monotonic() - last_save >= checkpoint_seconds() and run.step < task.steps:
                checkpoints.save(run, problem, earlier + time.perf_counter() - start)
                last_save = time.monotonic()

        with counting(problem):
            run = train(task, estimator, problem, states, run, after_step)
        if not shards.rank() and (saved is None or saved[1]["step"] < task.steps):
            checkpoints.save(run, problem, earlier + time.perf_counter() - start)
        tick(run.step)

    if shards.rank():  # the first process of torchrun writes, and says how it ended; the others work for it
        row_wise, max_workers = prepare(task, base)
        with suppress(NotApplicable, Fault):
            workers.run(jobs_of(seeds, row_wise), work, f"{label}, process {shards.rank()}", task.steps, max_workers)
        return 0
    with files.lock(root() / ".resume" / "locks" / label, f"cell {label}"):
        base_rows, base_ladders = load_base(task, seeds, results)
        _discard_other_keys(scratch)
        with _replacing(folder, commit=False):
            pass  # a folder that cannot be written to shows now, not after the training
        metrics, about = _about(task, estimator, seeds)
        try:
            row_wise, max_workers = prepare(task, base)
            jobs = jobs_of(seeds, row_wise)
            earlier = max(Checkpoints(scratch, job).wall_s() for job in jobs)
            workers.run(jobs, work, label, task.steps, max_workers)
        except NotApplicable as error:
            return _end_early(folder, {**metrics, "status": "not_applicable", "reason": str(error)}, about, label, scratch, 0)
        except files.CannotWrite:
            raise
        except Fault as error:
            ending = {"status": "failed", "reason": str(error), "verifier_errors": error.verifier_errors}
            return _end_early(folder, {**metrics, **ending}, about, label, None, error.exit_code)
        parts = [Checkpoints(scratch, job).load() for job in jobs]
        with _replacing(folder) as new:
            wall_s = earlier + time.perf_counter() - start
            num_workers = min(max_workers or workers.num_workers(), len(jobs))
            _write_results(new, task, (metrics, about), jobs, parts, (base_rows, base_ladders), (wall_s, num_workers))
        shutil.rmtree(scratch.parent, ignore_errors=True)
    status = "diverged" if any(about["diverged"] for _, about in parts) else "ok"
    print(f"{label}: {status}, {len(seeds)} seeds x {task.steps} steps in {time.perf_counter() - start:.1f} s")
    return 0


def run_beside(name, estimator_name, num_seeds):
    """A cell of an estimator besides the default ones: at most num_seeds of the task's seeds, into results/estimators/.

    Of it SUMMARY_FILES are kept: the report reads no more.
    """
    if num_seeds < 1:
        raise InputError(f"--beside {num_seeds}: must be at least 1")
    task, results = load(name), root() / "results"
    folder = results / "estimators" / task.name / estimator_name
    try:
        return run_cell(name, estimator_name, None, task.reported_seeds[:num_seeds], None, folder)
    finally:
        for table in (CURVE, LADDER):
            (folder / table).unlink(missing_ok=True)
        write_index(results)


def _discard_other_keys(scratch):
    """Checkpoints of other code or another task file are of no use any more."""
    if scratch.parent.is_dir():
        for other in scratch.parent.iterdir():
            if other != scratch:
                shutil.rmtree(other, ignore_errors=True)


def _about(task, estimator, seeds):
    """What is known before the run: of metrics.json, and provenance.json."""
    import torch

    from maxpo_bench.estimators import shared_sha256

    n = max(3, task.group_size)
    rewards = torch.zeros(n, dtype=torch.float64)
    rewards[:: max(2, n // 3)] = 1.0  # a fixed probe with a few successes, legal for every estimator
    metrics = {
        "task": task.name,
        "estimator": estimator.name,
        "reason": "",
        "k": task.k,
        "group_size": task.group_size,
        "seeds": seeds,
    }
    about = {
        **provenance(task, sources.of_cell(task, estimator.name)),
        "estimator": estimator.name,
        "source_sha256": files.sha256(estimator.path),
        "shared_sha256": shared_sha256(),
        "probe": {"rewards": rewards.tolist(), "k": task.k, "advantages": estimator(rewards[None], k=task.k)[0].tolist()},
        "seeds": seeds,
    }
    return metrics, about


@contextmanager
def _replacing(folder, commit=True):
    """A new folder to write a cell's files into. When all are written they replace the old ones, metrics.json last.

    A disk that fills up or a Ctrl-C on the way leaves the old files as they were.
    """
    new = folder / ".new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        yield new
        if commit:
            (folder / "metrics.json").unlink(missing_ok=True)  # from here to the end there is no result
            (folder / CHECKPOINTS).unlink(missing_ok=True)
            for name in (CHECKPOINTS, *RUN_FILES):
                if (new / name).is_file():
                    os.replace(new / name, folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _end_early(folder, metrics, about, label, scratch, code):
    """A cell that has no curve: its metrics.json says why, and nothing of an older run stays beside it."""
    with _replacing(folder) as new:
        files.write_csv(new / CURVE, [])
        files.write_csv(new / LADDER, [])
        files.write_json(new / "timing.json", {})
        files.write_json(new / "provenance.json", about)
        files.write_json(new / "metrics.json", metrics)
    if scratch is not None:
        shutil.rmtree(scratch.parent, ignore_errors=True)
    print(f"{label}: {metrics['status']}: {metrics['reason']}", flush=True)
    return code


def _write_results(folder, task, known, jobs, parts, base, clock):
    """The files of a cell that ran to its end. known: (metrics, provenance); base: (rows, ladders); clock: (wall_s, workers)."""
    (metrics, about), (base_rows, base_ladders) = known, base
    seeds, rows, final, phases, ladder_rows = metrics["seeds"], list(base_rows), {}, {}, []
    diverged, errors, kept = {}, 0, {}
    for seed, rungs in zip(seeds, base_ladders, strict=True):
        ladder_rows += [{"seed": seed, "step": 0, "k": int(k), **values} for k, values in rungs.items()]
    for job, (tensors, ended) in zip(jobs, parts, strict=True):
        rows += ended["rows"]
        errors += ended["verifier_errors"]
        diverged.update({int(seed): reason for seed, reason in ended["diverged"].items()})
        for phase, seconds in ended["phases"].items():
            phases[phase] = phases.get(phase, 0.0) + seconds
        for s, seed in enumerate(job):
            final[seed] = {int(k): values for k, values in ended["ladders"][s].items()}
            if seed not in diverged:
                ladder_rows += [{"seed": seed, "step": task.steps, "k": k, **v} for k, v in final[seed].items()]
            if seed in seeds[:KEPT_SEEDS]:
                for when in ("initial", "middle", "final"):
                    own = f"{when}/{s}/"
                    kept |= {f"{seed}/{when}/{key[len(own) :]}": tensor for key, tensor in tensors.items() if key.startswith(own)}
    if kept:
        files.save_tensors(folder / CHECKPOINTS, kept)
    first = ("seed", "step", "samples", "mean_reward", "pass_at_1", "pass_at_k", "max_at_k")
    rows = [{**{key: row[key] for key in first}, **row} for row in rows]
    rows.sort(key=lambda row: (row["seed"], row["step"]))
    ladder_rows.sort(key=lambda row: (row["seed"], row["step"], row["k"]))
    ks = sorted(final[seeds[0]])
    ends = {row["seed"]: row for row in rows if row["step"] == task.steps}
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
    files.write_csv(folder / CURVE, rows)
    files.write_csv(folder / LADDER, ladder_rows)
    timing = {
        "wall_s": clock[0],
        "phases": {phase: seconds / len(final) for phase, seconds in phases.items()},  # seconds per seed, on one core
        "num_seeds": len(final),
        "num_workers": clock[1],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    files.write_json(folder / "timing.json", timing)
    files.write_json(folder / "provenance.json", about)
    files.write_json(folder / "metrics.json", metrics)
