"""results/report.md, report.html and everything they show, written from the declared cells. Two runs give the same bytes."""

import base64
import gzip
import importlib
import re
import time
from pathlib import Path

import pandas as pd

from maxpo_bench.machine import files
from maxpo_bench.report import figures, load, page, tables, verdicts, words
from maxpo_bench.settings import claims
from maxpo_bench.studies import TIMED, style

TITLE = "maxpo_bench: which advantage estimator, and how sure is that?"
OWN_SECTION = ("properties", "power", *TIMED)  # TIMED: in the last section, the rest of the report reads no time
PIXELS_PER_INCH = 160  # a full-width figure (5.6 in) is 896 pixels wide
NO_CHEAP = "Every registered estimator trained on the cheap tasks. Not computed yet: `make repro-estimators`."
FLOATS = "%.6g"  # of the tables: what a processor's rounding moves is far behind it


def build(root="."):
    """Read the results under root and write the report. Returns 0. InputError when params.yaml or claims.yaml is broken."""
    start = time.perf_counter()
    results = load.read(root)
    declared = claims.read(results.root / "claims.yaml")
    scale = load.scales(results)
    judged, by_task, properties = verdicts.judge(results, declared)
    timed = (judged["measure"] == "time") if len(judged) else []
    trained, none = results.trained, pd.DataFrame()
    data = {
        "claims": judged[~timed] if len(judged) else judged,
        "time": judged[timed] if len(judged) else judged,
        "claims_by_task": by_task[by_task["measure"] != "time"] if len(by_task) else by_task,
        "cells": tables.cells(results),
        "overall": tables.overall(results, scale),
        "curves_by_task": tables.curves(results),
        "ladder": tables.ladders(results),
        "collapse": tables.collapse(results, scale),
        "exact": tables.exact(results),
        "variance": tables.variance(results),
        "wall_clock": tables.wall_clock(results),
        "learning_rate": tables.learning_rate(trained["learning_rate"]) if "learning_rate" in trained else none,
        "k_trained": tables.k_trained(trained["k_trained"]) if "k_trained" in trained else none,
        "group_size": tables.group_sizes(trained["group_size"]) if "group_size" in trained else none,
        "off_policy": tables.off_policy(trained["off_policy"]) if "off_policy" in trained else none,
        "estimators": tables.cheap(results, scale),
    }
    data["curves"] = tables.wide_curves(data["curves_by_task"], results, scale)
    out, latex = results.root / "results", tables.latex(data["cells"], results)
    drawn = _draw(results, declared, data, out / "figures")
    studies = {name: _study(results, name, table, out / "figures") for name, table in results.studies.items()}
    shown = {name: table for name, table in data.items() if len(table.columns)}
    kept = {path for path, _ in _flat(drawn, studies)} | {f"{name}.csv" for name in shown} | {"max_at_k.tex"}
    for name, table in shown.items():
        text = table.to_csv(index=False, float_format=FLOATS, lineterminator="\n")
        files.write_bytes(out / "tables" / f"{name}.csv", text.encode())
    files.write_bytes(out / "tables" / "max_at_k.tex", latex.encode())
    for old in [*(out / "figures").glob("*.*"), *(out / "tables").glob("*.*")]:
        if old.name not in kept and old.suffix in (".png", ".svg", ".csv", ".tex"):
            old.unlink()  # of a task or study that is no longer declared
    files.write_bytes(out / "claims.json", data["claims"].to_json(orient="records", indent=1, double_precision=6).encode() + b"\n")
    files.write_json(out / "metrics.json", tables.headline(results, data["claims"], data["overall"]))
    context = {
        "title": TITLE,
        "answer": words.first_sentences(data["claims"], results.studies.get("regimes"), declared["method"]),
        "terms": f"{declared['method']} is {words.about(declared['method'])}. {words.TERMS}",
        "sections": _sections(results, declared, data, properties, drawn, studies, latex),
        "colours": page.palette(results),
    }
    files.write_bytes(out / "report.md", _template("report.md.j2").render(**context).encode())
    html = _template("report.html.j2").render(**context, image=_images(out / "figures"))
    files.write_bytes(out / "report.html", html.encode())
    counts = ", ".join(f"{n} {s}" for s, n in data["cells"]["status"].value_counts().items())
    print(f"report: {out / 'report.html'} ({counts}) in {time.perf_counter() - start:.1f} s")
    return 0


