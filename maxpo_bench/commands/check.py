"""`maxpo-bench check FUNCTION`."""

PLACE = 9
HELP = "conformance check of an advantage function from anywhere"


def arguments(parser):
    parser.add_argument("place", metavar="FUNCTION", help="module:function or file.py:function")
    parser.add_argument("--convention", choices=("groups", "trl", "verl"), help="calling convention (default: detected)")
    parser.add_argument("--trainer", choices=("trl", "verl"), help="in this trainer's convention, and what its losses make of it")
    parser.add_argument("--k", type=int, help="the k it is meant for, when the function takes none")
    parser.add_argument("--k-parameter", metavar="NAME", help="the parameter that takes k, when its name does not tell")
    parser.add_argument("--group-size-parameter", metavar="NAME", help="the parameter that takes the group size N")
    parser.add_argument("--objective", help="J_1, J_K, 'sum J_K/K' or none (default: told from how it uses k)")


def run(args):
    from maxpo_bench.check import main

    return main(args)
