"""`maxpo-bench study NAME`."""

PLACE = 5
HELP = "run one study that needs no cell of the benchmark (a pipeline stage)"


def arguments(parser):
    parser.add_argument("name", help="name of a file in maxpo_bench/studies/")


def run(args):
    from maxpo_bench.machine import numerics

    numerics.ask()
    from maxpo_bench.pipeline.study import run_study

    return run_study(args.name)
