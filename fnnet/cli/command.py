"""Adding a command to the command line."""


def command(commands, name, run, help):
    """The parser of a command carried out by run(args), which returns the exit status, or None for 0."""
    sub = commands.add_parser(name, help=help, description=help)
    sub.set_defaults(run=run)
    return sub
