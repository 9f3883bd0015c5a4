"""What the libraries that train with Optax share."""

import jax
import jax.numpy as jnp
import optax

from bench.contender import cycle


def transformation(workload):
    kinds = {"descent": optax.sgd, "momentum": lambda rate: optax.sgd(rate, 0.9), "adam": optax.adam}
    return kinds[workload.optimizer](workload.rate)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def functional(job, apply, params):
    """The step of a network with its parameters apart: apply(params, x, key) -> logits, as in Optax's documentation."""
    optimizer = transformation(job.workload)

    def loss(params, x, y, key):
        return cross_entropy(apply(params, x, key), y)

    def step(state, batch):
        params, memory, key = state
        key, drawn = jax.random.split(key)
        value, grads = jax.value_and_grad(loss)(params, *batch, drawn)
        updates, memory = optimizer.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory, key), value

    def fresh():
        copy = jax.tree.map(jnp.array, params)          # the state is donated
        return copy, optimizer.init(copy), jax.random.key(0)
    return cycle(fresh, jax.jit(step, donate_argnums=0), job)
