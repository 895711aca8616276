"""The report names the commit of the code, and committing the report does not change that."""

import subprocess

from maxpo_bench.report.page import code_commit


def test_the_commit_is_that_of_the_code(tmp_path):
    assert code_commit(tmp_path) == "not under git"

    def git(*words):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "params.yaml").write_text("tasks: []\n")
    git("add", "-A")
    git("commit", "-qm", "code")
    first = git("rev-parse", "HEAD")
    (tmp_path / "report.md").write_text("a result\n")
    git("add", "-A")
    git("commit", "-qm", "results")
    assert code_commit(tmp_path).startswith(f"commit {first[:12]} of 2")
    (tmp_path / "params.yaml").write_text("tasks: [a]\n")
    assert code_commit(tmp_path).endswith(", with uncommitted changes")
