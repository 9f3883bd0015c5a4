"""The baseline: training steps as an experienced JAX user writes them, without a library. Nothing is made slow on purpose."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax, random

from bench import perceptron
from bench.contender import Contender, cast, cycle


def cross_entropy(logits, labels):
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, labels[..., None], -1).mean()


def descent(rate):
    return lambda params: (), lambda params, grads, state: (jax.tree.map(lambda p, g: p - rate * g, params, grads), state)


def momentum(rate, beta=0.9):
    def update(params, grads, velocity):
        velocity = jax.tree.map(lambda v, g: beta * v + g, velocity, grads)
        return jax.tree.map(lambda p, v: p - rate * v, params, velocity), velocity
    return lambda params: jax.tree.map(jnp.zeros_like, params), update


def adam(rate, b1=0.9, b2=0.999, eps=1e-8):
    def init(params):
        return jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32)

    def update(params, grads, state):
        m, v, t = state
        t = t + 1
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, grads)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, grads)
        c1, c2 = 1 - b1**t, 1 - b2**t
        params = jax.tree.map(lambda p, m, v: p - rate * (m / c1) / (jnp.sqrt(v / c2) + eps), params, m, v)
        return params, (m, v, t)
    return init, update


OPTIMIZERS = {"descent": descent, "momentum": momentum, "adam": adam}


def _training(job, forward, arrange):
    """A fresh state, and the step (not yet compiled)."""
    init, update = OPTIMIZERS[job.workload.optimizer](job.workload.rate)

    def loss(params, x, y, key):
        logits = forward(cast(params, job.workload), x, key, job.workload.dropout)
        return cross_entropy(logits if job.workload.compute == "float32" else logits.astype(jnp.float32), y)

    def step(state, batch):
        params, memory, key = state
        key, drawn = random.split(key) if job.workload.dropout else (key, key)
        value, grads = jax.value_and_grad(loss)(params, *batch, drawn)
        params, memory = update(params, grads, memory)
        return (params, memory, key), value

    def fresh():
        params = arrange(jax.tree.map(jnp.array, job.weights))      # a copy: the state is donated
        return params, init(params), random.key(0)
    return fresh, step


def per_step(job, forward=None, arrange=lambda params: params):
    fresh, step = _training(job, forward or job.workload.model.forward, arrange)
    return cycle(fresh, jax.jit(step, donate_argnums=0), job)


def per_epoch(job, forward=None, arrange=lambda params: params):
    """A shuffled epoch as one compiled scan."""
    fresh, step = _training(job, forward or job.workload.model.forward, arrange)

    @partial(jax.jit, donate_argnums=0)
    def epoch(state, x, y):
        *rest, key = state
        key, drawn = random.split(key)
        order = random.permutation(drawn, x.shape[0]).reshape(-1, job.workload.batch)
        return lax.scan(lambda state, rows: step(state, (x[rows], y[rows])), (*rest, key), order)

    return Contender(fresh, lambda state, i: epoch(state, job.x, job.y), job.workload.batches)


def contenders(workload):
    forms = {"plain JAX step": per_step, "plain JAX epoch": per_epoch}
    if workload.model is perceptron and len(workload.sizes) > 5:
        careful = {"forward": perceptron.forward_stacked, "arrange": perceptron.stacked}
        forms["plain JAX step, layers scanned"] = partial(per_step, **careful)
        forms["plain JAX epoch, layers scanned"] = partial(per_epoch, **careful)
    return forms
