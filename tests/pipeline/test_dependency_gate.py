"""Each stage's deps and params in dvc.yaml cover what its command really imports and reads.

Otherwise a change in code could leave a cell falsely up to date. Estimator files that are only looked through for their
names, and what the resume key hashes, are not executed and not counted.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from maxpo_bench import estimators
from maxpo_bench.pipeline import dvc_files, sources

ROOT = Path(__file__).resolve().parents[2]
HARMLESS = {  # words and the version, nothing else: their change must not rerun the benchmark
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "maxpo_bench").rglob("__init__.py")
    if sources.words_only(path.relative_to(ROOT / "maxpo_bench").as_posix())
}
# They decide no number: the reasons stand beside each in sources.py. A stage that runs only these would have no dependency.
CARRIERS = {f"maxpo_bench/{path}" for path in sources.CARRIERS}
# What other dependencies decide: weights are made again and held to their hashes, provenance.json says what base.json is of.
REMADE = ("weights.safetensors", "checkpoints.safetensors", "provenance.json")

COMMON = """
version: 1
k: 2
group_size: 4
groups: 2
steps: 3
seeds: 2
optimiser: {name: adam, lr: 0.1}
variance: {groups: 8}
"""
TASKS = {
    "bandit": COMMON + "kind: bandit\ntitle: b\narms: {count: 3, rewards: linear}\nevaluation: {prompts: 2, samples: 4}\n",
    "maze": COMMON
    + "kind: tabular\ntitle: m\n"
    + "env: {id: maxpo_bench/Maze-v0, kwargs: {size: 9, num_starts: 8}, max_episode_steps: 20}\n"
    + "evaluation: {prompts: 2, samples: 4}\n",
    "cartpole": COMMON
    + "kind: gymnasium\ntitle: c\nenv: {id: CartPole-v1, max_episode_steps: 6}\npolicy: {hidden: [4]}\nscore: {success: 6}\n"
    + "evaluation: {prompts: 2, samples: 4}\n",
    "countdown3": COMMON
    + "kind: countdown\ntitle: l\ndata: {digits: 3}\nmodel: {hidden_size: 16, layers: 1, heads: 2, mlp_size: 16}\n"
    + "warm_start: {steps: 2, batch_size: 4}\nsampling: {max_new_tokens: 4}\nevaluation: {prompts: 2, samples: 4}\n",
}
STUDY = "properties"


def kind_of(name):
    """The command of a stage."""
    return name.partition("@")[0].partition("-")[0]


def resolved(value, names):
    """A value of dvc.yaml with its ${...} filled in."""
    text = json.dumps(value)
    for key, name in names.items():
        text = text.replace("${" + key + "}", name)
    return json.loads(text)


def stages(root, params):
    """name -> the resolved stage (cmd, deps, params), of every stage that DVC makes of these params in a project."""
    found = {}
    generated = root / "results" / "pipeline"
    for path in [root / "dvc.yaml", *sorted(generated.glob("**/dvc.yaml"))]:
        own = "" if path.parent == root else path.relative_to(generated).parts[0]
        for name, stage in yaml.safe_load(path.read_text())["stages"].items():
            axes = resolved(stage.pop("matrix", {}), {})
            combinations = [{}]
            for axis, source in axes.items():
                values = params[source.strip("${}")] if isinstance(source, str) else source
                combinations = [{**one, axis: value} for one in combinations for value in values]
            for one in combinations:
                names = {f"item.{axis}": value for axis, value in one.items()}
                names["variance_policy"] = params["variance_policy"]
                names["trained_estimators.seeds"] = str(params.get("trained_estimators", {}).get("seeds"))
                ending = "-".join(filter(None, [own, *one.values()]))
                found[f"{name}@{ending}" if ending else name] = resolved(stage, names)
    return found


def missing(stage, traced):
    """What the command executed or read that no dependency, parameter or output of its stage covers."""
    listed = [entry if isinstance(entry, str) else next(iter(entry)) for entry in stage.get("deps", [])]
    for entry in stage.get("params", []):
        listed.append("params.yaml" if isinstance(entry, str) else next(iter(entry)))
    for key in ("outs", "metrics", "plots"):
        listed += [entry if isinstance(entry, str) else next(iter(entry)) for entry in stage.get(key, [])]
    used = set(traced["executed"]) | {path for path in traced["read"] if not path.startswith(".resume")}
    used = {path for path in used if not path.endswith(REMADE)} - HARMLESS - CARRIERS
    if "trained" in stage["cmd"] or "--beside" in stage["cmd"]:
        # results/trained.csv lists what lies there; and a published cell that is the same training is taken for it: the same bytes
        listed += ["results/trained", "results/own_best", "results/estimators", "results/runs"]
    if any(path.startswith("results/summary") for path in listed):  # it holds the hashes of the cells' files
        listed += ["results/base", "results/runs", "results/variance"]
    if "results/trained.csv" in listed:  # and so does this one
        listed += ["results/trained", "results/own_best", "results/estimators"]
    return sorted(path for path in used if not any(path == one or path.startswith(one + "/") for one in listed))


def trace(root, tasks, chosen_studies):
    """(stages of dvc.yaml, what each was seen to use, what they printed), in a project of tiny tasks."""
    params = {"tasks": list(TASKS), "estimators": ["rloo", "maxpo"], "studies": chosen_studies, "variance_policy": "maxpo"}
    params["studies_of_tasks"] = []
    params["task_studies"] = {"learning_rate": ["bandit"], "own_best": ["bandit"], "off_policy": list(TASKS)}
    params["trained_estimators"] = {"estimators": ["pkpo"], "tasks": ["maze"], "seeds": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "tasks").mkdir()
    for name, text in TASKS.items():
        (root / "tasks" / f"{name}.yaml").write_text(text)
    for name in ("dvc.yaml", "claims.yaml"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    dvc_files.write(root, tasks)
    found = stages(root, params)
    order = ["base", "train", "variance", "summary", "study", "trained", "report"]
    names = sorted(found, key=lambda name: (order.index(kind_of(name)), name))
    if not tasks:
        names = [name for name in names if name.startswith("study")]
    todo = [{"name": name, "argv": found[name]["cmd"].split()[1:]} for name in names]
    todo += [{"name": name, "import": f"maxpo_bench.estimators.{name}"} for name in estimators.names() if tasks]
    request = {"root": str(root), "package": str(ROOT / "maxpo_bench"), "stages": todo}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(ROOT / "tests" / "pipeline" / "trace_stages.py")]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return found, json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    return trace(tmp_path_factory.mktemp("gate").resolve(), list(TASKS), [STUDY])


@pytest.mark.parametrize("kind", ["base", "train", "variance", "summary", "study", "trained", "report"])
def test_deps_cover_what_the_stage_uses(kind, traced):
    found, used, output = traced
    for name in found:
        if kind_of(name) == kind:
            assert used[name]["code"] == 0, f"{name} failed:\n{output}"
            assert "maxpo_bench/cli.py" in used[name]["executed"], "the trace saw nothing"
            assert missing(found[name], used[name]) == [], f"not among the deps of {name} in dvc.yaml"


@pytest.mark.parametrize("name", estimators.names())
def test_deps_cover_what_the_estimator_imports(name, traced):
    found, used, output = traced
    stage = json.loads(json.dumps(found["train@bandit-maxpo"]).replace("estimators/maxpo.py", f"estimators/{name}.py"))
    assert used[name]["code"] == 0, output
    assert f"maxpo_bench/estimators/{name}.py" in used[name]["executed"]
    assert missing(stage, used[name]) == [], f"not among the deps of train@...-{name} in dvc.yaml"


@pytest.mark.slow
def test_deps_cover_what_every_study_uses(tmp_path):
    declared = yaml.safe_load((ROOT / "params.yaml").read_text())["studies"]
    found, used, output = trace(tmp_path.resolve(), [], declared)
    for name, seen in used.items():
        assert seen["code"] == 0, f"{name} failed:\n{output}"
        assert missing(found[name], seen) == [], f"not among the deps of {name} in dvc.yaml"


def test_what_decides_no_number_is_these_files_alone():
    """The one exception to the gate. A file that computes, seeds, orders or writes numbers must not get in."""
    assert set(sources.CARRIERS) == {"cli.py", "errors.py", "pipeline/jobs.py", "pipeline/sources.py"}
    for path in CARRIERS:
        imported = [node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Import)]
        assert not {alias.name.split(".")[0] for node in imported for alias in node.names} & {
            "torch",
            "numpy",
            "random",
            "gymnasium",
        }


@pytest.mark.parametrize("path", sorted(HARMLESS))
def test_what_needs_no_dependency_holds_no_code(path):
    for node in ast.parse((ROOT / path).read_text()).body:
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert text or ast.unparse(node).startswith("__version__ = "), f"{path}:{node.lineno}"


def test_a_stage_depends_on_its_own_command_alone(traced):
    """Another command's help text makes no cell stale."""
    found, used, _ = traced
    for name, stage in found.items():
        kind = kind_of(name)
        own = f"maxpo_bench/commands/{kind}.py"
        assert [path for path in stage["deps"] if path.startswith("maxpo_bench/commands")] == [own]
        assert {path for path in used[name]["executed"] if "/commands/" in path} - HARMLESS == {own}


def test_the_trace_sees_modules_task_files_and_results(traced):
    _, used, _ = traced
    train = used["train@maze-maxpo"]
    assert {"maxpo_bench/estimators/maxpo.py", "maxpo_bench/problems/envs/maze.py"} <= set(train["executed"])
    assert {"tasks/maze.yaml", "results/base/maze/base.json"} <= set(train["read"])
    assert "maxpo_bench/estimators/rloo.py" not in train["executed"]
    assert "maxpo_bench/problems/envs/maze.py" not in used["train@cartpole-maxpo"]["executed"]


def test_a_missing_dependency_is_named(traced):
    found, used, _ = traced
    stage = json.loads(json.dumps(found["train@maze-maxpo"]))
    gone = ("maxpo_bench/training/loop.py", "maxpo_bench/problems/envs", "maxpo_bench/problems/envs/maze.py")
    stage["deps"] = [path for path in stage["deps"] if path not in gone]
    lost = missing(stage, used["train@maze-maxpo"])
    assert "maxpo_bench/training/loop.py" in lost and "maxpo_bench/problems/envs/maze.py" in lost
