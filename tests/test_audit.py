""".ci/audit fails on a known vulnerability, and on nothing else: not without the tool, not without a network."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parent.parent / ".ci" / "audit"

TOOL = """
import sys
out = sys.argv[sys.argv.index("-o") + 1]
{body}
"""
REPORT = 'open(out, "w").write(\'{"dependencies": [{"name": "a", "version": "1", "vulns": [%s]}]}\')'
FLAW = '{"id": "PYSEC-1", "fix_versions": ["2"]}'


@pytest.mark.parametrize(
    "body, code, words",
    [
        (REPORT % "" + "; sys.exit(0)", 0, "0 known vulnerabilities"),
        (REPORT % FLAW + "; sys.exit(1)", 1, "a 1: PYSEC-1, fixed in 2"),
        ('sys.exit("ConnectionError: no network")', 0, "audit skipped: no list of vulnerabilities (ConnectionError"),
        ('open(out, "w").write("half a fi"); sys.exit(1)', 0, "audit skipped"),
    ],
)
def test_only_a_known_vulnerability_fails(body, code, words, tmp_path):
    tool = tmp_path / "tool.py"
    tool.write_text(TOOL.format(body=body))
    environment = {**os.environ, "PIP_AUDIT": shlex.join([sys.executable, str(tool)])}
    done = subprocess.run([sys.executable, AUDIT], env=environment, capture_output=True, text=True)
    assert done.returncode == code and words in done.stdout, (done.stdout, done.stderr)
    assert not done.stderr


def test_without_the_tool_nothing_fails():
    environment = {**os.environ, "PIP_AUDIT": "/no/such/tool"}
    done = subprocess.run([sys.executable, AUDIT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "audit skipped" in done.stdout
