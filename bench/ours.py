"""fnnet on the same jobs: a network of layers, an optimizer, and the forms a training loop has."""

import jax
import jax.numpy as jnp

import fnnet as fn
from bench.contender import Contender, cycle
from fnnet import layers, ops, optim, train

OPTIMIZERS = {"descent": optim.gradient_descent, "momentum": optim.momentum, "adam": optim.adam}


def network(workload):
    hidden, out = workload.sizes[1:-1], layers.Dense(workload.sizes[-1])
    if len(hidden) > 3:
        return layers.Serial(layers.Dense(hidden[0]), ops.relu, layers.DenseStack(len(hidden) - 1), out)
    noise = [layers.Dropout(workload.dropout)] if workload.dropout else []
    return layers.Serial(*(part for width in hidden for part in (layers.Dense(width), ops.relu, *noise)), out)


def arranged(net, pairs):
    """The weights of the job, in the places this network has for them."""
    given = iter(pairs)

    def of(layer):
        if isinstance(layer, layers.DenseStack):
            stack = [next(given) for _ in range(layer.depth)]
            return {"w": jnp.stack([w for w, _ in stack]), "b": jnp.stack([b for _, b in stack])}
        if isinstance(layer, layers.Dense):
            w, b = next(given)
            return {"w": jnp.array(w), "b": jnp.array(b)}           # a copy: the state is donated
        return {}
    return tuple(of(layer) for layer in net.parts)


def _training(job):
    w = job.workload
    net, optimizer = network(w), OPTIMIZERS[w.optimizer](w.rate)

    def fresh():
        run = train.init(net, optimizer, jax.random.key(0), job.x[:w.batch])
        params = arranged(net, job.weights)
        return run._replace(params=params, opt_state=optimizer.init(params))
    return fresh, train.make_step(train.supervised(net, ops.softmax_cross_entropy), optimizer)


def _loss(advance):
    def losing(run, batch):
        run, metrics = advance(run, batch)
        return run, metrics["loss"]
    return losing


def per_step(job, transform=lambda step: step):
    fresh, step = _training(job)
    return cycle(fresh, _loss(jax.jit(transform(step), donate_argnums=0)), job)


def per_step_autodiff(job):
    return per_step(job, fn.autodiff)


def per_epoch(job):
    fresh, step = _training(job)
    epoch = _loss(train.make_epoch(step, batch_size=job.workload.batch))
    return Contender(fresh, lambda run, i: epoch(run, (job.x, job.y)), job.workload.batches)


def contenders(workload):
    return {"fnnet step": per_step, "fnnet step, autodiff": per_step_autodiff, "fnnet epoch": per_epoch}
