"""results/report.md, report.html and everything they show, written from the declared cells. Two runs give the same bytes."""

import base64
import gzip
import importlib.util
import re
import time
from pathlib import Path

import pandas as pd

from maxpo_bench.machine import files
from maxpo_bench.report import figures, load, page, tables, verdicts, words
from maxpo_bench.settings import claims
from maxpo_bench.studies import TIMED, style

TITLE = "maxpo_bench: which advantage estimator, and how sure is that?"
PIXELS_PER_INCH = 160  # a full-width figure (5.6 in) is 896 pixels wide
FLOATS = "%.6g"  # of the tables: what a processor's rounding moves is far behind it


def build(root="."):
    """Read the results under root and write the report. Returns 0. InputError when params.yaml or claims.yaml is broken."""
    start = time.perf_counter()
    results = load.read(root)
    declared = claims.read(results.root / "claims.yaml")
    data, properties = _tables(results, declared)
    out = results.root / "results"
    drawn = _draw(results, declared, data, out / "figures")
    studies = {name: _study(results, name, table, out / "figures") for name, table in results.studies.items()}
    pictures = [*drawn.values(), *(found["picture"] for found in studies.values())]
    written = {f"{name}.csv": _csv(table) for name, table in data.items() if len(table.columns)}
    written["max_at_k.tex"] = tables.latex(data["cells"], results).encode()
    for name, text in written.items():
        files.write_bytes(out / "tables" / name, text)
    kept = {*written, *(f"{stem}.svg" for picture in pictures if picture for stem in picture["names"])}
    for old in [*(out / "figures").glob("*.*"), *(out / "tables").glob("*.*")]:
        if old.name not in kept and old.suffix in (".png", ".svg", ".csv", ".tex"):
            old.unlink()  # of a task or study that is no longer declared
    files.write_bytes(out / "claims.json", data["claims"].to_json(orient="records", indent=1, double_precision=6).encode() + b"\n")
    files.write_json(out / "metrics.json", tables.headline(results, data["claims"], data["overall"]))
    method, scales = declared["method"], load.scales(results).items()
    scaled = ", ".join(task for task, scale in scales if scale != (0.0, 1.0))
    scaled = f" (on {scaled}: from the lowest to the highest value seen)" if scaled else ""
    blocks = _blocks(results, declared, data, properties, drawn, studies)
    names = {*results.estimators, *results.variance["estimator"], *words.TEXT["about"], *data["estimators"].get("estimator", ())}
    context = {
        "title": TITLE,
        "answer": words.first_sentences(data["claims"], results.studies.get("regimes"), method),
        "terms": words.said("terms", method=method, about=words.about(method)),
        "sections": list(page.sections(blocks, margin=margin_of(declared), scaled=scaled)),
        "colours": style.colours(sorted(map(str, names))),
    }
    files.write_bytes(out / "report.md", _template("report.md.j2").render(**context).encode())
    html = _template("report.html.j2").render(**context, image=_images(out / "figures"))
    files.write_bytes(out / "report.html", html.encode())
    counts = ", ".join(f"{n} {s}" for s, n in data["cells"]["status"].value_counts().items())
    print(f"report: {out / 'report.html'} ({counts}) in {time.perf_counter() - start:.1f} s")
    return 0


def _csv(table):
    return table.to_csv(index=False, float_format=FLOATS, lineterminator="\n").encode()


def _tables(results, declared):
    """({name: DataFrame}, properties): every table of the report, written as tables/<name>.csv where it has columns."""
    scale, method = load.scales(results), declared["method"]
    data, properties = _tables_of_cells(results, declared)
    long, _ = _tables_of_cells(results.long, declared)
    data |= {f"long_{name}": table for name, table in long.items()} if results.long.tasks else {}
    timed = data["claims"].reindex(columns=["measure"])["measure"] == "time"
    data |= {"time": data["claims"][timed], "claims": data["claims"][~timed], "wall_clock": tables.wall_clock(results)}
    data["long_costs"] = tables.costs(results.long)
    data["overall"] = tables.overall(results, scale)
    data["curves"] = tables.wide_curves(data["curves_by_task"], results, scale)
    data |= {"collapse": tables.collapse(results, scale), "exact": tables.exact(results)}
    for study in ("learning_rate", "k_trained", "group_size", "off_policy"):
        table = results.trained.get(study)
        data[study] = pd.DataFrame() if table is None else getattr(tables, study)(table)
    return data | {"estimators": tables.cheap(results, scale, method)}, properties


