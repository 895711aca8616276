"""`maxpo-bench rerecord`: code that changed but not its numbers costs two seeds, and another number is never recorded."""

import gzip
import json
import subprocess

import pytest
import yaml

from maxpo_bench.pipeline import proof

pytestmark = pytest.mark.slow
CELLS = {"base@bandit", "train@bandit-rloo", "train@bandit-pkpo", "train@bandit-maxpo"}
ALL = {*CELLS, "variance@bandit"}


def test_a_remark_in_the_code_is_proved_and_recorded(clone, states, dvc, run_cli):
    path = clone / "maxpo_bench" / "training" / "loop.py"
    path.write_text(path.read_text() + "# a remark\n")
    before = {p: p.read_bytes() for p in (clone / "results").glob("*/bandit/**/*") if p.name != "provenance.json" and p.is_file()}
    assert ALL <= {stage for stage, state in states(clone).items() if state == "stale"}
    old = json.loads((clone / "results" / "runs" / "bandit" / "maxpo" / "provenance.json").read_text())

    done = run_cli(clone, "rerecord", "bandit")
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in CELLS:
        assert f"{stage}: seeds 0 and 1 repeat to the byte, recorded again" in done.stdout
    assert "variance@bandit: the first seed repeats to the byte, recorded again" in done.stdout
    assert "5 recorded again, 0 not" in done.stdout
    now = states(clone)
    assert {now[stage] for stage in ALL} == {"up to date"} and now["train@maze-maxpo"] == "stale"
    status = dvc(clone, "status", *("results/pipeline/bandit/dvc.yaml:" + name for name in ("base", "train@maxpo")))
    assert "up to date" in status.stdout, status.stdout

    new = json.loads((clone / "results" / "runs" / "bandit" / "maxpo" / "provenance.json").read_text())
    assert new["code_sha256"] != old["code_sha256"] and new["seeds"] == old["seeds"]
    assert new["rerecorded"] == [{"code_sha256": old["code_sha256"], "versions": old["versions"], "seeds": [0, 1]}]
    about = json.loads((clone / "results" / "variance" / "bandit.rerecorded.json").read_text())
    assert len(about) == 1 and about[0]["seeds"] == [0] and len(about[0]["code_sha256"]) == 64
    for file, data in before.items():
        if "pipeline" not in file.parts:
            assert file.read_bytes() == data, file
    assert not list((clone / ".resume").glob("rerecord*"))


