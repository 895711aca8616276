"""`maxpo-bench doctor`."""

PLACE = 8
HELP = "what this machine has, which tasks can run on it, and how long they take"


def arguments(parser):
    pass


def run(args):
    from maxpo_bench.pipeline.doctor import examine

    for line in examine():
        print(line)
    return 0
