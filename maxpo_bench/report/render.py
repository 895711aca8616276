"""results/report.md, report.html and everything they show, written from the declared cells. Two runs give the same bytes."""

import base64
import importlib
import io
import multiprocessing
import re
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from maxpo_bench.machine import files
from maxpo_bench.report import claims as claims_module
from maxpo_bench.report import figures, figures_variance, first_screen, load, page, recommend, style, tables

TITLE = "maxpo_bench: which advantage estimator, and how sure is that?"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
PIXELS_PER_INCH = 160  # a full-width figure (5.6 in) is 896 pixels wide
SVG_TOTAL = 5_000_000  # bytes of drawings in the page; more, and the larger ones are shown as small PNGs


def build(root="."):
    """Read the results under root and write the report. Returns 0. InputError when params.yaml or claims.yaml is broken."""
    start = time.perf_counter()
    results = load.read(root)
    scale = load.scales(results)
    claims = claims_module.judge(results)
    advice = recommend.advise(results, scale)
    out = results.root / "results"
    data = {
        "advice": tables.advice(advice),
        "claims": tables.claim_table(claims),
        "overall": tables.overall(results, scale),
        "cells": tables.cells(results),
        "curves_by_task": tables.curves(results),
        "curves": tables.wide_curves(results, scale),
        "ladder": tables.ladders(results),
        "ladder_ends": tables.ladder_ends(tables.ladders(results)),
        "differences_max_at_k": tables.differences(results, scale, "max@K"),
        "differences_pass_at_1": tables.differences(results, scale, "pass@1"),
        "exact": tables.exact(results),
        "wall_clock": tables.wall_clock(results),
        "variance": results.variance,
    }
    if "properties" in results.studies:
        data["estimators"] = results.studies["properties"]
    written = {_write_table(out / "tables" / f"{name}.csv", table) for name, table in data.items()}
    latex = tables.latex(results)
    files.write_bytes(out / "tables" / "max_at_k.tex", latex.encode())
    written.add(out / "tables" / "max_at_k.tex")
    drawn = _draw(results, scale, advice, data, out / "figures", written)
    for folder in ("figures", "tables"):
        for old in (out / folder).iterdir():
            if old not in written and old.suffix in (".png", ".svg", ".csv", ".tex"):
                old.unlink()  # of a task or study that is no longer declared
    sections = _sections(results, claims, advice, data, drawn, latex)
    files.write_json(out / "claims.json", claims_module.as_json(claims))
    files.write_json(out / "metrics.json", tables.headline(results, claims, data["overall"]))
    context = {
        "title": TITLE,
        "answer": [*first_screen.answer(advice, claims), first_screen.state(data["cells"], results.stale)],
        "sections": sections,
        "colours": page.palette(results),
    }
    files.write_bytes(out / "report.md", _template("report.md.j2").render(**context).encode())
    html = _template("report.html.j2").render(**context, image=_images(out / "figures"))
    files.write_bytes(out / "report.html", html.encode())
    counts = ", ".join(f"{n} {s}" for s, n in data["cells"]["status"].value_counts().items())
    print(f"report: {out / 'report.html'} ({counts}) in {time.perf_counter() - start:.1f} s")
    return 0


def _write_table(path, table):
    files.write_bytes(path, table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())
    return path


def _draw(results, scale, advice, data, folder, written):
    """Draw and save every figure, in two processes: {group: [(stem, caption)]}, studies as (name, title, caption, drawn)."""
    folder.mkdir(parents=True, exist_ok=True)
    light = replace(results, curves=None, ladders=None, studies={}, variance=None)  # what figures read besides their tables
    jobs = {
        "curves_max": (figures.learning_curves, data["curves_by_task"], light, "max_at_k"),
        "curves_pass": (figures.learning_curves, data["curves_by_task"], light, "pass_at_1"),
        "ladder": (figures.ladder, data["ladder"], light),
        "snr": (figures_variance.signal_to_noise, results.variance, light),
        "wall_clock": (figures.wall_clock, data["wall_clock"], light),
        "forest_max": (figures.forest, data["differences_max_at_k"], light, "max@K"),
        "forest_pass": (figures.forest, data["differences_pass_at_1"], light, "pass@1"),
        "variance_ratio": (figures_variance.variance_ratio, results.variance, light),
        "summary": (figures.summary, light, scale),
        "which_k": (figures.which_k, advice, light),
    }
    style.apply()  # the imports, once, before the fork
    with _two_processes() as pool:
        pages = {group: pool.submit(_save_all, folder, *job) for group, job in jobs.items()}
        studies = {name: pool.submit(_study, folder, name, table) for name, table in results.studies.items()}
        drawn = {group: page.result() for group, page in pages.items()}
        shown = {name: study.result() for name, study in studies.items()}
    results.notes += [note for _, note in shown.values() if note]
    drawn["studies"] = [(name, *found) for name, (found, _) in shown.items() if found]
    stems = [stem for group in jobs for stem, _ in drawn[group]] + [
        f"study_{n}" for n, _, _, has_figure in drawn["studies"] if has_figure
    ]
    written.update(folder / f"{stem}.{kind}" for stem in stems for kind in ("png", "svg"))
    return drawn


