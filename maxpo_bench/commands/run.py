"""`maxpo-bench run TASK ... | --all`."""

PLACE = 6
HELP = "compute tasks into results/ through the pipeline, as far as they are not up to date, and the report"


def arguments(parser):
    parser.add_argument("tasks", nargs="*", help="names in params.yaml")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--all", action="store_const", const="all", dest="part", default="", help="every task and the short studies")
    parts.add_argument("--studies", action="store_const", const="studies", dest="part", help="the studies that train for hours")
    parts.add_argument(
        "--estimators", action="store_const", const="estimators", dest="part", help="the estimators besides the default ones"
    )


def run(args):
    from maxpo_bench.pipeline.repro import run as compute

    return compute(args.tasks, args.part)
