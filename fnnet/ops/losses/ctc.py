"""The loss for a sequence whose labels are known, but not their alignment."""

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.numeric import check_real, extremes, like, wide
from fnnet.ops.losses.reduction import check_reduction, counted, example_like, reduce, reduced, spread
from fnnet.rule import rule

__all__ = ["ctc"]


@rule
def ctc(logits, labels, weights=None, lengths=None, label_lengths=None, *, blank=0, infeasible="inf",
        reduction="mean") -> jax.Array:
    """ℓ = −log Σ p(path) over the paths that spell the labels,
    ∂ℓ/∂zₜₖ = softmax(zₜ)ₖ − Σ γₜ(s) over the s that write k   [Graves 2006]

    logits [n t k], labels [n l] integers, lengths and label_lengths [n] integers or None (all t, all l) → ℓ [n]. A path
    emits a class or the blank at each step; equal adjacent classes are merged, then blanks are dropped. Equal labels in
    succession need a blank between them, so that l labels take at least l steps plus one for each repetition: with
    fewer, ℓ is ∞ and its derivative 0; infeasible="zero" gives such an example ℓ = 0 and still counts its weight in the
    mean, like PyTorch's zero_infinity. No labels in no steps cost 0. Whatever is beyond the lengths has no effect. ℓ is
    not divided by the number of labels. PyTorch's "mean" divides each ℓ by it, then takes the mean over the examples:
    (ctc(logits, labels, None, lengths, label_lengths, reduction="none") / label_lengths).mean().

    Let b [2l + 1] be the labels with blanks around them, αₜ(s) the probability of the paths up to step t that are at
    bₛ, and βₜ(s) that of their continuations: αₜ₊₁(s) = p(bₛ)(αₜ(s) + αₜ(s − 1) + αₜ(s − 2)), the last term only if bₛ
    is neither the blank nor bₛ₋₂; γₜ(s) = αₜ(s)βₜ(s)/Σᵣ αₜ(r)βₜ(r). All are computed as logarithms, from which every
    step subtracts the largest, so that rounding errors do not accumulate. Saved: α.

    >>> logits, labels = jnp.zeros((1, 2, 2)), jnp.array([[1]])  # two steps, blank or "1" with chance ½ each
    >>> round(float(ops.ctc(logits, labels)), 4)  # −log ¾: three of the four paths write "1"
    0.2877
    """
    blanks, skip, inside, lengths = _paths(labels, lengths, label_lengths, blank, logits)
    # Here −10⁹ stands for log 0: with −∞, autodiff would give NaN.
    log_p = jax.nn.log_softmax(logits.astype(wide(logits.dtype)), axis=-1)
    log_p = jnp.where(inside[:, None], _at(log_p, blanks), -1e9)

    def step(alpha, now):
        t, p = now
        on = jnp.logaddexp(jnp.logaddexp(alpha, _shift(alpha, 1, -1e9)),
                           jnp.where(skip, _shift(alpha, 2, -1e9), -1e9)) + p
        return jnp.where((t < lengths)[:, None], on, alpha), None
    place = jnp.arange(blanks.shape[1])[None]
    alpha = jnp.where((lengths > 0)[:, None], jnp.where(place < 2, log_p[:, 0], -1e9), jnp.where(place < 1, 0.0, -1e9))
    alpha, _ = lax.scan(step, alpha,
                        (jnp.arange(1, logits.shape[1], dtype=jnp.int32), jnp.moveaxis(log_p[:, 1:], 1, 0)))
    loss = -jax.nn.logsumexp(jnp.where(_last(inside), alpha, -1e9), axis=-1)
    return reduce(jnp.where(loss > 1e8, _INFEASIBLE[infeasible], loss).astype(logits.dtype), weights, reduction)


