"""Portable numerics: what a stage asks for before numpy and torch load, and arithmetic that is the same everywhere."""

import ast
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from maxpo_bench.machine import numerics

PACKAGE = Path(numerics.__file__).parents[1]
ROOMS = ("estimators", "training", "measure", "policies", "problems", "studies", "pipeline")


def test_these_tests_run_in_it():
    assert numerics.asked() and numerics.mode() == ("portable" if not numerics.unsupported() else "native")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (20_000,), (5, 7)])
def test_the_square_root_is_correctly_rounded(shape, dtype):
    values = torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    found = numerics.sqrt(values)
    assert found.shape == values.shape and found.dtype == dtype
    exact = [math.sqrt(value) for value in values.flatten().tolist()]  # of a float32 too: correct after both roundings
    assert found.flatten().tolist() == torch.tensor(exact, dtype=torch.float64).to(dtype).tolist()


def test_unique_by_the_stable_sort():
    values = np.random.default_rng(0).integers(0, 50, size=(40, 25))
    found, inverse = numerics.unique(values)
    assert found.tolist() == sorted(set(values.flatten().tolist())) and (found[inverse] == values.flatten()).all()


def test_nothing_in_the_package_takes_a_root_or_an_order_that_differs_between_processors():
    """torch's sqrt and float64 log are MKL's, numpy's quick argsort is another for each instruction set."""
    wrong = []
    for path in (path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name, owner = node.func.attr, ast.unparse(node.func.value)
                options = ast.unparse(node)
                if name in ("sqrt", "sqrt_", "log", "log_") and owner not in ("np", "numpy", "math", "numerics"):
                    wrong.append(f"{path.name}:{node.lineno}: {options}")
                if name == "argsort" and "stable" not in options:
                    wrong.append(f"{path.name}:{node.lineno}: {options}")
                if name == "unique" and owner in ("np", "numpy") and "return_inverse" in options:
                    wrong.append(f"{path.name}:{node.lineno}: {options}")
    assert wrong == []


def run(code, **environment):
    env = {name: value for name, value in os.environ.items() if name not in numerics.SETTINGS} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_importing_the_package_sets_and_refuses_nothing():
    code = "import os; before = dict(os.environ); import maxpo_bench.estimators as e, maxpo_bench.pipeline.cell; e.get('maxpo'); "
    done = run(code + "assert dict(os.environ) == before; from maxpo_bench.machine import numerics; print(numerics.mode())")
    assert done.returncode == 0 and done.stdout.split() == ["native"], done.stderr


def test_what_is_asked_for_reaches_torch_and_a_process_of_ours():
    code = "from maxpo_bench.machine import numerics; numerics.ask(); import os, subprocess, sys, torch; print(numerics.mode()); "
    done = run(code + "print(subprocess.run([sys.executable, '-c', 'import os; print(os.environ.get(\"MKL_CBWR\"))'], "
               "capture_output=True, text=True).stdout)")  # fmt: skip
    assert done.stdout.split() == ["portable", "COMPATIBLE"] or numerics.unsupported(), done.stderr


def test_native_asks_for_nothing_and_drops_what_was_asked():
    done = run("from maxpo_bench.machine import numerics; numerics.ask(); numerics.ask('native'); print(numerics.mode())")
    assert done.stdout.split() == ["native"]


@pytest.mark.parametrize("flags, machine, words", [("flags : sse2 avx", "x86_64", "no AVX2"), ("", "aarch64", "not x86-64")])
def test_another_machine_is_told_so_in_one_line(flags, machine, words, monkeypatch, capsys, tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(flags + "\n")
    monkeypatch.setattr(numerics, "CPUINFO", path)
    monkeypatch.setattr(numerics.platform, "machine", lambda: machine)
    monkeypatch.setattr(numerics.os, "environ", {})
    numerics.ask()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said and "by interval" in said
