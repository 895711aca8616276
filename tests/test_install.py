"""The wheel, installed beside torch and numpy alone: the core works, and what needs the extra `suite` says so in one line."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from maxpo_bench import __version__, cli

ROOT = Path(__file__).resolve().parents[1]
CORE = ("advise", "check", "doctor", "fetch-model", "new-estimator")  # the commands that need no extra
SUITE = {
    "base": ["bandit"],
    "bench": [],
    "compare": [],
    "new-task": ["cart", "--env", "CartPole-v1"],
    "plan": [],
    "report": [],
    "repro": [],
    "rerecord": [],
    "run": ["--all"],
    "schema": [],
    "study": ["centring"],
    "summary": ["bandit"],
    "train": ["bandit", "maxpo"],
    "trained": ["learning_rate", "bandit"],
    "variance": ["bandit"],
}
MINE = """
def mine(rewards):
    n = rewards.shape[-1]
    return (rewards - rewards.mean(-1, keepdim=True)) * n / (n - 1)
"""
EVERY_ESTIMATOR = """
import json, sys
import torch
from maxpo_bench.estimators import get, names

rewards = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
finite = {}
for name in names():
    one = get(name)
    ks = one.valid_k(8)
    side = {"score_norms": torch.ones_like(rewards), "lengths": torch.full_like(rewards, 5)}
    found = one(rewards, k=2 if 2 in ks else ks[0], **{key: side[key] for key in one.side})
    finite[name] = found.shape == rewards.shape and bool(found.isfinite().all())
heavy = sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[1:]))
print(json.dumps({"finite": finite, "heavy": heavy}))
"""


def installed_with(name, found=None):
    """The distributions that `name` needs where it is installed, itself included, without extras."""
    found = set() if found is None else found
    found.add(canonicalize_name(name))
    for text in metadata.requires(name) or []:
        need = Requirement(text)
        if (need.marker is None or need.marker.evaluate({"extra": ""})) and canonicalize_name(need.name) not in found:
            installed_with(need.name, found)
    return found


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The folder with the wheel and the sdist, built from the sources alone: no leftover of an earlier build gets in."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "maxpo_bench", source / "maxpo_bench", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path_factory.mktemp("dist")
    done = outside([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source], folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def core(dist, tmp_path_factory):
    """The folder of the programs of an environment that has the wheel, torch, numpy and what those two need; nothing else."""
    environment = tmp_path_factory.mktemp("core")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    [site] = environment.glob("lib/python*/site-packages")
    for name in installed_with("torch") | installed_with("numpy"):
        package = metadata.distribution(name)
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            target = Path(package.locate_file(top)).resolve()
            if target.suffix != ".pth" and target.exists() and not (site / top).exists():
                (site / top).symlink_to(target)
    [wheel] = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    done = outside([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], environment)
    assert done.returncode == 0, done.stderr
    return environment / "bin"


def outside(command, folder):
    """Run in a folder, with nothing of this repository on the path."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    return subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_suite_is_what_the_command_line_says_it_is():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {"pillow": "PIL", "pyyaml": "yaml"}
    declared = [Requirement(text).name for text in project["optional-dependencies"]["suite"]]
    imported = set(declared) - {"ruamel.yaml.clib"}  # which DVC looks for
    assert sorted(modules.get(name, name) for name in imported) == sorted(cli.SUITE)
    assert sorted(Requirement(text).name for text in project["dependencies"]) == ["numpy", "torch"]


def test_a_missing_package_that_is_not_of_the_suite_is_not_called_so(monkeypatch):
    class Broken:
        @staticmethod
        def run(args):
            raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    monkeypatch.setattr(cli, "parse", lambda argv: (Broken, None))
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        cli.main(["plan"])


@pytest.mark.slow
def test_the_wheel_holds_every_data_file_and_the_one_version(dist):
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    assert wheel.name.split("-")[1] == __version__ and sdist.name == f"maxpo_bench-{__version__}.tar.gz"
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "maxpo_bench").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert held == sources and {"maxpo_bench/py.typed", "maxpo_bench/estimators/shipped.csv"} <= held
    cited = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {__version__}" in cited


@pytest.mark.slow
def test_twine_accepts_wheel_and_sdist(dist):
    if not find_spec("twine"):
        pytest.skip("needs twine: make .venv/installed")
    done = outside([sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.iterdir())], dist)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_maxpo_by_hand(core, tmp_path):
    """k = 2 of [0, 1, 3]: the best of two with i is on average [2, 2, 3], without i [3, 3, 1]; A = 2 (with - without)."""
    code = "import torch; from maxpo_bench.estimators import get; print(get('maxpo')(torch.tensor([0.0, 1.0, 3.0]), k=2).tolist())"
    done = outside([core / "python", "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx([-2.0, -2.0, 4.0])


@pytest.mark.slow
def test_ragged_groups_in_the_core(core, tmp_path):
    code = "from maxpo_bench.adapters.groups import advantages as f; print([a.tolist() for a in f([[0, 1, 3], [0, 1]], 'rloo')])"
    done = outside([core / "python", "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [pytest.approx([-2.0, -0.5, 2.5]), [-1.0, 1.0]]


@pytest.mark.slow
def test_every_estimator_runs_and_imports_nothing_of_the_suite(core, tmp_path):
    from maxpo_bench.estimators import names

    of_torch = {"jinja2"}  # torch itself may import it
    done = outside([core / "python", "-c", EVERY_ESTIMATOR, *sorted(set(cli.SUITE) - of_torch)], tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {"finite": dict.fromkeys(names(), True), "heavy": []}


@pytest.mark.slow
def test_the_commands_of_the_core(core, tmp_path):
    program = core / "maxpo-bench"
    assert sorted([*CORE, *SUITE]) == cli.names()  # a new command is of the core, or has a line in SUITE
    text = outside([program, "--help"], tmp_path)
    assert text.returncode == 0 and all(name in text.stdout for name in cli.names()), text.stderr
    (tmp_path / "mine.py").write_text(MINE)
    checked = outside([program, "check", "mine.py:mine"], tmp_path)
    assert checked.returncode == 0 and "all properties hold" in checked.stdout, checked.stdout + checked.stderr
    assert "equals: rloo" in checked.stdout
    advice = outside([program, "advise", "--trainer", "trl", "--estimator", "maxpo", "-n", "8"], tmp_path)
    assert advice.returncode == 0 and "maxpo" in advice.stdout, advice.stderr
    folder = tmp_path / "maxpo_bench" / "estimators"
    folder.mkdir(parents=True)
    made = outside([program, "new-estimator", "my_own"], tmp_path)
    assert made.returncode == 0 and "my_own.py" in made.stdout and (folder / "my_own.py").is_file(), made.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITE)
def test_a_command_of_the_suite_says_which_extra_it_needs(core, tmp_path, name):
    for file in ("params.yaml", "claims.yaml", "dvc.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks")
    before = sorted(tmp_path.rglob("*"))
    done = outside([core / "maxpo-bench", name, *SUITE[name]], tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(f"maxpo-bench: error: {name} needs ") and line.endswith('pip install "maxpo-bench[suite]"')
    assert line.split()[4].rstrip(",") in cli.SUITE and done.stdout == ""
    assert sorted(path for path in tmp_path.rglob("*") if ".resume" not in path.parts) == before  # a lock may lie there
