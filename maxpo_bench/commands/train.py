"""`maxpo-bench train TASK ESTIMATOR`."""

PLACE = 3
HELP = "train one cell: a task under an estimator (a pipeline stage)"


def arguments(parser):
    parser.add_argument("task", help="name of a file in tasks/, or a path ending in .yaml")
    parser.add_argument("estimator", help="name of a file in maxpo_bench/estimators/")
    parser.add_argument("--results", metavar="DIR", help="read the base from and write below this folder instead of results/")
    parser.add_argument("--seeds", metavar="A:B", help="seeds A to B-1 instead of the task's own; needs --results")
    parser.add_argument("--beside", metavar="N", type=int, help="no default cell: N seeds, into results/estimators/")


def run(args):
    from maxpo_bench.machine import numerics
    from maxpo_bench.settings.task_file import load, seed_range

    task, seeds = load(args.task), seed_range(args.seeds, args.results)
    numerics.ask(task.numerics)
    from maxpo_bench.pipeline.cell import run_beside, run_cell

    if args.beside is not None:
        return run_beside(args.task, args.estimator, args.beside)
    return run_cell(args.task, args.estimator, args.results, seeds)
