"""config: the backend and cores that formulations of operations are chosen for."""

import jax

from fnnet import config
from fnnet.cli.command import command
from fnnet.table import table


def add(commands):
    """The parser of this command."""
    command(commands, "config", _config, "show the backend and number of cores that formulations are chosen for, and where they were set")


def _config(_):
    now, sources = config.current(), config.sources()
    rows = [(name, getattr(now, name), sources[name]) for name in sources]
    print(table(("setting", "value", "from"), [*rows, ("JAX", jax.__version__, "the installed package")]))
