"""`maxpo-bench compare [--against REV] [--results DIR] [--all]`."""

PLACE = 8
HELP = "say whether the results here are the same as those of a revision"


def arguments(parser):
    parser.add_argument("--against", default="HEAD", metavar="REV", help="git revision (default HEAD)")
    parser.add_argument("--results", metavar="DIR", help="folder of recomputed results (default results/)")
    parser.add_argument("--all", action="store_true", help="every row, not only the 20 worst of what differs")


def run(args):
    from maxpo_bench.pipeline.compare import main

    return main(args)