@contextmanager
def _two_processes():
    """A pool of two forked processes that a Ctrl-C ends at once and without a word of their own."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"), initializer=_hear_no_stop) as pool:
        try:
            # The first job forks both. Held back until they have their own handlers, not the parent's.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            try:
                pool.submit(int)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _hear_no_stop():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _save_all(folder, make, *arguments):
    """Save the figures of one maker: [(stem, caption)]."""
    made = []
    for stem, figure, caption in make(*arguments):
        style.save(figure, folder / stem)
        made.append((stem, caption))
    return made


def _study(folder, name, table):
    """((title, caption, whether a figure was saved), "") of a study by its own module; (None, note) when that fails."""
    try:
        module = importlib.import_module(f"maxpo_bench.studies.{name}")
        caption = module.caption(table) if hasattr(module, "caption") else module.CAPTION
        figure = module.figure(table)
    except ModuleNotFoundError as error:
        if error.name != f"maxpo_bench.studies.{name}":
            raise
        return None, f"study {name}: no file maxpo_bench/studies/{name}.py, so no figure"
    except (KeyError, ValueError, TypeError, IndexError) as error:
        return (
            None,
            f"study {name}: its figure could not be drawn from results/studies/{name}.csv ({type(error).__name__}: {error})",
        )
    if figure is not None:
        style.save(figure, folder / f"study_{name}")
    return (getattr(module, "TITLE", name), caption, figure is not None), ""


def _sections(results, claims, advice, data, drawn, latex):
    def shown(group, csv):
        return [page.figure(made, csv) for made in drawn[group]]

    untrained = [e for e in results.non_centred() if e not in results.estimators]
    unmeasured = [t for t in results.tasks if t not in set(results.variance["task"])]
    unmeasured = [f"{t} ({results.stale.get(f'results/variance/{t}.csv', 'not there or empty')})" for t in unmeasured]
    sections = [
        page.section("The answer", first_screen.advice_table(advice), first_screen.claims_table(claims, untrained)),
        page.section("How to read this", page.how_to_read(results)),
        page.section(
            "Over all tasks",
            page.overall_table(data["overall"]),
            *shown("which_k", "tables/advice.csv"),
            *shown("summary", "tables/cells.csv"),
            *shown("forest_max", "tables/differences_max_at_k.csv"),
            *shown("forest_pass", "tables/differences_pass_at_1.csv"),
        ),
        page.section(
            "Along training", *shown("curves_max", "tables/curves_by_task.csv"), *shown("curves_pass", "tables/curves_by_task.csv")
        ),
        page.section(
            "Before and after training",
            *shown("ladder", "tables/ladder.csv"),
            len(data["ladder_ends"]) and page.ladder_ends_table(data["ladder_ends"]),
        ),
        page.section(
            "Gradient variance",
            *shown("variance_ratio", "tables/variance.csv"),
            *shown("snr", "tables/variance.csv"),
            unmeasured and page.text(f"No current results/variance/<task>.csv: {', '.join(unmeasured)}."),
        ),
        page.section("Wall-clock", *shown("wall_clock", "tables/wall_clock.csv")),
    ]
    studies = []
    for name, title, caption, has_figure in drawn["studies"]:
        if name == "properties":  # its table has a section of its own, with the figure
            continue
        studies.append({"kind": "heading", "text": title})
        studies.append(page.figure((f"study_{name}", caption), f"studies/{name}.csv") if has_figure else page.text(caption))
    if "estimators" in data:
        caption, has_figure = next(((c, f) for n, _, c, f in drawn["studies"] if n == "properties"), ("", False))
        picture = page.figure(("study_properties", caption), "studies/properties.csv") if has_figure else None
        whole = page.frame(data["estimators"], "" if has_figure else caption, "tables/estimators.csv")
        sections.append(page.section("The estimators", picture, whole))
    if studies:
        sections.append(page.section("Studies without training", *studies))
    sections += [
        page.section("Every comparison behind the claims", page.findings_table(data["claims"], claims)),
        page.section("Every cell", page.task_tables(data["cells"], results), *page.evaluation_check(data["exact"])),
        page.section("State of the cells", *page.status_blocks(data["cells"], results)),
        page.section(
            "LaTeX",
            page.text("max@K after training, mean over seeds, half-width of the 95% interval; needs booktabs."),
            {"kind": "code", "text": latex, "csv": "tables/max_at_k.tex"},
        ),
        page.section("Provenance", *page.provenance(results)),
    ]
    for section in sections:
        if not section["blocks"]:
            section["blocks"] = [page.text("Nothing to show yet: no results of this kind.")]
    return sections


def _template(name):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _markdown
    return environment.get_template(name)


def _markdown(value):
    """Text from data made harmless in a Markdown table: no pipes, tags, links, emphasis or line breaks."""
    value = " ".join(str(value).split())
    for a, b in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "\\|"),
        ("*", "\\*"),
        ("[", "\\["),
        ("]", "\\]"),
        ("`", "\\`"),
    ):
        value = value.replace(a, b)
    return value


def _images(folder):
    """A function of a figure's name: (data URI, width in CSS pixels). SVG, or a small PNG where the drawings are too many."""
    drawings = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.svg"))}
    limit = SVG_TOTAL if sum(map(len, drawings.values())) <= SVG_TOTAL else SVG_TOTAL / 3 / len(drawings)

    def image(name):
        svg = drawings[name]
        points = float(re.search(rb'<svg[^>]* width="([0-9.]+)pt"', svg)[1])
        kind, data = ("svg+xml", svg) if len(svg) <= limit else ("png", _small_png(folder / f"{name}.png"))
        return f"data:image/{kind};base64," + base64.b64encode(data).decode(), round(points / 72 * PIXELS_PER_INCH)

    return image


def _small_png(path):
    """The picture in 64 colours: a quarter of the bytes."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(64).save(out, "PNG", optimize=True)
    return out.getvalue()
