"""Other libraries on the same jobs, each with networks and steps written as in its own documentation: one module per library.

A module has NETS, its networks by the kind of the workload's model. PyTorch has several forms.
"""

from functools import partial
from importlib import import_module

# Name of the contender: module here, settings of its `step`.
PEERS = {
    "optax": ("with_optax", {}),
    "stax": ("stax", {}),
    "flax linen": ("linen", {}),
    "flax nnx": ("nnx", {}),
    "equinox": ("with_equinox", {}),
    "haiku": ("haiku", {}),
    "torch": ("pytorch", {}),
    "torch, channels last": ("pytorch", {"channels_last": True}),
    "torch compiled": ("pytorch", {"compiled": True}),
}
ONLY_FOR = {"torch, channels last": {"convnet"}, "stax": {"perceptron", "convnet"}}


def available(kind):
    """({name: build}, {name: why it cannot be timed here}) for this kind of model."""
    found, missing = {}, {}
    for name, (module, settings) in PEERS.items():
        if kind not in ONLY_FOR.get(name, {kind}):
            continue
        try:
            peer = import_module(f"bench.peers.{module}")
        except ImportError as error:
            missing[name] = f"{error.name or module} is not installed"
            continue
        if reason := peer.unavailable(**settings) if hasattr(peer, "unavailable") else "":
            missing[name] = reason
        else:
            found[name] = partial(peer.step, **settings)
    return found, missing
