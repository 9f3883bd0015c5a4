"""JAX's own example libraries, stax and optimizers, which have neither recurrent layers nor attention."""

import jax
import jax.numpy as jnp
from jax.example_libraries import optimizers, stax

from bench.contender import cycle


def perceptron(workload, pairs):
    *hidden, last = pairs
    noise = [(stax.Dropout(1 - workload.dropout), ())] if workload.dropout else []
    return [part for w, b in hidden for part in ((stax.Dense(w.shape[1]), (w, b)), (stax.Relu, ()), *noise)] + [
        (stax.Dense(last[0].shape[1]), last)]


def convnet(workload, p):
    (a, b), hidden, classes = workload.sizes.filters, workload.sizes.hidden, workload.sizes.classes
    shaped = lambda name: (p[name], p["b" + name].reshape(1, 1, 1, -1))
    return [(stax.Conv(a, (3, 3)), shaped("k1")), (stax.Relu, ()), (stax.Conv(b, (3, 3)), shaped("k2")), (stax.Relu, ()),
            (stax.MaxPool((2, 2), strides=(2, 2)), ()), (stax.Flatten, ()),
            (stax.Dense(hidden), (p["w1"], p["bw1"])), (stax.Relu, ()), (stax.Dense(classes), (p["w2"], p["bw2"]))]


NETS = {"perceptron": perceptron, "convnet": convnet}


def step(job):
    w = job.workload
    layers, params = zip(*NETS[w.kind](w, job.weights), (stax.LogSoftmax, ()))
    _, predict = stax.serial(*layers)
    kinds = {"descent": optimizers.sgd, "momentum": lambda rate: optimizers.momentum(rate, 0.9), "adam": optimizers.adam}
    init, update, get_params = kinds[w.optimizer](w.rate)

    def loss(params, x, y, key):
        return -jnp.take_along_axis(predict(params, x, rng=key), y[:, None], 1).mean()

    def step(state, batch):
        i, memory, key = state
        key, drawn = jax.random.split(key)
        value, grads = jax.value_and_grad(loss)(get_params(memory), *batch, drawn)
        return (i + 1, update(i, grads, memory), key), value

    def fresh():
        return jnp.zeros((), jnp.int32), init(jax.tree.map(jnp.array, list(params))), jax.random.key(0)
    return cycle(fresh, jax.jit(step, donate_argnums=0), job)
