"""Flax Linen with Optax. A network of NETS is (module, parameters)."""

import jax.numpy as jnp
from flax import linen

from bench.peers.training import functional


def perceptron(workload, pairs):
    (*hidden, out), dropout = workload.sizes[1:], workload.dropout

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            for width in hidden:
                x = linen.relu(linen.Dense(width)(x))
                if dropout:
                    x = linen.Dropout(dropout, deterministic=False)(x)
            return linen.Dense(out)(x)
    return Net(), {f"Dense_{i}": {"kernel": w, "bias": b} for i, (w, b) in enumerate(pairs)}


def convnet(workload, p):
    (a, b), hidden, classes = workload.sizes.filters, workload.sizes.hidden, workload.sizes.classes

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.Conv(a, (3, 3), padding="VALID")(x))
            x = linen.relu(linen.Conv(b, (3, 3), padding="VALID")(x))
            x = linen.max_pool(x, (2, 2), (2, 2))
            x = linen.relu(linen.Dense(hidden)(x.reshape(x.shape[0], -1)))
            return linen.Dense(classes)(x)
    places = {"k1": "Conv_0", "k2": "Conv_1", "w1": "Dense_0", "w2": "Dense_1"}
    return Net(), {place: {"kernel": p[name], "bias": p["b" + name]} for name, place in places.items()}


def recurrent(workload, p):
    *_, k, classes = workload.sizes

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(classes)(linen.RNN(linen.OptimizedLSTMCell(k, param_dtype=x.dtype))(x)[:, -1])
    gates = {f"i{name}": {"kernel": w} for name, w in zip("ifgo", jnp.split(p["wx"], 4, 1), strict=True)}
    hidden = {f"h{name}": {"kernel": w, "bias": b}
              for name, w, b in zip("ifgo", jnp.split(p["wh"], 4, 1), jnp.split(p["b"], 4), strict=True)}
    return Net(), {"OptimizedLSTMCell_0": gates | hidden, "Dense_0": {"kernel": p["w_out"], "bias": p["b_out"]}}


def transformer(workload, p):
    words, length, d, heads, hidden = workload.sizes

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            h = linen.Embed(words, d)(x) + self.param("places", linen.initializers.normal(), (length, d))
            a = linen.LayerNorm(epsilon=1e-5)(h)
            h = h + linen.MultiHeadDotProductAttention(heads, use_bias=False)(a, mask=linen.make_causal_mask(x))
            a = linen.Dense(hidden)(linen.LayerNorm(epsilon=1e-5)(h))
            h = h + linen.Dense(d)(linen.gelu(a))
            return linen.Dense(words, use_bias=False)(linen.LayerNorm(epsilon=1e-5)(h))
    norms = {f"LayerNorm_{i}": {"scale": p[f"gamma{i}"], "bias": p[f"beta{i}"]} for i in range(3)}
    attention = {name: {"kernel": p[f"w{name[0]}"]} for name in ("query", "key", "value", "out")}
    return Net(), {**norms, "Embed_0": {"embedding": p["words"]}, "places": p["places"], "MultiHeadDotProductAttention_0": attention,
                   "Dense_0": {"kernel": p["w1"], "bias": p["b1"]}, "Dense_1": {"kernel": p["w2"], "bias": p["b2"]},
                   "Dense_2": {"kernel": p["out"]}}


NETS = {"perceptron": perceptron, "convnet": convnet, "recurrent": recurrent, "transformer": transformer}


def step(job):
    net, params = NETS[job.workload.kind](job.workload, job.weights)
    return functional(job, lambda params, x, key: net.apply({"params": params}, x, rngs={"dropout": key}), params)
