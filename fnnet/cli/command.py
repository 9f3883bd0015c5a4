"""A command of the command line."""


def command(commands, name, run, help):
    """The parser of a command, which run(args) carries out; run returns the exit status, None for 0."""
    sub = commands.add_parser(name, help=help, description=help)
    sub.set_defaults(run=run)
    return sub
