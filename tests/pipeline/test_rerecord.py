"""`maxpo-bench rerecord`: code that changed but not its numbers costs two seeds, and another number is never recorded."""

import json

import pytest

pytestmark = pytest.mark.slow
CELLS = {"base@bandit", "train@bandit-rloo", "train@bandit-pkpo", "train@bandit-maxpo"}


def test_a_remark_in_the_code_is_proved_and_recorded(clone, states, dvc, run_cli):
    path = clone / "maxpo_bench" / "training" / "loop.py"
    path.write_text(path.read_text() + "# a remark\n")
    before = {p: p.read_bytes() for p in (clone / "results").glob("*/bandit/**/*") if p.name != "provenance.json" and p.is_file()}
    assert CELLS <= {stage for stage, state in states(clone).items() if state == "stale"}
    old = json.loads((clone / "results" / "runs" / "bandit" / "maxpo" / "provenance.json").read_text())

    done = run_cli(clone, "rerecord", "bandit")
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in CELLS:
        assert f"{stage}: seeds 0 and 1 repeat to the byte, recorded again" in done.stdout
    assert "4 recorded again, 0 not" in done.stdout
    now = states(clone)
    assert {now[stage] for stage in CELLS} == {"up to date"} and now["train@maze-maxpo"] == "stale"
    status = dvc(clone, "status", *("results/pipeline/bandit/dvc.yaml:" + name for name in ("base", "train@maxpo")))
    assert "up to date" in status.stdout, status.stdout

    new = json.loads((clone / "results" / "runs" / "bandit" / "maxpo" / "provenance.json").read_text())
    assert new["code_sha256"] != old["code_sha256"] and new["seeds"] == old["seeds"]
    assert new["rerecorded"] == [{"code_sha256": old["code_sha256"], "versions": old["versions"], "seeds": [0, 1]}]
    for file, data in before.items():
        if "pipeline" not in file.parts:
            assert file.read_bytes() == data, file
    assert not list((clone / ".resume").glob("rerecord*"))


def test_another_number_is_refused(clone, states, git, run_cli):
    """The base policy does not know the learning rate and repeats; every cell is another."""
    path = clone / "maxpo_bench" / "training" / "optimisers.py"
    text = path.read_text()
    path.write_text(text.replace('return options["lr"] *', 'return 1.01 * options["lr"] *'))
    assert path.read_text() != text
    done = run_cli(clone, "rerecord", "bandit")
    assert done.returncode == 1, done.stdout + done.stderr
    refused = [line for line in done.stdout.splitlines() if "not recorded" in line]
    assert len(refused) == 3 and {line.partition(":")[0] for line in refused} == CELLS - {"base@bandit"}
    assert "1 recorded again, 3 not" in done.stdout
    assert {states(clone)[stage] for stage in CELLS - {"base@bandit"}} == {"stale"}
    assert git(clone, "status", "--porcelain", "results/runs") == ""
    lines = git(clone, "diff", "--unified=0", "results/pipeline").splitlines()
    assert not [line for line in lines if line.startswith("@@") and "train" in line]


def test_a_base_that_differs_is_refused_with_its_cells(clone, git, run_cli):
    path = clone / "maxpo_bench" / "problems" / "bandit.py"
    text = path.read_text()
    path.write_text(
        text.replace("TabularPolicy(self.start.repeat", "TabularPolicy((self.start + torch.eye(self.start.shape[-1])[0]).repeat")
    )
    assert path.read_text() != text
    done = run_cli(clone, "rerecord", "bandit")
    assert done.returncode == 1, done.stdout + done.stderr
    refused = [line for line in done.stdout.splitlines() if "not recorded" in line]
    assert len(refused) == 1 and refused[0].startswith("base@bandit: not recorded: base.json of the first seeds")
    assert "0 recorded again, 1 not" in done.stdout
    assert git(clone, "status", "--porcelain", "results") == ""


def test_another_task_file_is_not_for_this(clone, git, run_cli):
    path = clone / "tasks" / "bandit.yaml"
    path.write_text(path.read_text().replace("steps: 40", "steps: 44"))
    done = run_cli(clone, "rerecord", "bandit")
    assert done.returncode == 1 and "tasks/bandit.yaml changed since" in done.stdout, done.stdout + done.stderr
    assert git(clone, "status", "--porcelain", "results") == ""


def test_nothing_stale_is_nothing_to_do_and_a_wrong_name_one_line(clone, run_cli):
    done = run_cli(clone, "rerecord")
    assert done.returncode == 0 and done.stdout.splitlines() == ["0 recorded again, 0 not"]
    done = run_cli(clone, "rerecord", "bandti")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "bandti" in done.stderr
