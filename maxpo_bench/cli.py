"""The command line: parses, dispatches, and turns errors into one line. Imports nothing heavy before it must.

Exit codes: 0 done; 1 something broke or a check failed; 2 bad input; 130 interrupted.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from maxpo_bench.errors import Fault, InputError


def plan(args):
    from maxpo_bench.pipeline import print_plan

    return print_plan()


def base(args):
    from maxpo_bench.cell import run_base

    return run_base(args.task)


def train(args):
    from maxpo_bench.cell import run_cell

    return run_cell(args.task, args.estimator)


def variance(args):
    from maxpo_bench.stages import run_variance

    return run_variance(args.task)


def study(args):
    from maxpo_bench.stages import run_study

    return run_study(args.name)


def report(args):
    from maxpo_bench.report import build
    from maxpo_bench.task_file import root

    return build(root())


def compare(args):
    from maxpo_bench.compare import main

    return main(args)


def repro(args):
    from maxpo_bench.pipeline import repro

    return repro(args.tasks, everything=args.all)


def check(args):
    from maxpo_bench.check import main

    return main(args)


def new_task(args):
    from maxpo_bench.new_task import create
    from maxpo_bench.task_file import root

    create(args.name, args.env, root())
    return 0


def new_estimator(args):
    from maxpo_bench.new_estimator import create
    from maxpo_bench.task_file import root

    create(args.name, root())
    return 0


def bench(args):
    from maxpo_bench.bench import main

    return main(args)


def make_parser():
    parser = argparse.ArgumentParser(
        prog="maxpo-bench",
        description="Benchmark of advantage estimators for group-based RL post-training.",
        epilog="Start with `maxpo-bench plan`. Errors exit with 2 (bad input) or 1 (something broke).",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function, text, name=None):
        sub = commands.add_parser(name or function.__name__, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    command(plan, "print the cells, their state (up to date, stale, missing) and an estimated time")
    sub = command(base, "make the base policies of a task and evaluate them (a pipeline stage)")
    sub.add_argument("task", help="name of a file in tasks/, or a path ending in .yaml")
    sub = command(train, "train one cell: a task under an estimator (a pipeline stage)")
    sub.add_argument("task", help="name of a file in tasks/, or a path ending in .yaml")
    sub.add_argument("estimator", help="name of a file in maxpo_bench/estimators/")
    sub = command(variance, "measure every estimator's gradient on the same samples (a pipeline stage)")
    sub.add_argument("task")
    sub = command(study, "run one study that needs no training (a pipeline stage)")
    sub.add_argument("name", help="name of a file in maxpo_bench/studies/")
    command(report, "write results/report.md and report.html from the results (a pipeline stage)")
    sub = command(repro, "recompute tasks through the pipeline, then the report and the comparison with the published")
    sub.add_argument("tasks", nargs="*", help="default: bandit maze countdown3")
    sub.add_argument("--all", action="store_true", help="every task and study of params.yaml")
    sub = command(compare, "compare the results here with those of a revision")
    sub.add_argument("--against", default="HEAD", metavar="REV", help="git revision (default HEAD)")
    sub = command(check, "conformance check of an advantage function from anywhere")
    sub.add_argument("place", metavar="FUNCTION", help="module:function or file.py:function")
    sub.add_argument("--convention", choices=("groups", "trl", "verl"), help="calling convention (default: detected)")
    sub.add_argument("--k", type=int, help="the k it is meant for, when the function takes none")
    sub.add_argument("--objective", help="J_1, J_K, 'sum J_K/K' or none (default: told from how it uses k)")
    sub = command(new_task, "write a task file for a gymnasium environment", "new-task")
    sub.add_argument("name")
    sub.add_argument("--env", required=True, metavar="ID", help="a registered gymnasium id")
    sub = command(new_estimator, "write the file of a new estimator", "new-estimator")
    sub.add_argument("name")
    sub = command(bench, "run the performance suite; with --against, gate this tree against a revision")
    sub.add_argument("--against", metavar="REV", help="git revision to compare with, interleaved in one job")
    return parser


def main(argv=None):
    """Entry point of `maxpo-bench`. Returns the exit code."""
    args = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return args.function(args)
    except InputError as error:
        print(f"maxpo-bench: error: {error}", file=sys.stderr)
        return 2
    except Fault as error:
        print(f"maxpo-bench: failed: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads us, `| head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"maxpo-bench: failed: {name}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"maxpo-bench: {args.command} interrupted; the same command continues from its last checkpoint", file=sys.stderr)
        return 130


def _terminate(signum, frame):
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    sys.exit(main())
