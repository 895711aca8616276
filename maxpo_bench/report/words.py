"""What the report says in words: report.yaml, a half-line for every estimator, and the first sentences."""

import ast
from pathlib import Path

import yaml

from maxpo_bench.studies.style import REFERENCE

TEXT = yaml.safe_load((Path(__file__).parent / "report.yaml").read_text(encoding="utf-8"))


def caption(name, **values):
    return TEXT["captions"][name].format(**{"method": REFERENCE} | values)


def said(name, **values):
    return TEXT["paragraphs"][name].format(**values)


def about(name):
    """The half-line of an estimator; of one without the first sentence of its function's docstring."""
    from maxpo_bench import estimators

    path = Path(estimators.__file__).parent / f"{name}.py"
    if name in TEXT["about"] or not path.is_file():
        return TEXT["about"].get(name, "")
    found = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef) and n.name == name]
    text = (ast.get_docstring(found[0]) or "") if found else ""
    words = " ".join(text.split("\n\n")[0].split()).split(". ")[0].split()
    return " ".join([*words[:18], "..."] if len(words) > 18 else words)


def count(n, word, plural=None):
    return f"{n} {word if n == 1 else plural or word + 's'}"


def listed(names, most=5):
    """a, b and c; beyond `most` names their number."""
    names = list(names)
    if len(names) > most:
        return f"{len(names)} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


def short(value, sign=""):
    """.017, or +.017 with sign "+": three decimals and no leading zero."""
    text = "0" if abs(value) < 0.0005 else f"{value:{sign}.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


PURPOSES = {"max@K": "the best of K samples", "pass@1": "a single answer"}
STANDING = {"supported": "ahead of", "contradicted": "behind", "equivalent": "equivalent to", "undecided": "undecided against"}
BASELINE = {"supported": "{:.0f}% lower", "contradicted": "{:.0f}% higher", "equivalent": "as before", "undecided": "undecided"}


def first_sentences(verdicts, regimes, method="maxpo", nearest="pkpo"):
    """At most five sentences of at most 25 words: what to use for the best of K, what the method adds to the nearest rival in max@K
    and in variance, what to use for a single answer."""
    columns = ["measure", "aggregate", "rival", "verdict", "effect", "left_out", "num_tasks", "mostly"]
    verdicts = verdicts.reindex(columns=columns).dropna(subset=["effect"]).fillna({"mostly": ""})
    told = (
        (verdicts["measure"] == "max@K") & (verdicts["aggregate"] != "all") & (verdicts["rival"] == nearest)
    )  # in a sentence below
    best, one = (_use(verdicts[(verdicts["measure"] == measure) & ~told], measure, method) for measure in PURPOSES)
    if not best:
        return ["No rival can be compared in max@K yet: run the pipeline; what was run is under State of the cells."]
    rows = verdicts[verdicts["rival"] == nearest]
    groups = {measure: part[part["aggregate"] != "all"].to_dict("records") for measure, part in rows.groupby("measure")}
    gains = [f"{short(r['effect'], '+')} on {r['aggregate']} ({r['verdict']}{_mostly(r)})" for r in groups.get("max@K", ())]
    parts = [
        f"{BASELINE[r['verdict']].format(abs(100 / r['effect'] - 100))} on {r['aggregate']}"
        for r in groups.get("gradient variance", ())
    ]
    on_map = ""
    if regimes is not None and {"estimator", "ratio"} <= set(regimes):
        ratios = regimes.loc[regimes["estimator"] == nearest, "ratio"]
        on_map = f"on the map higher in {(ratios < 1 - 1e-9).sum()} of {len(ratios)} cases"
    who = (
        f"{method} is {nearest} with a baseline, which adds"
        if (method, nearest) == ("maxpo", "pkpo")
        else f"Over {nearest} it adds"
    )
    said = [f"{who} to max@K {', '.join(gains)}."] * bool(gains)
    measured = "; ".join(filter(None, [", ".join(parts), on_map]))
    said += [f"Its gradient variance is {measured}."] * bool(measured and method == "maxpo")
    return [*best, *said, *one[:1]]


def _mostly(row):
    """Of a decided difference: the single task that it comes from."""
    return f", mostly by {row['mostly']}" if row["mostly"] and row["verdict"] in ("supported", "contradicted") else ""


def _use(rows, measure, method):
    """What to use by one measure, and where the method stands on all tasks: two sentences when a rival is ahead there. One that is
    ahead on some of the tasks alone is named behind these."""
    parted = rows[(rows["aggregate"] != "all") & (rows["verdict"] == "contradicted") & (rows["left_out"] == 0)]
    rows = rows[rows["aggregate"] == "all"]
    if not len(rows):
        return []
    rows = rows.sort_values("effect", key=lambda e: -e.astype(float).round(9), kind="stable")
    rivals = {verdict: list(rows.loc[rows["verdict"] == verdict, "rival"]) for verdict in STANDING}
    ahead, said, but = rows[(rows["verdict"] == "contradicted") & (rows["left_out"] == 0)], [], ""
    start = f"For {PURPOSES[measure]} use {method}{'' if rivals['supported'] else ' by default'}: in {measure} it is"
    if len(ahead):
        best, start = ahead.iloc[-1], f"In {measure} {method} is"
        above = (
            f"its {measure} is {short(-best['effect'])} above {method}'s, mean of {count(best['num_tasks'], 'task')}{_mostly(best)}"
        )
        said = [f"For {PURPOSES[measure]} use {best['rival']}: {above}."]
    elif len(parted):
        worst = parted.sort_values("effect", kind="stable").iloc[0]
        but = f"; on {worst['aggregate']} {worst['rival']} leads by {short(-worst['effect'])}"
    for most in range(12, 0, -1):  # as many names as 25 words hold
        parts = [f"{words} {listed(rivals[verdict], most)}" for verdict, words in STANDING.items() if rivals[verdict]]
        sentence = f"{start} {', '.join(parts)}{but}."
        if len(sentence.split()) <= 25:
            break
    return [*said, sentence]
