"""Losses for binary classification."""

import math
import warnings

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from fnnet.numeric import explicit, extremes
from fnnet.ops.losses.reduction import at_least_tiny, by_element, check_alike, check_limits, over_features, reduce
from fnnet.rule import rule
from fnnet.sample import apart, positive, uniform

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "binary_focal", "binary_hinge"]

WHITE = (255, 65535)        # white, in images with integer pixels
FOCAL = {"gamma": (lambda gamma: gamma >= 0, "a number ≥ 0"),
         "alpha": (lambda alpha: 0 <= alpha <= 1, "a number from 0 to 1")}
SHARE = 16                  # elements that share a logarithm: their product is at most 2¹⁶


@rule
def binary_cross_entropy(probability, target, weights=None, *, features="mean", reduction="mean") -> jax.Array:
    """ℓ = −⟨t log p + (1 − t) log(1 − p)⟩,   ∂ℓ/∂p = −t/p + (1 − t)/(1 − p),   ∂ℓ/∂t = log(1 − p) − log p

    probability, target [n ...] in [0, 1]. Logarithms and divisors are clamped to the smallest normal number (10⁻³⁸ in
    float32): a certain but wrong prediction costs 87 instead of infinity, and its gradient is as large as float32
    allows (the gradient of a clamped logarithm would be 0, and nothing would be learned). A certain and correct
    prediction costs 0, with gradient ±1. For scores use binary_cross_entropy_with_logits, whose gradient p − t is exact
    where p has been rounded to 0 or 1. With weights the mean is divided by Σw; PyTorch's is divided by n.

    >>> probability, target = jnp.array([0.5]), jnp.array([1.0])
    >>> round(float(ops.binary_cross_entropy(probability, target)), 4)  # log 2
    0.6931
    >>> jax.grad(ops.binary_cross_entropy)(probability, target).tolist()
    [-2.0]
    """
    p, q = at_least_tiny(probability), at_least_tiny(1 - probability)
    return reduce(-over_features(target * jnp.log(p) + (1 - target) * jnp.log(q), features), weights, reduction)


@by_element(binary_cross_entropy)
def binary_cross_entropy_slopes(probability, target):
    p, q = at_least_tiny(probability), at_least_tiny(1 - probability)
    return (1 - target) / q - target / p, jnp.log(q) - jnp.log(p)


@rule
def binary_cross_entropy_with_logits(logits, target, weights=None, *, pos_weight=1.0, features="mean",
                                     reduction="mean") -> jax.Array:
    """ℓ = ⟨log(1 + eᶻ) − tz⟩,   ∂ℓ/∂z = σ(z) − t,   ∂ℓ/∂t = −z

    logits, target [n ...]. σ − t is computed as (1 − t)σ(z) − tσ(−z), which does not cancel where σ has been rounded to
    t. With weights the mean is divided by Σw; PyTorch's is divided by n.

    pos_weight α        ℓ = ⟨(1 − t) log(1 + eᶻ) + αt log(1 + e⁻ᶻ)⟩,   ∂ℓ/∂z = (1 − t)σ(z) − αtσ(−z): the weight of a
                        positive target relative to a negative one, a number or a tuple with one number for each element
                        of the last axis, as in PyTorch

    >>> logits, target = jnp.array([0.0]), jnp.array([1.0])
    >>> round(float(ops.binary_cross_entropy_with_logits(logits, target)), 4)  # log 2
    0.6931
    >>> jax.grad(ops.binary_cross_entropy_with_logits)(logits, target).tolist()  # ½ − 1
    [-0.5]
    """
    if pos_weight == 1:
        return reduce(over_features(jnp.logaddexp(logits, 0) - target * logits, features), weights, reduction)
    yes = _of_yes(pos_weight, logits) * target
    return reduce(over_features((1 - target + yes) * jnp.logaddexp(logits, 0) - yes * logits, features), weights,
                  reduction)


