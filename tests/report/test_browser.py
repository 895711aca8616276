"""The page in headless Chromium: no scrolling to the side at 400 px, in light and dark, and tables that sort."""

import json
import re
import shutil
import subprocess

import pytest
import synthetic

from maxpo_bench.report import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")]
PROBE = """<script>
const table = [...document.querySelectorAll("table")].find(t => t.tHead.textContent.includes("runs"));
const head = [...table.querySelectorAll("tr.names th")].find(th => th.textContent.startsWith("max@K"));
const column = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[head.cellIndex].textContent));
head.click(); const up = column(); head.click(); const down = column();
document.title = JSON.stringify({width: document.documentElement.scrollWidth, window: innerWidth, up, down,
  ground: getComputedStyle(document.body).backgroundColor});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = synthetic.write(tmp_path_factory.mktemp("browser"), synthetic.TASKS[:4], synthetic.ESTIMATORS)
    assert build(root) == 0
    path = root / "results" / "report.html"
    path.write_text(path.read_text().replace("</body>", PROBE + "</body>"))
    return path


def seen(page, profile, width, *options):
    """What the probe found in a window of that width."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", f"--window-size={width},900"]
    done = subprocess.run([*command, *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    return json.loads(re.search(r"<title>([\[{].*?[\]}])</title>", done.stdout, re.S)[1])


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window_and_tables_sort(page, tmp_path, width):
    found = seen(page, tmp_path, width)
    assert found["window"] <= max(width, 500) and found["width"] <= found["window"], found
    assert found["up"] == sorted(found["up"]) and found["down"] == sorted(found["up"], reverse=True) and len(found["up"]) > 5


def test_dark_is_dark(page, tmp_path):
    light, dark = (sum(map(int, re.findall(r"\d+", seen(page, tmp_path / str(theme), 800,
                   f"--blink-settings=preferredColorScheme={theme}")["ground"])[:3])) for theme in (1, 0))  # fmt: skip
    assert dark < 150 < 600 < light, (light, dark)


def test_the_page_alone_shows_its_drawings(page, tmp_path):
    """Copied to a folder of its own, without figures/ beside it."""
    alone = tmp_path / "report.html"
    probe = """<script>
    addEventListener("load", () => setTimeout(() => {
      document.title = JSON.stringify(
        [...document.querySelectorAll("img.figure")].map(img => [img.src.slice(0, 5), img.naturalWidth, img.naturalHeight]));
    }, 1500));
    </script></body>"""
    alone.write_text(page.read_text().replace(PROBE, "").replace("</body>", probe))
    found = seen(alone, tmp_path / "profile", 1280, "--virtual-time-budget=20000")
    assert len(found) >= 8 and all(kind == "blob:" and wide > 300 and high > 100 for kind, wide, high in found), found
