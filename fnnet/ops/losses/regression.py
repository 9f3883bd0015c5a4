"""Losses for regression."""

import math

import jax
import jax.numpy as jnp

from fnnet.ops.losses.reduction import by_element, over_features, reduce
from fnnet.rule import rule
from fnnet.sample import apart, positive

__all__ = ["absolute_error", "gaussian_nll", "huber", "log_cosh", "pinball", "poisson_nll", "squared_error"]


@rule
def squared_error(prediction, target, weights=None, *, scale=1.0, features="mean", reduction="mean") -> jax.Array:
    """ℓ = s·⟨(ŷ − y)²⟩,   ∂ℓ/∂ŷ = 2s(ŷ − y),   ∂ℓ/∂y = −∂ℓ/∂ŷ

    prediction, target [n ...]: ⟨·⟩ is the mean (or, features="sum", the sum) over all axes but the first.
    Common normalizations: (ŷ − y)² is scale=1; ½Σₖ(yₖ − tₖ)² of an example is scale=0.5, features="sum";
    1/(2m)·Σ over m examples is scale=0.5, features="sum" with reduction="mean".

    >>> prediction, target = jnp.array([3.0, 5.0]), jnp.array([1.0, 5.0])
    >>> ops.squared_error(prediction, target).tolist()  # (2² + 0²)/2
    2.0
    >>> jax.grad(ops.squared_error)(prediction, target).tolist()
    [2.0, 0.0]
    """
    return reduce(scale * over_features((prediction - target) ** 2, features), weights, reduction)


@by_element(squared_error)
def squared_error_slopes(prediction, target, *, scale):
    d = 2 * scale * (prediction - target)
    return d, -d


@rule
def absolute_error(prediction, target, weights=None, *, features="mean", reduction="mean") -> jax.Array:
    """ℓ = ⟨|ŷ − y|⟩,   ∂ℓ/∂ŷ = sign(ŷ − y), 0 at 0,   ∂ℓ/∂y = −∂ℓ/∂ŷ

    prediction, target [n ...].

    >>> prediction, target = jnp.array([3.0, 5.0]), jnp.array([1.0, 5.0])
    >>> ops.absolute_error(prediction, target).tolist()
    1.0
    >>> jax.grad(ops.absolute_error)(prediction, target).tolist()
    [0.5, 0.0]
    """
    return reduce(over_features(jnp.abs(prediction - target), features), weights, reduction)


@by_element(absolute_error)
def absolute_error_slopes(prediction, target):
    d = jnp.sign(prediction - target)
    return d, -d


@rule
def huber(prediction, target, weights=None, *, delta=1.0, features="mean", reduction="mean") -> jax.Array:
    """ℓ = ⟨½r² if |r| ≤ δ, else δ(|r| − ½δ)⟩,   r = ŷ − y,   ∂ℓ/∂ŷ = r, at most δ and at least −δ,   ∂ℓ/∂y = −∂ℓ/∂ŷ
    [Huber 1964]

    prediction, target [n ...]. The smooth L1 loss with parameter β is this with delta=β, divided by β.

    Cost: 1.2 times the time by itself, as the backward pass computes the difference again, where autodiff saves three
    arrays.

    >>> prediction, target = jnp.array([0.5, 3.0]), jnp.zeros(2)
    >>> ops.huber(prediction, target, reduction="none").tolist()  # ½·0.5² and 3 − ½
    [0.125, 2.5]
    >>> jax.grad(ops.huber)(prediction, target).tolist()
    [0.25, 0.5]
    """
    r = prediction - target
    # The square of the smaller of the two, so that a large difference is not squared.
    inner = jnp.minimum(jnp.abs(r), delta)
    return reduce(over_features(inner * (jnp.abs(r) - inner / 2), features), weights, reduction)


@by_element(huber, limits={"delta": (lambda delta: delta > 0, "a positive number")})
def huber_slopes(prediction, target, *, delta):
    d = jnp.clip(prediction - target, -delta, delta)
    return d, -d


@rule
def log_cosh(prediction, target, weights=None, *, features="mean", reduction="mean") -> jax.Array:
    """ℓ = ⟨log cosh(ŷ − y)⟩,   ∂ℓ/∂ŷ = tanh(ŷ − y),   ∂ℓ/∂y = −∂ℓ/∂ŷ

    prediction, target [n ...]. About ½r² for small differences r and |r| − log 2 for large ones. Small differences are
    computed as log(1 + 2 sinh²(r/2)), since r + log(1 + e⁻²ʳ) − log 2 consists of rounding errors there: in float32 at
    10⁻⁴ the error exceeds the value.

    Cost: a hyperbolic sine in addition to the logarithm, for a loss exact to the last bits even where it is small.

    >>> prediction, target = jnp.array([0.0, 100.0]), jnp.zeros(2)
    >>> print(ops.log_cosh(prediction, target, reduction="none").round(2))  # 0 and 100 − log 2
    [ 0.   99.31]
    >>> jax.grad(ops.log_cosh)(prediction, target).tolist()
    [0.0, 0.5]
    """
    r = prediction - target
    return reduce(over_features(jnp.logaddexp(r, -r) - math.log(2), features), weights, reduction)


