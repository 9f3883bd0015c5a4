"""config: what the formulations of operations are chosen for."""

import jax

from fnnet import config
from fnnet.cli.command import command
from fnnet.table import table


def add(commands):
    """The parser of this command."""
    command(commands, "config", _config, "the backend and the cores that formulations are chosen for, and who set them")


def _config(_):
    now, sources = config.current(), config.sources()
    rows = [(name, getattr(now, name), sources[name]) for name in sources]
    print(table(("setting", "value", "from"), [*rows, ("JAX", jax.__version__, "the package installed")]))
