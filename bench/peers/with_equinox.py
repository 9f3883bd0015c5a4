"""Equinox with Optax. A network of NETS is a module with the weights of the job, for one example: the batch is an axis of vmap."""

import equinox as eqx
import jax
import jax.numpy as jnp

from bench.contender import cycle
from bench.peers.training import cross_entropy, transformation

KEY = jax.random.key(0)         # of initial weights, all of which are replaced


def given(layer, **values):
    """The layer with these parameters."""
    names = list(values)
    return eqx.tree_at(lambda layer: [getattr(layer, name) for name in names], layer, [jnp.array(values[name]) for name in names])


def linear(w, b=None):
    layer = eqx.nn.Linear(*w.shape, use_bias=b is not None, key=KEY)
    return given(layer, weight=w.T, **({} if b is None else {"bias": b}))


def perceptron(workload, pairs):
    class Net(eqx.Module):
        layers: list
        noise: eqx.nn.Dropout

        def __call__(self, x, key):
            for i, layer in enumerate(self.layers[:-1]):
                x = jax.nn.relu(layer(x))
                x = self.noise(x, key=jax.random.fold_in(key, i)) if workload.dropout else x
            return self.layers[-1](x)
    return Net([linear(w, b) for w, b in pairs], eqx.nn.Dropout(workload.dropout))


def convnet(workload, p):
    def conv(w, b):
        layer = eqx.nn.Conv2d(w.shape[2], w.shape[3], 3, key=KEY)
        return given(layer, weight=w.transpose(3, 2, 0, 1), bias=b[:, None, None])
    side, b = (workload.sizes.side - 4) // 2, workload.sizes.filters[1]
    channels_first = p["w1"].reshape(side, side, b, -1).transpose(2, 0, 1, 3).reshape(p["w1"].shape)

    class Net(eqx.Module):
        layers: list

        def __call__(self, x, key):
            x = x.transpose(2, 0, 1)
            for layer in self.layers:
                x = layer(x)
            return x
    return Net([conv(p["k1"], p["bk1"]), jax.nn.relu, conv(p["k2"], p["bk2"]), jax.nn.relu, eqx.nn.MaxPool2d(2, 2), jnp.ravel,
                linear(channels_first, p["bw1"]), jax.nn.relu, linear(p["w2"], p["bw2"])])


def recurrent(workload, p):
    class Net(eqx.Module):
        cell: eqx.nn.LSTMCell
        linear: eqx.nn.Linear

        def __call__(self, x, key):
            start = jnp.zeros(self.cell.hidden_size, x.dtype), jnp.zeros(self.cell.hidden_size, x.dtype)
            (h, _), _ = jax.lax.scan(lambda state, x: (self.cell(x, state), None), start, x)
            return self.linear(h)
    cell = eqx.nn.LSTMCell(p["wx"].shape[0], p["wh"].shape[0], key=KEY)
    return Net(given(cell, weight_ih=p["wx"].T, weight_hh=p["wh"].T, bias=p["b"]), linear(p["w_out"], p["b_out"]))


def transformer(workload, p):
    words, _, d, heads, _ = workload.sizes

    class Net(eqx.Module):
        words: eqx.nn.Embedding
        places: jax.Array
        norms: list
        attention: eqx.nn.MultiheadAttention
        up: eqx.nn.Linear
        down: eqx.nn.Linear
        out: eqx.nn.Linear

        def __call__(self, x, key):
            h = jax.vmap(self.words)(x) + self.places
            a = jax.vmap(self.norms[0])(h)
            h = h + self.attention(a, a, a, jnp.tril(jnp.ones((len(x), len(x)), bool)))
            h = h + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(jax.vmap(self.norms[1])(h))))
            return jax.vmap(self.out)(jax.vmap(self.norms[2])(h))
    attention = eqx.nn.MultiheadAttention(heads, d, key=KEY)
    projections = {"query_proj": p["wq"].reshape(d, -1), "key_proj": p["wk"].reshape(d, -1), "value_proj": p["wv"].reshape(d, -1),
                   "output_proj": p["wo"].reshape(-1, d)}
    attention = eqx.tree_at(lambda a: [getattr(a, name) for name in projections], attention, [linear(w) for w in projections.values()])
    norms = [given(eqx.nn.LayerNorm(d), weight=p[f"gamma{i}"], bias=p[f"beta{i}"]) for i in range(3)]
    return Net(given(eqx.nn.Embedding(words, d, key=KEY), weight=p["words"]), jnp.array(p["places"]), norms, attention,
               linear(p["w1"], p["b1"]), linear(p["w2"], p["b2"]), linear(p["out"]))


NETS = {"perceptron": perceptron, "convnet": convnet, "recurrent": recurrent, "transformer": transformer}


def step(job):
    optimizer = transformation(job.workload)

    def loss(net, x, y, key):
        return cross_entropy(jax.vmap(net)(x, jax.random.split(key, x.shape[0])), y)

    @eqx.filter_jit(donate="all-except-first")
    def step(batch, state):
        net, memory, key = state
        key, drawn = jax.random.split(key)
        value, grads = eqx.filter_value_and_grad(loss)(net, *batch, drawn)
        updates, memory = optimizer.update(grads, memory, eqx.filter(net, eqx.is_array))
        return (eqx.apply_updates(net, updates), memory, key), value

    def fresh():
        net = NETS[job.workload.kind](job.workload, job.weights)
        return net, optimizer.init(eqx.filter(net, eqx.is_array)), jax.random.key(0)

    def wait(reached):
        jax.block_until_ready(eqx.filter(reached, eqx.is_array))
    return cycle(fresh, lambda state, batch: step(batch, state), job)._replace(wait=wait)
