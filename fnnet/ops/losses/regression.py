"""Losses for numbers."""

from fnnet.ops.losses.reduction import check_alike, example_like, like, over_features, reduce, reduced, spread, to_features, widen
from fnnet.rule import rule
from fnnet.sample import positive


@rule
def squared_error(prediction, target, weights=None, *, scale=1.0, features="mean", reduction="mean"):
    """ℓ = s·⟨(ŷ − y)²⟩,   ∂ℓ/∂ŷ = 2s(ŷ − y),   ∂ℓ/∂y = −∂ℓ/∂ŷ

    prediction, target [n ...]: ⟨·⟩ is the mean (or, features="sum", the sum) over all axes but the first.
    The normalisations in use: (ŷ − y)² is scale=1; ½Σₖ(yₖ − tₖ)² of an example is scale=0.5, features="sum";
    1/(2m)·Σ over m examples is scale=0.5, features="sum" with reduction="mean".
    """
    return reduce(scale * over_features((prediction - target) ** 2, features), weights, reduction)


@squared_error.fwd
def _(prediction, target, weights, *, scale, features, reduction):
    p, t = widen(prediction, target)
    loss = scale * over_features((p - t) ** 2, features)
    y = reduced(loss, weights, reduction, prediction, target)
    return y, (prediction, target, loss if weights is not None else None, weights)


@squared_error.bwd
def _(dy, prediction, target, loss, weights, *, scale, features, reduction):
    p, t = widen(prediction, target)
    dloss, dweights = spread(dy, example_like(p) if loss is None else loss, weights, reduction)
    d = to_features(2 * scale * dloss, p, features) * (p - t)
    return like((d, prediction), (-d, target), (dweights, weights))


@squared_error.check
def _(prediction, target, weights, *, features, reduction):
    check_alike("squared_error", "predictions and targets", prediction, target, weights, features, reduction)


squared_error.example(prediction="n d", target="n d")
squared_error.example(prediction="n", target="n", weights=positive("n"), scale=0.5)
squared_error.example(prediction="n d", target="n d", weights=positive("n"), features="sum", reduction="sum")