@ctc.fwd
def ctc_fwd(logits, labels, weights, lengths, label_lengths, *, blank, infeasible, reduction):
    blanks, skip, inside, steps = _paths(labels, lengths, label_lengths, blank, logits)
    e, _ = _scores(logits, blanks, inside)
    place = jnp.arange(blanks.shape[1])[None]
    first = jnp.where((steps > 0)[:, None], jnp.where(place < 2, e[0], -jnp.inf), jnp.where(place < 1, 0.0, -jnp.inf))

    def step(state, now):
        alpha, offset = state
        t, e = now
        on, top = _less_top(_sum3(alpha, _shift(alpha, 1), jnp.where(skip, _shift(alpha, 2), -jnp.inf)) + e)
        running = t < steps
        state = jnp.where(running[:, None], on, alpha), jnp.where(running, offset + top, offset)
        return state, state[0]
    state = first, offset = _less_top(first)
    (alpha, offset), others = lax.scan(step, state, (jnp.arange(1, e.shape[0], dtype=jnp.int32), e[1:]))
    loss = -(offset + _log_sum(jnp.where(_last(inside), alpha, -jnp.inf)))
    loss = jnp.where(loss == jnp.inf, _INFEASIBLE[infeasible], loss)
    kept = loss if weights is not None else None
    alphas = jnp.concatenate([first[None], others])
    return reduced(loss, weights, reduction, logits), (logits, labels, lengths, label_lengths, alphas, kept, weights)


@ctc.bwd
def ctc_bwd(dy, logits, labels, lengths, label_lengths, alphas, loss, weights, *, blank, reduction):
    blanks, skip, inside, steps = _paths(labels, lengths, label_lengths, blank, logits)
    e, p = _scores(logits, blanks, inside)
    dloss, dweights = spread(dy, example_like(logits) if loss is None else loss, weights, reduction)
    last = jnp.where(_last(inside), jnp.zeros_like(alphas[0]), -jnp.inf)         # in shard_map it varies as α does
    skipped = _shift(skip, -2, False)                               # whether s + 2 may follow s

    def step(beta, now):
        t, e = now                                                  # from step t + 1, of scores e, back to t
        on = beta + e
        back, _ = _less_top(_sum3(on, _shift(on, -1), jnp.where(skipped, _shift(on, -2), -jnp.inf)))
        beta = jnp.where((t + 1 < steps)[:, None], back, beta)
        return beta, beta
    _, others = lax.scan(step, last, (jnp.arange(e.shape[0] - 1, dtype=jnp.int32), e[1:]), reverse=True)
    at = alphas + jnp.concatenate([others, last[None]])
    gamma = jnp.exp(at - _finite(lax.stop_gradient(at.max(-1)))[..., None])
    total = gamma.sum(-1, keepdims=True)
    gamma = jnp.moveaxis(gamma / jnp.where(total == 0, 1, total), 0, 1)             # [n t s]
    n, t, k = logits.shape
    written = jnp.zeros((n, t, k), p.dtype).at[jnp.arange(n)[:, None, None], jnp.arange(t)[None, :, None],
                                               blanks[:, None]].add(gamma)
    possible = (total[..., 0] != 0).T & (jnp.arange(t, dtype=jnp.int32)[None] < steps[:, None])
    dz = jnp.where(possible[..., None], (p - written) * dloss[:, None, None], 0)
    return *like((counted(dz, weights), logits), (None, labels), (dweights, weights)), None, None


def _paths(labels, lengths, label_lengths, blank, logits):
    """The labels with blanks around them [n 2l + 1], where a path may skip the preceding blank, which of them are
    inside the example, and how many steps it has."""
    n, l = labels.shape
    labels = labels.astype(jnp.int32)
    blanks = jnp.stack([jnp.full_like(labels, blank), labels], -1).reshape(n, 2 * l)
    blanks = jnp.pad(blanks, ((0, 0), (0, 1)), constant_values=blank)
    skip = (blanks != blank) & (blanks != _shift(blanks, 2, blank))
    all_labels, all_steps = (jnp.full_like(logits[:, 0, 0], size, jnp.int32) for size in (l, logits.shape[1]))
    count = all_labels if label_lengths is None else label_lengths.astype(jnp.int32)
    inside = jnp.arange(2 * l + 1, dtype=jnp.int32)[None] <= 2 * count[:, None]
    steps = all_steps if lengths is None else lengths.astype(jnp.int32)
    return jnp.where(inside, blanks, blank), skip, inside, steps


def _last(inside):
    """The two places where a path may end: the last label and the blank after it."""
    return inside & ~_shift(inside, -2, False)


