"""The command line: rules, explain, audit, compare, train, predict, report, graph, playground, grade, config."""

import argparse
import functools
import os
import re
import sys

from fnnet import hints
from fnnet.cli import config, grade, graph, launch, playground, rules, tables, training


def main(argv=None):
    """Runs one command; returns the exit status. User errors are reported as one sentence on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parsed(argv)
    if not getattr(args, "distributed", False):
        return _run(args.run, args)
    if launch.CONTROL in os.environ:
        return launch.in_child(lambda: _run(functools.partial(launch.watched, args.run), args))
    return _run(functools.partial(launch.supervise, argv), args)


def _run(run, args):
    try:
        return run(args) or 0
    except KeyboardInterrupt:
        print("fnnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:                     # the reader, `head` for instance, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError, AssertionError) as problem:
        if os.environ.get("FNNET_TRACEBACK"):
            raise
        said = f"{problem.filename}: {problem.strerror}" if isinstance(problem, OSError) and problem.filename else problem
        print(f"fnnet: {said}", file=sys.stderr)
        return 1


def _parsed(argv):
    """The arguments of one command; an unknown command or option is a usage error with a suggestion."""
    parser, commands = _parser()
    if argv and not argv[0].startswith("-") and argv[0] not in commands.choices:
        close, known = hints.closest(argv[0], commands.choices), ", ".join(commands.choices)
        parser.error(f"there is no command {argv[0]!r}: "
                     + (f"did you mean {close}?" if close else f"write one of {known}"))
    args, left = parser.parse_known_args(argv)
    if left:
        chosen = commands.choices[argv[0]]
        known = sorted(set(re.findall(r"--[\w-]+", chosen.format_help())))
        close = hints.closest(left[0].partition("=")[0], known)
        what = "there is no option" if left[0].startswith("-") else "unexpected argument"
        chosen.error(f"{what} {left[0]}: "
                     + (f"did you mean {close}?" if close else f"it has {', '.join(known)}"))
    return args


def _parser():
    parser = argparse.ArgumentParser(prog="fnnet", description="Neural networks with hand-derived, verified gradients.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for room in (rules, training, tables, graph, playground, grade, config):
        room.add(commands)
    return parser, commands
