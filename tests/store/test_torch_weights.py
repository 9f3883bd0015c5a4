"""A network with the values of a PyTorch state dict computes the same as PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_modules
from torch_modules import CASES, there

import fnnet as fn
from fnnet import layers, ops


@pytest.fixture(scope="module")
def recorded():
    with np.load(torch_modules.RECORDED) as found:
        return dict(found)


def of(recorded, name):
    """The state dict and the output of a case."""
    mine = {key.partition("/")[2]: value for key, value in recorded.items() if key.startswith(f"{name}/")}
    return {key[2:]: value for key, value in mine.items() if key.startswith("w:")}, mine["y"]


def difference(case, params, state, y):
    ours = case.net.apply(params, state, jnp.asarray(case.x))[0]
    return np.abs(there(np.asarray(ours), case.images) - y).max() / np.abs(y).max()


@pytest.mark.sweep(6)
@pytest.mark.parametrize("name", CASES)
def test_network_matches_pytorch(recorded, name):
    case, (tensors, y) = CASES[name], of(recorded, name)
    params, state = fn.store.from_torch(case.net, case.x, tensors, mapping=case.mapping)
    assert jax.tree.map(jnp.shape, (params, state)) == jax.tree.map(jnp.shape, case.net.init(jax.random.key(0), jnp.asarray(case.x)))
    assert difference(case, params, state, y) < 1e-6


@pytest.mark.peers
@pytest.mark.parametrize("name", CASES)
def test_pytorch_matches_the_recorded_outputs(recorded, name):
    pytest.importorskip("torch", reason="pip install 'fnnet[peers]'")
    for key, value in torch_modules.record(name).items():
        np.testing.assert_allclose(recorded[f"{name}/{key}"], value, rtol=1e-5, atol=1e-6)


@pytest.mark.peers
def test_torch_tensors_are_accepted():
    torch = pytest.importorskip("torch", reason="pip install 'fnnet[peers]'")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tensors = {"weight": torch.nn.Parameter(torch.ones(3, 4, dtype=dtype)), "bias": torch.zeros(3, dtype=dtype)}
        params, _ = fn.store.from_torch(layers.Dense(3), np.ones((1, 4), np.float32), tensors)
        assert params["w"].dtype == jnp.float32 and (params["w"] == 1).all()


def test_safetensors_file_is_read(recorded, tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="pip install 'fnnet[store]'")
    case, (tensors, y) = CASES["dense"], of(recorded, "dense")
    library.save_file(tensors, tmp_path / "w.safetensors")
    assert difference(case, *fn.store.from_torch(case.net, case.x, tmp_path / "w.safetensors"), y) < 1e-6
    (tmp_path / "w.pt").write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(ValueError, match=r"w.pt: .*a file of torch.save is a pickle, .*safetensors.torch.save_file"):
        fn.store.from_torch(case.net, case.x, tmp_path / "w.pt")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        fn.store.from_torch(case.net, case.x, tmp_path / "nowhere")


X = np.ones((2, 4), np.float32)
NET = layers.Serial(layers.Dense(5), ops.relu, layers.Dense(5), layers.LayerNorm())
TENSORS = {"a.weight": np.full((5, 4), 1.0), "a.bias": np.full(5, 2.0), "b.weight": np.full((5, 5), 3.0), "b.bias": np.full(5, 4.0),
           "norm.weight": np.full(5, 5.0), "norm.bias": np.full(5, 6.0)}


def test_mapping_by_name():
    exchanged = {("b." + name[2:] if name[0] == "a" else "a." + name[2:] if name[0] == "b" else name): w for name, w in TENSORS.items()}
    for tensors, mapping in ((TENSORS, None), (exchanged, {"0": "b", "2": "a"}), (exchanged, {"0": "b"}), (TENSORS, {"3": ["norm"]})):
        params, _ = fn.store.from_torch(NET, X, tensors, mapping=mapping)
        assert [float(leaf.mean()) for leaf in jax.tree.leaves(params)] == [2, 1, 4, 3, 6, 5] and params[0]["w"].dtype == jnp.float32
    del tensors["norm.weight"], tensors["norm.bias"]
    params, _ = fn.store.from_torch(NET, X, tensors, mapping={"3": None}, key=jax.random.key(0))
    assert (params[3]["gamma"] == 1).all() and (params[2]["w"] == 3).all()


def test_attention_of_four_linear_modules(recorded):
    case, (tensors, y) = CASES["attention"], of(recorded, "attention")
    four = {}
    for i, name in enumerate("qkv"):
        four[f"{name}.weight"], four[f"{name}.bias"] = (np.split(tensors[f"attn.in_proj_{leaf}"], 3)[i] for leaf in ("weight", "bias"))
    four |= {f"o.{leaf}": tensors[f"attn.out_proj.{leaf}"] for leaf in ("weight", "bias")}
    assert difference(case, *fn.store.from_torch(case.net, case.x, four, mapping={"": ("q", "k", "v", "o")}), y) < 1e-6


def test_nested_layers():
    tensors = {f"{i}.{leaf}": np.full(shape, i + 1.0) for i in range(3) for leaf, shape in (("weight", (4, 4)), ("bias", 4))}
    net = layers.Serial(layers.Repeat(layers.Residual(layers.Dense(4)), 2), layers.Frozen(layers.WeightStandardization(layers.Dense(4))))
    params, state = fn.store.from_torch(net, X, tensors)
    made = net.init(jax.random.key(0), X)
    assert jax.tree.structure((params, state)) == jax.tree.structure(made)
    assert [float(row.mean()) for row in params[0][0]["w"]] == [1, 2] and (state[1]["params"]["w"] == 3).all()


def without(*names, **more):
    return {name: w for name, w in TENSORS.items() if name not in names} | more


WRONG = [
    (NET, without("b.weight", "b.bias"), None,
     r"(?s)got 3 layers and 2 modules.*layers:\n    0 Dense\(5\): b \[5\], w \[4, 5\]\n"
     r".*modules:\n    a: weight \[5, 4\], bias \[5\]\n"),
    (NET, without(**{"head.weight": np.ones((2, 5))}), None, r"(?s)3 layers and 4 modules.*head: weight \[2, 5\]"),
    (NET, without("a.bias"), None,
     r"(?s)the layer 0 Dense\(5\).*module a: weight \[5, 4\]\nbecause the module has nothing for b: make them match"),
    (layers.Dense(5, bias=False), {"weight": np.ones((5, 4)), "bias": np.ones(5)}, None, "because the layer has no b"),
    (NET, without(**{"a.weight": np.ones((5, 3))}), None, r"because w would be \[3, 5\]"),
    (NET, without(**{"a.weight": np.ones(5)}), None, r"its weight must have 2 axes; got 1"),
    (NET, without("norm.weight", "norm.bias", **{"norm.gain": np.ones(5)}), None, "of which norm.gain|of which gain would be unused"),
    (NET, without("a.weight"), None, "which has no weight"),
    (NET, TENSORS, {"1": "a"}, r"(?s)mapping must name layers with parameters; got '1'; they are\n    0 Dense"),
    (NET, TENSORS, {"0": "c"}, r"(?s)mapping must name existing modules; got 'c'; the modules are\n    a: weight"),
    (NET, TENSORS, {"0": "a", "2": "a"}, "mapping must name each module once; got 'a'"),
    (NET, TENSORS, {"0": None}, r"write from_torch\(…, key=jax.random.key\(0\)\)"),
    (NET, TENSORS, {"0": ("a", "b")}, "mapping must give the layer '0' one module, .*; got 2"),
    (layers.Maxout(3), {"weight": np.ones((5, 4))}, None, r"from_torch does not support Maxout\(3\)"),
    (layers.GRU(3, reset="before"),
     {"weight_ih_l0": np.ones((9, 4)), "weight_hh_l0": np.ones((9, 3))}, None, 'write GRU\\(…, reset="after"\\)'),
    (layers.LSTM(3),
     {"weight_ih_l0": np.ones((12, 4)), "weight_hh_l0": np.ones((12, 2)), "weight_hr_l0": np.ones((2, 3))}, None,
     "weight_hr would be unused"),
    (NET, {"a.weight": "x"}, None, "'a.weight' must be an array of numbers; got str"),
    (NET, [1], None, "tensors must be a state dict"),
]


@pytest.mark.parametrize("net, tensors, mapping, sentence", WRONG, ids=range(len(WRONG)))
def test_unpaired_layers_raise(net, tensors, mapping, sentence):
    x = np.ones((2, 3, 4), np.float32) if isinstance(net, layers.GRU | layers.LSTM) else X
    with pytest.raises((ValueError, TypeError), match=sentence):
        fn.store.from_torch(net, x, tensors, mapping=mapping)


def test_features_that_cannot_be_tracked_raise():
    images = np.ones((2, 4, 4, 2), np.float32)
    net = layers.Serial(layers.Conv(3), layers.Flatten(), layers.Residual(layers.Dense(48)))
    tensors = {"0.weight": np.ones((3, 2, 3, 3)), "0.bias": np.ones(3), "1.weight": np.ones((48, 48)), "1.bias": np.ones(48)}
    with pytest.raises(ValueError, match="after Flatten have a different order in PyTorch, which cannot be tracked through Residual"):
        fn.store.from_torch(net, images, tensors)
