"""Task files, names, paths and weights are data: none of it runs, leaves its folder or ends in a traceback."""

import ast
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import maxpo_bench
from maxpo_bench import estimators
from maxpo_bench.cli import main
from maxpo_bench.errors import InputError
from maxpo_bench.machine import files
from maxpo_bench.settings import task_file

PACKAGE = Path(maxpo_bench.__file__).parent

TASK = """
version: 1
kind: bandit
title: three arms
arms: {count: 3, rewards: linear}
k: 2
group_size: 4
steps: 5
optimiser: {lr: 0.1}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project folder, and the current one."""
    (tmp_path / "project" / "tasks").mkdir(parents=True)
    (tmp_path / "project" / "params.yaml").write_text("tasks: []\n")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def refused(capsys, *argv):
    """The command ends with exit code 2 and one line; returns the line."""
    assert main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
    return captured.err


# ---------------------------------------------------------------------------------------------------------- task files


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch owned']",
        TASK + "tags: !!python/object/apply:os.system ['touch owned']\n",
        TASK + "tags: [!!python/name:os.system '']\n",
        TASK + "tags: !!python/object/new:type {args: [z, !!python/tuple [], {extend: !!python/name:exec }]}\n",
        "!!map {? a : 1, ? [b] : 2}",
        "[" * 5000,
        "{a: " * 5000,
        "a: &a [x]\nb: [*a, *a]\n",
        "\x00\x01\x02",
        "\ufeff\u202e: 1",
        "a: \ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        "- 1\n- 2\n",
        "",
        "42",
        "kind: [bandit]",
        "kind: {a: b}",
        TASK + "title: 2020-02-30\n",
        TASK.replace("title: three arms", "title: 2020-01-01"),
        TASK + "tags: [2020-01-01]\n",
        TASK + "tags: [!!binary aGVsbG8=]\n",
        TASK + "tags: [!!set {a, b}]\n",
        TASK + "k: 3\n",
        TASK.replace("steps: 5", "steps: 1e400"),
        TASK.replace("steps: 5", "steps: " + "9" * 5000),
        TASK.replace("k: 2", "k: 0x"),
        TASK.replace("lr: 0.1", "lr: 190:20:30.15:x"),
    ],
)
def test_a_hostile_task_file_is_one_line_and_runs_nothing(text, folder, capsys):
    (folder / "tasks" / "evil.yaml").write_text(text, encoding="utf-8", errors="replace")
    line = refused(capsys, "base", "evil")
    assert "evil.yaml" in line and len(line) < 1000
    assert not (folder / "owned").exists() and not (folder / "results").exists()


def test_a_page_of_aliases_does_not_unfold(folder):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (folder / "tasks" / "laughs.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="aliases"):
        task_file.load("laughs")


# ------------------------------------------------------------------------------------------------------ names and paths


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "..",
        ".",
        "",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "a\nb",
        "a b",
        "-rf",
        "~",
        "$(touch owned)",
        "a;b",
        "x" * 5000,
        "\u0430",
    ],
)
def test_task_and_estimator_names_stay_names(name, folder, capsys):
    (folder.parent / "outside.yaml").write_text(TASK)
    with pytest.raises(InputError):
        task_file.load(name)
    with pytest.raises(InputError):
        estimators.get(name)
    if not name.startswith("-"):
        refused(capsys, "train", name, "maxpo")
    assert not list(folder.rglob("owned")) and not (folder / "results").exists()


@pytest.mark.parametrize("file", ["...yaml", "..yaml", ".hidden.yaml", "a b.yaml", "a\nb.yaml", "-x.yaml", "a;b.yaml"])
def test_a_path_to_a_task_file_gives_no_name_that_leaves_results(file, folder):
    (folder / "tasks" / file).write_text(TASK)
    with pytest.raises(InputError):
        task_file.load(f"tasks/{file}")


