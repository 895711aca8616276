"""`maxpo-bench repro [TASK ...]`."""

PLACE = 7
HELP = "recompute tasks through the pipeline, then the report and the comparison with the published"


def arguments(parser):
    parser.add_argument("tasks", nargs="*", help="default: bandit maze countdown3")
    parser.add_argument("--all", action="store_true", help="every task and study of params.yaml")


def run(args):
    from maxpo_bench.pipeline.repro import repro

    return repro(args.tasks, everything=args.all)
