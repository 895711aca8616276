"""`maxpo-bench variance TASK`."""

PLACE = 4
HELP = "measure every estimator's gradient on the same samples (a pipeline stage)"


def arguments(parser):
    parser.add_argument("task")


def run(args):
    from maxpo_bench.machine import numerics
    from maxpo_bench.settings.task_file import load

    numerics.ask(load(args.task).numerics)
    from maxpo_bench.pipeline.variance import run_variance

    return run_variance(args.task)