def _draw(results, declared, data, folder):
    """Draw and save every figure but the studies', one after the other: {group: [(stem, caption)]}."""
    margin = margin_of(declared)
    made = {
        "answer": figures.answer(data["claims"], results, margin),
        "regime_map": figures.regime_map(results.studies.get("regimes")),
        "collapse": figures.collapse(data["collapse"], results),
        "tasks_max": figures.single_tasks(data["claims_by_task"], results, "max@K", margin),
        "tasks_pass": figures.single_tasks(data["claims_by_task"], results, "pass@1", margin),
        "curves_max": figures.learning_curves(data["curves_by_task"], results, "max_at_k"),
        "curves_pass": figures.learning_curves(data["curves_by_task"], results, "pass_at_1"),
        "ladder": figures.ladder(data["ladder"], results),
        "variance_ratio": figures.variance_ratio(data["variance"], results),
        "snr": figures.signal_to_noise(data["variance"], results),
        "learning_rate": figures.learning_rate(data["learning_rate"], results),
        "k_trained": figures.k_trained(data["k_trained"]),
        "group_size": figures.group_size(data["group_size"], results),
        "estimators": figures.estimators(data["estimators"]),
    }
    for found in made.values():
        for stem, figure, _ in found:
            style.save(figure, folder / f"{stem}.svg")
    return {group: [(stem, caption) for stem, _, caption in found] for group, found in made.items()}


def _flat(drawn, studies):
    """(file name, caption) of every saved figure."""
    shown = [made for group in drawn.values() for made in group]
    return [(f"{stem}.svg", caption) for stem, caption in [*shown, *(s["figure"] for s in studies.values() if s["figure"])]]


def margin_of(declared):
    """The margin of the first claim about max@K: what every figure of differences shades."""
    return next((c["margin"] for c in declared["claims"] if c["measure"] == "max@K"), 0.0)


def _study(results, name, table, folder):
    """{"title", "caption", "figure"} of a study by its own module; the figure is None, with a note, when it cannot be drawn."""
    found = {"title": name.replace("_", " "), "caption": "", "figure": None}
    try:
        module = importlib.import_module(f"maxpo_bench.studies.{name}")
        found["title"] = getattr(module, "TITLE", found["title"])
        found["caption"] = module.caption(table) if hasattr(module, "caption") else getattr(module, "CAPTION", "")
        drawn = module.figure(table) if hasattr(module, "figure") else None
    except ModuleNotFoundError as error:
        if error.name != f"maxpo_bench.studies.{name}":
            raise
        drawn = None
        if name not in load.EXTRA_STUDIES:
            results.notes.append(f"study {name}: no file maxpo_bench/studies/{name}.py, so no figure")
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        source, problem = f"results/studies/{name}.csv", f"{type(error).__name__}: {error}"
        results.notes.append(f"study {name}: its figure could not be drawn from {source} ({problem})")
        drawn = None
    if drawn is not None:
        found["figure"] = (f"study_{name}", found["caption"])
        style.save(drawn, folder / f"study_{name}.svg")
    return found


