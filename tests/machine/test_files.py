"""Files that are whole or not there."""

import json
import os
import subprocess
import sys

import pytest
import torch

from maxpo_bench.errors import Fault, InputError
from maxpo_bench.machine import files


def test_json_repeats_byte_for_byte_and_refuses_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 0.1, "a": [1, None]})
    files.write_json(tmp_path / "b.json", {"a": [1, None], "b": 0.1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    with pytest.raises(ValueError):
        files.json_text({"x": float("nan")})


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, 1)

    def full_disk(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(Fault, match="cannot write .*a.json: No space left on device"):
        files.write_json(path, 2)
    assert json.loads(path.read_text()) == 1 and os.listdir(tmp_path) == ["a.json"]


def test_csv_columns_are_in_order_of_appearance_and_gaps_are_empty(tmp_path):
    files.write_csv(tmp_path / "a.csv", [{"x": 1, "y": 1 / 3}, {"x": 2, "z": "a,b"}])
    assert (tmp_path / "a.csv").read_text() == 'x,y,z\n1,0.333333333333,\n2,,"a,b"\n'


def test_tensors_survive_with_what_is_said_about_them(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3)}
    files.save_tensors(tmp_path / "t.safetensors", tensors, {"step": 3, "rows": [{"x": 0.1}]})
    back, about = files.load_tensors(tmp_path / "t.safetensors")
    assert about == {"step": 3, "rows": [{"x": 0.1}]} and torch.equal(back["a"], tensors["a"]) and back["b"] == 3


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_truncated_tensor_file_is_bad_input_not_a_crash(tmp_path, keep):
    path = tmp_path / "t.safetensors"
    files.save_tensors(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        files.load_tensors(path)


def test_half_written_json_names_the_file(tmp_path):
    (tmp_path / "m.json").write_text('{"a": 1,')
    with pytest.raises(InputError, match="m.json: not valid JSON"):
        files.read_json(tmp_path / "m.json")


def test_a_second_holder_of_a_lock_is_told_who_has_it(tmp_path):
    path = tmp_path / "lock"
    code = f"from maxpo_bench.machine.files import lock\nwith lock({str(path)!r}, 'cell a-b'): pass"
    with files.lock(path, "cell a-b"):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"cell a-b is already being run by process {os.getpid()}" in other.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_states_come_by_the_number_of_their_seed(tmp_path):
    """Not by its text, by which 10 is before 2: each seed would train from another's base policy."""
    path = tmp_path / "states.safetensors"
    files.save_states(path, {seed: {"w": torch.full((2,), float(seed))} for seed in range(23)})
    assert list(files.load_states(path)) == list(range(23))
    for seeds in (range(23), (9, 10, 2), (21,)):
        states = files.load_states(path, seeds)
        assert list(states) == list(seeds) and all(state["w"][0] == seed for seed, state in states.items())
