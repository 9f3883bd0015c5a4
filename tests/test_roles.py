"""Which parameters decay, by their names: in our trees, in those of other libraries, and in trees without names."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

from fnnet import ops, optim, roles

ONE, TWO, THREE = jnp.ones(3), jnp.ones((4, 3)), jnp.ones((2, 4, 3))
TREES = {                                           # and the role of each array
    "ours, stacked by a loop": ({"w": THREE, "b": TWO, "gamma": TWO, "beta": TWO, "slope": TWO},
                                {"w": "weight", "b": "bias", "gamma": "scale", "beta": "bias", "slope": "scale"}),
    "gates": ({"wx": THREE, "wh": THREE, "b": TWO, "bh": ONE, "p": TWO},
              {"wx": "weight", "wh": "weight", "b": "bias", "bh": "bias", "p": "weight"}),
    "attention": ({"wq": TWO, "bq": ONE, "bk": TWO, "bv": ONE, "bo": ONE},
                  {"wq": "weight", "bq": "bias", "bk": "bias", "bv": "bias", "bo": "bias"}),
    "Flax": ({"Dense_0": {"kernel": TWO, "bias": ONE}, "query": {"kernel": THREE, "bias": TWO},
              "LayerNorm_0": {"scale": ONE, "bias": ONE},
              "Embed_0": {"embedding": TWO}, "PReLU_0": {"negative_slope": jnp.ones(())},
              "lora": {"lora_a": TWO, "lora_b": TWO}},
             {"Dense_0": {"kernel": "weight", "bias": "bias"}, "query": {"kernel": "weight", "bias": "bias"},
              "LayerNorm_0": {"scale": "scale", "bias": "bias"}, "Embed_0": {"embedding": "table"},
              "PReLU_0": {"negative_slope": "scale"}, "lora": {"lora_a": "weight", "lora_b": "weight"}}),
    "Haiku": ({"mlp/linear": {"w": TWO, "b": ONE}, "layer_norm": {"scale": TWO, "offset": TWO}},
              {"mlp/linear": {"w": "weight", "b": "bias"}, "layer_norm": {"scale": "scale", "offset": "bias"}}),
    "PyTorch": ({"0.weight": TWO, "0.bias": ONE, "rnn.weight_ih_l0": TWO, "rnn.bias_hh_l0": TWO, "norm.b": TWO},
                {"0.weight": "weight", "0.bias": "bias", "rnn.weight_ih_l0": "weight", "rnn.bias_hh_l0": "bias",
                 "norm.b": "bias"}),
    "lecture notes": ({"W1": TWO, "b1": TWO, "W2": TWO, "b_2": TWO, "w": ONE, "B": TWO},
                      {"W1": "weight", "b1": "bias", "W2": "weight", "b_2": "bias", "w": "weight", "B": "weight"}),
    "names above lists": ({"weights": [TWO, THREE], "biases": [ONE, TWO]},
                          {"weights": ["weight"] * 2, "biases": ["bias"] * 2}),
    "no names": ([(TWO, ONE), (THREE, 1.0)], [("weight", "bias"), ("weight", "bias")]),
    "nothing": ({"w": None, "b": {}}, {"w": None, "b": {}}),
}


@pytest.mark.parametrize("name", TREES)
def test_role_by_name(name):
    params, wanted = TREES[name]
    assert roles.by_name(params) == wanted
    decayed = jax.tree.map(lambda role: role in ("weight", "table"), wanted)
    assert optim.decays(params) == decayed
    kept = jax.tree.map(lambda w: w is not None, ops.weights_of(params), is_leaf=lambda w: w is None)
    assert jax.tree.leaves(kept) == jax.tree.leaves(decayed) or name == "nothing"
    params = jax.tree.map(jnp.asarray, params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    for optimizer in optim.adamw(0.1, decay=0.5), optim.chain(optim.weight_decay(0.5), optim.sgd(0.1)):
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        assert jax.tree.map(lambda u: bool((u != 0).all()), updates) == decayed


def test_attributes_are_names_too():
    @jax.tree_util.register_dataclass
    @dataclass
    class Linear:
        weight: jax.Array
        bias: jax.Array
    assert jax.tree.leaves(roles.by_name(Linear(TWO, TWO))) == ["weight", "bias"]
