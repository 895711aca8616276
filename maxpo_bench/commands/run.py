"""`maxpo-bench run TASK ... | --all | --long`."""

PLACE = 6
HELP = "compute tasks into results/ through the pipeline, as far as they are not up to date, and the report"


def arguments(parser):
    parser.add_argument("tasks", nargs="*", help="names in params.yaml")
    parser.add_argument("--all", action="store_true", help="every task and study of params.yaml")
    parser.add_argument("--long", action="store_true", help="every task of long_tasks in params.yaml: hours each")


def run(args):
    from maxpo_bench.pipeline.repro import run as compute

    return compute(args.tasks, everything=args.all, long=args.long)