def _sections(results, declared, data, properties, drawn, studies, latex):
    method, trained, measures = declared["method"], results.trained, ("max@K", "pass@1", "gradient variance")

    def shown(group, csv):
        return [page.figure(made, csv) for made in drawn[group]]

    def of_study(name, table=False):
        found = studies.get(name)
        if found is None:
            return []
        csv = f"studies/{name}.csv"
        picture = page.figure(found["figure"], csv) if found["figure"] else None
        whole = page.frame(results.studies[name], "" if picture else found["caption"], csv, fold=len(results.studies[name]) > 40)
        return [picture, whole if table or not picture else None]

    first = drawn["answer"] + drawn["regime_map"]
    unmeasured = [t for t in results.tasks if t not in set(data["variance"]["task"])]
    sections = [
        page.section(
            "The answer",
            page.figure(first, "tables/claims.csv") if first else None,
            *page.matrix(data["claims"], properties, method, measures, results.estimators),
        ),
        page.section("Collapse", *shown("collapse", "tables/collapse.csv")),
        page.section("How to read this", page.how_to_read(results, margin_of(declared))),
        page.section(
            "Task by task",
            *shown("tasks_max", "tables/claims_by_task.csv"),
            *shown("tasks_pass", "tables/claims_by_task.csv"),
            page.overall_table(data["overall"]),
        ),
        page.section(
            "Along training", *shown("curves_max", "tables/curves_by_task.csv"), *shown("curves_pass", "tables/curves_by_task.csv")
        ),
        page.section("Before and after training", *shown("ladder", "tables/ladder.csv"), page.ladder_ends(data["ladder"])),
        page.section(
            "Gradient variance",
            page.matrix(data["claims"], properties, method, ("gradient variance",))[0],
            *shown("variance_ratio", "tables/variance.csv"),
            *shown("snr", "tables/variance.csv"),
            page.text(f"No usable results/variance/<task>.csv: {', '.join(unmeasured)}." if unmeasured else ""),
        ),
    ]
    sections += [
        page.section(
            "Learning rates",
            page.pending(results, "learning_rate"),
            *shown("learning_rate", "tables/learning_rate.csv"),
            page.rates_table(tables.learning_rates(trained["learning_rate"], results)) if "learning_rate" in trained else None,
            page.pending(results, "own_best"),
            *page.protocols(data["claims"]),
        ),
        page.section(
            "K, N and off-policy",
            page.heading("Does training for K maximise max@K?"),
            page.pending(results, "k_trained"),
            page.k_trained_said(data["k_trained"], margin_of(declared)),
            *shown("k_trained", "tables/k_trained.csv"),
            page.heading("Many small groups or few large ones, for the same number of samples"),
            page.pending(results, "group_size"),
            *shown("group_size", "tables/group_size.csv"),
            page.heading("Two passes over each batch, clipped, as trainers do"),
            page.pending(results, "off_policy"),
            page.off_policy_table(data["off_policy"]) if len(data["off_policy"]) else None,
        ),
        page.section(
            "How many seeds a verdict takes",
            *of_study("power")[:1],
            page.power_table(results.studies["power"])
            if "power" in studies
            else page.text("Not computed yet: `make repro-studies`."),
        ),
        page.section(
            "All estimators",
            *shown("estimators", "tables/estimators.csv"),
            *(page.cheap_blocks(data["estimators"]) if len(data["estimators"]) else [page.text(NO_CHEAP)]),
        ),
    ]
    if "properties" in studies:
        sections.append(page.section("The estimators", page.text(words.OBJECTIVES), *of_study("properties", table=True)))
    others = [
        block for name in studies if name not in OWN_SECTION for block in [page.heading(studies[name]["title"]), *of_study(name)]
    ]
    sections += [page.section("Studies without training", *others)] if others else []
    sections += [
        page.section("Every verdict", page.every_verdict(data["claims"])),
        page.section("Every cell", page.cell_table(data["cells"]), *page.exact_blocks(data["exact"]), page.runs_table(results)),
        page.section("State of the cells", *page.status_blocks(data["cells"], results.notes)),
        page.section(
            "LaTeX",
            page.text("max@K after training, mean over seeds, half-width of the 95% interval; needs booktabs."),
            {"kind": "code", "text": latex, "csv": "tables/max_at_k.tex"},
        ),
    ]
    times = (
        page.matrix(data["time"], properties.iloc[:0], method, ("time",), csv="tables/time.csv")[:1] if len(data["time"]) else []
    )
    costs = [block for name in TIMED if name in studies for block in [page.heading(studies[name]["title"]), *of_study(name)]]
    warning = page.text("Everything above repeats on any machine; times do not. Nothing above was computed from them.")
    sections.append(page.section("Time", warning, *times, page.wall_table(data["wall_clock"]), *costs))
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
    value = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([|*\[\]`])", r"\\\1", value)


def _images(folder):
    """A function of a figure's name: (its drawing as the page carries it, compressed to a tenth; width in CSS pixels)."""

    def image(name):
        svg = (folder / f"{name}.svg").read_bytes()
        points = float(re.search(rb'<svg[^>]* width="([0-9.]+)pt"', svg)[1])
        return base64.b64encode(gzip.compress(svg, mtime=0)).decode(), round(points / 72 * PIXELS_PER_INCH)

    return image