def _scores(logits, blanks, inside):
    """log p of the class at every place [t n 2l + 1], −∞ outside the example, and p [n t k]."""
    z = logits.astype(wide(logits.dtype))
    shifted = z - lax.stop_gradient(z.max(-1, keepdims=True))
    e = jnp.exp(shifted)
    total = e.sum(-1, keepdims=True)
    at = jnp.where(inside[:, None], _at(shifted, blanks) - jnp.log(total), -jnp.inf)
    return jnp.moveaxis(at, 1, 0), e / total


def _at(a, places):
    """a [n t k] at places [n s] → [n t s]."""
    return jax.vmap(lambda a, places: a[:, places])(a, places)


def _shift(a, by, nothing=-jnp.inf):
    """a(s − by), filled with `nothing`."""
    size = a.shape[1]
    if by > 0:
        return jnp.pad(a, ((0, 0), (by, 0)), constant_values=nothing)[:, :size]
    return jnp.pad(a, ((0, 0), (0, -by)), constant_values=nothing)[:, -by:]


def _sum3(a, b, c):
    """log(eᵃ + eᵇ + eᶜ), differentiable even where all are −∞."""
    return _log_sum(jnp.stack([a, b, c], -1))


def _log_sum(a):
    top = _finite(lax.stop_gradient(a.max(-1)))
    total = jnp.exp(a - top[..., None]).sum(-1)
    return jnp.where(total == 0, -jnp.inf, jnp.log(jnp.where(total == 0, 1, total)) + top)


def _less_top(a):
    top = lax.stop_gradient(a.max(-1))
    return a - _finite(top)[:, None], top


def _finite(top):
    return jnp.where(top == -jnp.inf, 0, top)


@ctc.check
def ctc_check(logits, labels, weights, lengths, label_lengths, *, blank, infeasible, reduction):
    if infeasible not in _INFEASIBLE:
        raise ValueError(f"infeasible must be 'inf' or 'zero'; got {infeasible!r}")
    check_real("ctc", "logits", logits)
    shape, lshape = jnp.shape(logits), jnp.shape(labels)
    if (len(shape) != 3 or len(lshape) != 2 or shape[0] != lshape[0]
            or not jnp.issubdtype(jnp.result_type(labels), jnp.integer)):
        raise ValueError(f"ctc takes logits [n t k] and integer labels [n l]: logits are {list(shape)} and labels "
                         f"{jnp.result_type(labels)}{list(lshape)}")
    if not shape[1]:
        raise ValueError(f"ctc takes logits [n t k] of at least one step; got {list(shape)}: for empty sequences, set "
                         "their lengths to 0")
    if not 0 <= blank < shape[2]:
        raise ValueError(f"the blank of ctc must be one of the {shape[2]} classes, 0 to {shape[2] - 1}; got {blank!r}")
    for name, given, most in ("lengths", lengths, shape[1]), ("label_lengths", label_lengths, lshape[1]):
        if given is None:
            continue
        if jnp.shape(given) != shape[:1] or not jnp.issubdtype(jnp.result_type(given), jnp.integer):
            raise ValueError(f"the {name} of ctc must be integers [{shape[0]}]; got "
                             f"{jnp.result_type(given)}{list(jnp.shape(given))}")
        low, high = extremes(given)
        if low < 0 or high > most:
            raise ValueError(f"the {name} of ctc must be from 0 to {most}; got {low if low < 0 else high}")
    check_reduction("ctc", weights, shape[:1], reduction)


_INFEASIBLE = {"inf": jnp.inf, "zero": 0.0}         # the loss if no path of that many steps can spell the labels


def words(spec):
    """Labels other than the blank 0."""
    return lambda key, dtype, large: jnp.maximum(sample.integers(spec, below="k")(key, dtype, large), 1)


def some(spec, least, below):
    """Lengths."""
    return lambda key, dtype, large: least + sample.integers(spec, below=below)(key, dtype, large)


ctc.example(logits="h s k", labels=words("h l"))
ctc.example(logits="n t k", labels=words("n 2"), label_lengths=some("n", 1, "2"), lengths=some("n", 3, "2"),
            weights=sample.positive("n"))
ctc.example(logits="n t k", labels=sample.integers("n 2", below="6"), blank=6, reduction="sum")
