"""`maxpo-bench base TASK`."""

PLACE = 2
HELP = "make the base policies of a task and evaluate them (a pipeline stage)"


def arguments(parser):
    parser.add_argument("task", help="name of a file in tasks/, or a path ending in .yaml")
    parser.add_argument("--results", metavar="DIR", help="write below this folder instead of results/")
    parser.add_argument("--seeds", metavar="A:B", help="seeds A to B-1 instead of the task's own; needs --results")


def run(args):
    from maxpo_bench.machine import numerics
    from maxpo_bench.settings.task_file import load, seed_range

    seeds = seed_range(args.seeds, args.results)
    numerics.ask(load(args.task).numerics)
    from maxpo_bench.pipeline.base import run_base

    return run_base(args.task, args.results, seeds)
