"""`maxpo-bench rerecord [TASK ...]`."""

PLACE = 8
HELP = "record stale cells, trainings and variance tables again whose first seeds repeat to the byte"


def arguments(parser):
    parser.add_argument("tasks", nargs="*", help="default: all of params.yaml")


def run(args):
    from maxpo_bench.pipeline.rerecord import rerecord

    return rerecord(args.tasks)
