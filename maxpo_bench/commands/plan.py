"""`maxpo-bench plan`."""

PLACE = 1
HELP = "print the cells, their state (up to date, stale, missing) and an estimated time"


def arguments(parser):
    pass


def run(args):
    from maxpo_bench.pipeline.plan import print_plan

    return print_plan()
