"""Names of files and folders that mean something to somebody else's glob, and how messages name a task file."""

import pytest

from maxpo_bench.errors import InputError
from maxpo_bench.problems.prompts.huggingface import load_table
from maxpo_bench.settings import task_file


@pytest.mark.parametrize("folder, name", [("a[b]", "x.jsonl"), ("plain", "x[1].jsonl"), ("st*r", "what?.jsonl")])
def test_a_questions_file_is_found_whatever_its_name(tmp_path, folder, name):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / name).write_text('{"question": "1 + 1", "answer": "2"}\n')
    (tmp_path / folder / "xb.jsonl").write_text('{"question": "another file", "answer": "3"}\n')
    table = load_table(str(tmp_path / folder / name), "", "train", "tasks/x.yaml")
    assert table["question"] == ["1 + 1"]


def test_a_folder_that_looks_like_a_pattern_is_one_clear_line(tmp_path):
    (tmp_path / "a[b]").mkdir()
    (tmp_path / "a[b]" / "train.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
    with pytest.raises(InputError, match=r"tasks/x.yaml: data.source: a folder with .* cannot be read; rename .*a\[b\]"):
        load_table(str(tmp_path / "a[b]"), "", "train", "tasks/x.yaml")


@pytest.mark.parametrize("written", ["bad.yaml", "./bad.yaml", "a[b]/bad.yaml", "../here/bad.yaml"])
def test_a_message_names_a_task_file_by_its_folder_and_never_begins_with_a_slash(tmp_path, monkeypatch, written):
    here = tmp_path / "here"
    (here / "a[b]").mkdir(parents=True)
    for folder in (here, here / "a[b]"):
        (folder / "bad.yaml").write_text("version: 1\nkind: bandit\nsteps: many\n")
    monkeypatch.chdir(here)
    with pytest.raises(InputError) as caught:
        task_file.load(written)
    assert str(caught.value).startswith("a[b]/bad.yaml: " if "[" in written else "here/bad.yaml: ")


@pytest.mark.parametrize("digits", [16, 400, 5000])
@pytest.mark.parametrize("key", ["steps", "title", "lr"])
def test_a_number_of_hundreds_of_digits_is_one_clear_line(tmp_path, key, digits):
    lines = {"version": "1", "kind": "bandit", "title": "x", "k": "1", "group_size": "2", "steps": "1"}
    lines |= {"optimiser": f"{{lr: {'9' * digits}}}"} if key == "lr" else {"optimiser": "{lr: 0.1}", key: "9" * digits}
    path = tmp_path / "x.yaml"
    path.write_text("arms: {count: 3}\n" + "".join(f"{name}: {value}\n" for name, value in lines.items()))
    with pytest.raises(InputError, match="x.yaml: ") as caught:
        task_file.load(str(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
