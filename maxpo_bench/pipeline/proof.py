"""Does what is published repeat to the byte on the code as it is now? The proofs of `rerecord`, by the first seeds.

Of a cell and of a base stage, whose first seeds ran elsewhere; and, as a program of its own, of each training of a study:
`python -m maxpo_bench.pipeline.proof STUDY TASK SCRATCH`, where SCRATCH/results has the base policies of the task's first seeds.
"""

import contextlib
import gzip
import io
import json
import sys
from pathlib import Path

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files

PROOF = 2  # seeds
REFUSED = 3  # exit code: some trainings of a study are others
CODE = ("code_sha256", "versions", "source_sha256", "shared_sha256")  # of provenance.json: what a proof replaces
ENDED = ("ok", "diverged")
OF_ALL_SEEDS = ("status", "reason", "verifier_errors")  # of metrics.json and base.json; a diverged seed has no numbers


def first_difference(published, here, name="metrics.json", tables=False):
    """What of the seeds in the folder `here` is not, to the byte, what is published; "" when all is. name: or base.json.

    tables: also the curve and the ladder, which are kept of a default cell alone.
    """
    old, new = (files.read_json(folder / name) for folder in (published, here))
    if old.get("status") != new.get("status") and not {old.get("status"), new.get("status")} <= set(ENDED):
        return "the status"
    if new["status"] not in ENDED:  # not applicable: its reason may name another sample, there is nothing else
        return ""
    count = len(new["seeds"] if "seeds" in new else new["rows"])
    if json.dumps(_first(old, count)) != json.dumps(_first(new, count)):
        return name
    for table in ("curve.csv.gz", "ladder.csv.gz") if tables else ():
        if not (published / table).is_file():
            return table
        before, now = (gzip.decompress((folder / table).read_bytes()).decode().splitlines() for folder in (published, here))
        if [line for line in before if line.split(",")[0] in ("seed", *map(str, new["seeds"]))] != now:
            return table
    return ""


def _first(about, count):
    """The same JSON with the first entries of every list per seed, without what is said of all seeds at once."""

    def cut(value):
        if isinstance(value, dict):
            return {key: cut(each) for key, each in value.items()}
        return value[:count] if isinstance(value, list) else value

    return cut({key: value for key, value in about.items() if key not in OF_ALL_SEEDS})


def amend(folder, here, seeds):
    """The provenance of a published folder takes the code and versions of its proof in `here`, and says so."""
    about, new = (files.read_json(where / "provenance.json") for where in (folder, here))
    before = {"code_sha256": about["code_sha256"], "versions": about["versions"], "seeds": list(seeds)}
    before = [*about.get("rerecorded", []), before]
    files.write_json(folder / "provenance.json", {**about, **{key: new[key] for key in CODE if key in new}, "rerecorded": before})


# ------------------------------------------------------------------------------------------------- a study that trains


