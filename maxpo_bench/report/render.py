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
OWN_SECTION = ("properties", "power", *TIMED)  # TIMED: in the last section, the rest of the report reads no time
PIXELS_PER_INCH = 160  # a full-width figure (5.6 in) is 896 pixels wide
NO_CHEAP = "Every registered estimator trained on the cheap tasks. Not computed yet: `make repro-estimators`."
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
    context = {
        "title": TITLE,
        "answer": words.first_sentences(data["claims"], results.studies.get("regimes"), declared["method"]),
        "terms": f"{declared['method']} is {words.about(declared['method'])}. {words.TERMS}",
        "sections": _sections(results, declared, data, properties, drawn, studies, written["max_at_k.tex"].decode()),
        "colours": page.palette(results),
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
        "curves_max_at_k": ("curves_by_task", figures.learning_curves(data["curves_by_task"], results, "max_at_k")),
        "curves_pass_at_1": ("curves_by_task", figures.learning_curves(data["curves_by_task"], results, "pass_at_1")),
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
            "long_curves": ("long_curves_by_task", figures.learning_curves(data["long_curves_by_task"], long, "max_at_k")),
            "long_variance": ("long_variance", figures.variance_ratio(data["long_variance"])),
        }
    blocks = {}
    for stem, (table, drawn) in made.items():
        if drawn:
            style.save(drawn[0], folder / f"{stem}.svg")
        blocks[stem] = page.figure([(stem, drawn[1])], f"tables/{table}.csv") if drawn else None
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


def _sections(results, declared, data, properties, drawn, studies, latex):
    method, margin, section, text = declared["method"], margin_of(declared), page.section, page.text

    def of_study(name, table=False):
        """The picture of a study, with its table where asked for or where there is no picture."""
        if name not in studies:
            return []
        picture, csv = studies[name]["picture"], f"studies/{name}.csv"
        if picture and not table:
            return [picture]
        caption, num_rows = "" if picture else studies[name]["caption"], len(results.studies[name])
        return [picture, page.frame(results.studies[name], caption, csv, fold=num_rows > 40)]

    def with_headings(names):
        return [block for name in names if name in studies for block in [page.heading(studies[name]["title"]), *of_study(name)]]

    first = [drawn[stem] for stem in ("answer", "regime_map") if drawn[stem]]
    pair = (
        {**first[0], "names": [n for f in first for n in f["names"]], "caption": " ".join(f["caption"] for f in first)}
        if first
        else None
    )
    measures = ("max@K", "pass@1", "gradient variance")
    unmeasured = [t for t in results.tasks if t not in set(data["variance"]["task"])]
    long = results.long.tasks and page.matrix(data["long_claims"], method, measures, csv="tables/long_claims.csv")
    sections = [
        section(
            "The answer", pair, page.matrix(data["claims"], method, measures, results.estimators, properties.to_dict("records"))
        ),
        section("Collapse", drawn["collapse"]),
        section("How to read this", page.how_to_read(results, margin)),
        section("Task by task", drawn["tasks_max_at_k"], drawn["tasks_pass_at_1"], page.overall_table(data["overall"])),
        section(
            "Pretrained models",
            page.long_said(results.long, results.not_run),
            drawn.get("long_tasks"),
            long or None,
            drawn.get("long_curves"),
            page.ladder_ends(data["long_ladder"], (1, 4, 16), "tables/long_ladder.csv") if long else None,
            drawn.get("long_variance"),
        ),
        section("Along training", drawn["curves_max_at_k"], drawn["curves_pass_at_1"]),
        section("Before and after training", drawn["ladder"], page.ladder_ends(data["ladder"])),
        section(
            "Gradient variance",
            page.matrix(data["claims"], method, ("gradient variance",)),
            drawn["variance_ratio"],
            drawn["snr"],
            text(f"No usable results/variance/<task>.csv: {', '.join(unmeasured)}." if unmeasured else ""),
        ),
        section(
            "Learning rates",
            page.pending(results, "learning_rate"),
            drawn["learning_rate"],
            page.rates_table(results) if "learning_rate" in results.trained else None,
            page.pending(results, "own_best"),
            *page.protocols(data["claims"]),
        ),
        section(
            "K, N and off-policy",
            page.heading("Does training for K maximise max@K?"),
            page.pending(results, "k_trained"),
            page.k_trained_said(data["k_trained"], margin),
            drawn["k_trained"],
            page.heading("Many small groups or few large ones, for the same number of samples"),
            page.pending(results, "group_size"),
            drawn["group_size"],
            page.heading("Two passes over each batch, clipped, as trainers do"),
            page.pending(results, "off_policy"),
            page.off_policy_table(data["off_policy"]),
        ),
        section(
            "How many seeds a verdict takes",
            *(
                [*of_study("power")[:1], page.power_table(results.studies["power"])]
                if "power" in studies
                else [text("Not computed yet: `make repro-studies`.")]
            ),
        ),
        section(
            "All estimators",
            drawn["estimators"],
            *(page.cheap_blocks(data["estimators"]) if len(data["estimators"]) else [text(NO_CHEAP)]),
        ),
        section("The estimators", text(words.OBJECTIVES), *of_study("properties", table=True)) if "properties" in studies else None,
        section("Studies without training", *with_headings(n for n in studies if n not in OWN_SECTION)),
        section("Every verdict", page.every_verdict(data["claims"])),
        section("Every cell", page.cell_table(data["cells"]), *page.exact_blocks(data["exact"]), page.runs_table(results)),
        section("State of the cells", *page.status_blocks(data["cells"], results.notes)),
        section(
            "LaTeX",
            text("max@K after training, mean over seeds, half-width of the 95% interval; needs booktabs."),
            {"kind": "code", "text": latex, "csv": "tables/max_at_k.tex"},
        ),
        section(
            "Time",
            text("Everything above repeats on any machine; times do not. Nothing above was computed from them."),
            page.matrix(data["time"], method, ("time",), csv="tables/time.csv") if len(data["time"]) else None,
            page.wall_table(data["wall_clock"]),
            page.costs_table(data["long_costs"]),
            *with_headings(TIMED),
        ),
    ]
    return [found for found in sections if found]


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
