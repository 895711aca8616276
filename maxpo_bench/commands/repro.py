"""`maxpo-bench repro [TASK ...]`, `maxpo-bench repro --on ray[:ADDRESS] [TASK ...]`."""

PLACE = 7
HELP = "recompute tasks beside what is published, and say whether they come out the same; with --on: compute what is stale on Ray"


def arguments(parser):
    parser.add_argument("tasks", nargs="*", help="default: bandit maze countdown3; with --on, all that plain `dvc repro` runs")
    where = "into results/, what is stale, as `dvc repro` does: on a Ray of this machine (ray) or on a cluster (ray:ADDRESS)"
    parser.add_argument("--on", metavar="ray[:ADDRESS]", help=where)


def run(args):
    if args.on:
        from maxpo_bench.cluster.driver import run as compute

        return compute(args.tasks, "", args.on)
    from maxpo_bench.pipeline.repro import repro

    return repro(args.tasks)
