"""The command line: quick where nothing runs, one clear line and exit code 2 where the input is wrong."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maxpo_bench import cli

ROOT = Path(__file__).resolve().parents[2]


def one_line(result, code, *words):
    lines = result.stderr.strip().splitlines()
    assert result.returncode == code, result.stderr + result.stdout
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    "words, expected",
    [
        (["train", "bandti", "maxpo"], ["tasks/bandti.yaml", "did you mean 'bandit'"]),
        (["train", "bandit", "maxop"], ["'maxop'", "did you mean 'maxpo'"]),
        (["base", "../bandit"], ["task name"]),
        (["base", "nowhere.yaml"], ["nowhere.yaml", "no such task file"]),
        (["study", "centrin"], ["did you mean 'centring'"]),
        (["repro", "bandti"], ["'bandti'", "did you mean 'bandit'"]),
        (["variance", "bandti"], ["did you mean 'bandit'"]),
        (["trian", "bandit", "maxpo"], ["unknown command 'trian'", "did you mean 'train'"]),
        (["new_task", "x"], ["did you mean 'new-task'"]),
        (["../cli"], ["unknown command '../cli'"]),
        ([], ["required: COMMAND"]),
        (["train", "bandit"], ["required: estimator", "usage: maxpo-bench train"]),
        (["plan", "--al"], ["unrecognized arguments: --al"]),
    ],
)
def test_wrong_names(project, run_cli, words, expected):
    before = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts)
    one_line(run_cli(project, *words), 2, *expected)
    after = sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts and ".resume" not in path.parts)
    assert before == after


def test_k_too_large_for_maxpo_names_file_key_and_range(project, run_cli):
    path = project / "tasks" / "bandit.yaml"
    path.write_text(path.read_text().replace("k: 2", "k: 4"))
    one_line(run_cli(project, "train", "bandit", "maxpo"), 2, "tasks/bandit.yaml", "k: 4", "maxpo", "1..3")
    assert not (project / "results" / "runs").exists() and not (project / "results" / "base").exists()


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("rloo", "rlo", ["params.yaml", "estimators", "did you mean 'rloo'"]),
        ("[bandit,", "[bandti,", ["params.yaml", "tasks", "did you mean 'bandit'"]),
        ("variance_policy: maxpo", "variance_policy: grpo", ["variance_policy", "grpo"]),
        ("estimators:", "estimator:", ["params.yaml", "did you mean 'estimators'"]),
        ("[bandit, countdown3]", "[]", ["params.yaml", "tasks"]),
        ("[bandit, countdown3]", "[bandit, bandit]", ["twice"]),
    ],
)
def test_a_broken_params_file(project, run_cli, old, new, words):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace(old, new))
    one_line(run_cli(project, "plan"), 2, *words)


def test_training_without_a_base_says_what_to_run(project, run_cli):
    one_line(run_cli(project, "train", "bandit", "maxpo"), 2, "base.json is missing", "maxpo-bench base bandit")


def process(code, **env):
    environment = {**os.environ, **env}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_a_command_imports_its_own_file_and_no_torch(project):
    code = (
        f"import os, sys; os.chdir({str(project)!r}); from maxpo_bench.cli import main; code = main(['plan'])\n"
        "print('imported', *(m for m in sys.modules if m.startswith(('maxpo_bench.commands.', 'torch', 'transformers', 'dvc'))))\n"
        "sys.exit(code)"
    )
    done = process(code, PYTHONPATH=str(project))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["imported", "maxpo_bench.commands.plan"]


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['maxpo-bench', '--help']; from maxpo_bench.cli import console\n"
        "try: console()\n"
        "finally: print('heavy', *(m for m in ('torch', 'yaml', 'numpy', 'pandas', 'subprocess') if m in sys.modules))"
    )
    done = process(code, COLUMNS="200")
    assert done.returncode == 0 and done.stdout.splitlines()[-1].split() == ["heavy"], done.stdout + done.stderr
    files = {path.stem for path in (ROOT / "maxpo_bench" / "commands").glob("*.py")} - {"__init__"}
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ") and line[4] != " "]
    assert sorted(listed) == cli.names() == sorted(name.replace("_", "-") for name in files) and len(listed) >= 12
    assert listed[:3] == ["plan", "base", "train"]


def test_a_new_file_in_commands_is_a_command(project, run_cli):
    text = "PLACE = 99\nHELP = 'say hello'\n\n\ndef arguments(parser):\n    parser.add_argument('name')\n"
    (project / "maxpo_bench" / "commands" / "say_hello.py").write_text(text + "\n\ndef run(args):\n    print('hello', args.name)\n")
    assert run_cli(project, "say-hello", "you").stdout == "hello you\n"
    assert "say-hello" in run_cli(project, "--help").stdout


STOPPED_AT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            both = signal.SIGINT, signal.SIGTERM
            signal.pthread_sigmask(signal.SIG_BLOCK, both)  # sent one by one to oneself the second would never be heard
            for number in both:
                os.kill(os.getpid(), number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules.pop({module!r}, None)
sys.meta_path.insert(0, Finder())
from maxpo_bench.cli import console
console(["plan"])
"""


