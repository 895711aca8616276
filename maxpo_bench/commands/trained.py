"""`maxpo-bench trained STUDY TASK`."""

PLACE = 5
HELP = "run one study that trains, on one task (a pipeline stage)"


def arguments(parser):
    parser.add_argument("study", help="name of a file in maxpo_bench/studies/ that says what to train")
    parser.add_argument("task", help="name of a file in tasks/")


def run(args):
    from maxpo_bench.machine import numerics
    from maxpo_bench.settings.task_file import load

    numerics.ask(load(args.task).numerics)
    from maxpo_bench.pipeline.trained import run_trained

    return run_trained(args.study, args.task)
