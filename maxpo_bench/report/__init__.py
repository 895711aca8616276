"""The results report: declared cells in, figures, tables, verdicts and one page out. A function of the results alone."""


def build(root="."):
    """Write results/report.md, report.html, figures, tables, claims.json and metrics.json under root; returns 0."""
    from maxpo_bench.report.render import build as write

    return write(root)
