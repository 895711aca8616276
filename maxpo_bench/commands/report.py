"""`maxpo-bench report`."""

PLACE = 6
HELP = "write results/report.md and report.html from the results (a pipeline stage)"


def arguments(parser):
    pass


def run(args):
    from maxpo_bench.machine import numerics

    numerics.ask()
    from maxpo_bench.report import build
    from maxpo_bench.settings.task_file import root

    return build(root())
