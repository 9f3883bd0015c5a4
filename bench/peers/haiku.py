"""Haiku with Optax. A network of NETS is (function to transform, parameters)."""

import haiku as hk
import jax
import jax.numpy as jnp

from bench.peers.training import functional


def perceptron(workload, pairs):
    (*hidden, out), dropout = workload.sizes[1:], workload.dropout

    def forward(x):
        for width in hidden:
            x = jax.nn.relu(hk.Linear(width)(x))
            if dropout:
                x = hk.dropout(hk.next_rng_key(), dropout, x)
        return hk.Linear(out)(x)
    return forward, {f"linear_{i}" if i else "linear": {"w": w, "b": b} for i, (w, b) in enumerate(pairs)}


def convnet(workload, p):
    (a, b), hidden, classes = workload.sizes.filters, workload.sizes.hidden, workload.sizes.classes

    def forward(x):
        return hk.Sequential([
            hk.Conv2D(a, 3, padding="VALID"), jax.nn.relu, hk.Conv2D(b, 3, padding="VALID"), jax.nn.relu, hk.MaxPool(2, 2, "VALID"),
            hk.Flatten(), hk.Linear(hidden), jax.nn.relu, hk.Linear(classes)])(x)
    places = {"k1": "conv2_d", "k2": "conv2_d_1", "w1": "linear", "w2": "linear_1"}
    return forward, {place: {"w": p[name], "b": p["b" + name]} for name, place in places.items()}


def recurrent(workload, p):
    *_, k, classes = workload.sizes

    def forward(x):
        core = hk.LSTM(k)
        y, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)
        return hk.Linear(classes)(y[:, -1])

    def gates(w):
        """In the order i g f o."""
        i, f, g, o = jnp.split(w, 4, -1)
        return jnp.concatenate([i, g, f, o], -1)
    forget = gates(jnp.repeat(jnp.asarray([0, 1, 0, 0], p["b"].dtype), k))         # the 1 that Haiku adds itself
    lstm = {"w": gates(jnp.concatenate([p["wx"], p["wh"]])), "b": gates(p["b"]) - forget}
    return forward, {"lstm/linear": lstm, "linear": {"w": p["w_out"], "b": p["b_out"]}}


def transformer(workload, p):
    words, length, d, heads, hidden = workload.sizes

    def norm(h):
        return hk.LayerNorm(-1, create_scale=True, create_offset=True)(h)

    def forward(x):
        h = hk.Embed(words, d)(x) + hk.get_parameter("places", (length, d), init=hk.initializers.RandomNormal())
        a = norm(h)
        mask = jnp.tril(jnp.ones((1, 1, x.shape[1], x.shape[1])))
        h = h + hk.MultiHeadAttention(heads, d // heads, w_init=hk.initializers.VarianceScaling(), with_bias=False)(a, a, a, mask)
        a = jax.nn.gelu(hk.Linear(hidden)(norm(h)))
        h = h + hk.Linear(d)(a)
        return hk.Linear(words, with_bias=False)(norm(h))
    norms = {f"layer_norm_{i}" if i else "layer_norm": {"scale": p[f"gamma{i}"], "offset": p[f"beta{i}"]} for i in range(3)}
    attention = {f"multi_head_attention/{name}": {"w": p[f"w{name[0]}"].reshape(d, -1)} for name in ("query", "key", "value")}
    return forward, {**norms, **attention, "multi_head_attention/linear": {"w": p["wo"].reshape(-1, d)},
                     "embed": {"embeddings": p["words"]}, "~": {"places": p["places"]},
                     "linear": {"w": p["w1"], "b": p["b1"]}, "linear_1": {"w": p["w2"], "b": p["b2"]}, "linear_2": {"w": p["out"]}}


NETS = {"perceptron": perceptron, "convnet": convnet, "recurrent": recurrent, "transformer": transformer}


def step(job):
    forward, params = NETS[job.workload.kind](job.workload, job.weights)
    net = hk.transform(forward)
    return functional(job, lambda params, x, key: net.apply(params, key, x), params)
