"""`maxpo-bench repro [TASK ...]`."""

PLACE = 7
HELP = "recompute tasks beside what is published, and say whether they come out the same"


def arguments(parser):
    parser.add_argument("tasks", nargs="*", help="default: bandit maze countdown3")


def run(args):
    from maxpo_bench.pipeline.repro import repro

    return repro(args.tasks)
