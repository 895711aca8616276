"""No finished work is lost: in a clone of a project whose results are committed nothing runs but what an edit concerns."""

import pytest

pytestmark = pytest.mark.slow


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def stale(states):
    return {stage for stage, state in states.items() if state != "up to date"}


def ran(output):
    """The stages that DVC ran, by its own words."""
    lines = [line for line in output.splitlines() if line.startswith("Running stage '")]
    return {line.split("'")[1].replace("results/pipeline/", "").replace("/dvc.yaml", "") for line in lines}


BANDIT = {"base@bandit", "train@bandit-rloo", "train@bandit-pkpo", "train@bandit-maxpo", "variance@bandit"}
AS_DVC_SAYS = {"bandit:base", "bandit:train@rloo", "bandit:train@pkpo", "bandit:train@maxpo", "bandit:variance"}


def test_a_clone_has_nothing_to_do(clone, states, dvc, git):
    unpublished = [*clone.rglob("weights.safetensors"), *clone.rglob("checkpoints.safetensors"), *clone.glob(".dvc/cache")]
    assert not unpublished
    now = states(clone)
    assert len(now) == 14 and not stale(now), now
    status = dvc(clone, "status")
    assert "up to date" in status.stdout, status.stdout + status.stderr
    again = dvc(clone, "repro")
    assert again.returncode == 0 and not ran(again.stdout), again.stdout + again.stderr
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.parametrize("old, new", [("title: Tiny bandit", "title: Another title"), ("steps: 40", "steps: 44")])
def test_an_edit_of_one_task_concerns_its_stages_alone(old, new, clone, states, dvc, git):
    edit(clone / "tasks" / "bandit.yaml", old, new)
    assert stale(states(clone)) - {"summary@bandit", "report"} == BANDIT
    again = dvc(clone, "repro")
    assert again.returncode == 0, again.stdout + again.stderr
    assert ran(again.stdout) == AS_DVC_SAYS | {"summary@bandit", "report"}
    assert not stale(states(clone)) and "up to date" in dvc(clone, "status").stdout
    changed = {line[3:] for line in git(clone, "status", "--porcelain", "--untracked-files=all").splitlines()}
    assert changed and not [path for path in changed if "maze" in path and "figures" not in path], changed


def test_a_remark_in_a_task_file_reruns_no_cell(clone, states):
    path = clone / "tasks" / "bandit.yaml"
    path.write_text(path.read_text() + "# a remark\n")
    assert stale(states(clone)) == {"report"}  # it shows the files


def test_an_edit_of_an_estimator_reruns_its_cells(clone, states):
    path = clone / "maxpo_bench" / "estimators" / "rloo.py"
    path.write_text(path.read_text() + "# a remark\n")
    assert {stage for stage in stale(states(clone)) if stage.startswith(("base", "train"))} == {
        "train@bandit-rloo",
        "train@maze-rloo",
    }


def test_an_edit_of_a_kinds_code_concerns_that_kind_alone(clone, states):
    """Of the maze's here; and language code none of these tasks."""
    for name in ("policies/causal_lm.py", "problems/language.py"):
        path = clone / "maxpo_bench" / name
        path.write_text(path.read_text() + "# a remark\n")
    assert not {stage for stage in stale(states(clone)) if stage.startswith(("base", "train", "variance"))}
    path = clone / "maxpo_bench" / "problems" / "envs" / "maze.py"
    path.write_text(path.read_text() + "# a remark\n")
    own = {stage for stage in stale(states(clone)) if stage.startswith(("base", "train", "variance"))}
    assert own == {stage.replace("bandit", "maze") for stage in BANDIT}


def test_a_new_cell_adds_its_own_entry_to_one_lock(clone, dvc, git):
    edit(clone / "params.yaml", "maxpo]", "maxpo, grpo]")
    done = dvc(clone, "repro", "-s", "results/pipeline/bandit/dvc.yaml:train@grpo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(clone, "diff", "--name-only", "--", "*.lock").split() == ["results/pipeline/bandit/dvc.lock"]
    diff = git(clone, "diff", "--unified=0", "--", "*.lock").splitlines()
    assert not [line for line in diff if line.startswith("-") and not line.startswith("---")]
    added = [line for line in diff if line.startswith("+  ") and not line.startswith("+   ")]
    assert added == ["+  train@grpo:"] and len([line for line in diff if line.startswith("@@")]) == 1


def test_an_experiment_with_one_task_and_dvcs_views(clone, dvc):
    """What the README tells people to type works with a dvc.yaml per task."""
    done = dvc(clone, "exp", "run", "-S", "tasks=[bandit]", "-S", "tasks/bandit.yaml:steps=44")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ran(done.stdout) >= AS_DVC_SAYS | {"summary@bandit", "report"}
    assert not [stage for stage in ran(done.stdout) if "maze" in stage]
    difference = dvc(clone, "metrics", "diff", "HEAD", "--md")
    assert difference.returncode == 0 and "| cells" in difference.stdout.replace("  ", " "), difference.stdout + difference.stderr
    plots = dvc(clone, "plots", "diff", "HEAD", "--out", str(clone / "plots"))
    assert plots.returncode == 0, plots.stderr
    assert "max@K" in (clone / "plots" / "index.html").read_text()
