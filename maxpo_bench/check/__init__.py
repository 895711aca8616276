"""Conformance check of an advantage function from anywhere: what it estimates, and where it goes wrong.

from maxpo_bench.check import check_estimator
report = check_estimator(my_function)          # or: maxpo-bench check my_module:my_function
print(report); report.ok; report.failed; report.equals
"""


def check_estimator(function, convention=None, k=None, objective=None, name=None, k_parameter=None, group_size_parameter=None):
    """Check an advantage function against exact enumeration. Returns a Report.

    function    f(rewards [..., N], k), or TRL's f(flat rewards, num_generations), or verl's f(token_level_rewards,
                response_mask, index) -> (advantages, returns); a parameter k is optional in each, and so are lengths (the
                mask, in verl's) and score_norms, [..., N] like the rewards
    convention  "groups", "trl" or "verl"; detected from the parameters' names by default
    k           the k it is meant for, when it takes none; otherwise restricts the check to that k
    objective   "J_1", "J_K", "sum J_K/K" or "none" (do not test bias). By default J_K when the advantages depend on k,
                else J_1, with "sum J_K/K" accepted in its place
    k_parameter, group_size_parameter
                the parameter that takes k, or N, when its name does not tell
    Raises InputError, one line, for a bad argument, a parameter whose meaning is not clear, and a function that does not give
    one finite float for each reward of an ordinary group. Takes a few seconds.
    """
    from maxpo_bench.check.findings import run_checks

    return run_checks(function, convention, k, objective, name, k_parameter, group_size_parameter)


def main(args):
    """`maxpo-bench check FUNCTION`: prints the report. Returns 0 when every property passes, else 1."""
    from maxpo_bench.check.signature import load

    report = check_estimator(
        load(args.place),
        args.convention or args.trainer,
        args.k,
        args.objective,
        args.place,
        args.k_parameter,
        args.group_size_parameter,
    )
    print(report)
    if args.trainer:
        from maxpo_bench.check.trainers import LOSSES, TRAINERS

        print(f"  what the losses of {TRAINERS[args.trainer]} make of its gradient, as a multiple:")
        for loss in LOSSES[args.trainer]:
            print(f"    {loss.setting:<42} {loss.words}")
    return 0 if report.ok else 1
