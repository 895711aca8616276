"""Every shell and Python block of README and docs/ runs, in the order of its page, in a copy of the project; YAML blocks load.

A comment on the line before a block says what else is to be known of it:
    <!-- run: exit 1 -->      its exit code, where that is not 0
    <!-- run: slow -->        longer than a few seconds: `make test-slow`
    <!-- run: peers -->       needs the extra `peers`: `pytest -m peers`
    <!-- run: not, why -->    is not run: needs the network, hours, or would write results
    <!-- prints -->           a text block: what the block before it prints; `...` stands for anything
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from maxpo_bench.settings import task_file

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"trainers.md": "tests/peers/test_docs_trainers.py"}  # pages whose blocks need trainers, and the test that runs them
FENCE = re.compile(r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MARK = re.compile(r"prints|run: (exit \d|slow|peers|not, .+)")
COMMANDS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
LANGUAGES = {*COMMANDS, "yaml", "text"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FILES = ("dvc.yaml", "dvc.lock", "params.yaml", "claims.yaml", "pyproject.toml")
FOLDERS = ("maxpo_bench", "tasks", "tests", "results", ".dvc")


@dataclass
class Block:
    line: int
    language: str
    mark: str
    code: str

    def runs(self, tier):
        return self.mark in ("", f"run: {tier}") or self.mark.startswith("run: exit")


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(text[: found.start("language")].count("\n") + 1, found["language"], found["mark"] or "", found["code"])
        for found in FENCE.finditer(text)
    ]


def sessions():
    """A page's blocks that run: once by default, once more with its slow ones, and with those that need the peers."""
    for page in PAGES:
        if page.name in ELSEWHERE:
            continue
        marks = {block.mark for block in blocks(page)}
        for tier in ("", "slow", "peers"):
            if not tier or f"run: {tier}" in marks:
                marked = [getattr(pytest.mark, tier)] if tier else []
                yield pytest.param(page, tier, marks=marked, id=f"{page.name}-{tier or 'all'}")


@pytest.mark.parametrize("page, tier", sessions())
def test_the_blocks_of_a_page_run(page, tier, tmp_path):
    chosen = [block for block in blocks(page) if block.mark == "prints" or block.language in COMMANDS and block.runs(tier)]
    folder = tmp_path / "project"
    if chosen:
        copy_project(folder)
    printed = None
    for block in chosen:
        where = f"{page.name}, line {block.line}"
        if block.mark == "prints":
            checker = doctest.OutputChecker()
            fits = printed is None or checker.check_output(block.code, printed, FLAGS)
            assert fits, f"{where}: says\n{block.code}\nprinted\n{printed}"
            continue
        done = run(block, folder)
        wanted = int(block.mark.removeprefix("run: exit ")) if "exit" in block.mark else 0
        assert done.returncode == wanted, f"{where}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        printed = done.stdout


def copy_project(folder):
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp", ".new"))


def run(block, folder):
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": path, "OMP_NUM_THREADS": "1"}
    command = [*COMMANDS[block.language], block.code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page):
    found = blocks(page)
    assert [f"line {b.line}: {b.language!r}" for b in found if b.language not in LANGUAGES] == []
    assert [f"line {b.line}: {b.mark}" for b in found if b.mark and not MARK.fullmatch(b.mark)] == []
    assert all(b.language == "text" for b in found if b.mark == "prints")
    rest = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^(?!\s|[-*] |\d+\. ).*\n\n(    \S.*)", rest, flags=re.MULTILINE)
    assert indented == [], "an indented block has no language and would not be run: put it between ```"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_task_in_yaml_loads(page, tmp_path):
    for number, block in enumerate(b for b in blocks(page) if b.language == "yaml" and not b.mark):
        if "version" in (yaml.safe_load(block.code) or {}):
            path = tmp_path / f"task{number}.yaml"
            path.write_text(block.code)
            task_file.load(path)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    """docs/gallery.md is made when the site is built, which looks at the links into it."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    gone = []
    for link in sorted({link for link in LINK.findall(text) if "://" not in link}):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if target.name == "gallery.md":
            continue
        if not target.exists() or heading and heading not in anchors(target):
            gone.append(link)
    assert gone == []


def anchors(page):
    """The ids of a page's headings, as GitHub and the site make them; of api.md the names that it documents."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {*re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)} | {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in found
    }
