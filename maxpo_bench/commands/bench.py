"""`maxpo-bench bench [--against REV]`."""

PLACE = 12
HELP = "run the performance suite; with --against, gate this tree against a revision"


def arguments(parser):
    parser.add_argument("--against", metavar="REV", help="git revision to compare with, interleaved in one job")


def run(args):
    from maxpo_bench.pipeline.bench import main

    return main(args)
