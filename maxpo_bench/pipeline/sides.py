"""The two sides of a comparison: what a git revision has of the results, what a folder has, and whether bytes are equal."""

import gzip
import io
import json
import math
import os
import subprocess
import zlib

from maxpo_bench.errors import Fault, InputError

CELL_FILES = ("metrics.json", "provenance.json", "curve.csv.gz", "curve.csv", "ladder.csv.gz", "ladder.csv")


def read_revision(root, revision, paths):
    """{path: bytes} of the files of a revision that exist in it; paths are relative to root. Two git processes."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        known = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"],
            cwd=root,
            env=environment,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise Fault("git is not installed, so there are no published results to read") from None
    if known.returncode:
        # Quiet, git says nothing of a name it does not know, and all of a repository it will not read.
        reason = " ".join(known.stderr.decode(errors="replace").split()) or "git knows no such revision here"
        raise InputError(f"--against {revision}: {reason.removeprefix('fatal: ')}")
    commit = known.stdout.decode().strip()
    request = "".join(f"{commit}:./{path}\n" for path in paths).encode()
    answer = subprocess.run(
        ["git", "cat-file", "--batch"], cwd=root, env=environment, input=request, capture_output=True, check=False
    )
    if answer.returncode:
        raise Fault(f"git cat-file: {' '.join(answer.stderr.decode(errors='replace').split())}")
    found, stream = {}, io.BytesIO(answer.stdout)
    for path in paths:
        head = stream.readline().split()
        if len(head) == 3 and head[1] == b"blob":
            found[path] = stream.read(int(head[2]))
            stream.read(1)
    return found


class Cell:
    """What one side has of a cell: its files, and what is read from them."""

    def __init__(self, files):
        self.files = files
        self.there = "metrics.json" in files
        self.broken = ""  # name of a file that is not what was written
        self.metrics = self._read("metrics.json") if self.there else {}
        # Earlier revisions kept provenance in metrics.json.
        self.provenance = self._read("provenance.json") if "provenance.json" in files else self.metrics
        self.final, seeds = self.metrics.get("final") or {}, self.metrics.get("seeds") or []
        if not isinstance(self.final, dict) or not isinstance(seeds, list) or not all(isinstance(s, int) for s in seeds):
            self.broken, self.final, seeds = "metrics.json", {}, []
        self.seeds = {seed: i for i, seed in enumerate(seeds)}

    def _read(self, name):
        try:
            found = json.loads(self.files[name])
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        self.broken = name
        return {}

    def values(self, metric):
        """{seed: final value}; a seed without a finite one is left out."""
        values = self.final.get(metric)
        values = values if isinstance(values, list) else []
        known = {s: values[i] for s, i in self.seeds.items() if i < len(values)}
        return {s: float(v) for s, v in known.items() if isinstance(v, int | float) and math.isfinite(v)}

    def numbers(self, seed):
        """All numbers of metrics.json that belong to a seed, as text."""
        picked = {name: _pick(self.metrics.get(name), self.seeds[seed]) for name in ("final", "exact", "extras")}
        return json.dumps(picked, sort_keys=True)

    def has(self, name):
        return name in self.files or f"{name}.gz" in self.files

    def table(self, name):
        """(bytes, header, {seed: its rows as text}) of curve.csv or ladder.csv, packed or not; (None, None, {}) without one."""
        data = self.files.get(name)
        if f"{name}.gz" in self.files:
            try:
                data = gzip.decompress(self.files[f"{name}.gz"])
            except (OSError, EOFError, zlib.error):
                data = None
        if data is None:
            return None, None, {}
        header, *lines = data.decode(errors="replace").splitlines() or [""]
        by_seed = {}
        for line in lines:
            by_seed.setdefault(line.split(",", 1)[0], []).append(line)
        return data, header, by_seed


def read_cell(published, folder, path):
    """The files {name: bytes} of one cell as they were published, and as they are below a folder of results."""
    old = {name: published[f"{path}/{name}"] for name in CELL_FILES if f"{path}/{name}" in published}
    here = {name: folder / path / name for name in CELL_FILES}
    return old, {name: file.read_bytes() for name, file in here.items() if file.is_file()}


def _pick(node, index):
    """A nested dict of lists [num_seeds] at one seed."""
    if isinstance(node, dict):
        return {key: _pick(value, index) for key, value in node.items()}
    return node[index] if isinstance(node, list) and index < len(node) else None


def same_bytes(old, new, seeds, summary_only=False):
    """Whether the two cells have the same text for each of these seeds, in metrics.json, curve and ladder.

    summary_only: a cell of which only metrics.json is kept, so that one side may have no curve and ladder.
    """
    if any(old.metrics.get(key) != new.metrics.get(key) for key in ("k", "group_size")):
        return False
    if any(old.numbers(seed) != new.numbers(seed) for seed in seeds):
        return False
    for name in ("curve.csv", "ladder.csv"):
        first, header, rows = old.table(name)
        second, other_header, others = new.table(name)
        if summary_only and not (old.has(name) and new.has(name)):
            continue
        if first != second and (header != other_header or any(rows.get(str(s)) != others.get(str(s)) for s in seeds)):
            return False
    return True


def of_its_seeds(old, new):
    """The published table without the seeds that were not recomputed, where both say which; bytes."""
    old_lines, new_lines = (data.splitlines(keepends=True) for data in (old, new))
    head = old_lines[0].rstrip().split(b",") if old_lines else []
    if b"seed" not in head or old_lines[:1] != new_lines[:1]:
        return old
    place = head.index(b"seed")  # no field before it holds a comma
    seeds = {line.split(b",")[place] for line in new_lines}
    return b"".join(line for line in old_lines if line.split(b",")[place] in seeds)
