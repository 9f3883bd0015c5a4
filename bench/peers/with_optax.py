"""The network in plain JAX with Optax's loss and optimizer."""

from bench.peers.training import functional


def step(job):
    forward, dropout = job.workload.model.forward, job.workload.dropout
    return functional(job, lambda params, x, key: forward(params, x, key, dropout), job.weights)
