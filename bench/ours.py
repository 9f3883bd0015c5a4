"""fnnet on the same jobs: a network of layers, an optimizer, and the forms of a training loop."""

import jax
import jax.numpy as jnp

import fnnet as fn
from bench.contender import Contender, cast, cycle
from fnnet import optim, train

OPTIMIZERS = {"descent": optim.gradient_descent, "momentum": optim.momentum, "adam": optim.adam}


def _training(job):
    w = job.workload
    net, optimizer = w.model.network(w), OPTIMIZERS[w.optimizer](w.rate)

    def fresh():
        run = train.init(net, optimizer, jax.random.key(0), job.x[:w.batch])
        params = w.model.arranged(net, jax.tree.map(jnp.array, job.weights))     # a copy: the state is donated
        return run._replace(params=params, opt_state=optimizer.init(params))
    objective = w.model.objective(net)

    def in_lower_precision(params, *args, **settings):
        loss, rest = objective(cast(params, w), *args, **settings)
        return loss.astype(jnp.float32), rest
    return fresh, train.make_step(objective if w.compute == "float32" else in_lower_precision, optimizer)


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


def per_epoch(job, transform=lambda step: step):
    fresh, step = _training(job)
    epoch = _loss(train.make_epoch(transform(step), batch_size=job.workload.batch))
    return Contender(fresh, lambda run, i: epoch(run, (job.x, job.y)), job.workload.batches)


def contenders(workload):
    return {"fnnet step": per_step, "fnnet step, autodiff": per_step_autodiff, "fnnet epoch": per_epoch}
