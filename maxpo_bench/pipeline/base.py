"""The base stage: each seed's initial policy and its evaluation, from which every cell of the task starts."""

import shutil
import time
from pathlib import Path

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files, workers
from maxpo_bench.pipeline.jobs import counting, jobs_of, prepare, versions
from maxpo_bench.settings.task_file import load, root


def base_folder(task, results=None):
    return Path(results or root() / "results") / "base" / task.name


def run_base(name, results=None):
    """The base stage: each seed's initial policy (warm-started where the task says so) and its held-out evaluation.

    Writes results/base/<task>/base.json and weights/seed<s>.safetensors. Every cell of the task starts from these.
    """
    from maxpo_bench import problems
    from maxpo_bench.training.loop import evaluate

    task = load(name)
    folder = base_folder(task, results)
    start = time.perf_counter()

    def work(job, tick):
        problem = problems.build(task, job)
        with counting(problem):
            policy = problem.initial_policy()
            if problem.saves_states:
                for seed, state in zip(job, problem.policy_states(policy), strict=True):
                    files.save_tensors(folder / "weights" / f"seed{seed}.safetensors", state)
            rows, ladders = evaluate(task, problem, policy, 0, full=True)
        tick(1)
        return rows, ladders, problem.verifier_errors

    about = {"task": task.name, "task_sha256": task.sha256, "versions": versions()}
    with files.lock(root() / ".resume" / "locks" / f"base-{task.name}", f"base of {task.name}"):
        try:
            # What cannot be used is refused while the old base is still whole.
            row_wise, max_workers = prepare(task)
        except Fault as error:
            if _is_ok(folder):
                print(f"base {task.name}: failed: {error}; the base of before is still there", flush=True)
                return error.exit_code
            return _end_base(folder, about, error)
        jobs = jobs_of(task, row_wise)
        try:
            (folder / "base.json").unlink(missing_ok=True)  # while it is missing, the weights beside it are not whole
            shutil.rmtree(folder / "weights", ignore_errors=True)
            (folder / "weights").mkdir(parents=True)
            parts = workers.run(jobs, work, f"base {task.name}", 1, max_workers)
        except files.CannotWrite:
            raise
        except Fault as error:
            return _end_base(folder, about, error)
        files.write_json(
            folder / "base.json",
            {
                **about,
                "status": "ok",
                "rows": [row for rows, _, _ in parts for row in rows],
                "ladders": [rungs for _, ladders, _ in parts for rungs in ladders],
                "verifier_errors": sum(errors for _, _, errors in parts),
            },
        )
    print(f"base {task.name}: {task.seeds} seeds in {time.perf_counter() - start:.1f} s")
    return 0


def _is_ok(folder):
    try:
        return files.read_json(folder / "base.json")["status"] == "ok"
    except (OSError, InputError, KeyError, TypeError):
        return False


def _end_base(folder, about, error):
    """A base stage that broke: base.json says why. Returns the exit code."""
    ending = {"status": "failed", "reason": str(error), "verifier_errors": error.verifier_errors}
    files.write_json(folder / "base.json", {**about, **ending})
    print(f"base {about['task']}: failed: {error}", flush=True)
    return error.exit_code


def load_base(task, seeds, results=None):
    """(states of the base policies or None, their evaluation rows, their ladders) for the given seeds."""
    folder = base_folder(task, results)
    if not (folder / "base.json").is_file():
        raise InputError(f"{folder}/base.json is missing; run `maxpo-bench base {task.name}` first")
    base = files.read_json(folder / "base.json")
    if not isinstance(base, dict) or base.get("task_sha256") != task.sha256:
        other = f"{folder}: made from another version of tasks/{task.name}.yaml"
        raise InputError(f"{other}; run `maxpo-bench base {task.name}`")
    if base.get("status") != "ok":
        raise InputError(f"{folder}/base.json: the base stage {base.get('status')}: {base.get('reason')}")
    try:
        rows = {row["seed"]: (row, rungs) for row, rungs in zip(base["rows"], base["ladders"], strict=True)}
        rows = [rows[seed] for seed in seeds]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder}/base.json: edited or cut short; run `maxpo-bench base {task.name}`") from None
    paths = [folder / "weights" / f"seed{seed}.safetensors" for seed in seeds]
    if any(path.is_file() for path in (folder / "weights").glob("*")):
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise InputError(f"{folder}/weights: {missing[0]} is missing; run `maxpo-bench base {task.name}`")
        states = [files.load_tensors(path)[0] for path in paths]
    else:
        states = None
    return states, [row for row, _ in rows], [rungs for _, rungs in rows]


def base_hash(task, results):
    path = base_folder(task, results) / "base.json"
    return files.sha256(path) if path.is_file() else ""
