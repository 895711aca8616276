"""DVC's own views of the project are readable: a handful of headline numbers, not hundreds of columns."""

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
HEADLINE = {"cells", "contradicted", "lead", "max@K", "pass@1", "supported", "variance"}


def dvc(*arguments):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metrics_are_the_headline():
    header = dvc("metrics", "show", "--md").splitlines()[0]
    assert {word.strip() for word in header.split("|")} - {"", "Path"} == HEADLINE


def test_the_readmes_view_of_experiments_fits_a_screen():
    """The words are taken from the README, so that what it tells people to type is what is tested."""
    drop = re.search(r"dvc exp show --drop '([^']+)'", (ROOT / "README.md").read_text())[1].replace("\\|", "|")
    columns = next(csv.reader(io.StringIO(dvc("exp", "show", "--csv", "--drop", drop))))
    assert HEADLINE <= set(columns) and len(columns) <= 16, columns


def test_plots_of_two_revisions_can_be_compared(tmp_path):
    out = dvc("plots", "diff", "HEAD", "--out", str(tmp_path / "plots"))
    page = tmp_path / "plots" / "index.html"
    assert page.is_file() and "max@K" in page.read_text(), out
