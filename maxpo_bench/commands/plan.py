"""`maxpo-bench plan [--on ray[:ADDRESS]]`."""

PLACE = 1
HELP = "print the cells, their state (up to date, stale, missing) and an estimated time"


def arguments(parser):
    parser.add_argument("--on", metavar="ray[:ADDRESS]", help="also how long it would take on Ray: here, or on a cluster")


def run(args):
    if args.on:
        from maxpo_bench.cluster import driver

        driver.address_of(args.on)
    from maxpo_bench.pipeline.plan import print_plan

    return print_plan() or (driver.plan(args.on) if args.on else 0)
