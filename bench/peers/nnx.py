"""Flax NNX with its optimizer. A network of NETS is a module with the weights of the job."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from bench.contender import Contender
from bench.peers.training import cross_entropy, transformation


def given(layer, **values):
    """The layer with these parameters."""
    for name, value in values.items():
        setattr(layer, name, nnx.Param(jnp.array(value)))
    return layer


def perceptron(workload, pairs):
    class Net(nnx.Module):
        def __init__(self, rngs):
            linear = [nnx.Linear(d, k, rngs=rngs) for d, k in pairwise(workload.sizes)]
            self.layers = nnx.List(given(layer, kernel=w, bias=b) for layer, (w, b) in zip(linear, pairs))
            self.noise = nnx.Dropout(workload.dropout, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers[:-1]:
                x = nnx.relu(layer(x))
                x = self.noise(x) if workload.dropout else x
            return self.layers[-1](x)
    return Net(nnx.Rngs(0))


def convnet(workload, p):
    (a, b), hidden, classes = workload.sizes.filters, workload.sizes.hidden, workload.sizes.classes

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv1 = given(nnx.Conv(1, a, (3, 3), padding="VALID", rngs=rngs), kernel=p["k1"], bias=p["bk1"])
            self.conv2 = given(nnx.Conv(a, b, (3, 3), padding="VALID", rngs=rngs), kernel=p["k2"], bias=p["bk2"])
            self.linear1 = given(nnx.Linear(workload.sizes.features, hidden, rngs=rngs), kernel=p["w1"], bias=p["bw1"])
            self.linear2 = given(nnx.Linear(hidden, classes, rngs=rngs), kernel=p["w2"], bias=p["bw2"])

        def __call__(self, x):
            x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
            return self.linear2(nnx.relu(self.linear1(x.reshape(x.shape[0], -1))))
    return Net(nnx.Rngs(0))


def recurrent(workload, p):
    _, d, k, classes = workload.sizes

    class Net(nnx.Module):
        def __init__(self, rngs):
            cell = nnx.OptimizedLSTMCell(d, k, param_dtype=p["wx"].dtype, rngs=rngs)
            given(cell.dense_i, kernel=p["wx"])
            given(cell.dense_h, kernel=p["wh"], bias=p["b"])
            self.rnn = nnx.RNN(cell, rngs=rngs)
            self.linear = given(nnx.Linear(k, classes, rngs=rngs), kernel=p["w_out"], bias=p["b_out"])

        def __call__(self, x):
            return self.linear(self.rnn(x)[:, -1])
    return Net(nnx.Rngs(0))


def transformer(workload, p):
    words, _, d, heads, hidden = workload.sizes

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.words = given(nnx.Embed(words, d, param_dtype=p["words"].dtype, rngs=rngs), embedding=p["words"])
            self.places = nnx.Param(jnp.array(p["places"]))
            self.norms = nnx.List(given(nnx.LayerNorm(d, epsilon=1e-5, rngs=rngs), scale=p[f"gamma{i}"], bias=p[f"beta{i}"])
                                  for i in range(3))
            self.attention = nnx.MultiHeadAttention(heads, d, use_bias=False, decode=False, rngs=rngs)
            for name in ("query", "key", "value", "out"):
                given(getattr(self.attention, name), kernel=p[f"w{name[0]}"])
            self.up = given(nnx.Linear(d, hidden, rngs=rngs), kernel=p["w1"], bias=p["b1"])
            self.down = given(nnx.Linear(hidden, d, rngs=rngs), kernel=p["w2"], bias=p["b2"])
            self.out = given(nnx.Linear(d, words, use_bias=False, rngs=rngs), kernel=p["out"])

        def __call__(self, x):
            h = self.words(x) + self.places[...]
            h = h + self.attention(self.norms[0](h), mask=nnx.make_causal_mask(x))
            h = h + self.down(nnx.gelu(self.up(self.norms[1](h))))
            return self.out(self.norms[2](h))
    return Net(nnx.Rngs(0))


NETS = {"perceptron": perceptron, "convnet": convnet, "recurrent": recurrent, "transformer": transformer}


def step(job):
    @nnx.jit
    def step(net, optimizer, x, y):
        value, grads = nnx.value_and_grad(lambda net: cross_entropy(net(x), y))(net)
        optimizer.update(net, grads)
        return value

    def fresh():
        net = NETS[job.workload.kind](job.workload, job.weights)
        return net, nnx.Optimizer(net, transformation(job.workload), wrt=nnx.Param)

    def advance(state, i):
        return state, step(*state, *job.batches[i % len(job.batches)])
    return Contender(fresh, advance, wait=lambda reached: jax.block_until_ready((nnx.state(reached[0][0]), reached[1])))
