"""`maxpo-bench compare [--against REV]`."""

PLACE = 8
HELP = "compare the results here with those of a revision"


def arguments(parser):
    parser.add_argument("--against", default="HEAD", metavar="REV", help="git revision (default HEAD)")


def run(args):
    from maxpo_bench.pipeline.compare import main

    return main(args)
