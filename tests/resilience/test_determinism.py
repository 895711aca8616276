"""A cell gives the same bytes whatever stands around it, and a seed the same numbers whoever runs beside it."""

import locale
import os
import shutil
import subprocess
import sys

import pytest

SURROUNDINGS = {
    "hash seed, threads, locale and time zone": {
        "PYTHONHASHSEED": "4711",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "LANG": "C",
        "TZ": "Pacific/Kiritimati",
        "COLUMNS": "40",
    },
    "no threads said, ascii, no colours": {
        "OMP_NUM_THREADS": "",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "TZ": "UTC+11",
        "TERM": "dumb",
    },
}


# Python itself takes only the encoding from the locale. In the tests the C library takes all of it: decimal comma, Turkish i.
SET_LOCALE = """
import locale
locale.setlocale(locale.LC_ALL, "")
assert locale.localeconv()["decimal_point"] == ",", locale.setlocale(locale.LC_ALL)
"""


@pytest.fixture(scope="session")
def comma(tmp_path_factory):
    """The environment of a locale with a decimal comma, in force in every Python that is started with it."""
    folder = tmp_path_factory.mktemp("locales")
    (folder / "sitecustomize.py").write_text(SET_LOCALE)
    found = {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}
    source = ["-i", "tr_TR", "-f", "UTF-8", str(folder / "tr_TR.UTF-8")]
    if shutil.which("localedef") and subprocess.run(["localedef", *source], capture_output=True).returncode == 0:
        return {**found, "LC_ALL": "tr_TR.UTF-8", "LOCPATH": str(folder)}
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        for name in ("tr_TR.UTF-8", "de_DE.UTF-8", "fr_FR.UTF-8", "nl_NL.UTF-8"):
            try:
                locale.setlocale(locale.LC_NUMERIC, name)
                return {**found, "LC_ALL": name}
            except locale.Error:
                continue
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
    pytest.skip("no locale with a decimal comma here, and no localedef to make one: the `locales` package has both")


def test_the_comma_is_in_force(comma):
    code = "import locale; print(locale.format_string('%.1f', 0.5))"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **comma}, capture_output=True, text=True)
    assert done.stdout == "0,5\n", done.stderr


def fresh_process(project, *argv, cwd, **env):
    """The command in a new interpreter, where the hash seed and thread variables count."""
    environment = {**os.environ, **env}
    environment = {key: value for key, value in environment.items() if value != ""}
    command = [sys.executable, "-m", "maxpo_bench.cli", *argv]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    "task, around",
    [
        ("maze", "hash seed, threads, locale and time zone"),
        pytest.param("maze", "no threads said, ascii, no colours", marks=pytest.mark.slow),
        pytest.param("countdown3", "hash seed, threads, locale and time zone", marks=pytest.mark.slow),
        pytest.param("cartpole", "hash seed, threads, locale and time zone", marks=pytest.mark.slow),
    ],
)
def test_surroundings_change_nothing(task, around, finished, new_project, request):
    project = new_project()
    project.add(task)
    surroundings = SURROUNDINGS[around]
    if "locale" in around:
        surroundings = {**surroundings, **request.getfixturevalue("comma")}
    folder = project.folder / "tasks" / "deeper"  # another working folder, inside the project
    folder.mkdir()
    for argv in (("base", task), ("train", task, "maxpo")):
        fresh_process(project, *argv, cwd=folder, **surroundings)
    reference = finished(task)
    assert project.bytes(task) == reference.bytes(task)
    base = ("results", "base", task, "base.json")
    assert project.folder.joinpath(*base).read_bytes() == reference.folder.joinpath(*base).read_bytes()


@pytest.mark.parametrize("task", ["maze", "countdown3"])
def test_the_number_of_workers_changes_nothing(task, finished, from_base):
    project = from_base(task)
    assert project.run("train", task, "maxpo", MAXPO_BENCH_WORKERS="1").code == 0
    assert project.bytes(task) == finished(task).bytes(task)
    kept = [one.cell(task) / "checkpoints.safetensors" for one in (project, finished(task))]
    assert kept[0].read_bytes() == kept[1].read_bytes()


@pytest.mark.parametrize("task", ["bandit", "maze", pytest.param("cartpole", marks=pytest.mark.slow)])
def test_a_seed_does_not_see_its_neighbours(task, finished, new_project):
    """Two seeds alone: their rows are those they had among four."""
    project = new_project()
    project.add(task, seeds=2)
    project.run("base", task)
    assert project.run("train", task, "maxpo", MAXPO_BENCH_WORKERS="1").code == 0
    among_four, few = finished(task).curve(task), project.curve(task)
    assert few == [line for line in among_four if line.split(",")[0] in ("seed", "0", "1")]


def test_the_number_of_workers_changes_nothing_of_more_than_ten_networks(new_project):
    """Each starts from its own base policy, whichever seeds stand in a job with it."""
    tables = []
    for count in ("1", "2", "5"):
        project = new_project()
        project.add("cartpole", seeds=12, steps=3)
        for words in (("base", "cartpole"), ("train", "cartpole", "maxpo")):
            assert project.run(*words, MAXPO_BENCH_WORKERS=count).code == 0
        tables.append(project.curve("cartpole"))
    assert tables[0] == tables[1] == tables[2]


def test_how_often_is_checkpointed_changes_nothing(finished, from_base):
    project = from_base("maze")
    assert project.run("train", "maze", "maxpo", MAXPO_BENCH_CHECKPOINT_SECONDS="0").code == 0
    assert project.bytes("maze") == finished("maze").bytes("maze")


def test_cells_of_two_estimators_draw_the_same_first_samples(finished, from_base):
    """Common random numbers: before the policies part, the curves are one."""
    project = from_base("bandit")
    assert project.run("train", "bandit", "rloo").code == 0
    ours, theirs = project.curve("bandit", "rloo"), finished("bandit").curve("bandit")
    starts = [line for line in ours if line.split(",")[1] in ("step", "0")]
    assert len(starts) == 5 and starts == [line for line in theirs if line.split(",")[1] in ("step", "0")]
    assert ours != theirs
