"""`maxpo-bench summary TASK`."""

PLACE = 5
HELP = "one table of what became of a task's cells (a pipeline stage)"


def arguments(parser):
    parser.add_argument("task")


def run(args):
    from maxpo_bench.pipeline.summary import run_summary

    return run_summary(args.task)