def _tables_of_cells(results, declared):
    """The tables that the long tasks have too."""
    judged, by_task, properties = verdicts.judge(results, declared)
    data = {"claims": judged, "claims_by_task": by_task[by_task["measure"] != "time"] if len(by_task) else by_task}
    data |= {"cells": tables.cells(results), "curves_by_task": tables.curves(results), "ladder": tables.ladders(results)}
    return data | {"variance": tables.variance(results)}, properties


def _draw(results, declared, data, folder):
    """Draw and save every figure but the studies': {stem: block of the page, or None}."""
    margin, long, table, both = margin_of(declared), results.long, data.get, ["max@K", "pass@1"]
    made = {  # stem: (its table, (figure, caption) or None)
        "answer": ("claims", figures.answer(data["claims"], results, margin)),
        "regime_map": ("regimes", figures.regime_map(results.studies.get("regimes"))),
        "collapse": ("collapse", figures.collapse(data["collapse"], results)),
        "tasks_max_at_k": ("claims_by_task", figures.single_tasks(data["claims_by_task"], results, both[:1], margin)),
        "tasks_pass_at_1": ("claims_by_task", figures.single_tasks(data["claims_by_task"], results, both[1:], margin)),
        "curves_max_at_k": ("curves_by_task", figures.learning_curves(data["curves_by_task"], results, "max_at_k", "max@K")),
        "curves_pass_at_1": ("curves_by_task", figures.learning_curves(data["curves_by_task"], results, "pass_at_1", "pass@1")),
        "ladder": ("ladder", figures.ladder(data["ladder"], results)),
        "variance_ratio": ("variance", figures.variance_ratio(data["variance"])),
        "snr": ("variance", figures.signal_to_noise(data["variance"], results)),
        "learning_rate": ("learning_rate", figures.learning_rate(data["learning_rate"], results)),
        "k_trained": ("k_trained", figures.k_trained(data["k_trained"])),
        "group_size": ("group_size", figures.group_size(data["group_size"], results)),
        "estimators": ("estimators", figures.estimators(data["estimators"])),
    }
    if long.tasks:
        made |= {
            "long_tasks": ("long_claims_by_task", figures.single_tasks(data["long_claims_by_task"], long, both, margin)),
            "long_curves": ("long_curves_by_task", figures.learning_curves(data["long_curves_by_task"], long, "max_at_k", "max@K")),
            "long_variance": ("long_variance", figures.variance_ratio(data["long_variance"])),
        }
    blocks = {}
    for stem, (table, drawn) in made.items():
        if drawn:
            style.save(drawn[0], folder / f"{stem}.svg")
        folder_of = "studies" if table == "regimes" else "tables"
        blocks[stem] = page.figure([(stem, drawn[1])], f"{folder_of}/{table}.csv") if drawn else None
    return blocks


def margin_of(declared):
    """The margin of the first claim about max@K: what every figure of differences shades."""
    return next((c["margin"] for c in declared["claims"] if c["measure"] == "max@K"), 0.0)


