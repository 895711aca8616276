"""`maxpo-bench new-estimator NAME`."""

PLACE = 11
HELP = "write the file of a new estimator"


def arguments(parser):
    parser.add_argument("name")


def run(args):
    from maxpo_bench.new_estimator import create
    from maxpo_bench.task_file import root

    create(args.name, root())
    return 0
