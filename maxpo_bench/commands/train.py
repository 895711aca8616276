"""`maxpo-bench train TASK ESTIMATOR`."""

PLACE = 3
HELP = "train one cell: a task under an estimator (a pipeline stage)"


def arguments(parser):
    parser.add_argument("task", help="name of a file in tasks/, or a path ending in .yaml")
    parser.add_argument("estimator", help="name of a file in maxpo_bench/estimators/")


def run(args):
    from maxpo_bench.pipeline.cell import run_cell

    return run_cell(args.task, args.estimator)
