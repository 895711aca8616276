"""A seed in shards: 1, 2 and 4 processes of torchrun write the same bytes; one shard is what it was without the key."""

import os
import subprocess
import sys

import pytest

TASK = """
version: 1
kind: countdown
title: Sharded countdown
data: {digits: 2}
model: {hidden_size: 16, layers: 1, heads: 2, mlp_size: 16}
warm_start: {steps: 10, batch_size: 8}
sampling: {max_new_tokens: 5}
k: 2
group_size: 4
groups: 8
steps: 6
seeds: 2
optimiser: {lr: 1e-2}
evaluation: {every: 2, prompts: 8, samples: 8}
"""
REPEATABLE = ("metrics.json", "curve.csv.gz", "ladder.csv.gz")


@pytest.fixture
def cells(tmp_path):
    """cells(name, text, processes) -> {file: bytes} of the cell maxpo of that task, run by so many processes."""

    def run(name, text, processes, estimator="maxpo"):
        folder = tmp_path / f"{name}-{processes}"
        (folder / "tasks").mkdir(parents=True)
        (folder / "params.yaml").write_text("tasks: []\n")
        (folder / "tasks" / "sharded.yaml").write_text(text)
        alone = [sys.executable, "-m", "maxpo_bench.cli"]
        together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        together += ["-m", "maxpo_bench.cli"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        commands = ([*alone, "base", "sharded"], [*(together if processes > 1 else alone), "train", "sharded", estimator])
        for command in commands:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                return done.stdout + done.stderr
        return {path: (folder / "results" / "runs" / "sharded" / estimator / path).read_bytes() for path in REPEATABLE}

    return run


def with_shards(count):
    return f"{TASK}distributed: {{shards: {count}}}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "counts"),
    [("", (2, 4)), ("loss: {clip: 0.2, epochs: 2, kl: 0.1, micro_batch: 5, max_grad_norm: 1.0}\n", (2,))],
)
def test_any_number_of_processes_writes_the_same_bytes(cells, loss, counts):
    alone = cells("four", with_shards(4) + loss, 1)
    assert isinstance(alone, dict), alone
    for processes in counts:
        assert cells("four", with_shards(4) + loss, processes) == alone


@pytest.mark.slow
def test_one_shard_is_the_same_as_none(cells):
    assert cells("one", with_shards(1), 1) == cells("none", TASK, 1)


@pytest.mark.slow
def test_processes_that_do_not_divide_the_shards_are_refused_in_a_line(cells):
    assert "distributed.shards: 4 cannot be dealt to the 3 processes" in cells("four", with_shards(4), 3)


def test_shards_add_in_order_and_split_evenly():
    import torch

    from maxpo_bench.training.shards import Shards

    shards = Shards(4, "a.yaml")
    parts = [torch.tensor([value], dtype=torch.float32) for value in (1e8, 1.0, -1e8, 1.0)]
    expected = ((parts[0] + parts[1]) + parts[2]) + parts[3]
    assert torch.equal(shards.add(part.clone() for part in parts), expected)
    assert shards.split(list(range(8))) == [[0, 1], [2, 3], [4, 5], [6, 7]] and list(shards.own) == [0, 1, 2, 3]


def test_shards_that_divide_no_groups_are_refused(tmp_path):
    from maxpo_bench.errors import InputError
    from maxpo_bench.settings import task_file

    path = tmp_path / "sharded.yaml"
    path.write_text(with_shards(3))
    with pytest.raises(InputError, match="shards: 3 does not divide groups 8"):
        task_file.load(path)
