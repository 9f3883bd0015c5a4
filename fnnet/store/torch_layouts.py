"""The layout of each layer's arrays in PyTorch, and here.

PyTorch has weights [out in], images [n c h w] and kernels [out in h w]; here they are [in out], [n h w c] and
[h w in out].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fnnet import layers


class Site(NamedTuple):
    """A layer with parameters, its place, and the index in PyTorch of each feature of x if the orders differ."""
    place: tuple
    layer: Any
    params: Any
    state: Any
    order: np.ndarray | None

    @property
    def name(self):
        return ".".join(map(str, self.place))

    def __str__(self):
        return f"{self.name or 'the network'} {self.layer!r}: {_shapes(self.params | self.state)}"


@dataclass
class Module:
    """A PyTorch module: its tensors by their names within it."""
    name: str
    tensors: dict[str, np.ndarray]

    def __str__(self):
        return f"{self.name}: {_shapes(self.tensors)}"


def _shapes(arrays):
    return ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())


# Each function is (left, site) -> params, state, and removes the tensors that it uses from `left`.

def _bias(left):
    return {"b": left.pop("bias")} if "bias" in left else {}


def _dense(left, site):
    w = left.pop("weight")
    _axes(w, 2)
    return {"w": (w if site.order is None else w[:, site.order]).T, **_bias(left)}, {}


def _conv(left, site):
    w = left.pop("weight")
    return {"w": np.moveaxis(w, (0, 1), (-1, -2)), **_bias(left)}, {}


def _conv_transpose(left, site):
    """[in out/g *k] → [*k in/g out]"""
    w, g = left.pop("weight"), site.layer.groups
    w = np.moveaxis(w.reshape(g, w.shape[0] // g, *w.shape[1:]), 0, 1)         # [in/g g out/g *k]
    w = w.reshape(w.shape[0], -1, *w.shape[3:])
    return {"w": np.moveaxis(w, (0, 1), (-2, -1)), **_bias(left)}, {}


def _norm(left, site):
    found = {"gamma": left.pop("weight")} if "weight" in left else {}
    found |= {"beta": left.pop("bias")} if "bias" in left else {}
    return _in_order(found, site), {}


def _batch_norm(left, site):
    params, _ = _norm(left, site)
    return params, _in_order({"mean": left.pop("running_mean"), "var": left.pop("running_var")}, site)


def _in_order(vectors, site):
    return vectors if site.order is None else {name: v[site.order] for name, v in vectors.items()}


def _embedding(left, site):
    return {"w": left.pop("weight")}, {}


def _prelu(left, site):
    slope = left.pop("weight")
    return {"slope": slope.reshape(()) if site.layer.shared else slope if site.order is None else slope[site.order]}, {}


def _bilinear(left, site):
    w = left.pop("weight")
    _axes(w, 3)
    return {"w": w.transpose(1, 2, 0), **_bias(left)}, {}


def _recurrent(gates):
    def convert(left, site):
        k, biases = site.layer.features, [left.pop(f"bias_{side}", None) for side in ("ih", "hh")]
        wx, wh = (left.pop(f"weight_{side}").reshape(gates, k, -1).transpose(2, 0, 1) for side in ("ih", "hh"))
        b, bh = (np.zeros((gates, k), wx.dtype) if bias is None else bias.reshape(gates, k) for bias in biases)
        if gates == 1:
            return {"wx": wx[:, 0], "wh": wh[:, 0], "b": (b + bh)[0]}, {}
        if gates == 4:
            return {"wx": wx, "wh": wh, "b": b + bh}, {}
        if site.layer.reset != "after":
            raise ValueError('PyTorch\'s GRU applies the reset gate after the product: write GRU(…, reset="after")')
        return {"wx": wx, "wh": wh, "b": b + bh * np.array([[1], [1], [0]], bh.dtype), "bh": bh[2]}, {}
    return convert


def _attention(left, site):
    whole = left.pop("in_proj_weight", None)
    w = [left.pop(f"{name}_proj_weight") for name in "qkv"] if whole is None else np.split(whole, 3)
    found = {f"w{name}": part.T for name, part in zip("qkvo", [*w, left.pop("out_proj.weight")])}
    if "in_proj_bias" in left:
        found |= {f"b{name}": part for name, part in zip("qkv", np.split(left.pop("in_proj_bias"), 3))}
    found |= {f"b{name}": left.pop(f"{name}_proj_bias") for name in "qkv" if f"{name}_proj_bias" in left}
    return found | ({"bo": left.pop("out_proj.bias")} if "out_proj.bias" in left else {}), {}


def _axes(w, n):
    if w.ndim != n:
        raise ValueError(f"its weight must have {n} axes; got {w.ndim}")


ORDERED = layers.BatchNorm, layers.LayerNorm, layers.RMSNorm, layers.PReLU          # one number per feature
CONVERT: dict[type, Callable] = {
    layers.Dense: _dense, layers.Conv: _conv, layers.DepthwiseConv: _conv, layers.ConvTranspose: _conv_transpose,
    layers.BatchNorm: _batch_norm, layers.LayerNorm: _norm, layers.RMSNorm: _norm, layers.GroupNorm: _norm,
    layers.InstanceNorm: _norm, layers.Embedding: _embedding, layers.PReLU: _prelu, layers.Bilinear: _bilinear,
    layers.MultiHeadAttention: _attention,
    layers.RNN: _recurrent(1), layers.GRU: _recurrent(3), layers.LSTM: _recurrent(4)}
