"""The page "Gallery of estimators", made when the site is built: docstring, property row, cost, where shipped, two pictures."""

import csv
import html
from pathlib import Path

import torch

from maxpo_bench.check import shipped
from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get, names

ROOT = Path(__file__).resolve().parents[1]
N, K = 16, 4
GROUPS = torch.linspace(0, 1, N, dtype=torch.float64) ** 2 * torch.tensor([1.0, 0.9, 0.8, 0.7], dtype=torch.float64)[:, None]
SECTIONS = (  # title, what follows it, and the objectives that stand there, by the property table
    ("The best of K", "Expected best reward of K samples, J_K.", ("J_K",)),
    ("The mean reward", "Mean reward, J_1, whatever the rewards.", ("J_1",)),
    ("Other objectives", "Sums of J_j, the worst of K, an exponential of the reward.", None),
    ("The mean reward, on 0/1 rewards alone", "Along the gradient of J_1 while rewards are 0 or 1; beyond that, of nothing known.",
     ("J_1 on binary rewards",)),
    ("No known objective", "The expected gradient is that of nothing known, whatever the rewards.", ("none",)),
)  # fmt: skip


def page():
    """The page's Markdown. Reads results/studies/properties.csv and cost.csv; runs every estimator on the same groups."""
    properties = {row["estimator"]: row for row in read("properties")}
    costs = {(row["estimator"], row["group_size"]): float(row["time_us_per_group"]) for row in read("cost")}
    found = {title: [] for title, _, _ in SECTIONS}
    for name in names():
        found[section(properties.get(name))].append(name)
    text = [INTRODUCTION, glance(found, properties)]
    for title, says, _ in SECTIONS:
        if found[title]:
            text += [f"## {title}\n", says + "\n"]
            text += [entry(name, properties.get(name), costs) for name in found[title]]
    return "\n".join(text)


INTRODUCTION = f"""# Gallery of estimators

Every entry of the registry, in order of what its expected gradient is. Notation: a group has N rewards r_i; q_i is the mean of the
best reward over the K-subsets that contain i, v_-i over the K-subsets without i, u_i over the (K-1)-subsets without i, and
D_i = q_i - u_i. Advantages are on the scale of the mean loss, `-(advantages * log_probs).mean()`.

The pictures show the function itself, at N = {N} and K = {K} (`best_gap`: K = N):

- **left**, advantage against reward in one group of {N} rewards between 0 and 1 (where it takes only 0 and 1: not drawn);
- **right**, groups of 0/1 rewards: the advantage of a <span class="success">success</span> and of a
  <span class="failure">failure</span> against how many of the {N} succeed.

The dashed line is 0; a point tells its value under the pointer. Estimators that read the other groups of the batch get three others
beside it. Properties come from exact enumeration, not from declarations ([what the columns mean](report.md#the-property-table));
times were measured on one processor core, all estimators in one run.

## All at a glance

'along': the direction is exact for each prompt, the size depends on the policy. 'own sample': a sample's own reward enters its own
scale or baseline.
"""


