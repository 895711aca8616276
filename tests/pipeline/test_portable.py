"""The same bytes on every x86-64 processor with AVX2: a cell of each kind, a variance table, a study and a report.

Committed hashes make the check on any reader's machine; where qemu's user emulation is installed (Debian: qemu-user-static),
two other processors, one of each vendor, make it too. After a change that is meant to change numbers:
    python tests/pipeline/test_portable.py > tests/pipeline/golden/portable.sha256
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from maxpo_bench.machine import numerics

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).resolve().parent / "golden" / "portable.sha256"
EMULATOR = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
PARAMS = "tasks: [maze, cartpole, countdown3]\nestimators: [pkpo, maxpo]\nstudies: [effective_reward]\nvariance_policy: maxpo\n"
TASKS = {
    "maze": """
kind: tabular
title: Maze
env: {id: maxpo_bench/Maze-v0, kwargs: {size: 9, layout: 0, decoy_distance: 5, num_starts: 8}, max_episode_steps: 30}
k: 4
group_size: 8
groups: 8
steps: 6
seeds: 3
optimiser: {name: adam, lr: 0.05}
evaluation: {every: 3, prompts: 8, samples: 16}
variance: {groups: 16}
""",
    "cartpole": """
kind: gymnasium
title: CartPole
env: {id: CartPole-v1, max_episode_steps: 30}
outcome: {type: success, threshold: 20}
policy: {hidden: [16]}
k: 2
group_size: 6
groups: 4
steps: 5
seeds: 3
optimiser: {name: adam, lr: 0.01}
evaluation: {every: 2, prompts: 4, samples: 8}
variance: {groups: 8}
""",
    "countdown3": """
kind: countdown
title: Countdown
data: {digits: 3, max_target: 99}
model: {hidden_size: 32, layers: 2, heads: 4, mlp_size: 64}
warm_start: {steps: 6, batch_size: 16, lr: 3e-3, betas: [0.9, 0.98], warmup_steps: 2}
sampling: {max_new_tokens: 6}
k: 2
group_size: 6
groups: 8
steps: 3
seeds: 1
optimiser: {name: adamw, lr: 1e-3, betas: [0.9, 0.99], warmup_steps: 2}
loss: {max_grad_norm: 0.05}
evaluation: {every: 2, prompts: 8, samples: 8}
variance: {groups: 8}
""",
}
STAGES = [
    *(words for task in TASKS for words in (["base", task], ["train", task, "pkpo"], ["train", task, "maxpo"])),
    ["variance", "maze"],
    ["study", "effective_reward"],
    ["report"],
]
CODE = f"""
import sys
from maxpo_bench.cli import main
for words in {STAGES}:
    if main(words):
        sys.exit(f"{{words}} failed")
from maxpo_bench.machine import numerics
print(numerics.mode())
"""


def hashes(*emulator):
    """{file: sha256} of everything that must repeat, from a small project that runs from nothing; and its numerics."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        (folder / "tasks").mkdir()
        (folder / "params.yaml").write_text(PARAMS)
        shutil.copy(ROOT / "claims.yaml", folder)
        for name, text in TASKS.items():
            (folder / "tasks" / f"{name}.yaml").write_text(f"version: 1{text}")
        environment = {name: value for name, value in os.environ.items() if name not in numerics.SETTINGS}
        environment |= {"PYTHONPATH": str(ROOT), "MAXPO_BENCH_WORKERS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([*emulator, sys.executable, "-c", CODE], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        paths = [path for path in sorted((folder / "results").rglob("*")) if path.is_file() and keeps(path)]
        found = {path.relative_to(folder).as_posix(): hashlib.sha256(without_times(path)).hexdigest() for path in paths}
    return found, done.stdout.split()[-1]


def keeps(path):
    """Whether a file must have the same bytes everywhere: not what says where it came from, and not times or drawings of them.

    report.html holds every figure, those of times too; report.md (see without_times) and the figures are looked at one by one.
    """
    elsewhere = path.name in ("provenance.json", "timing.json", "report.html")
    return not elsewhere and not any(word in path.name for word in ("time", "wall_clock"))


def without_times(path):
    """The bytes of a file; of report.md those before its last section, which holds the times."""
    content = path.read_bytes()
    if path.name == "report.md":
        content, section, _ = content.partition(b"\n## Time\n")
        assert section, "report.md has no section of times"
    return content


def pinned():
    return {path: digest for digest, path in (line.split("  ") for line in GOLDEN.read_text().splitlines())}


def test_the_committed_hashes():
    found, mode = hashes()
    if mode != "portable":
        pytest.skip(f"no portable numerics: {numerics.unsupported() or 'another kernel was chosen'}; bytes do not repeat here")
    different = {path for path in {*found, *pinned()} if found.get(path) != pinned().get(path)}
    assert not different


@pytest.mark.slow
@pytest.mark.skipif(EMULATOR is None, reason="needs qemu's user emulation (Debian package qemu-user-static)")
@pytest.mark.parametrize("processor", ["Haswell", "EPYC-Rome"])
def test_another_processor_gives_the_same_bytes(processor):
    """Intel's first processor with AVX2, and one of AMD's."""
    found, _ = hashes(EMULATOR, "-cpu", processor)
    different = {path for path in {*found, *pinned()} if found.get(path) != pinned().get(path)}
    assert not different


if __name__ == "__main__":
    print("\n".join(f"{digest}  {path}" for path, digest in hashes()[0].items()))
