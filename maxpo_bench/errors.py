"""The ways a run can end badly, and who is to blame for each."""

import difflib


class InputError(ValueError):
    """Bad input from a person: one clear line saying what is wrong, where, and what to do. Exit code 2."""


class Fault(RuntimeError):
    """Something broke in the middle of a run (an environment or a verifier raised). The cell ends `failed`."""

    verifier_errors = 0
    """Samples whose reward could not be computed, up to the fault."""

    exit_code = 1


class BadReward(Fault):
    """An environment or a verifier gave a reward that is not a finite number. The cell ends `failed`; whoever wrote the task
    must mend it, so the exit code is that of bad input."""

    exit_code = 2


class BadObservation(Fault):
    """An environment gave an observation that is not finite. As BadReward: `failed`, and no diverged policy."""

    exit_code = 2


def did_you_mean(name, candidates):
    """ ", did you mean 'x'?" for the nearest of the candidates; "" when nothing is near."""
    near = difflib.get_close_matches(str(name), [str(c) for c in candidates], n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def one_line(error):
    """The first line of an error's text, at most 160 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
