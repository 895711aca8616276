"""`maxpo-bench run TASK ... | --all | --studies | --estimators | --long`, each with `--on ray[:ADDRESS]` or without."""

PLACE = 6
HELP = "compute tasks into results/ through the pipeline, as far as they are not up to date, and the report"

PARTS = {
    "all": "every task and the short studies",
    "studies": "the studies that train for hours",
    "estimators": "the estimators besides the default ones",
    "long": "every task of long_tasks in params.yaml: hours each",
}


def arguments(parser):
    parser.add_argument("tasks", nargs="*", help="names in params.yaml")
    parts = parser.add_mutually_exclusive_group()
    for part, about in PARTS.items():
        parts.add_argument(f"--{part}", action="store_const", const=part, dest="part", default="", help=about)
    parser.add_argument("--on", metavar="ray[:ADDRESS]", help="on a Ray of this machine (ray) or on a cluster (ray:ADDRESS)")


def run(args):
    from maxpo_bench.pipeline import repro

    if args.on:
        from maxpo_bench.cluster import driver

        repro.check_asked(args.tasks, args.part)
        return driver.run(args.tasks, args.part, args.on)
    return repro.run(args.tasks, args.part)
