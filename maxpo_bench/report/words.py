"""What the report calls things: a half-line for every estimator, the terms, the kinds of policy, and the first sentences."""

import ast
from pathlib import Path

ABOUT = {
    "maxpo": "the method under test: pkpo's signal minus a leave-two-out baseline, so that a group sums to zero",
    "pkpo": "what a sample adds to the best of K; never below zero, no baseline",
    "pkpo_loo": "pkpo's earlier form: best of K with the sample minus a leave-one-out baseline, off-centre",
    "pkpo_raw": "the best of K with the sample, nothing subtracted",
    "pkpo_centred": "pkpo minus its group's mean: biased, here as a negative control",
    "rloo": "reward minus the mean of the other samples; aims at the mean reward",
    "dr_grpo": "reward minus the group's mean; aims at the mean reward",
    "grpo": "reward minus the group's mean, over its standard deviation; aims at the mean reward",
    "reinforce": "the plain reward, nothing subtracted",
    "bon_mean": "maxpo over its group's standard deviation",
    "passk_training": "chance that K samples pass, over its standard deviation; rewards 0 or 1 only",
    "passk_reweighted": "mean-reward advantages, weighted towards hard prompts",
    "tailrl": "maxpo for every K at once, each over its K",
    "maxrl": "reward minus the group's mean, over that mean",
    "rs_grpo": "exponential of the reward over the group's mean of it: risk-seeking",
    "best_gap": "rewards only the best sample, by its lead over the second",
    "fitted_blend": "this project's: between maxpo and pkpo, the weight fitted on other groups",
    "baseline_blend": "between maxpo (weight 1) and pkpo (weight 0), a fixed weight",
}
TERMS = (
    "N samples of one prompt or start state are a group; K is how many tries count. max@k is the expected best reward of k "
    "samples, pass@k the chance that one of k passes, pass@1 that a single one does."
)
OBJECTIVES = "J_K is max@K as the objective of training, J_1 the mean reward; a bias is measured against them."
ALIKE = {  # geometry of the regime study -> what kind of policy that is
    "10 contexts of 10 arms": "10 prompts, 10 arms",
    "orthogonal": "very many parameters",
    "orthogonal, failures 2.5 x": "many; failures' gradients 2.5 x",
    "orthogonal, prompts p and 1-p": "many; easy and hard prompts",
}


def about(name):
    """The half-line of an estimator; of one that is not in ABOUT the first sentence of its function's docstring."""
    if name in ABOUT:
        return ABOUT[name]
    from maxpo_bench import estimators

    path = Path(estimators.__file__).parent / f"{name}.py"
    if not path.is_file():
        return ""
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


def first_sentences(verdicts, regimes, method="maxpo", nearest="pkpo"):
    """At most five sentences of at most 25 words: a default to use for the best of K, what is decided, the nearest rival, what the
    baseline does, and a default for a single answer."""
    best, one = (_default(verdicts, measure, purpose, method) for measure, purpose in PURPOSES.items())
    standing = _standing(f"In max@K {method} is", best[1]) if best[1] else ""
    joined = one[0].split(": no rival")[0]  # the default and who it is ahead of in one sentence
    single = _standing(f"{joined}: in pass@1 it is", one[1]) if one[1] and joined != one[0] else one[0]
    said = [best[0], standing, _nearest(verdicts, method, nearest), _baseline(verdicts, regimes, method, nearest), single]
    return [sentence for sentence in said if sentence]


PURPOSES = {"max@K": "the best of K samples", "pass@1": "a single answer"}
STANDING = {"supported": "ahead of", "contradicted": "behind", "equivalent": "equivalent to", "undecided": "undecided against"}


def _default(verdicts, measure, purpose, method):
    """(the sentence that names a default, {verdict: rivals} over all tasks)."""
    rows = verdicts[(verdicts["measure"] == measure) & (verdicts["aggregate"] == "all")] if len(verdicts) else verdicts
    if not len(rows) or rows["effect"].isna().all():
        return f"No rival can be compared in {measure} yet: run the pipeline; what was run is under State of the cells.", {}
    rows = rows.sort_values("effect", key=lambda e: -e.astype(float).round(9), kind="stable")
    standing = {v: list(rows.loc[rows["verdict"] == v, "rival"]) for v in STANDING}
    ahead = rows[(rows["verdict"] == "contradicted") & (rows["left_out"] == 0)]
    if not len(ahead):
        said = f"For {purpose} use {method} by default: no rival is shown to be ahead of it in {measure} over all tasks."
        return said, standing
    best = ahead.iloc[-1]
    above = f"its {measure} is {short(-best['effect'])} above {method}'s, mean of {count(best['num_tasks'], 'task')}"
    return f"For {purpose} use {best['rival']}: {above}.", standing


def _standing(start, by_verdict):
    """ "In max@K maxpo is ahead of a, b and c, undecided against d.", with as many names as 25 words hold."""
    for most in range(12, 0, -1):
        parts = [f"{words} {listed(by_verdict[verdict], most)}" for verdict, words in STANDING.items() if by_verdict[verdict]]
        sentence = f"{start} {', '.join(parts)}."
        if len(sentence.split()) <= 25:
            break
    return sentence


def short(value, sign=""):
    """.017, or +.017 with sign "+": three decimals and no leading zero."""
    if abs(value) < 0.0005:
        return "0"
    return f"{value:{sign}.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:{sign}.3f}"


def _nearest(verdicts, method, nearest):
    """What is known of max@K against the nearest rival on each group of tasks."""
    rows = verdicts[(verdicts["measure"] == "max@K") & (verdicts["rival"] == nearest)] if len(verdicts) else verdicts
    rows = rows.dropna(subset=["effect"]) if len(rows) else rows
    parts = [
        f"{short(r['effect'], '+')} on {r['aggregate']} ({r['verdict']})" for _, r in rows.iterrows() if r["aggregate"] != "all"
    ]
    who = f"{nearest}, which lacks its baseline," if (nearest, method) == ("pkpo", "maxpo") else f"the nearest rival, {nearest},"
    return f"Over {who} {method}'s lead in max@K is {', '.join(parts)}." if parts else ""


EFFECT = {"supported": "lowers it", "contradicted": "raises it", "equivalent": "keeps it", "undecided": "leaves it open"}


def _baseline(verdicts, regimes, method, nearest):
    """What the method's baseline does to the variance: on the tasks' own policies, and on the map of regimes; "" without either."""
    if not len(verdicts):
        return ""
    rows = verdicts[(verdicts["measure"] == "gradient variance") & (verdicts["rival"] == nearest)].dropna(subset=["effect"])
    rows = rows[rows["aggregate"] != "all"] if len(rows) > 1 else rows
    parts, last = [], None
    for _, r in rows.iterrows():
        where = f"{r['aggregate'].replace('all', 'the tasks')} ({100 / r['effect'] - 100:+.0f}%)"
        parts.append(where if r["verdict"] == last else f"{EFFECT[r['verdict']]} on {where}")
        last = r["verdict"]
    if regimes is not None and {"estimator", "ratio"} <= set(regimes):
        ratios = regimes.loc[regimes["estimator"] == nearest, "ratio"]
        raised = f"in {(ratios < 1 - 1e-9).sum()}/{len(ratios)} cases"
        parts.append(f"and {raised}" if last == "contradicted" else f"raises it {raised}")
    if not parts:
        return ""
    parts[0] = parts[0].replace(" it", " gradient variance", 1)
    sentences = [f"Against {nearest}, {method}'s baseline {', '.join(parts[: len(parts) - cut])}." for cut in range(len(parts))]
    return next(s for s in sentences if len(s.split()) <= 25)
