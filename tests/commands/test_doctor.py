"""`maxpo-bench doctor`: what is said of the machine and of each task, without torch."""

import subprocess
import sys

from maxpo_bench.pipeline import doctor
from maxpo_bench.settings import task_file


def line_of(lines, task):
    return next(line for line in lines if line.split()[:2] == ["task", task])


def test_every_task_and_every_resource_has_a_line():
    lines = doctor.examine(task_file.root())
    assert [line.split()[1] for line in lines if line.startswith("task ")] == task_file.names()
    for word in ("processor", "numerics", "memory", "GPU", "disk", "extras", "model"):
        assert sum(line.startswith(word) for line in lines) == 1
    assert "can run, about" in line_of(lines, "bandit") and "9 cells" in line_of(lines, "bandit")


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("MAXPO_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "_gpus", lambda: [])
    monkeypatch.setattr(doctor, "_is_there", lambda module: module != "minigrid")
    monkeypatch.setattr(doctor, "_memory_gb", lambda: 0.5)
    lines = doctor.examine(task_file.root())
    assert "cannot run: it needs a GPU" in line_of(lines, "gsm8k")
    assert "`make smollm2`" in line_of(lines, "sums_smollm2")
    assert "maxpo-bench[minigrid]" in line_of(lines, "minigrid_doorkey")
    assert "1 GB of memory" in line_of(lines, "maze")


def test_a_broken_task_file_is_said_and_stops_nothing(project):
    (project / "tasks" / "broken.yaml").write_text("kind: bandit\n")
    lines = doctor.examine(project)
    assert "cannot run: tasks/broken.yaml" in line_of(lines, "broken") and "can run" in line_of(lines, "bandit")


def test_neither_torch_nor_transformers_is_imported():
    heavy = "bool({'torch', 'transformers'} & set(sys.modules))"
    code = f"import sys; from maxpo_bench.cli import main; main(['doctor']); sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], cwd=task_file.root(), capture_output=True).returncode == 0
