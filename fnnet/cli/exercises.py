"""The exercises that `grade` knows: what each function must compute, on which inputs, and what typical mistakes look like.

A mistake in a backward pass is written as a forward pass to which autodiff gives that wrong gradient, with `stop` where a path is
forgotten; only its gradient counts, not its value. A mistake in another function is the wrong function.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import permutations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

stop = jax.lax.stop_gradient
Mistakes = Mapping[str, Callable[..., Any] | Sequence[Callable[..., Any]]]       # hint: the mistake, or several


class Gradient(NamedTuple):
    """An exercise to write a backward pass."""
    forward: Callable[..., Any]
    spec: str                               # of the inputs, as for `verify.check`; SIZES gives the size of an axis by its letter
    returns: str
    mistakes: Mistakes = {}


class Program(NamedTuple):
    """An exercise to write another function."""
    right: Callable[..., Any]
    cases: Mapping[str, tuple[Any, ...]]    # the case in words: the arguments
    returns: str
    mistakes: Mistakes = {}


SIZES = {"N": 4, "D": 3, "K": 2, "M": 5, "E": 2, "L": 7, "C": 3, "O": 2}      # axes that meet differ in size, so that a transpose shows


def dense(x, w, b):
    return x @ w + b


def cross_entropy(s, labels):
    return -jax.nn.log_softmax(s)[jnp.arange(s.shape[0]), labels].mean()


def batch_norm(x, gamma, beta, mean=lambda a: a, var=lambda a: a, scale=lambda a: a):
    return scale(gamma) * (x - mean(x.mean(0))) / jnp.sqrt(var(x.var(0)) + 1e-5) + beta


def convolution(x, w, step=1):
    k, length = w.shape[0], x.shape[1] - w.shape[0] + 1
    return sum(x[:, j:j + length] @ w[::step][j] for j in range(k))


def overwritten(x, w):
    """For each position of x only the last window."""
    k, length = w.shape[0], x.shape[1] - w.shape[0] + 1
    last = [jnp.arange(x.shape[1])[:, None] == jnp.arange(j, j + (1 if j < k - 1 else length)) for j in range(k)]
    return sum(jnp.where(last[j].any(1)[:, None], x, stop(x))[:, j:j + length] @ w[j] for j in range(k))


def lstm_step(x, h, c, w, b, order=None, g_gate=jnp.tanh, inside=lambda a: a, second=lambda a: a, forget=None):
    z = jnp.split(jnp.concatenate([x, h], 1) @ w + b, 4, 1)
    if order:                               # ∂L/∂z is concatenated in this order
        z = [stop(a) + (z[k] - stop(z[k])) for a, k in zip(z, order)]
    i, f, g, o = jax.nn.sigmoid(z[0]), jax.nn.sigmoid(z[1]), g_gate(z[2]), jax.nn.sigmoid(z[3])
    after = (f * c if forget is None else stop(f * c) + forget * (c - stop(c)) + stop(c) * (f - stop(f))) + i * g
    return o * jnp.tanh(inside(after)), second(after)


def sigmoid_slope(z):
    """tanh, with the derivative of the sigmoid in terms of the output."""
    t = stop(jnp.tanh(z))
    return t + t * (1 - t) * (z - stop(z))


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[1])) @ v


def attention_in_steps(q, k, v, scale=1.0, rows=lambda p: p):
    """`scale` multiplies only the gradient of the scores."""
    s = q @ k.T / jnp.sqrt(q.shape[1])
    e = jnp.exp(stop(s - s.max(1, keepdims=True)) + scale * (s - stop(s)))
    return e / rows(e.sum(1, keepdims=True)) @ v


def unscaled(q, k, v):
    return attention_in_steps(q, k, v, scale=q.shape[1]**0.5)


GRADIENTS = {
    "dense": Gradient(dense, "x: f[N, D], w: f[D, K], b: f[K]", "dx [n d], dw [d k], db [k]"),
    "sigmoid": Gradient(jax.nn.sigmoid, "z: f[N, D]", "dz [n d]", {
        "y is already σ(z): the slope in terms of y contains no further σ": lambda z: (
            stop(jax.vmap(jax.vmap(jax.grad(jax.nn.sigmoid)))(jax.nn.sigmoid(z))) * z)}),
    "tanh": Gradient(jnp.tanh, "z: f[N, D]", "dz [n d]", {
        "the slope is 1 − y², not 1 − y": lambda z: stop(1 - jnp.tanh(z)) * z,
        "the slope is 1 − y²; y(1 − y) is the sigmoid's": sigmoid_slope}),
    "softmax_cross_entropy": Gradient(cross_entropy, "s: f[N, D], labels: i[N] < D", "ds [n k], None", {
        "the slope needs the probabilities p = softmax(s), not the scores s": lambda s, labels: (
            (s**2 / 2).sum(1) - s[jnp.arange(s.shape[0]), labels]).mean(),
        "the target is missing: the slope is p − t, with t = 1 at the label": lambda s, labels: jax.nn.logsumexp(s, 1).mean(),
        "p is missing: the slope is p − t": lambda s, labels: -s[jnp.arange(s.shape[0]), labels].mean()}),
    "batch_norm": Gradient(batch_norm, "x: f[N, D], gamma: f[D], beta: f[D]", "dx [n d], dgamma [d], dbeta [d]", {
        "the paths through the mean and the variance are missing: both depend on x": partial(batch_norm, mean=stop, var=stop),
        "the path through the variance is missing: σ² depends on x": partial(batch_norm, var=stop),
        "the path through the mean is missing: μ depends on x": partial(batch_norm, mean=stop),
        "a factor γ is missing": lambda x, gamma, beta: batch_norm(x, gamma, beta, scale=lambda a: jnp.ones_like(a)),
        "dγ is the sum of dy·x̂, with the normalized x̂, not x": lambda x, gamma, beta: stop(x) * gamma}),
    "convolution": Gradient(convolution, "x: f[N, L, C], w: f[D, C, O]", "dx [n l c], dw [k c o]", {
        "the kernel is reversed: y[s − j] is multiplied by W[j] for each j": lambda x, w: convolution(x, w, -1),
        "each window overwrites the previous one: where windows overlap, their gradients are added": overwritten}),
    "lstm_step": Gradient(lstm_step, "x: f[N, D], h: f[N, K], c: f[N, K], w: f[5, 8], b: f[8]",
                          "dx [n d], dh [n m], dc [n m], dw [d+m 4m], db [4m]", {
        "the gates are in the wrong order: ∂L/∂z is concatenated in the order of the forward pass, i, f, g, o": [
            partial(lstm_step, order=order) for order in permutations(range(4))],
        "the path of c′ as an output is missing: add the given dc": partial(lstm_step, second=stop),
        "the path of c′ inside h′ is missing: h′ = o·tanh(c′)": partial(lstm_step, inside=stop),
        "a factor 1 − tanh²(c′) is missing: h′ = o·tanh(c′)": lambda *a: lstm_step(
            *a, inside=lambda c: jnp.arctanh(stop(jnp.tanh(c)) + (c - stop(c)))),
        "g is a tanh, with the slope 1 − g²; g(1 − g) is the sigmoid's": partial(lstm_step, g_gate=sigmoid_slope),
        "a factor f is missing: c′ = f·c + i·g": partial(lstm_step, forget=1.0)}),
    "attention": Gradient(attention, "q: f[N, D], k: f[M, D], v: f[M, E]", "dq [n d], dk [m d], dv [m e]", {
        "a factor 1/√d is missing: S = Q·Kᵀ/√d": unscaled,
        "the softmax couples the scores of a row: dS = P∘(dP − Σ P∘dP), with Σ over each row": partial(attention_in_steps, rows=stop)}),
}


def momentum(theta, v, g, rate, beta):
    v = beta * v + (1 - beta) * g
    return theta - rate * v, v


def adam(theta, v, s, g, t, rate, beta1, beta2, eps):
    v, s = beta1 * v + (1 - beta1) * g, beta2 * s + (1 - beta2) * g**2
    return theta - rate * v / (1 - beta1**t) / jnp.sqrt(s / (1 - beta2**t) + eps), v, s


def adam_corrected(theta, v, s, g, t, rate, beta1, beta2, eps):
    v, s = (beta1 * v + (1 - beta1) * g) / (1 - beta1**t), (beta2 * s + (1 - beta2) * g**2) / (1 - beta2**t)
    return theta - rate * v / jnp.sqrt(s + eps), v, s


def adam_outside(theta, v, s, g, t, rate, beta1, beta2, eps):
    _, v, s = adam(theta, v, s, g, t, rate, beta1, beta2, eps)
    return theta - rate * v / (1 - beta1**t) / (jnp.sqrt(s / (1 - beta2**t)) + eps), v, s


def numerical_gradient(cost, theta, eps, sides=(1, -1), width=2.0):
    at = lambda i, side: cost(jnp.asarray(theta).at[i].add(side * eps))
    return jnp.stack([(at(i, sides[0]) - at(i, sides[1])) / (width * eps) for i in range(theta.size)])


def difference(a, b):
    norm = jnp.linalg.norm
    return norm(a - b) / (norm(a) + norm(b))


def early_stopping(train_epoch, valid_loss, params, patience, epochs, better=lambda a, b: a < b, reset=True, late=0, last=False):
    best, lowest, waited, trained = params, float("inf"), 0, 0
    while trained < epochs and waited < patience + late:
        params, trained = train_epoch(params), trained + 1
        loss = valid_loss(params)
        if better(loss, lowest):
            best, lowest, waited = params, loss, 0 if reset else waited
        else:
            waited += 1
    return params if last else best, trained


def _stopping(losses, patience, epochs):
    """Training whose parameters count its epochs."""
    train = lambda params: params + 1.0
    loss = lambda params: losses[int(np.clip(params, 1, len(losses))) - 1]
    return {f"validation losses {', '.join(map(str, losses))}, patience {patience}, epochs {epochs}": (train, loss, 0.0, patience, epochs)}


A, B, C, D = (np.array(a) for a in ([1.0, -2.0, 0.5], [0.3, 0.1, -0.4], [2.0, -1.0, 0.25], [0.2, 0.6, 0.1]))
ZERO = np.zeros(3)
SET = (0.1, 0.9, 0.99)

PROGRAMS = {
    "momentum": Program(momentum, {
        "the first step, V = 0, rate 0.1, β = 0.9": (A, ZERO, C, 0.1, 0.9),
        "a later step, rate 0.5, β = 0.5": (A, B, C, 0.5, 0.5)}, "theta, v", {
        "the sign: θ moves against V": lambda theta, v, g, rate, beta: momentum(theta, v, g, -rate, beta),
        "here the gradient is weighted by 1 − β: V ← βV + (1 − β)g": lambda theta, v, g, rate, beta: (
            theta - rate * (beta * v + g), beta * v + g),
        "θ moves by the old V: use the new one": lambda theta, v, g, rate, beta: (
            theta - rate * v, momentum(theta, v, g, 0, beta)[1]),
        "θ moves by g: use V": lambda theta, v, g, rate, beta: (theta - rate * g, momentum(theta, v, g, 0, beta)[1]),
        "β and 1 − β are swapped": lambda theta, v, g, rate, beta: momentum(theta, v, g, rate, 1 - beta),
        "θ comes first, then V": lambda *a: momentum(*a)[::-1],
        "the new V is not returned: it is the second result": lambda theta, v, g, rate, beta: (
            momentum(theta, v, g, rate, beta)[0], v)}),
    "adam": Program(adam, {
        "the first step, V = S = 0, t = 1, ε = 1e-8": (A, ZERO, ZERO, C, 1, *SET, 1e-8),
        "a later step, t = 3, ε = 0.1": (A, B, D, C, 3, *SET, 0.1)}, "theta, v, s", {
        "the bias correction is missing: V/(1 − β₁ᵗ) and S/(1 − β₂ᵗ)": lambda theta, v, s, g, t, *rest: adam(theta, v, s, g, np.inf, *rest),
        "the bias correction of V is missing: V/(1 − β₁ᵗ)": lambda theta, v, s, g, t, rate, beta1, *rest: (
            adam(theta, v, s, g, t, rate * (1 - beta1**t), beta1, *rest)),
        "the bias correction of S is missing: S/(1 − β₂ᵗ)": lambda theta, v, s, g, t, rate, beta1, beta2, eps: (
            theta - rate * adam(theta, v, s, g, t, rate, beta1, beta2, eps)[1] / (1 - beta1**t)
            / jnp.sqrt(beta2 * s + (1 - beta2) * g**2 + eps), *adam(theta, v, s, g, t, rate, beta1, beta2, eps)[1:]),
        "the bias correction applies to this step only: V and S are stored without it": adam_corrected,
        "ε belongs inside the root here: √(Ŝ + ε)": adam_outside,
        "the sign: θ moves against V̂": lambda theta, v, s, g, t, rate, *rest: adam(theta, v, s, g, t, -rate, *rest),
        "t counts from 1": lambda theta, v, s, g, t, *rest: adam(theta, v, s, g, t + 1, *rest),
        "the bias correction takes the power t: 1 − βᵗ": lambda theta, v, s, g, t, *rest: (
            adam(theta, v, s, g, 1, *rest)[0], *adam(theta, v, s, g, t, *rest)[1:])}),
    "numerical_gradient": Program(numerical_gradient, {
        "cost = Σ θᵢ³, ε = 0.01": (lambda theta: (theta**3).sum(), A, 0.01),
        "cost = θ₀·exp(θ₁)·θ₂, ε = 0.01": (lambda theta: theta[0] * jnp.exp(theta[1]) * theta[2], A, 0.01)}, "dθ [d]", {
        "this is the forward difference: take J(θ + ε·eᵢ) − J(θ − ε·eᵢ)": partial(numerical_gradient, sides=(1, 0), width=1.0),
        "the two points are 2ε apart: divide by 2ε": partial(numerical_gradient, width=1.0),
        "the sign: J(θ + ε·eᵢ) comes first": partial(numerical_gradient, sides=(-1, 1)),
        "all parameters are moved at once: move one at a time, eᵢ is 0 elsewhere": lambda cost, theta, eps: jnp.full(
            theta.shape, (cost(theta + eps) - cost(theta - eps)) / (2 * eps))}),
    "difference": Program(difference, {"a, b of length 3": (A, B), "a, b of length 2": (A[:2], C[:2])}, "diff, a scalar", {
        "the root is missing: the norm is ‖x‖₂ = √(Σ x²)": lambda a, b: ((a - b)**2).sum() / ((a**2).sum() + (b**2).sum()),
        "the denominator is ‖a‖₂ + ‖b‖₂, the sum of two norms": lambda a, b: jnp.linalg.norm(a - b) / jnp.linalg.norm(a + b),
        "the difference is not divided by ‖a‖₂ + ‖b‖₂": lambda a, b: jnp.linalg.norm(a - b),
        "‖b‖₂ is missing from the denominator": lambda a, b: jnp.linalg.norm(a - b) / jnp.linalg.norm(a)}),
    "early_stopping": Program(early_stopping, {
        **_stopping([3.0, 2.0, 2.5, 1.0, 1.5, 1.2, 0.5], 2, 10), **_stopping([3.0, 2.0, 1.0, 1.0, 4.0, 5.0], 2, 10),
        **_stopping([3.0, 2.0, 1.0, 0.5], 2, 3), **_stopping([1.0, 2.0, 3.0, 0.5], 3, 10)},
        "the best parameters, the number of epochs", {
        "these are the last parameters: return those with the lowest validation loss": partial(early_stopping, last=True),
        "patience counts epochs in a row: an improvement resets the count": partial(early_stopping, reset=False),
        "training continues for one epoch too many: stop after `patience` epochs without an improvement": partial(early_stopping, late=1),
        "an equal loss is not an improvement": lambda *a: early_stopping(*a, better=lambda a, b: a <= b),
        "the highest loss is kept: keep the lowest": lambda *a: early_stopping(
            *a, better=lambda a, b: a > b or b == float("inf"))}),
}
