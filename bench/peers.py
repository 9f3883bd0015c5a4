"""Other libraries on the same jobs, each with the step written as in its own documentation. Missing ones are named, not timed."""

from importlib import import_module
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from bench import clock, perceptron
from bench.contender import Contender, cycle
from bench.results import cores


def available(model=perceptron):
    """({name: build}, [names of missing libraries]) of the libraries that have this model."""
    found, missing = {}, []
    for name, (needs, build) in PEERS.items():
        if model is not perceptron and name not in model.PEERS:
            continue
        try:
            modules = [import_module(need) for need in needs]
        except ImportError:
            missing.append(name)
        else:
            found[name] = lambda job, build=build, modules=modules: build(job, *modules)
    return found, missing


def _transformation(job, optax):
    w = job.workload
    return {"descent": optax.sgd, "momentum": lambda rate: optax.sgd(rate, 0.9), "adam": optax.adam}[w.optimizer](w.rate)


def _cross_entropy(optax, logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def optax_step(job, optax):
    """The plain network with Optax's loss and optimizer."""
    transformation = _transformation(job, optax)

    def loss(params, x, y, key):
        return _cross_entropy(optax, job.workload.model.forward(params, x, key, job.workload.dropout), y)

    def step(state, batch):
        params, memory, key = state
        key, drawn = jax.random.split(key)
        value, grads = jax.value_and_grad(loss)(params, *batch, drawn)
        updates, memory = transformation.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory, key), value

    def fresh():
        params = jax.tree.map(jnp.array, job.weights)
        return params, transformation.init(params), jax.random.key(0)
    return cycle(fresh, jax.jit(step, donate_argnums=0), job)


def linen_step(job, linen, optax):
    transformation = _transformation(job, optax)
    net, placed = job.workload.model.linen(job.workload, linen)

    def loss(params, x, y, key):
        return _cross_entropy(optax, net.apply({"params": params}, x, rngs={"dropout": key}), y)

    def step(state, batch):
        params, memory, key = state
        key, drawn = jax.random.split(key)
        value, grads = jax.value_and_grad(loss)(params, *batch, drawn)
        updates, memory = transformation.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory, key), value

    def fresh():
        params = placed(jax.tree.map(jnp.array, job.weights))
        return params, transformation.init(params), jax.random.key(0)
    return cycle(fresh, jax.jit(step, donate_argnums=0), job)


def nnx_step(job, nnx, optax):
    sizes, dropout = job.workload.sizes, job.workload.dropout

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List(nnx.Linear(d, k, rngs=rngs) for d, k in pairwise(sizes))
            self.noise = nnx.Dropout(dropout, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers[:-1]:
                x = nnx.relu(layer(x))
                x = self.noise(x) if dropout else x
            return self.layers[-1](x)

    @nnx.jit
    def step(net, optimizer, x, y):
        value, grads = nnx.value_and_grad(lambda net: _cross_entropy(optax, net(x), y))(net)
        optimizer.update(net, grads)
        return value

    def fresh():
        net = Net(nnx.Rngs(0))
        for layer, (w, b) in zip(net.layers, job.weights):
            layer.kernel, layer.bias = nnx.Param(w), nnx.Param(b)
        return net, nnx.Optimizer(net, _transformation(job, optax), wrt=nnx.Param)

    def advance(state, i):
        return state, step(*state, *job.batches[i % len(job.batches)])
    return Contender(fresh, advance, wait=lambda reached: jax.block_until_ready((nnx.state(reached[0][0]), reached[1])))


def equinox_step(job, equinox, optax):
    transformation, sizes, dropout = _transformation(job, optax), job.workload.sizes, job.workload.dropout

    class Net(equinox.Module):
        layers: list
        noise: equinox.nn.Dropout

        def __call__(self, x, key):
            for i, layer in enumerate(self.layers[:-1]):
                x = jax.nn.relu(layer(x))
                x = self.noise(x, key=jax.random.fold_in(key, i)) if dropout else x
            return self.layers[-1](x)

    def loss(net, x, y, key):
        return _cross_entropy(optax, jax.vmap(net)(x, jax.random.split(key, x.shape[0])), y)

    @equinox.filter_jit(donate="all-except-first")
    def step(batch, state):
        net, memory, key = state
        key, drawn = jax.random.split(key)
        value, grads = equinox.filter_value_and_grad(loss)(net, *batch, drawn)
        updates, memory = transformation.update(grads, memory, equinox.filter(net, equinox.is_array))
        return (equinox.apply_updates(net, updates), memory, key), value

    def fresh():
        linear = [equinox.nn.Linear(d, k, key=jax.random.key(0)) for d, k in pairwise(sizes)]
        linear = [equinox.tree_at(lambda layer: (layer.weight, layer.bias), layer, (jnp.array(w.T), jnp.array(b)))
                  for layer, (w, b) in zip(linear, job.weights)]
        net = Net(linear, equinox.nn.Dropout(dropout))
        return net, transformation.init(equinox.filter(net, equinox.is_array)), jax.random.key(0)

    def wait(reached):
        jax.block_until_ready(equinox.filter(reached, equinox.is_array))
    return cycle(fresh, lambda state, batch: step(batch, state), job)._replace(wait=wait)


def torch_step(job, torch):
    """Eager PyTorch on the same kind of device, with the fastest number of threads: on a shared machine, using all is often the slowest."""
    w, device = job.workload, "cpu" if jax.default_backend() == "cpu" else "cuda"
    move = lambda a: torch.from_numpy(np.array(a)).to(device)
    batches = [(move(x), move(y).long()) for x, y in job.batches]

    def fresh():
        parts = []
        for i, (weight, bias) in enumerate(job.weights):
            layer = torch.nn.Linear(*weight.shape, dtype=move(weight).dtype, device=device)
            layer.load_state_dict({"weight": move(weight.T), "bias": move(bias)})
            last = i == len(job.weights) - 1
            parts += [layer] if last else [layer, torch.nn.ReLU()] + ([torch.nn.Dropout(w.dropout)] if w.dropout else [])
        net = torch.nn.Sequential(*parts)
        kind = torch.optim.Adam if w.optimizer == "adam" else torch.optim.SGD
        return net, kind(net.parameters(), lr=w.rate, **({"momentum": 0.9} if w.optimizer == "momentum" else {}))

    def advance(state, i):
        net, optimizer = state
        x, y = batches[i % len(batches)]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return state, loss.detach()
    contender = Contender(fresh, advance, wait=lambda reached: float(reached[1]))

    def seconds(threads):
        torch.set_num_threads(threads)
        return min(clock.timed(contender.runner(), 2) for _ in range(3))
    torch.set_num_threads(min(sorted({1, max(1, cores() // 2), cores()}), key=seconds))
    return contender


PEERS = {
    "optax": (("optax",), optax_step),
    "flax linen": (("flax.linen", "optax"), linen_step),
    "flax nnx": (("flax.nnx", "optax"), nnx_step),
    "equinox": (("equinox", "optax"), equinox_step),
    "torch": (("torch",), torch_step),
}
