"""The base stage: each seed's initial policy and its evaluation, from which every cell of the task starts."""

import shutil
import time
from pathlib import Path

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files, workers
from maxpo_bench.pipeline import sources
from maxpo_bench.pipeline.jobs import counting, jobs_of, prepare, provenance
from maxpo_bench.settings.task_file import load, root

WEIGHTS = "weights.safetensors"


def base_folder(task, results=None):
    return Path(results or root() / "results") / "base" / task.name


def run_base(name, results=None, seeds=None):
    """The base stage: each seed's initial policy (warm-started where the task says so) and its held-out evaluation.

    Writes results/base/<task>/: base.json (evaluation, and a hash of each seed's weights), provenance.json, and
    weights.safetensors, which is not published: the same code makes the same weights again wherever they are missing.
    seeds: others than the task's own (for another `results`). Returns the exit code.
    """
    task = load(name)
    seeds = list(task.reported_seeds if seeds is None else seeds)
    folder = base_folder(task, results)
    start = time.perf_counter()
    about = {**provenance(task, sources.of_base(task)), "seeds": seeds}
    with _locked(task):
        try:
            # What cannot be used is refused while the old base is still whole.
            row_wise, max_workers = prepare(task)
            _self_check(task, seeds)
        except Fault as error:
            if _is_ok(folder):
                print(f"base {task.name}: failed: {error}; the base of before is still there", flush=True)
                return error.exit_code
            return _end_base(folder, about, error)
        try:
            (folder / "base.json").unlink(missing_ok=True)  # while it is missing, the weights beside it are not whole
            (folder / WEIGHTS).unlink(missing_ok=True)
            parts, hashes = _make(task, jobs_of(seeds, row_wise), folder, max_workers, evaluating=True)
        except files.CannotWrite:
            raise
        except Fault as error:
            return _end_base(folder, about, error)
        files.write_json(folder / "provenance.json", about)
        files.write_json(
            folder / "base.json",
            {
                "status": "ok",
                "task": task.name,
                "rows": [row for rows, _, _ in parts for row in rows],
                "ladders": [rungs for _, ladders, _ in parts for rungs in ladders],
                "verifier_errors": sum(errors for _, _, errors in parts),
                "weights_sha256": hashes,
            },
        )
    print(f"base {task.name}: {len(seeds)} seeds in {time.perf_counter() - start:.1f} s")
    return 0


def _self_check(task, seeds):
    from maxpo_bench import problems

    job = tuple(seeds[:1])
    workers.run([job], lambda job, tick: problems.build(task, job).self_check(), f"self-check of {task.name}", 1)


def _locked(task):
    return files.lock(root() / ".resume" / "locks" / f"base-{task.name}", f"base of {task.name}")


def _make(task, jobs, folder, max_workers, evaluating):
    """Make the policies of all jobs, in workers; their weights become one file. Returns (what each job gave, hashes).

    What a job gives: (rows, ladders, verifier errors) of its evaluation. hashes: one per seed, None where nothing is kept.
    """
    from maxpo_bench import problems
    from maxpo_bench.training.loop import evaluate

    scratch = folder / ".new"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)

    def work(job, tick):
        problem = problems.build(task, job)
        with counting(problem):
            policy = problem.initial_policy()
            if problem.saves_states:
                files.save_states(scratch / f"{job[0]}.safetensors", dict(zip(job, problem.policy_states(policy), strict=True)))
            rows, ladders = evaluate(task, problem, policy, 0, full=True) if evaluating else ([], [])
        tick(1)
        return rows, ladders, problem.verifier_errors

    try:
        parts = workers.run(jobs, work, f"base {task.name}", 1, max_workers)
        made = [path for path in (scratch / f"{job[0]}.safetensors" for job in jobs) if path.is_file()]
        states = {seed: state for path in made for seed, state in files.load_states(path).items()}
        if states:
            files.save_states(folder / WEIGHTS, states)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return parts, [files.tensors_sha256(states[seed]) for job in jobs for seed in job] if states else None


def _is_ok(folder):
    try:
        return files.read_json(folder / "base.json")["status"] == "ok"
    except (OSError, InputError, KeyError, TypeError):
        return False


def _end_base(folder, about, error):
    """A base stage that broke: base.json says why. Returns the exit code."""
    ending = {"status": "failed", "task": about["task"], "reason": str(error), "verifier_errors": error.verifier_errors}
    files.write_json(folder / "provenance.json", about)
    files.write_json(folder / "base.json", ending)
    print(f"base {about['task']}: failed: {error}", flush=True)
    return error.exit_code


def load_base(task, seeds, results=None):
    """(evaluation rows, ladders) of the base policies of the given seeds, whose weights are then there."""
    folder = base_folder(task, results)
    again = f"run `maxpo-bench base {task.name}`"
    if not (folder / "base.json").is_file():
        raise InputError(f"{folder}/base.json is missing; {again} first")
    base, about = files.read_json(folder / "base.json"), files.read_json(folder / "provenance.json")
    if not isinstance(base, dict) or not isinstance(about, dict) or about.get("task_sha256") != task.sha256:
        raise InputError(f"{folder}: made from another version of tasks/{task.name}.yaml; {again}")
    if base.get("status") != "ok":
        raise InputError(f"{folder}/base.json: the base stage {base.get('status')}: {base.get('reason')}")
    try:
        hashes = base["weights_sha256"] or [None] * len(base["rows"])
        found = {row["seed"]: (row, rungs, sha) for row, rungs, sha in zip(base["rows"], base["ladders"], hashes, strict=True)}
        found = {seed: found[seed] for seed in seeds}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder}/base.json: edited or cut short, or without some of the seeds; {again}") from None
    _remake_weights(task, {seed: sha for seed, (_, _, sha) in found.items() if sha}, folder)
    return [row for row, _, _ in found.values()], [rungs for _, rungs, _ in found.values()]


def _remake_weights(task, hashes, folder):
    """Where the weights of a seed are missing (they are not published), make them again and hold them to their hashes."""
    path = folder / WEIGHTS
    with _locked(task):
        if not hashes or path.is_file() and set(hashes) <= set(files.saved_seeds(path)):
            return
        row_wise, max_workers = prepare(task)
        jobs = jobs_of(hashes, row_wise)
        _, made = _make(task, jobs, folder, max_workers, evaluating=False)
        wrong = [seed for seed, sha in zip(hashes, made, strict=True) if sha != hashes[seed]]
        if wrong:
            path.unlink()
            raise InputError(
                f"{folder}: this machine or these versions give seed {wrong[0]} another base policy than the published one; "
                f"run `maxpo-bench base {task.name}` to start from this one"
            )


def base_hash(task, results):
    path = base_folder(task, results) / "base.json"
    return files.sha256(path) if path.is_file() else ""