def _cross_entropies(z, t, *, pos_weight):
    """The sum for each example. With 64 features or more, groups of 16 share one logarithm, that of the product of
    their 1 + a, a = e^−|z|; a and b are combined to (1 + a)(1 + b) − 1 = a + b + ab, in which small ones are not lost.
    With the gradient, this takes 0.6 to 0.9 of the time on a CPU.
    """
    # Two nonnegative terms: log(1 + eᶻ) − tz would lose the small loss of a confident and correct prediction.
    if pos_weight != 1:
        yes = _of_yes(pos_weight, z) * t
        return over_features((1 - t + yes) * jnp.log1p(_small(z)) + jnp.where(z >= 0, (1 - t) * z, -yes * z), "sum")
    a, rest = _small(z), jnp.where(z >= 0, (1 - t) * z, -t * z)
    count = math.prod(z.shape[1:])
    if count < 4 * SHARE or count % SHARE or explicit(z):
        return over_features(rest + jnp.log1p(a), "sum")
    grouped = [array.reshape(z.shape[0], SHARE, count // SHARE) for array in (a, rest)]
    product, rest = lax.reduce(grouped, [jnp.zeros((), z.dtype)] * 2,
                               lambda x, y: [x[0] + y[0] + x[0] * y[0], x[1] + y[1]], (1,))
    return (jnp.log1p(product) + rest).sum(1)


@by_element(binary_cross_entropy_with_logits, total=_cross_entropies)
def binary_cross_entropy_with_logits_slopes(z, t, *, pos_weight):
    a = _small(z)
    yes = t if pos_weight == 1 else _of_yes(pos_weight, z) * t
    of_z = ((1 - t) * jnp.where(z >= 0, 1, a) - yes * jnp.where(z >= 0, a, 1)) / (1 + a)
    if pos_weight == 1:
        return of_z, -z
    weight, log1p = _of_yes(pos_weight, z), jnp.log1p(a)
    return of_z, jnp.where(z >= 0, (weight - 1) * log1p - z, (weight - 1) * log1p - weight * z)


def _of_yes(pos_weight, z):
    """The weight of a positive target, with the dtype and the number of axes of z."""
    weight = jnp.asarray(pos_weight, z.dtype)
    return weight.reshape((1,) * (z.ndim - weight.ndim) + weight.shape)


@rule
def binary_focal(logits, target, weights=None, *, gamma=2.0, alpha=0.5, features="mean", reduction="mean") -> jax.Array:
    """ℓ = ⟨αt·f(z) + (1 − α)(1 − t)·f(−z)⟩,   f(z) = −σ(−z)ᵞ log σ(z),   f′ = −σ(−z)ᵞ(σ(−z) − γσ(z) log σ(z))
    [Lin et al. 2017]

    logits, target [n ...] in [0, 1]. ∂ℓ/∂t = αf(z) − (1 − α)f(−z). γ reduces the weight of examples that are already
    classified well, α is the weight of positives against negatives: γ = 0 and α = ½ give half the binary cross-entropy.
    The loss and its derivatives are sums of terms of the same sign, exact in the tails.

    >>> right, target = jnp.array([3.0]), jnp.array([1.0])  # p = 0.95: little is left to learn
    >>> round(float(ops.binary_focal(right, target, gamma=0.0)), 4)
    0.0243
    >>> print(f"{ops.binary_focal(right, target):.1e}")
    5.5e-05
    """
    def f(z):
        return -jnp.exp(gamma * jax.nn.log_sigmoid(-z)) * jax.nn.log_sigmoid(z)
    return reduce(over_features(alpha * target * f(logits) + (1 - alpha) * (1 - target) * f(-logits), features),
                  weights, reduction)


def _focal(z, gamma):
    """f and f′."""
    a, rest = _small(z), jnp.where(z >= 0, 0, z)            # a = e^−|z|
    log1p = jnp.log1p(a)
    loss = log1p - rest                                     # −log σ(z)
    right, wrong = jnp.where(z >= 0, 1, a) / (1 + a), jnp.where(z >= 0, a, 1) / (1 + a)
    power = jnp.exp(-gamma * (z - rest)) * jnp.exp(-gamma * log1p)      # the exact part of the exponent separately
    return power * loss, -power * (wrong + gamma * right * loss)


def _focal_loss(z, t, *, gamma, alpha):
    return alpha * t * _focal(z, gamma)[0] + (1 - alpha) * (1 - t) * _focal(-z, gamma)[0]


@by_element(binary_focal, value=_focal_loss)
def binary_focal_slopes(z, t, *, gamma, alpha):
    (yes, of_yes), (no, of_no) = _focal(z, gamma), _focal(-z, gamma)
    return alpha * t * of_yes - (1 - alpha) * (1 - t) * of_no, alpha * yes - (1 - alpha) * no


@rule
def binary_hinge(scores, target, weights=None, *, margin=1.0, features="mean", reduction="mean") -> jax.Array:
    """ℓ = ⟨max(0, Δ − (2t − 1)s)⟩,   ∂ℓ/∂s = 1 − 2t and ∂ℓ/∂t = −2s where the margin Δ is violated
    [Cortes & Vapnik 1995]

    scores, target [n ...]: 0 for the negative, 1 for the positive class. Exactly at the margin the derivative is 0.

    >>> scores, target = jnp.array([0.5, 2.0]), jnp.array([1.0, 1.0])
    >>> ops.binary_hinge(scores, target, reduction="none").tolist()
    [0.5, 0.0]
    >>> jax.grad(ops.binary_hinge)(scores, target).tolist()  # the second is beyond the margin
    [-0.5, 0.0]
    """
    return reduce(over_features(jnp.maximum(margin - (2 * target - 1) * scores, 0), features), weights, reduction)


@by_element(binary_hinge)
def binary_hinge_slopes(scores, target, *, margin):
    side = 2 * target - 1
    violated = margin - side * scores > 0
    return jnp.where(violated, -side, 0), jnp.where(violated, -2 * scores, 0)


def _small(z):
    """e^−|z|, with a conditional sign instead of |z|: both branches can be differentiated at 0, any number of times."""
    return jnp.exp(jnp.where(z >= 0, -z, z))


@binary_cross_entropy.check
def binary_cross_entropy_check(probability, target, weights, *, features, reduction):
    check_alike("binary_cross_entropy", {"probability": probability, "target": target}, weights, features, reduction)
    low, high = extremes(probability)
    if low < 0 or high > 1:
        raise ValueError(f"binary_cross_entropy takes probabilities in [0, 1]; got numbers from {low:g} to "
                         f"{high:g}: for scores use binary_cross_entropy_with_logits")
    check_targets("binary_cross_entropy", target)
    if _certain(probability) and not _certain(target):
        warnings.warn("every probability of binary_cross_entropy is exactly 0 or 1, but the targets are not: if the "
                      "arguments are swapped, write binary_cross_entropy(probability, target)", stacklevel=4)


@binary_cross_entropy_with_logits.check
def binary_cross_entropy_with_logits_check(logits, target, weights, *, pos_weight, features, reduction):
    check_alike("binary_cross_entropy_with_logits", {"logits": logits, "target": target}, weights, features, reduction)
    check_targets("binary_cross_entropy_with_logits", target, ": the order is (logits, target)")
    several = isinstance(pos_weight, tuple)
    if several and len(pos_weight) != (jnp.shape(logits) or (1,))[-1]:
        raise ValueError("a tuple pos_weight of binary_cross_entropy_with_logits must have one number for each element "
                         f"of the last axis of {list(jnp.shape(logits))}; got {len(pos_weight)}")
    if not all(weight >= 0 for weight in (pos_weight if several else (pos_weight,))):
        raise ValueError(f"the pos_weight of binary_cross_entropy_with_logits must be ≥ 0; got {pos_weight!r}")


@binary_focal.check
def binary_focal_check(logits, target, weights, *, gamma, alpha, features, reduction):
    check_alike("binary_focal", {"logits": logits, "target": target}, weights, features, reduction)
    check_targets("binary_focal", target, ": the order is (logits, target)")
    check_limits("binary_focal", FOCAL, {"gamma": gamma, "alpha": alpha})


@binary_hinge.check
def binary_hinge_check(scores, target, weights, *, features, reduction):
    check_alike("binary_hinge", {"scores": scores, "target": target}, weights, features, reduction)
    check_targets("binary_hinge", target, ": for −1 and 1 write (target + 1) / 2")


def check_targets(name, target, remedy=""):
    """Rejects targets that are not probabilities, if their values are known."""
    low, high = extremes(target)
    if low < 0 or high > 1:
        remedy = f": write target / {high:g}" if low >= 0 and high in WHITE else remedy
        raise ValueError(f"the targets of {name} must be in [0, 1]; got numbers from {low:g} to {high:g}{remedy}")


def _certain(probability):
    """Whether all probabilities are known to be exactly 0 or 1."""
    if isinstance(probability, Tracer) or not jnp.size(probability):
        return False
    with jax.ensure_compile_time_eval():
        return extremes(probability * (1 - jnp.asarray(probability))) == (0, 0)


for binary, inputs in ((binary_cross_entropy, uniform), (binary_cross_entropy_with_logits, apart),
                       (binary_focal, apart),
                       (binary_hinge, apart)):
    first = binary.arrays[0]
    binary.example(**{first: inputs("n d")}, target=uniform("n d"))
    binary.example(**{first: inputs("n")}, target=uniform("n"), weights=positive("n"))
    binary.example(**{first: inputs("n d")}, target=uniform("n d"), features="sum", reduction="none")
# more than one group
binary_cross_entropy_with_logits.example(logits="n 2 32", target=uniform("n 2 32"), weights=positive("n"))
binary_cross_entropy_with_logits.example(logits=apart("n 3"), target=uniform("n 3"), pos_weight=(0.5, 3.0, 1.0))
binary_focal.example(logits=apart("n d"), target=uniform("n d"), gamma=0.5, alpha=0.25)
binary_hinge.example(scores=apart("n d"), target=uniform("n d"), margin=0.3)
