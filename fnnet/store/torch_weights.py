"""Parameters from a PyTorch state dict: which PyTorch module corresponds to which layer."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnet import layers
from fnnet.layers.layer import output
from fnnet.store.arrays import DTYPES, opened
from fnnet.store.torch_layouts import CONVERT, ORDERED, Module, Site

__all__ = ["from_torch"]

RECURRENT = re.compile(r"(?:(.*)\.)?((?:weight|bias)_(?:ih|hh|hr))_(l\d+(?:_reverse)?)")
IGNORED = "num_batches_tracked"
ONE_BY_ONE = "q", "k", "v", "out"                   # attention made of four linear modules, as in many libraries
SAME_PARAMETERS = layers.Shared, layers.WeightStandardization
IMAGES = (layers.Conv, layers.ConvTranspose, layers.DepthwiseConv, layers.MaxPool, layers.AvgPool, layers.LpPool,
          layers.AdaptiveAvgPool, layers.AdaptiveMaxPool)
SEQUENCES = layers.RNN, layers.GRU, layers.LSTM, layers.MultiHeadAttention, layers.Embedding


def from_torch(net: Any, x: Any, tensors: Mapping[str, Any] | str | os.PathLike, *,
               mapping: Mapping[str, str | Sequence[str] | None] | None = None, key: Any = None) -> tuple[Any, Any]:
    """(params, state) of a network with the values of a PyTorch state dict.

        params, state = fn.store.from_torch(net, x, model.state_dict())

    x is an example of this network's input, or its jax.ShapeDtypeStruct. tensors are NumPy arrays or torch tensors by
    name, or the path of a .safetensors file; files of torch.save are pickles, which run as programs, and are not read.

    Layers and PyTorch modules are paired in order. Where the order differs, mapping names the module of a layer,
    {"2.0": "layer1.conv1"}: the layer's place in the network (part 0 of part 2) and the module's name; the others are
    paired in order. None leaves a layer as net.init(key, x) makes it. A torch.nn.LSTM counts as one module per layer and
    direction, "lstm.l0", "lstm.l0_reverse"; attention made of four linear modules is given by all four, ("q_proj",
    "k_proj", "v_proj", "out_proj").

    Supported are Dense (also after Flatten, which orders features differently), Conv, ConvTranspose, DepthwiseConv,
    BatchNorm with its running statistics, LayerNorm, GroupNorm, InstanceNorm, RMSNorm, Embedding, RNN, GRU, LSTM,
    Bidirectional, MultiHeadAttention, Bilinear and PReLU, in Serial, Residual, Parallel, Repeat and other containers.
    Raises a ValueError with the names and shapes of both sides if layers and modules cannot be paired or a shape
    differs. Settings that a state dict does not contain must agree already: paddings, strides, eps, momentum, exact or
    approximate GELU. Weights must have the layout of torch.nn; transpose others first (GPT-2's Conv1D has [in out]).

    >>> tensors = {"0.weight": np.array([[2.0, 3.0]]), "0.bias": np.array([1.0])}         # torch.nn.Linear(2, 1)
    >>> params, state = store.from_torch(layers.Serial(layers.Dense(1)), jnp.ones((1, 2)), tensors)
    >>> params[0]["w"].tolist(), params[0]["b"].tolist()
    ([[2.0], [3.0]], [1.0])
    """
    net, mapping = layers.as_layer(net), dict(mapping or {})
    if key is None and None in mapping.values():
        raise ValueError("mapping leaves a layer as init makes it, which needs a key: write from_torch(…, "
                         "key=jax.random.key(0))")
    x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), x)
    template = jax.eval_shape(lambda: net.init(jax.random.key(0), x)) if key is None else net.init(key, x)
    params, state = template
    sites = _Walk().sites(net, params, state, x, ())
    pairs = _paired(sites, _modules(_arrays(tensors)), mapping)
    made = {site.place: _converted(site, module) for site, module in pairs if module is not None}
    return _filled(net, params, state, (), made)


# Here

class _Walk:
    """The layers with parameters in the order of the network, and the order of features after a Flatten."""
    order = None
    images = False          # [n t c] are images with one axis, [n c t] in PyTorch, rather than sequences

    def sites(self, layer, params, state, x, place):
        if isinstance(layer, layers.Serial):
            found = []
            for i, (part, p, s) in enumerate(zip(layer.parts, params, state)):
                found += self.sites(part, p, s, x, (*place, i))
                y = output(part, p, s, x)
                self._flattened(part, x, y)
                x = y
            return found
        inside = list(_inside(layer, params, state))
        if not inside:
            return self._leaf(layer, params, state, place)
        if self.order is not None and jax.tree.leaves((params, state)):
            raise ValueError("the features after Flatten have a different order in PyTorch, which cannot be tracked "
                             f"through {layer!r}: put Dense directly after Flatten")
        x = x[0] if isinstance(layer, layers.First | layers.Shared) else x
        if isinstance(layer, layers.Coupling):
            x = jax.ShapeDtypeStruct((*x.shape[:-1], x.shape[-1] // 2), x.dtype)
        found = []
        for i, (part, p, s) in inside:
            found += self.sites(part, p, s, x, place if i is None else (*place, i))
        return found

    def _leaf(self, layer, params, state, place):
        self.images = (self.images and not isinstance(layer, SEQUENCES)) or isinstance(layer, IMAGES)
        if not jax.tree.leaves((params, state)):
            return []
        if self.order is not None and type(layer) not in (*ORDERED, layers.Dense):
            raise ValueError("the features after Flatten have a different order in PyTorch, which cannot be tracked "
                             f"through {layer!r}: put Dense directly after Flatten")
        site = Site(place, layer, params, state, self.order)
        self.order = None if isinstance(layer, layers.Dense) else self.order
        return [site]

    def _flattened(self, layer, x, y):
        """[n h w c] → [n h·w·c] here is [n c h w] → [n c·h·w] in PyTorch."""
        if not hasattr(x, "shape") or not hasattr(y, "shape") or len(y.shape) != 2:
            return
        spatial, c = x.shape[1:-1], x.shape[-1]
        size = np.prod(x.shape[1:], dtype=int)
        images = len(spatial) >= 2 or (len(spatial) == 1 and self.images)
        if images and not isinstance(layer, layers.Serial) and y.shape[1] == size and np.prod(spatial) > 1 and c > 1:
            self.order = np.moveaxis(np.arange(size).reshape(c, *spatial), 0, -1).ravel()


def _inside(layer, params, state):
    """(index, (part, params, state)) for the parts of a layer; the index is None if the part shares the layer's own
    parameters."""
    parts = getattr(layer, "parts", None)
    if isinstance(layer, SAME_PARAMETERS):
        yield None, (layer.layer, params, state)
    elif isinstance(layer, layers.Frozen):
        yield None, (layer.layer, state["params"], state["state"])
    elif isinstance(layer, layers.Repeat):
        for i in range(layer.times):
            yield i, (layer.layer, *jax.tree.map(lambda a, i=i: _row(a, i), (params, state)))
    elif isinstance(parts, tuple):
        yield from enumerate(zip(parts, params, state))


def _row(a, i):
    return jax.ShapeDtypeStruct(a.shape[1:], a.dtype) if isinstance(a, jax.ShapeDtypeStruct) else a[i]


def _filled(layer, params, state, place, made):
    if place in made and type(layer) in CONVERT:
        return made[place]
    inside = [_filled(part, p, s, place if i is None else (*place, i), made) for i, (part, p, s) in _inside(layer, params, state)]
    if not inside:
        return params, state
    if isinstance(layer, SAME_PARAMETERS):
        return inside[0]
    if isinstance(layer, layers.Frozen):
        return {}, {"params": inside[0][0], "state": inside[0][1]}
    if isinstance(layer, layers.Repeat):
        return jax.tree.map(lambda *rows: jnp.stack(rows), *inside)
    return tuple(p for p, _ in inside), tuple(s for _, s in inside)


# There

def _arrays(tensors):
    """NumPy arrays by name."""
    if isinstance(tensors, str | os.PathLike):
        path = Path(tensors)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            with opened(path) as (file, _):
                names = file.keys()
                return {name: _array(name, file.get_tensor(name)) for name in names}
        except OSError:
            raise
        except Exception as problem:
            raise ValueError(f"{path}: {problem}; a file of torch.save is a pickle, which runs as a program: save it "
                             "again with safetensors.torch.save_file(model.state_dict(), path)") from None
    if not isinstance(tensors, Mapping):
        raise TypeError("tensors must be a state dict, or the path of a .safetensors file; got "
                        f"{type(tensors).__name__}: write from_torch(net, x, model.state_dict())")
    return {name: _array(name, tensor) for name, tensor in tensors.items()}


def _array(name, tensor):
    if hasattr(tensor, "detach"):                   # a torch tensor; NumPy cannot convert its bfloat16
        tensor = tensor.detach().cpu()
        tensor = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    found = np.asarray(tensor)
    if found.dtype.name not in DTYPES:
        raise TypeError(f"{name!r} must be an array of numbers; got {type(tensor).__name__}: pass model.state_dict() "
                        "itself")
    return found


def _modules(arrays):
    """{name: Module} in order: one for each layer and direction of a recurrent module, attention with its inner module."""
    attention = {name.rpartition(".")[0] for name in arrays if name.endswith(("in_proj_weight", "q_proj_weight"))}
    found = {}
    for name, array in arrays.items():
        module, _, leaf = name.rpartition(".")
        if leaf == IGNORED:
            continue
        parent, _, last = module.rpartition(".")
        if match := RECURRENT.fullmatch(name):
            module, leaf = ".".join(filter(None, [match[1], match[3]])), match[2]
        elif last == "out_proj" and parent in attention:
            module, leaf = parent, f"out_proj.{leaf}"
        found.setdefault(module, Module(module, {})).tensors[leaf] = array
    return found


# Both

def _paired(sites, modules, mapping):
    """(site, module) for every site; the module is None if mapping says so."""
    here, pairs, left = {site.name: site for site in sites}, {}, dict(modules)
    for place, names in mapping.items():
        if place not in here:
            raise ValueError(f"mapping must name layers with parameters; got {place!r}; they are\n{_listed(sites)}")
        pairs[place] = None
        if names is not None:
            wanted = [_name(name, modules) for name in ([names] if isinstance(names, str) else names)]
            if missing := [name for name in wanted if name not in left]:
                what = "each module once" if missing[0] in modules else "existing modules"
                raise ValueError(f"mapping must name {what}; got {missing[0]!r}; the modules "
                                 f"are\n{_listed(modules.values())}")
            found = [left.pop(name) for name in wanted]
            pairs[place] = found[0] if len(found) == 1 else _joined(place, found)
    rest = [site for site in sites if site.name not in pairs]
    if len(rest) != len(left):
        raise ValueError(f"from_torch pairs layers and modules in order, so their numbers must agree; got {len(rest)} "
                         f"layers and {len(left)} modules: remove what has no counterpart, or write "
                         "mapping={layer's place: module's name, or "
                         f"None}}\nlayers:\n{_listed(rest)}\nmodules:\n{_listed(left.values())}")
    pairs |= {site.name: module for site, module in zip(rest, left.values())}
    return [(site, pairs[site.name]) for site in sites]


def _listed(things):
    return "\n".join(f"    {thing}" for thing in things) or "    none"


def _name(name, modules):
    return f"{name}.l0" if name not in modules and f"{name}.l0" in modules else name


def _joined(place, found):
    """The linear modules of an attention as one torch.nn.MultiheadAttention module."""
    if len(found) != len(ONE_BY_ONE):
        raise ValueError(f"mapping must give the layer {place!r} one module, or those of q, k, v and out for an "
                         f"attention; got {len(found)}")
    tensors = {}
    for short, module in zip(ONE_BY_ONE, found):
        mark = "." if short == "out" else "_"
        tensors |= {f"{short}_proj{mark}{leaf}": array for leaf, array in module.tensors.items()}
    return Module(", ".join(module.name for module in found), tensors)


def _converted(site, module):
    """(params, state) of a layer from the tensors of a module."""
    if type(site.layer) not in CONVERT:
        raise ValueError(f"from_torch does not support {site.layer!r}; leave it as init makes it, "
                         f"mapping={{{site.name!r}: None}}, or fill its parameters by hand")
    pair = f"the layer {site}\ncannot take the tensors of the module {module}\n"
    try:
        left = dict(module.tensors)
        params, state = CONVERT[type(site.layer)](left, site)
    except KeyError as missing:
        raise ValueError(f"{pair}which has no {missing.args[0]}") from None
    except (ValueError, IndexError) as problem:
        raise ValueError(f"{pair}({problem})") from None
    if left:
        raise ValueError(f"{pair}of which {', '.join(left)} would be unused")
    return tuple(_fitted(site, pair, made, wanted) for made, wanted in ((params, site.params), (state, site.state)))


def _fitted(site, pair, made, wanted):
    if made.keys() != wanted.keys():
        more, less = ", ".join(made.keys() - wanted.keys()), ", ".join(wanted.keys() - made.keys())
        said = [f"the layer has no {more}"] * bool(more) + [f"the module has nothing for {less}"] * bool(less)
        raise ValueError(f"{pair}because {' and '.join(said)}: make them match, for instance with bias=…")
    for name, array in made.items():
        if array.shape != wanted[name].shape:
            raise ValueError(f"{pair}because {name} would be {list(array.shape)}")
    return {name: jnp.asarray(made[name], wanted[name].dtype) for name in wanted}