@pytest.mark.parametrize("module", ["argparse", "maxpo_bench.errors", "maxpo_bench.commands.plan", "yaml"])
def test_a_stop_during_imports_is_one_line(module):
    """Two signals at once, as `timeout` sends them."""
    one_line(process(STOPPED_AT.format(module=module)), 130, "plan interrupted")


CLEANS_UP = """
import os, signal, time
from maxpo_bench import cli
from maxpo_bench.commands import plan

def run(args):
    both = signal.SIGINT, signal.SIGTERM
    signal.pthread_sigmask(signal.SIG_BLOCK, both)
    for number in both:
        os.kill(os.getpid(), number)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    finally:
        for worker in ("first", "second"):
            try:
                os.stat("nowhere")
            except OSError:
                time.sleep(0.7)
            print(worker, "stopped")

plan.run = run
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.console(["plan"])
"""


def test_the_second_of_two_signals_does_not_disturb_the_cleaning_up():
    done = process(CLEANS_UP)
    one_line(done, 130, "plan interrupted")
    assert done.stdout == "first stopped\nsecond stopped\n"


SWALLOWS = """
import os, signal
from maxpo_bench import cli, errors
from maxpo_bench.commands import plan

def run(args):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        raise {error} from None

plan.run = run
cli.console(["plan"])
"""


@pytest.mark.parametrize("error", ["ValueError('what a library makes of it')", "errors.InputError('x')", "OSError('x')"])
def test_an_error_after_a_signal_is_the_interruption(error):
    """torch makes an error of its own of a KeyboardInterrupt in the middle of a read."""
    one_line(process(SWALLOWS.format(error=error)), 130, "plan interrupted")


SWALLOWED = """
import os, signal, time
from maxpo_bench import cli
from maxpo_bench.commands import plan

def by_a_library():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        pass

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

def run(args):
    {how}()
    time.sleep(20)

plan.run = run
cli.console(["plan"])
"""


@pytest.mark.parametrize("how", ["by_a_library", "Dying"])
def test_a_stop_that_is_swallowed_comes_again(how):
    """Dying: what is raised in a destructor Python prints, with a traceback, and goes on."""
    start = time.monotonic()
    one_line(process(SWALLOWED.format(how=how)), 130, "plan interrupted")
    assert time.monotonic() - start < 10


def test_a_worker_stopped_in_a_destructor_leaves_no_traceback():
    """Nobody raises it again there: whoever waits for the worker kills it after two seconds."""
    code = """
import os, signal, time
from maxpo_bench import cli
from maxpo_bench.commands import plan
from maxpo_bench.machine import workers

class Dying:
    def __del__(self):
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(1)

def work(job, tick):
    Dying()
    time.sleep(20)

plan.run = lambda args: workers.run([0], work, "x", 1)
cli.console(["plan"])
"""
    start = time.monotonic()
    one_line(process(code), 130, "plan interrupted")
    assert time.monotonic() - start < 15


def test_another_error_in_a_destructor_is_still_said():
    code = SWALLOWED.replace("os.kill(os.getpid(), signal.SIGTERM)", "1 / 0").replace("time.sleep(20)", "return 0")
    done = process(code.format(how="Dying"))
    assert done.returncode == 0 and "ZeroDivisionError" in done.stderr


def test_a_signal_after_the_end_changes_nothing():
    code = (
        "import atexit, os, signal; from maxpo_bench.cli import console\n"
        "numbers = signal.SIGTERM, signal.SIGINT\n"
        "atexit.register(lambda: [os.kill(os.getpid(), n) for n in numbers])\n"
        # Ignored and not just handled: handlers are set to their defaults, which kill, while the interpreter ends.
        "atexit.register(lambda: [1 / (signal.getsignal(n) is signal.SIG_IGN) for n in numbers])\n"
        "console({!r})"
    )
    for argv, expected in ((["--help"], 0), (["trian"], 2)):
        done = process(code.format(argv))
        assert done.returncode == expected and "Traceback" not in done.stderr, done.stderr
        assert "interrupted" not in done.stderr


def test_plan_lists_every_stage_and_counts_what_is_to_run(project, run_cli):
    text = run_cli(project, "plan").stdout
    assert "train@countdown3-maxpo" in text and "variance@bandit" in text and "study@centring" in text
    assert "14 stages, 14 to run" in text and text.count("never run") == 14
