"""The command line: finds the command, runs it, and turns errors and signals into one line.

What a command takes and does is in maxpo_bench/commands/. This file names none of them and imports nothing before it must:
every stage of the pipeline depends on it, and a Ctrl-C may come at any moment.
Exit codes: 0 done; 1 something broke or a check failed; 2 bad input; 130 interrupted.
"""

import sys

# What the extra `suite` brings, as it is imported. Of these the core has none; anything else that is missing is a mistake.
SUITE = (
    "datasets", "dvc", "gymnasium", "jinja2", "matplotlib", "pandas", "PIL", "pydantic", "yaml", "safetensors", "scipy", "seaborn",
    "tokenizers", "tqdm", "transformers",
)  # fmt: skip


def names():
    """The commands, as they are typed, from the files in commands/. Imports none of them."""
    from pathlib import Path

    files = Path(__file__).with_name("commands").glob("*.py")
    return sorted(path.stem.replace("_", "-") for path in files if not path.stem.startswith("_"))


def load(name):
    import importlib

    return importlib.import_module(f"maxpo_bench.commands.{name.replace('-', '_')}")


def parse(argv):
    """(module of the command, its arguments). Loads that command's file alone, all of them for the list of --help."""
    import argparse

    from maxpo_bench.errors import InputError, did_you_mean

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            raise InputError(f"{message} ({' '.join(self.format_usage().split())})")

    known = names()
    if argv and argv[0] in known:
        module = load(argv[0])
        parser = Parser(prog=f"maxpo-bench {argv[0]}", description=module.HELP)
        module.arguments(parser)
        return module, parser.parse_args(argv[1:])
    parser = Parser(
        prog="maxpo-bench",
        description="Benchmark of advantage estimators for group-based RL post-training.",
        epilog="Start with `maxpo-bench plan`. Errors exit with 2 (bad input) or 1 (something broke).",
    )
    if argv and not argv[0].startswith("-"):
        raise InputError(f"unknown command {argv[0]!r}{did_you_mean(argv[0], known) or '.'} Commands: {', '.join(known)}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module, name in sorted(((load(name), name) for name in known), key=lambda pair: pair[0].PLACE):
        commands.add_parser(name, help=module.HELP)
    parser.parse_args(argv)  # prints the help, or raises: there is no command
    raise InputError(f"no command among {' '.join(argv)!r}")


def main(argv=None, stopped=lambda: False):
    """Run one command and say what went wrong in one line. Returns the exit code.

    stopped() -> whether a signal asked to end: what goes wrong after it is an interruption (KeyboardInterrupt), since libraries
    turn one into errors of their own.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        module, args = parse(argv)
        return module.run(args)
    except Exception as error:
        if stopped():
            raise KeyboardInterrupt from None
        told = _told(error, argv)
        if told is None:
            raise
        line, code = told
        if line:
            print(f"maxpo-bench: {line}", file=sys.stderr)
        return code


def _told(error, argv):
    """(one line, exit code) of an error that has an explanation, None of a mistake in the code."""
    import os

    from maxpo_bench.errors import Fault, InputError

    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").partition(".")[0]
        if missing in SUITE:
            need = f"{argv[0]} needs {missing}, which comes with the extra suite"
            return f'error: {need}: pip install "maxpo-bench[suite]"', 2
    if isinstance(error, InputError):
        return f"error: {error}", 2
    if isinstance(error, Fault):
        return f"failed: {error}", 1
    if isinstance(error, BrokenPipeError):  # whoever reads us, `| head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 1
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"failed: {name}{error.strerror or error}", 1
    return None


def console(argv=None):
    """The process `maxpo-bench`: main, ended by a Ctrl-C or SIGTERM at any moment with one line and exit code 130.

    The KeyboardInterrupt may be swallowed on its way (Python does in a destructor, a library may), so it is raised again every half
    second, unless one is on its way out.
    """
    argv = sys.argv[1:] if argv is None else argv
    numbers, last, ended = (), -1.0, False
    try:
        import signal
        import time

        def stop(number, frame):
            nonlocal last
            before, last = last, time.monotonic()
            if last - before > 1 and not ended:  # `timeout` sends its signal twice
                signal.signal(signal.SIGALRM, again)
                signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
                raise KeyboardInterrupt

        def again(number, frame):
            error = sys.exc_info()[1]
            while error is not None and not isinstance(error, KeyboardInterrupt):
                error = error.__context__
            if error is None and not ended:
                raise KeyboardInterrupt

        def unraisable(about):  # what Python cannot raise it prints; an interruption, a forked worker's too, is no error to be told
            if issubclass(about.exc_type, Exception):
                sys.__unraisablehook__(about)

        sys.unraisablehook = unraisable
        numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
        for number in numbers:
            signal.signal(number, stop)
        code = main(argv, stopped=lambda: last > 0)
    except KeyboardInterrupt:
        ended = True
        code = 130
        command = " ".join(argv[:1])
        print(f"maxpo-bench: {command} interrupted; the same command continues from its last checkpoint", file=sys.stderr)
    finally:
        ended = True
        if last > 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)  # what is handled the dying interpreter would set to its default
    sys.exit(code)


if __name__ == "__main__":
    import os

    sys.path[0] = os.getcwd()
    console()