def _study(results, name, table, folder):
    """{"title", "caption", "picture"} of a study by its own module; the picture is None, with a note, when it cannot be drawn."""
    found = {"title": name.replace("_", " "), "caption": "", "picture": None}
    if name in load.EXTRA_STUDIES and importlib.util.find_spec(f"maxpo_bench.studies.{name}") is None:
        return found
    try:
        module = importlib.import_module(f"maxpo_bench.studies.{name}")
        found["title"] = getattr(module, "TITLE", found["title"])
        found["caption"] = module.caption(table) if hasattr(module, "caption") else getattr(module, "CAPTION", "")
        if hasattr(module, "figure"):
            style.save(module.figure(table), folder / f"study_{name}.svg")
            found["picture"] = page.figure([(f"study_{name}", found["caption"])], f"studies/{name}.csv")
    except (ModuleNotFoundError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        results.notes.append(f"study {name}: its figure could not be drawn from results/studies/{name}.csv ({problem})")
    return found


def _blocks(results, declared, data, properties, drawn, studies):
    """{name in report.yaml: block of the page, a list of blocks, or None}."""
    margin, measures, table, matrix = margin_of(declared), ("max@K", "pass@1", "gradient variance"), page.table, page.matrix
    first = [drawn[stem] for stem in ("answer", "regime_map") if drawn[stem]]
    first = (
        {**first[0], "names": [f["names"][0] for f in first], "caption": " ".join(f["caption"] for f in first)} if first else None
    )
    unmeasured = ", ".join(t for t in results.tasks if t not in set(data["variance"]["task"]))
    trained, cheap = results.trained.get("learning_rate"), data["estimators"]
    after = {m: [m, f"{m} low", f"{m} high"] for m in ("max@K", "pass@K", "pass@1")}
    cells = page.columns(data["cells"].rename(columns={"num_seeds": "seeds"}), ["task", "estimator", "seeds", "status"], **after)
    overall = data["overall"].rename(columns={"num_tasks": "tasks", "num_runs": "runs"})
    overall = page.columns(overall, ["estimator", "tasks", "runs"], **{"max@K": ["mean", "low", "high"], "pass@1": after["pass@1"]})
    blocks = drawn | {
        "first": first,
        "matrix": matrix(data["claims"], measures, results.estimators, properties.to_dict("records")),
        "overall": table("overall", overall),
        "long_said": page.long_said(results.long, results.not_run),
        "ladder_ends": table("ladder_ends", page.ladder_ends(data["ladder"]), "ladder", fold=True),
        "variance_matrix": matrix(data["claims"], measures[2:]),
        "unmeasured": page.text(words.said("unmeasured", tasks=unmeasured) if unmeasured else ""),
        "rates": table("rates", tables.learning_rates(trained, results), "") if trained is not None else None,
        "k_trained_said": page.k_trained_said(data["k_trained"], margin),
        "off_policy": table("off_policy", page.off_policy(data["off_policy"])),
        "power_pending": page.text(words.said("pending", where="")) if "power" not in studies else None,
        "cheap_said": page.cheap_said(cheap) if len(cheap) else page.text(words.said("no_cheap")),
        "cheap": page.cheap(cheap) if len(cheap) else None,
        "verdicts": page.every_verdict(data["claims"]),
        "cells": table("cells", cells, fold=True),
        "exact_said": page.exact_said(data["exact"]),
        "exact": table("exact", data["exact"].drop(columns="p"), fold=True),
        "runs": table("runs", page.runs(results), ""),
        "statuses": page.statuses(data["cells"]),
        "reasons": page.reasons(data["cells"]),
        "notes": page.notes(data["cells"], results.notes),
        "latex": {"kind": "code", "text": tables.latex(data["cells"], results)},
        "time_matrix": matrix(data["time"], ("time",), csv="time") if len(data["time"]) else None,
        "wall_clock": table("wall_clock", page.wall_clock(data["wall_clock"])),
        "long_costs": table("long_costs", data["long_costs"]),
    }
    blocks["protocols_said"], blocks["protocols"] = page.protocols(data["claims"])
    blocks |= {f"{study}_pending": page.pending(results, study) for study in load.TRAINED_STUDIES}
    if results.long.tasks:
        blocks["long_matrix"] = matrix(data["long_claims"], measures, csv="long_claims")
        blocks["long_ladder"] = table("ladder_ends", page.ladder_ends(data["long_ladder"], (1, 4, 16)), "long_ladder")
    for name, found in studies.items():
        whole, group = results.studies[name], "timed_studies" if name in TIMED else "studies"
        caption = "" if found["picture"] else found["caption"]
        shown = page.frame(whole, caption, f"studies/{name}.csv", fold=len(whole) > 40)
        if name in ("properties", "power"):
            blocks |= {name: found["picture"], f"{name}_table": page.power_table(whole) if name == "power" else shown}
        else:
            heading = {"kind": "heading", "text": found["title"]}
            blocks[group] = [*blocks.get(group, []), heading, found["picture"] or shown]
    return blocks


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
    environment.filters |= {"md": _markdown, "code": _code}
    return environment.get_template(name)


def _code(value):
    """Text for HTML in which `words` between backticks are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(value))))


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
