"""`maxpo-bench base TASK`."""

PLACE = 2
HELP = "make the base policies of a task and evaluate them (a pipeline stage)"


def arguments(parser):
    parser.add_argument("task", help="name of a file in tasks/, or a path ending in .yaml")


def run(args):
    from maxpo_bench.pipeline.base import run_base

    return run_base(args.task)
