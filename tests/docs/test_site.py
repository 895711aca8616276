"""The site: built strictly (`make docs` installs what that needs), read without the network; the gallery shows every estimator."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from maxpo_bench.estimators import names

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".venv" / "docs"


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gallery_shows_every_estimator(gallery):
    text = gallery.page()
    assert sorted(re.findall(r"^### (\w+)$", text, flags=re.MULTILINE)) == names()
    assert "nan" not in text and text.count("<svg") >= len(names())


def test_a_picture_shows_maxpo_by_hand(gallery):
    """One success among 16 at k = 4: A = 4 - 0 for it (every subset with it has it), less what the others' 4/15 chance adds."""
    from maxpo_bench.estimators import get

    picture = gallery.binary(get("maxpo"))
    assert "<title>4</title>" in picture and f"<title>{-4 / 15:.4g}</title>" in picture


@pytest.mark.slow
def test_the_site_is_built_strictly_and_needs_no_network(tmp_path):
    if not importlib.util.find_spec("mkdocs") and not TOOLS.is_dir():
        pytest.skip("needs mkdocs: make docs")
    path = os.pathsep.join([str(TOOLS), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    pages = [page for page in (tmp_path / "site").rglob("*.html") if "results" not in page.parts]
    fetched = re.compile(r"<(?:script|img|iframe)[^>]* src=\"?https?:|<link[^>]* href=\"?https?:|@import")
    assert len(pages) > 10 and [page.name for page in pages if fetched.search(page.read_text())] == []
