"""`maxpo-bench advise`."""

PLACE = 9
HELP = "the settings that make a trainer's gradient equal an estimator's"


def arguments(parser):
    parser.add_argument("--trainer", required=True, metavar="TRAINER", help="trl or verl")
    parser.add_argument("--estimator", required=True, metavar="NAME", help="an estimator of the registry")
    parser.add_argument("-k", type=int, default=1, help="samples of which the best counts (default 1)")
    parser.add_argument("-n", type=int, required=True, help="completions of a prompt")
    parser.add_argument("--learning-rate", type=float, default=1e-6, help="at the estimator's own scale (default 1e-6)")
    parser.add_argument("--max-length", type=int, default=512, metavar="TOKENS", help="longest completion (default 512)")
    parser.add_argument("--mean-length", type=int, default=128, metavar="TOKENS", help="mean completion (default 128)")


def run(args):
    from maxpo_bench.check.trainers import advise

    print(advise(args.trainer, args.estimator, args.k, args.n, args.learning_rate, args.max_length, args.mean_length))
    return 0