def _log_cosh(prediction, target):
    r = prediction - target
    small = jnp.where(jnp.abs(r) < 1, r, 0)
    large = jnp.where(r < 0, -r, r)
    return jnp.where(jnp.abs(r) < 1, jnp.log1p(2 * jnp.sinh(small / 2) ** 2),
                     large + jnp.log1p(jnp.exp(-2 * large)) - math.log(2))


@by_element(log_cosh, value=_log_cosh)
def log_cosh_slopes(prediction, target):
    d = jnp.tanh(prediction - target)
    return d, -d


@rule
def pinball(prediction, target, weights=None, *, quantile=0.5, features="mean", reduction="mean") -> jax.Array:
    """ℓ = ⟨q(y − ŷ) if y > ŷ, else (1 − q)(ŷ − y)⟩,   ∂ℓ/∂ŷ = −q or 1 − q, 0 at ŷ = y,   ∂ℓ/∂y = −∂ℓ/∂ŷ
    [Koenker & Bassett 1978]

    prediction, target [n ...]. Minimal if ŷ is the q-quantile of the targets, which a fraction q of them are below. q =
    ½ gives half of |ŷ − y|.

    >>> prediction, target = jnp.array([0.0, 0.0]), jnp.array([1.0, -1.0])
    >>> print(ops.pinball(prediction, target, quantile=0.75, reduction="none"))  # too low costs more than too high
    [0.75 0.25]
    """
    r = target - prediction
    return reduce(over_features(jnp.where(r > 0, quantile * r, (quantile - 1) * r), features), weights, reduction)


@by_element(pinball, limits={"quantile": (lambda q: 0 < q < 1, "a number between 0 and 1")})
def pinball_slopes(prediction, target, *, quantile):
    d = jnp.where(target > prediction, -quantile,
                  jnp.where(target < prediction, 1 - quantile, jnp.zeros_like(prediction)))
    return d, -d


@rule
def poisson_nll(log_rate, target, weights=None, *, features="mean", reduction="mean") -> jax.Array:
    """ℓ = ⟨eᶻ − tz⟩,   z = log λ,   ∂ℓ/∂z = eᶻ − t,   ∂ℓ/∂t = −z

    log_rate [n ...], target [n ...] counts. The negative log-likelihood of counts t for the rate λ, without the term
    log t!, which does not depend on parameters. If a network returns rates, write poisson_nll(jnp.log(rate), target).

    >>> log_rate, count = jnp.array([0.0]), jnp.array([3.0])
    >>> ops.poisson_nll(log_rate, count).tolist()
    1.0
    >>> jax.grad(ops.poisson_nll)(log_rate, count).tolist()  # rate 1 − count 3
    [-2.0]
    """
    return reduce(over_features(jnp.exp(log_rate) - target * log_rate, features), weights, reduction)


@by_element(poisson_nll)
def poisson_nll_slopes(log_rate, target):
    return jnp.exp(log_rate) - target, -log_rate


@rule
def gaussian_nll(prediction, log_variance, target, weights=None, *, features="mean", reduction="mean") -> jax.Array:
    """ℓ = ½⟨s + (μ − y)²e⁻ˢ⟩,   s = log σ²,   ∂ℓ/∂μ = (μ − y)e⁻ˢ,   ∂ℓ/∂s = ½ − ½(μ − y)²e⁻ˢ,   ∂ℓ/∂y = −∂ℓ/∂μ
    [Nix & Weigend 1994]

    prediction μ, log_variance s, target y [n ...]. The negative log-likelihood of y under N(μ, σ²), without ½ log 2π.
    The logarithm of a variance may be any number, so that no constraint is needed. For a variance v write jnp.log(v).

    >>> prediction, log_variance, target = jnp.array([3.0]), jnp.array([0.0]), jnp.array([1.0])
    >>> ops.gaussian_nll(prediction, log_variance, target).tolist()  # ½(0 + 2²)
    2.0
    >>> [g.tolist() for g in jax.grad(ops.gaussian_nll, (0, 1))(prediction, log_variance, target)]
    [[2.0], [-1.5]]
    """
    return reduce(over_features((log_variance + (prediction - target) ** 2 * jnp.exp(-log_variance)) / 2, features),
                  weights, reduction)


@by_element(gaussian_nll)
def gaussian_nll_slopes(prediction, log_variance, target):
    r, precision = prediction - target, jnp.exp(-log_variance)
    d = r * precision
    return d, (1 - r * d) / 2, -d


for of_a_difference in squared_error, absolute_error, huber, log_cosh, pinball:
    of_a_difference.example(prediction=apart("n d"), target="n d")
    of_a_difference.example(prediction=apart("n"), target="n", weights=positive("n"))
    of_a_difference.example(prediction=apart("n d"), target="n d", weights=positive("n"), features="sum",
                            reduction="sum")
squared_error.example(prediction="n", target="n", weights=positive("n"), scale=0.5)
huber.example(prediction=apart("n d"), target="n d", delta=0.3)
pinball.example(prediction=apart("n d"), target="n d", quantile=0.9, reduction="none")
for likelihood, others in ((poisson_nll, {"log_rate": "n d"}),
                           (gaussian_nll, {"prediction": "n d", "log_variance": "n d"})):
    likelihood.example(**others, target=positive("n d"))
    likelihood.example(**others, target=positive("n d"), weights=positive("n"), reduction="sum")
    likelihood.example(**others, target=positive("n d"), features="sum", reduction="none")
