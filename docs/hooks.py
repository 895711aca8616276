"""What mkdocs adds to the pages: the gallery, and the files of the repository that pages link to (`../results/...`)."""

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"(\]\(|src=\")\.\./([^)#\s\"]+)")  # a link from docs/ to a file elsewhere in the repository


def on_files(files, config):
    """The gallery, made anew, and each file outside docs/ that a page links to; that link works in the repository too."""
    sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
    import gallery

    pages = [file for file in files if file.is_documentation_page()]
    wanted = {path for page in pages for _, path in OUTSIDE.findall(page.content_string)}
    for path in sorted(wanted):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "gallery.md", content=gallery.page()))
    return files


def on_page_markdown(markdown, page, config, files):
    return OUTSIDE.sub(r"\1\2", markdown)


def on_post_page(output, page, config):
    return without_network(output)


def on_post_template(output_content, template_name, config):
    return without_network(output_content)


def without_network(text):
    """Search from a folder without the network: the theme would fetch a script for it."""
    return text.replace("https://unpkg.com/iframe-worker/shim", "offline_worker.js")