def test_a_default_cell_without_its_curve_is_not_proved(tmp_path):
    for name in ("published", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text('{"status": "ok", "seeds": [0]}')
    (tmp_path / "here" / "curve.csv.gz").write_bytes(gzip.compress(b"seed,step"))
    folders = tmp_path / "published", tmp_path / "here"
    assert proof.first_difference(*folders, tables=True) == "curve.csv.gz" and proof.first_difference(*folders) == ""


def test_another_number_is_refused(clone, states, git, run_cli):
    """The base policy does not know the learning rate and repeats; every cell is another."""
    path = clone / "maxpo_bench" / "training" / "optimisers.py"
    text = path.read_text()
    path.write_text(text.replace('return options["lr"] *', 'return 1.01 * options["lr"] *'))
    assert path.read_text() != text
    done = run_cli(clone, "rerecord", "bandit")
    assert done.returncode == 1, done.stdout + done.stderr
    refused = [line for line in done.stdout.splitlines() if "not recorded" in line]
    assert len(refused) == 4 and {line.partition(":")[0] for line in refused} == ALL - {"base@bandit"}
    assert "1 recorded again, 4 not" in done.stdout
    assert {states(clone)[stage] for stage in ALL - {"base@bandit"}} == {"stale"}
    assert git(clone, "status", "--porcelain", "results/runs", "results/variance") == ""
    lines = git(clone, "diff", "--unified=0", "results/pipeline").splitlines()
    assert not [line for line in lines if line.startswith("@@") and "train" in line]


def test_another_variance_alone_is_refused_alone(clone, states, git, run_cli):
    """No cell is stale, and none is recorded; the policy's seeds run for their checkpoints."""
    path = clone / "maxpo_bench" / "measure" / "variance.py"
    text = path.read_text()
    path.write_text(text.replace('"mean_reward": seen.mean().item(),', '"mean_reward": seen.mean().item() + 1e-9,'))
    assert path.read_text() != text
    done = run_cli(clone, "rerecord", "bandit")
    assert done.returncode == 1 and "0 recorded again, 1 not" in done.stdout, done.stdout + done.stderr
    assert "variance@bandit: not recorded: the table of the first seed is another" in done.stdout
    assert states(clone)["variance@bandit"] == "stale" and git(clone, "status", "--porcelain", "results") == ""
    path.write_text(text + "# a remark\n")
    done = run_cli(clone, "rerecord", "bandit")
    assert done.returncode == 0 and "1 recorded again, 0 not" in done.stdout, done.stdout + done.stderr
    changed = {line[3:] for line in git(clone, "status", "--porcelain", "results").splitlines()}
    assert changed == {"results/pipeline/bandit/dvc.lock", "results/variance/bandit.rerecorded.json"}


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


# ------------------------------------------------------------------------------------------- what trains besides

MORE = {
    "task_studies": {"off_policy": ["bandit"], "own_best": ["bandit"], "learning_rate": ["bandit"]},
    "trained_estimators": {"estimators": ["grpo"], "tasks": ["bandit"], "seeds": 4},
}
BESIDE = ("trained@bandit-off_policy", "trained@bandit-own_best", "trained@bandit-learning_rate", "beside@bandit-grpo")


@pytest.fixture(scope="module")
def trained(published, tmp_path_factory, run_cli):
    """The published project with studies that train and another estimator, all recorded."""
    folder = tmp_path_factory.mktemp("trained") / "a project"
    subprocess.run(["git", "clone", "-q", published, folder], check=True)
    for key, value in (("user.name", "t"), ("user.email", "t@example.org")):
        subprocess.run(["git", "-C", folder, "config", key, value], check=True)
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text() + yaml.safe_dump(MORE))
    for part in ("--studies", "--estimators"):
        done = run_cli(folder, "run", part)
        assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(["git", "-C", folder, "add", "-A"], check=True)
    subprocess.run(["git", "-C", folder, "commit", "-qm", "trained"], check=True)
    return folder


@pytest.fixture
def more(trained, tmp_path):
    folder = tmp_path / "a clone"
    subprocess.run(["git", "clone", "-q", trained, folder], check=True)
    return folder


def beside(folder):
    from maxpo_bench.pipeline import plan

    params = plan.declared(folder)
    states = plan.all_states(folder, params, [*plan.study_stages(params), *plan.estimator_stages(params)])
    return {stage: state for stage, (state, _) in states.items()}