def read(study):
    with open(ROOT / "results" / "studies" / f"{study}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def section(row):
    if row is None:
        return SECTIONS[-1][0]
    return next((title for title, _, objectives in SECTIONS if objectives and row["direction"] in objectives), SECTIONS[2][0])


def entry(name, row, costs):
    """One estimator: heading, formula, pictures, properties."""
    estimator = get(name)
    formula, _, rest = (estimator.__doc__ or "").strip().partition("\n\n")
    paragraphs = [" ".join(part.split()) for part in (formula, *rest.split("\n\n")) if part.strip()]
    lines = [f"### {name}\n", *(f'<p class="formula">{html.escape(text)}</p>\n' for text in paragraphs)]
    lines.append('<div class="pictures" data-search-exclude>' + graded(estimator) + binary(estimator) + "</div>\n")
    listed = "".join(f"<dt>{label}</dt><dd>{value}</dd>" for label, value in facts(estimator, row, costs) if value)
    return "\n".join([*lines, f'<dl class="facts">{listed}</dl>\n'])


def facts(estimator, row, costs):
    """(label, value) of the property row, the cost and the trainers."""
    if row is None:
        yield "properties", "not in the committed property table yet"
    else:
        yield "E[g]", shipped.gradient(row)
        yield "sums to zero", row["centred"]
        yield "group of equal rewards", row["flat_group"]
        yield "own reward in its own scale or baseline", row["own_sample"]
        yield "K it takes", row["valid_k"]
        yield "at K = 1", row["k_1"]
        yield "rewards it takes", row["rewards"]
    yield "also reads", ", ".join((*estimator.side, *(("other groups of the batch",) if estimator.across_groups else ())))
    yield "options", ", ".join(f"<code>{html.escape(f'{option}={value!r}')}</code>" for option, value in estimator.options.items())
    yield "cost", cost(estimator, costs)
    yield "shipped as", html.escape(shipped.shipped_as(estimator.name))
    yield "source", html.escape(estimator.source)


def cost(estimator, costs):
    """O(...), and the measured time of a group beside rloo's."""
    parts = [f"O({estimator.cost})"]
    for size in ("16", "1024"):
        time, least = costs.get((estimator.name, size)), costs.get(("rloo", size))
        if time and least:
            beside = "" if estimator.name == "rloo" else f", {time / least:.2g} × rloo"
            parts.append(f"{time:.2g} µs for a group of {int(size):,}{beside}")
    return "; ".join(parts)


def glance(found, properties):
    """All estimators in one table."""
    lines = ["| estimator | E[g] | sums to zero | own sample | shipped by |", "|---|---|---|---|---|"]
    for name in (name for names_ in found.values() for name in names_):
        row = properties.get(name)
        trainers = dict.fromkeys(r["trainer"] for r in shipped.rows() if r["formula"] and shipped.parse(r["formula"])[0] == name)
        listed = ", ".join(list(trainers)[:4]) + (f" and {len(trainers) - 4} more" if len(trainers) > 4 else "")
        gradient, centred, own = (shipped.gradient(row), row["centred"], row["own_sample"]) if row else ("", "", "")
        lines.append(f"| [{name}](#{name}) | {gradient} | {centred} | {own} | {listed} |")
    return "\n".join(lines) + "\n"


def advantages(estimator, rewards):
    """Of the first of the groups, list of N; None where it does not take such rewards."""
    k = K if K in estimator.valid_k(N) else estimator.valid_k(N)[-1]
    try:
        return estimator(rewards, k=k)[0].tolist()
    except InputError:
        return None


def graded(estimator):
    """Advantage against reward in one group, as SVG."""
    found = advantages(estimator, GROUPS)
    if found is None:
        return ""
    points = list(zip(GROUPS[0].tolist(), found, strict=True))
    return chart([("graded", points)], "reward", f"Advantage against reward, {estimator.name}", "1")


def binary(estimator):
    """Advantage of a success and of a failure against the number of successes, as SVG."""
    success, failure = [], []
    for count in range(1, N):
        rewards = torch.zeros(4, N, dtype=torch.float64)
        rewards[0, :count] = 1
        rewards[1, : N // 2] = rewards[2, : N // 4] = rewards[3, : 3 * N // 4] = 1
        found = advantages(estimator, rewards)
        if found is None:
            return ""
        success.append((count / N, found[0]))
        failure.append((count / N, found[-1]))
    title = f"Advantage of a success and of a failure, {estimator.name}"
    return chart([("success", success), ("failure", failure)], "successes in the group", title, str(N))


def chart(series, x_label, title, x_end, width=300, height=170, left=34, right=14, top=14, bottom=30):
    """A small SVG that follows the page's colours. series: [(class, [(x in 0..1, y)])]."""
    values = [y for _, points in series for _, y in points]
    low, high = min(0.0, *values), max(0.0, *values)
    span = high - low or 1.0

    def at(x, y):
        return left + x * (width - left - right), top + (high - y) / span * (height - top - bottom)

    zero = at(0, 0)[1]
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}"><title>{title}</title>',
        f'<line class="zero" x1="{left}" x2="{width - right}" y1="{zero:.1f}" y2="{zero:.1f}"/>',
        f'<line class="axis" x1="{left}" x2="{left}" y1="{top}" y2="{height - bottom}"/>',
    ]
    near = 0.08 * span  # no room for two numbers
    for value in {0.0, *(value for value in (low, high) if abs(value) > near)}:
        parts.append(f'<text class="tick" x="{left - 4}" y="{at(0, value)[1] + 3:.1f}" text-anchor="end">{value:.3g}</text>')
    middle = (left + width - right) / 2
    parts.append(f'<text x="{left}" y="{height - 14}">0</text>')
    parts.append(f'<text x="{width - right}" y="{height - 14}" text-anchor="end">{x_end}</text>')
    parts.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">{x_label}</text>')
    for kind, points in series:
        places = [at(x, y) for x, y in points]
        parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
        for (x, y), (_, value) in zip(places, points, strict=True):
            parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"><title>{value:.4g}</title></circle>')
    return "".join([*parts, "</svg>"])
