"""Conformance check of an advantage function from anywhere: what it estimates, and where it goes wrong.

    from maxpo_bench.check import check_estimator
    report = check_estimator(my_function)          # or: maxpo-bench check my_module:my_function
    print(report); report.ok; report.failed; report.equals
"""


def check_estimator(function, convention=None, k=None, objective=None, name=None):
    """Check an advantage function against exact enumeration. Returns a Report; raises InputError for a bad argument.

    function    f(rewards [..., N], k), or TRL's f(flat rewards, num_generations), or verl's f(token_level_rewards,
                response_mask, index) -> (advantages, returns); a parameter k is optional in each
    convention  "groups", "trl" or "verl"; detected from the parameters' names by default
    k           the k it is meant for, when it takes none; otherwise restricts the check to that k
    objective   "J_1", "J_K", "sum J_K/K" or "none" (do not test bias). By default J_K when the advantages depend on k,
                else J_1, with "sum J_K/K" accepted in its place
    Takes a few seconds; does not change the function's module or torch's state.
    """
    from maxpo_bench.check.findings import run_checks

    return run_checks(function, convention, k, objective, name)


def main(args):
    """`maxpo-bench check FUNCTION`: prints the report. Returns 0 when every property passes, else 1."""
    from maxpo_bench.check.conventions import load

    report = check_estimator(load(args.place), getattr(args, "convention", None), getattr(args, "k", None),
                             getattr(args, "objective", None), args.place)
    print(report)
    return 0 if report.ok else 1