def test_trainings_that_repeat_keep_their_rows(more, dvc, git, run_cli):
    assert beside(more) == dict.fromkeys(BESIDE, "up to date")
    path = more / "maxpo_bench" / "training" / "loop.py"
    path.write_text(path.read_text() + "# a remark\n")
    assert beside(more) == dict.fromkeys(BESIDE, "stale")
    folder = more / "results" / "trained" / "learning_rate"
    old = json.loads((folder / "bandit.json").read_text())["trainings"]
    done = run_cli(more, "rerecord", "bandit")
    assert done.returncode == 0 and "9 recorded again, 0 not" in done.stdout, done.stdout + done.stderr
    assert beside(more) == dict.fromkeys(BESIDE, "up to date")

    new = json.loads((folder / "bandit.json").read_text())["trainings"]
    notes = json.loads((folder / "bandit.rerecorded.json").read_text())
    assert [entry | {"key": ""} for entry in new] == [entry | {"key": ""} for entry in old]
    for before, now in zip(old, new, strict=True):
        assert now["key"] != before["key"] and notes[now["key"]] == [{"key": before["key"], "seeds": [10000, 10001]}]
    for kind in ("own_best/bandit/rloo", "estimators/bandit/grpo"):
        about = json.loads((more / "results" / kind / "provenance.json").read_text())
        assert [one["seeds"] for one in about["rerecorded"]] == [[0, 1]], kind
    changed = [line[3:] for line in git(more, "status", "--porcelain", "results").splitlines()]
    assert not [name for name in changed if name.endswith((".csv", ".gz", "metrics.json", "timing.json"))], changed

    # DVC and the studies themselves agree: nothing to run, no training to run
    status = dvc(more, "status", *(f"results/pipeline/bandit/{part}/dvc.yaml" for part in ("studies", "estimators")))
    assert "up to date" in status.stdout, status.stdout + status.stderr
    for study in MORE["task_studies"]:
        again = run_cli(more, "trained", study, "bandit")
        assert again.returncode == 0 and not [line for line in again.stdout.splitlines() if line.startswith("[")], again.stdout


def test_trainings_that_differ_run_and_the_others_need_not(more, run_cli):
    """Another step where a batch is passed over twice: of a study that compares one pass with two, half repeats."""
    path = more / "maxpo_bench" / "training" / "loop.py"
    text = path.read_text()
    path.write_text(text.replace("return -torch.minimum(", "return torch.minimum("))
    assert path.read_text() != text
    done = run_cli(more, "rerecord", "bandit")
    assert done.returncode == 1 and "8 recorded again, 1 not" in done.stdout, done.stdout + done.stderr
    assert "trained@bandit-off_policy: not recorded: what differs must run" in done.stdout
    said = [line.strip() for line in done.stdout.splitlines() if "loss.epochs=2" in line]
    assert len(said) == 3 and all("not recorded: seed 0 is another" in line for line in said), done.stdout
    assert beside(more)["trained@bandit-off_policy"] == "stale"
    again = run_cli(more, "trained", "off_policy", "bandit")
    ran = [line for line in again.stdout.splitlines() if line.startswith("[")]
    assert len(ran) == 3 and all("epochs=2" in line for line in ran), again.stdout


def test_a_table_with_other_trainings_is_not_for_this(more, run_cli):
    path = more / "maxpo_bench" / "training" / "loop.py"
    path.write_text(path.read_text() + "# a remark\n")
    path = more / "maxpo_bench" / "studies" / "off_policy.py"
    path.write_text(path.read_text().replace("(2, 0.2)", "(3, 0.2)"))
    done = run_cli(more, "rerecord", "bandit")
    assert done.returncode == 1 and "3 of its 6 trainings are new" in done.stdout, done.stdout + done.stderr
    assert "3 trainings of its table belong to it no more" in done.stdout
    assert "trained@bandit-off_policy: not recorded" in done.stdout and "8 recorded again, 1 not" in done.stdout
    again = run_cli(more, "trained", "off_policy", "bandit")  # those that repeat need not run
    ran = [line for line in again.stdout.splitlines() if line.startswith("[")]
    assert len(ran) == 3 and all("epochs=3" in line for line in ran), again.stdout


def test_a_study_that_ran_without_dvc_is_recorded_by_the_same_proof(more, run_cli):
    (more / "results" / "pipeline" / "bandit" / "studies" / "dvc.lock").unlink()
    path = more / "maxpo_bench" / "training" / "loop.py"
    path.write_text(path.read_text() + "# a remark\n")
    assert beside(more) == dict.fromkeys(BESIDE[:3], "never run") | {BESIDE[3]: "stale"}
    done = run_cli(more, "rerecord", "bandit")
    assert done.returncode == 0 and "9 recorded again, 0 not" in done.stdout, done.stdout + done.stderr
    assert beside(more) == dict.fromkeys(BESIDE, "up to date")
