"""`maxpo-bench new-task NAME --env ID`."""

PLACE = 10
HELP = "write a task file for a gymnasium environment"


def arguments(parser):
    parser.add_argument("name")
    parser.add_argument("--env", required=True, metavar="ID", help="a registered gymnasium id, or module:Id as in gymnasium.make")


def run(args):
    from maxpo_bench.pipeline import dvc_files
    from maxpo_bench.problems.new_task import create
    from maxpo_bench.settings.task_file import root

    create(args.name, args.env, root())
    if (root() / "params.yaml").is_file():  # a project: its stages, as `plan` would write them
        dvc_files.write(root(), [args.name])
    return 0
