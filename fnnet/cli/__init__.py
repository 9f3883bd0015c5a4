"""The command line: rules, explain, audit, compare, train, report, graph."""

import argparse
import os
import sys

from fnnet.cli import graph, rules, training


def main(argv=None):
    """Runs one command; returns the exit status. What a user can get wrong is one sentence on stderr."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        print("fnnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:                     # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError, AssertionError) as problem:
        if os.environ.get("FNNET_TRACEBACK"):
            raise
        where = f"{problem.filename}: {problem.strerror}" if isinstance(problem, OSError) and problem.filename else problem
        print(f"fnnet: {where}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(prog="fnnet", description="Neural networks with hand-derived, verified gradients.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for room in (rules, training, graph):
        room.add(commands)
    return parser