def test_a_path_given_on_purpose_is_taken(folder):
    (folder.parent / "outside.yaml").write_text(TASK)
    assert task_file.load("../outside.yaml").name == "outside"


@pytest.mark.parametrize("kind", ["../code.py:Evil", "/tmp/code.py:Evil", "sub/../../code.py:Evil", "link.py:Evil", "os.py:system"])
def test_code_of_a_task_stays_beside_it(kind, folder):
    (folder / "code.py").write_text("raise SystemExit('ran')\n")
    (folder / "tasks" / "link.py").symlink_to(folder / "code.py")
    (folder / "tasks" / "evil.yaml").write_text(TASK.replace("kind: bandit", f"kind: {kind}").replace("arms:", "options:"))
    with pytest.raises(InputError, match="kind"):
        task_file.load("evil")


def test_a_reader_that_leaves_early_is_no_error(folder):
    command = f"{shlex.quote(sys.executable)} -m maxpo_bench.cli plan | true"
    done = subprocess.run(["bash", "-c", command], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.stderr == ""


# -------------------------------------------------------------------------------------------------------------- weights


class Owned:
    def __reduce__(self):
        return open, ("owned", "w")


def test_weights_are_never_unpickled(folder):
    (folder / "evil.safetensors").write_bytes(pickle.dumps(Owned()))
    with pytest.raises(InputError, match="safetensors"):
        files.load_tensors(folder / "evil.safetensors")
    torch.save({"weight": torch.zeros(2)}, folder / "pickled.safetensors")
    with pytest.raises(InputError, match="safetensors"):
        files.load_tensors(folder / "pickled.safetensors")
    assert not (folder / "owned").exists()


@pytest.mark.parametrize("size", [0, 7, 8, 9, 100, -1])
def test_weights_cut_anywhere_are_refused(size, folder):
    path = folder / "whole.safetensors"
    files.save_tensors(path, {"weight": torch.zeros(64)}, {"step": 1})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="not a whole"):
        files.load_tensors(path)


def test_a_header_that_claims_terabytes_is_refused(folder):
    (folder / "huge.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError):
        files.load_tensors(folder / "huge.safetensors")


# ----------------------------------------------------------------------------------------------------------------- code

FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "sympy", "joblib"}
FORBIDDEN_CALLS = {
    "torch.load",
    "torch.save",
    "os.system",
    "os.popen",
    "yaml.unsafe_load",
    "yaml.full_load",
    "numpy.load",
    "np.load",
    "pandas.read_pickle",
    "pd.read_pickle",
    "pandas.eval",
    "pd.eval",
    "ast.literal_eval",
}
SAFE_LOADERS = {"StrictLoader", "loader", "SafeLoader", "CSafeLoader", "QuickSafeLoader"}


def offences(source):
    """Lines of Python source that would run or unpickle data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [node.lineno for module in modules if module.partition(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            loader = given.get("Loader", "").rpartition(".")[2]
            if (
                called in FORBIDDEN_NAMES | FORBIDDEN_CALLS
                or (called == "yaml.load" and loader not in SAFE_LOADERS)
                or given.get("shell") == "True"
                or given.get("trust_remote_code", "False") != "False"
                or given.get("allow_pickle", "False") != "False"
                or given.get("use_safetensors", "True") != "True"
            ):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_or_unpickles_data(path):
    lines = offences(path.read_text(encoding="utf-8"))
    assert not lines, f"{path}: line {lines}"


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "import sympy",
        "from sympy.parsing import x",
        "torch.load(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text)",
        "run(x, shell=True)",
        "load(name, trust_remote_code=True)",
        "load(name, trust_remote_code=flag)",
        "load(name, use_safetensors=False)",
    ],
)
def test_the_search_for_such_code_finds_it(source):
    assert offences(source)


def test_templates_escape_by_default():
    """Every string of a report comes from data; the environment that renders it must escape unless told otherwise."""
    text = (PACKAGE / "report" / "render.py").read_text()
    assert "autoescape" in text and "autoescape=False" not in text