def prove_trainings(study_name, task_name, scratch):
    """Each training whose key is another now runs on its first seeds; where they repeat, its rows stand under the new key.

    Returns the exit code: 0 when every one does, else REFUSED. What is proved is kept, whatever the others do.
    """
    from maxpo_bench.machine import numerics
    from maxpo_bench.settings.task_file import load, root

    numerics.ask(load(task_name).numerics)
    from maxpo_bench.pipeline import trained
    from maxpo_bench.settings import params
    from maxpo_bench.studies import trainings

    module, task = trainings.get(study_name), load(task_name)
    study = trained.Study(study_name, module, task, root() / "results")
    with files.lock(root() / ".resume" / "locks" / f"trained-{study_name}-{task.name}", f"{study_name} of {task.name}"):
        known = study._known()
        path = study.table.with_suffix(".json")
        about = files.read_json(path) if known else {"trainings": []}
        entries = about["trainings"]
        table = trained._read([row for entry in entries for row in known[entry["key"]]]) if known else None
        wanted = module.trainings(task, params.read(root())["estimators"], table) if known else []
        of_entry = {_name(entry["estimator"], entry["overrides"]): entry for entry in entries}
        mine = [(of_entry.get(_name(training.estimator, training.overrides)), training) for training in wanted]
        refused, missing = 0, sum(entry is None for entry, _ in mine)
        for number, (entry, training) in enumerate(mine, start=1):
            if entry is None:
                continue
            key = study.key(training)
            if key == entry["key"]:
                continue
            seeds = [int(row["seed"]) for row in known[entry["key"]]]
            reason = _prove(study, training, known[entry["key"]], seeds, Path(scratch))
            said = f"not recorded: {reason}" if reason else "repeats"
            print(f"    [{number}/{len(mine)}] {training.label}: {said}", flush=True)
            refused += bool(reason)
            if not reason:
                _note(path.with_suffix(".rerecorded.json"), key, {"key": entry["key"], "seeds": seeds[:PROOF]}, entries)
                entry["key"] = key
                files.write_json(path, about)
    if missing or not mine:
        new = f"{missing} of its {len(mine)} trainings are new" if mine else "it has no trainings"
        print(f"    {new}; `maxpo-bench trained {study_name} {task.name}` runs those")
    if len(entries) > len(mine) - missing:
        print(f"    {len(entries) - len(mine) + missing} trainings of its table belong to it no more; the same command drops them")
    return REFUSED if refused or missing or len(entries) != len(mine) or not mine else 0


def _name(estimator, overrides):
    return estimator, tuple(sorted(overrides.items()))


def _prove(study, training, rows, seeds, scratch):
    """Why the rows of a training are not known to be those of the code as it is now; "" when they are."""
    from maxpo_bench.pipeline import trained
    from maxpo_bench.pipeline.cell import run_cell
    from maxpo_bench.settings.task_file import load

    if seeds != list(training.seeds or study.task.reported_seeds):
        return "its seeds are others now"
    folder, name = study._published(training), str(study.task.path)
    if folder is None:
        folder, first = scratch / "training", seeds[:PROOF]
        fewer = {} if study.cells is not None else {"evaluation.every": 0}  # as it was trained
        with contextlib.redirect_stdout(io.StringIO()):
            results = _base(study.task, first, scratch) if training.seeds else scratch / "results"
            code = run_cell(name, training.estimator, results, first, {**training.overrides, **fewer}, folder)
        if code:
            return files.read_json(folder / "metrics.json").get("reason") or "it failed"
    metrics = files.read_json(folder / "metrics.json")
    found = trained._rows(load(name, training.overrides), metrics, getattr(study.module, "LADDER", False))
    for old, new in zip(rows, found, strict=False):
        if _numbers(old) != _numbers(new):
            return f"seed {old['seed']} is another"
    if study.cells is not None:
        own = study.cells / training.estimator
        if where := first_difference(own, folder):
            return f"{where} of the first seeds is another"
        amend(own, folder, metrics["seeds"][:PROOF])
    return ""


def _base(task, seeds, scratch):
    """A folder of results that has the base policies of these seeds."""
    from maxpo_bench.pipeline.base import run_base

    results = scratch / f"base-{seeds[0]}"
    if not (results / "base" / task.name / "base.json").is_file() and run_base(str(task.path), results, seeds):
        raise Fault(f"no base policies of {task.name}")
    return results


def _numbers(row):
    """What of a row must repeat. Another seed's divergence is no difference of this one."""
    return {name: text for name, text in row.items() if text and not (name == "status" and text in ENDED)}


def _note(path, key, proof, entries):
    """{key of a training: the proofs by which its rows came to stand under it, earliest first}, of the trainings there are."""
    notes = files.read_json(path) if path.is_file() else {}
    mine = [*notes.get(proof["key"], []), proof]
    kept = {entry["key"] for entry in entries} - {proof["key"]}
    files.write_json(path, {old: proofs for old, proofs in notes.items() if old in kept} | {key: mine})


if __name__ == "__main__":
    try:
        sys.exit(prove_trainings(*sys.argv[1:]))
    except (InputError, Fault) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
