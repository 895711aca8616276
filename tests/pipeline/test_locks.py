"""dvc.lock read by its lines is what a YAML reader makes of it; anything that DVC does not write so goes to that reader."""

import pytest

from maxpo_bench.pipeline import locks
from maxpo_bench.settings.task_file import root

LOCK = """schema: '2.0'
stages:
  train@maxpo:
    cmd: maxpo-bench train a_task_of_a_name_so_long_that_dvc_folds_the_line
      maxpo
    deps:
    - path: maxpo_bench/machine
      hash: md5
      md5: 7656e5da8a683398f969783e4c2cf5d4.dir
      size: 18210
      nfiles: 4
    - path: maxpo_bench/measure/exact.py
      hash: md5
      md5: '93740932937180131001297607752098'
      size: 7913
    params:
      tasks/a.yaml:
        k: 2
        optimiser:
          lr: 0.1
          name: 'on'
    outs:
    - path: results/runs/a/maxpo/metrics.json
      hash: md5
      md5: a41cc2979af47866a45be5cfd480dd7a
      size: 6378
  report:
    cmd: maxpo-bench report
    params:
      params.yaml: {}
"""


def parts(stages):
    """What `plan` asks of a lock file."""
    return {
        name: {
            kind: [(item["path"], item.get("md5")) for item in entry.get(kind, ())] for kind in ("deps", "outs")
        } | {"params": entry.get("params", {})}
        for name, entry in stages.items()
    }  # fmt: skip


def test_by_lines_is_as_yaml():
    found = locks._as_written(LOCK)
    assert list(found) == ["train@maxpo", "report"] and parts(found) == parts(locks._as_yaml(LOCK))
    assert found["train@maxpo"]["params"]["tasks/a.yaml"]["optimiser"] == {"lr": 0.1, "name": "on"}
    assert found["train@maxpo"]["deps"][1]["md5"] == "93740932937180131001297607752098"


def test_every_committed_lock_is_read_by_its_lines():
    for path in [root() / "dvc.lock", *root().glob("results/pipeline/**/dvc.lock")]:
        text = path.read_text()
        assert parts(locks._as_written(text)) == parts(locks._as_yaml(text)), path


@pytest.mark.parametrize(
    "old, new",
    [
        ("path: maxpo_bench/machine", "path: a folder/machine"),
        ("path: maxpo_bench/machine", "path: 'maxpo_bench/machine'"),
        ("      nfiles: 4\n", "      nfiles: 4\n      isexec: true\n"),
        ("    - path: maxpo_bench/machine", "    # a remark\n    - path: maxpo_bench/machine"),
        ("    deps:\n", "    deps: []\n    frozen:\n"),
        ("stages:\n", "stages: # all\n"),
    ],
)
def test_what_dvc_does_not_write_so_is_read_as_yaml(old, new, tmp_path):
    path, text = tmp_path / "dvc.lock", LOCK.replace(old, new)
    path.write_text(text)
    assert text != LOCK and locks._as_written(text) is None and parts(locks.read(path)) == parts(locks._as_yaml(text))


def test_no_file_is_no_stage(tmp_path):
    assert locks.read(tmp_path / "dvc.lock") == {}
