"""Softmax cross-entropy of a linear map, without storing the scores."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnnet import sample
from fnnet.form import by_device
from fnnet.numeric import is_whole, like, wide
from fnnet.ops.losses.multiclass import SOFTENED, but_true
from fnnet.ops.losses.reduction import (
    check_classes,
    check_limits,
    check_reduction,
    counted,
    integers,
    kept_labels,
    one_hot,
    reduce,
    reduced,
    spread,
    valid,
)
from fnnet.rule import rule

__all__ = ["linear_cross_entropy"]

MODEL = "model"         # the mesh axis across which train.sharding splits the classes of W


@rule
def linear_cross_entropy(x, w, labels, b=None, weights=None, *, label_smoothing=0.0, z_loss=0.0, softcap=None,
                         ignore_index=None,
                         classes_first=False, chunk=None, shards=None, reduction="mean") -> jax.Array:
    """ℓ = log Σⱼeᶻʲ − zₖ,   z = x·W + b,   ∂ℓ/∂z = softmax(z) − t,   dx = dz·Wᵀ,   dW = xᵀ·dz,   db = Σ dz
    [Wijmans et al. 2025]

    x [... d], w [d k] (as in dense; with classes_first=True [k d], as in an embedding), labels [...] integers, or
    [... k] distributions t, b [k] → ℓ [...]. The scores z [... k] never exist as a whole: both passes process the
    classes in chunks of `chunk`, and the backward pass recomputes the scores. Saved, in addition to the arguments:
    three numbers per row. p − 1 of the true class is computed as minus the sum of the other probabilities. For
    distributions ℓ = Σⱼ tⱼ(log Σₖeᶻᵏ − zⱼ) and ∂ℓ/∂t = log Σⱼeᶻʲ − z, as in softmax_cross_entropy.

    label_smoothing ε   the target t is (1 − ε) for the true class plus ε/k for every class   [Szegedy et al. 2016]
    z_loss ζ            adds ζ·(log Σⱼeᶻʲ)², which keeps the scores near 0   [Chowdhery et al. 2022]
    softcap c           z = c·tanh((x·W + b)/c), between −c and c
    ignore_index        rows with this label count neither in the loss nor in its mean, which is 0 if all are ignored
    shards              the number of devices across which the classes of W are split, by default the size of the axis
                        "model" of the mesh in use, or 1. Each device then processes its own classes in chunks; they
                        exchange four numbers per row and dx. It changes no result

    Products and sums are computed in at least float32; dx, dW and db have the dtypes of x, W and b. A bias of −∞ masks
    a class. A label outside 0 … k − 1 raises an error or, if its value is not known, gives NaN. For several outputs,
    w [m d k] and labels [... m], the losses are jax.vmap(linear_cross_entropy, (None, 0, -1))(x, w, labels).

    Cost: if the scores take more than 16 MB, a fourth product of their size in addition to autodiff's three, at most
    1.1 times the time, for 2 % of the temporary memory at 32768 classes; from 512 MB on it takes less time, too.

    >>> x, w, label = jnp.array([[1.0]]), jnp.zeros((1, 4)), jnp.array([3])
    >>> round(float(ops.linear_cross_entropy(x, w, label)), 3)  # log 4
    1.386
    >>> jax.grad(ops.linear_cross_entropy, 1)(x, w, label).tolist()
    [[0.25, 0.25, 0.25, -0.75]]
    """
    z = x @ (w.T if classes_first else w)
    if b is not None:
        z = z + jnp.broadcast_to(b, z.shape)
    if softcap is not None:
        z = softcap * jnp.tanh(z / softcap)
    total = jax.nn.logsumexp(z, axis=-1)
    if not integers(labels):
        t = _smoothed(labels, z.shape[-1], label_smoothing)
        loss = total * t.sum(-1) - (t * jnp.where((t == 0) & (z == -jnp.inf), 0, z)).sum(-1)    # 0·log 0 = 0
        return reduce(loss + z_loss * total**2, weights, reduction)
    labels, weights, _ = kept_labels(labels, weights, ignore_index, x.dtype)
    loss = total - (1 - label_smoothing) * jnp.where(one_hot(labels, z.shape[-1]), z, 0).sum(-1)
    if label_smoothing:
        loss = loss - label_smoothing * z.mean(-1)
    if z_loss:
        loss = loss + z_loss * total**2
    return reduce(jnp.where(valid(labels, z.shape[-1]), loss, jnp.nan), weights, reduction)


@linear_cross_entropy.fwd
def linear_cross_entropy_fwd(x, w, labels, b, weights, *, label_smoothing, z_loss, softcap, ignore_index, classes_first,
                             chunk, shards, reduction):
    given, whole = [a for a in (x, w, b) if a is not None], integers(labels)
    true, weighing, _ = kept_labels(labels, weights, ignore_index, x.dtype) if whole else (labels, weights, None)
    classes, *chunks, shards = _chunks(x, w, classes_first, chunk, shards)
    w2, b2 = _by_shard(w, int(not classes_first), shards), _by_shard(b, 0, shards)
    offsets = _offsets(classes, shards, x.ndim - 1)
    target = true[..., None] if whole and shards > 1 else true if whole else _by_shard(true, -1, shards)

    def step(so_far, start, size):
        z, _ = _scores(x, _part(w2, start, size, classes_first), b2, start, softcap)
        # The result does not depend on the number subtracted, nor do its derivatives. In a row of −∞ it must be finite.
        top = lax.stop_gradient(jnp.maximum(z.max(-1), jnp.finfo(z.dtype).min))
        if not whole:
            t = _smoothed(_some(target, start, size), classes, label_smoothing).astype(z.dtype)
            return _joined(so_far, (top, *_of_distribution(z - top[..., None], t)))
        here = one_hot(target, size, start + offsets)
        if so_far is not None:
            top = jnp.maximum(so_far[0], top)
        shifted = z - top[..., None]
        others, about = but_true(shifted, here).sum(-1), jnp.where(here, z, 0).sum(-1)
        below = shifted.sum(-1) if label_smoothing else None
        if so_far is None:
            return top, others, about, below
        moved = so_far[0] - top
        return (top, so_far[1] * jnp.exp(moved) + others, so_far[2] + about,
                so_far[3] + below + moved * jnp.asarray(start, top.dtype) if label_smoothing else None)

    below: Any
    top, others, about, below = _over_chunks(step, None, *chunks)
    if shards > 1 and whole:
        moved = top - top.max(-1, keepdims=True)
        top, others, about = top.max(-1), (others * jnp.exp(moved)).sum(-1), about.sum(-1)
        below = below if below is None else (below + moved * (classes // shards)).sum(-1)
    elif shards > 1:
        top, others, about, below = _together(top, others, about, below)
    if whole:
        about = about - top
        # log Σ eᶻ − top, with the true class kept separate, so that a tiny rest is not lost
        rest = jnp.log1p(others + jnp.expm1(about))
        loss = rest - about
        if label_smoothing:
            loss = (1 - label_smoothing) * loss + label_smoothing * (rest - below / classes)
    else:
        rest = jnp.log1p(others)
        loss = about * rest - below
        given.append(labels)
    if z_loss:
        loss = loss + z_loss * (top + rest) ** 2
    if whole:
        loss = jnp.where(valid(true, classes), loss, jnp.nan)
    kept = None if weighing is None else loss
    return reduced(loss, weighing, reduction, *given), (x, w, labels, b, top, others, about, kept, weights)


def _of_distribution(shifted, t):
    """Σ eᶻ of a chunk without one largest, Σ t, and Σ t·z, where z is relative to the largest."""
    e = jnp.exp(shifted)
    total = e.sum(-1)
    # Of several largest only one should be left out; but then the sum is ≥ 2, and sum − 1 is accurate enough.
    others = jnp.where(total < 1.5, jnp.where(shifted == 0, e - 1, e).sum(-1), total - 1)
    shifted = jnp.where((t == 0) & (shifted == -jnp.inf), 0, shifted)           # 0·log 0 = 0
    return others, t.sum(-1), (t * shifted).sum(-1)


def _joined(one, other):
    """The sums over the classes so far combined with those of the next chunk, as if they were one chunk."""
    return other if one is None else _together(*(jnp.stack(pair, -1) for pair in zip(one, other, strict=True)))


def _together(tops, others, about, below) -> Any:
    """The sums over sets of classes [... sets], each relative to its largest score, as sums over all classes."""
    top = tops.max(-1)
    moved = tops - top[..., None]
    largest = moved == 0                                        # their eᶻ is 1; one of them is left out of `others`
    others = jnp.where(largest, others, (1 + others) * jnp.exp(moved)).sum(-1) + (largest.sum(-1, dtype=top.dtype) - 1)
    return top, others, about.sum(-1), (below + about * moved).sum(-1)


@linear_cross_entropy.bwd
def linear_cross_entropy_bwd(dy, x, w, labels, b, top, others, about, loss, weights, *, label_smoothing, z_loss,
                             softcap, ignore_index, classes_first, chunk, shards, reduction):
    true, weighing, keep, whole = labels, weights, None, integers(labels)
    if whole:
        true, weighing, keep = kept_labels(labels, weights, ignore_index, top.dtype)
    dloss, dweights = spread(dy, top if loss is None else loss, weighing, reduction)
    dweights = dweights if weights is None or keep is None else dweights * keep
    classes, *chunks, shards = _chunks(x, w, classes_first, chunk, shards)
    rows = lambda a: a.reshape(math.prod(x.shape[:-1]), *a.shape[x.ndim - 1:])
    x2, true, dloss = rows(counted(x, weighing)), rows(true if whole else counted(true, weighing)), rows(dloss)
    top, others, about = (rows(counted(a, weighing)) for a in (top, others, about))
    dloss = jnp.where(valid(true, classes), dloss, jnp.nan) if whole else dloss
    dloss = dloss if weighing is None else counted(dloss, rows(weighing))
    w2, b2 = _by_shard(w, int(not classes_first), shards), _by_shard(b, 0, shards)
    offsets = _offsets(classes, shards)
    true = true if whole else _by_shard(true, -1, shards)
    if shards > 1:
        dloss, top, others, about = (a[:, None] for a in (dloss, top, others, about))
        true = true[:, None] if whole else true
    of_chunk: Any = (_slopes_of_labels if whole else _slopes_of_distributions)(
        dloss, true, top, others, about, classes, label_smoothing, z_loss)
    dproduct = _dw_classes_first if classes_first else _dw
    along = w2.ndim - 2 if classes_first else w2.ndim - 1

    def step(carry, start, size):
        dx, dw, db, dt = carry
        part = _part(w2, start, size, classes_first)
        z, slope = _scores(x2, part, b2, start, softcap)
        dz, dt_part = of_chunk(z, start, size, offsets)
        if slope is not None:
            dz = dz * slope
        if b is not None:
            db = lax.dynamic_update_slice_in_dim(db, dz.sum(0).astype(b.dtype), start, db.ndim - 1)
        if dt is not None:
            dt = lax.dynamic_update_slice_in_dim(dt, dt_part.astype(dt.dtype), start, dt.ndim - 1)
        dz = dz.astype(x.dtype)
        dpart = by_device(x2, dz, cpu=partial(dproduct, apart=lax.optimization_barrier), default=dproduct)
        dw = lax.dynamic_update_slice_in_dim(dw, dpart.astype(w.dtype), start, along)
        return dx + _dx(dz, part, top.dtype), dw, db, dt

    empty = (jnp.zeros((), top.dtype), jnp.zeros_like(w2), None if b is None else jnp.zeros_like(b2),
             None if whole else jnp.zeros_like(true))
    dx, dw, db, dt = _over_chunks(step, empty, *chunks)
    dx = dx.sum(0) if shards > 1 else dx
    dt = None if whole else counted(dt.reshape(labels.shape), weighing)
    db = None if b is None else db.reshape(b.shape)
    return like((dx.reshape(x.shape), x), (dw.reshape(w.shape), w), (dt, labels), (db, b),
                (None if weights is None else dweights, weights))


def _slopes_of_labels(dloss, true, top, others, about, classes, label_smoothing, z_loss):
    """For a chunk of scores ∂ℓ/∂zⱼ = pⱼ(1 + 2ζ·log Σ eᶻ) − tⱼ, where everything but eᶻ is one number per row."""
    total = others + jnp.exp(about)
    of_z = 2 * z_loss * (top + jnp.log1p(others + jnp.expm1(about)))
    scale = dloss * (1 + of_z) / total
    at_true = dloss * ((of_z * jnp.exp(about) - others) / total + label_smoothing)
    everywhere = dloss * (label_smoothing / classes)

    def of_chunk(z, start, size, offsets):
        here = one_hot(true, size, start + offsets)
        dz = jnp.where(here, at_true[..., None], but_true(z - top[..., None], here) * scale[..., None])
        return dz - everywhere[..., None] if label_smoothing else dz, None
    return of_chunk


def _slopes_of_distributions(dloss, true, top, others, about, classes, label_smoothing, z_loss):
    """For a chunk of scores ∂ℓ/∂zⱼ = pⱼ(Σt + 2ζ·log Σ eᶻ) − tⱼ, and ∂ℓ/∂tⱼ. For the largest z, eᶻ is 1, and eᶻ·Σt − t
    is exact."""
    rest = jnp.log1p(others)
    scale, of_all = dloss / (1 + others), about + 2 * z_loss * (top + rest)

    def of_chunk(z, start, size, offsets):
        shifted = z - top[..., None]
        t = _smoothed(_some(true, start, size), classes, label_smoothing).astype(z.dtype)
        dz = (jnp.exp(shifted) * of_all[..., None] - t - t * others[..., None]) * scale[..., None]
        return dz, (rest[..., None] - shifted) * ((1 - label_smoothing) * dloss)[..., None]
    return of_chunk


def _over_chunks(step, carry, first, starts, size) -> Any:
    """step(carry, start, size) over all chunks of the classes, the first of which may be smaller."""
    carry = step(carry, 0, first)
    if len(starts):
        carry, _ = lax.scan(lambda carry, start: (step(carry, start, size), None), carry, starts)
    return carry


def _some(t, start, size):
    return lax.dynamic_slice_in_dim(t, start, size, t.ndim - 1)


def _smoothed(t, classes, label_smoothing):
    return (1 - label_smoothing) * t + label_smoothing / classes if label_smoothing else t


def _scores(x, part, b, start, softcap):
    """The scores of some classes in the dtype of computation, and the slope of the soft cap, 1 − tanh² without
    cancellation."""
    z = jnp.tensordot(x, part, 1, preferred_element_type=wide(x.dtype))
    if b is not None:
        z = z + jnp.broadcast_to(_some(b, start, part.shape[-1]).astype(z.dtype), z.shape)
    if softcap is None:
        return z, None
    z = z / softcap
    a = jnp.exp(-jnp.abs(z))
    half = a / (1 + a * a)
    return softcap * jnp.tanh(z), 4 * half * half


def _dx(dz, part, dtype):
    """dz·Wᵀ; with shards, the sum over the classes of each apart, [shards rows d]: the devices add them up once, at the
    end."""
    if part.ndim == 2:
        return jnp.matmul(dz, part.T, preferred_element_type=dtype)
    return jnp.einsum("nsk,dsk->snd", dz, part, preferred_element_type=dtype)


def _dw(x, dz, apart=lambda a: a):
    """xᵀ·dz. On a CPU the compiler folds the transpose into the product, which makes it slower; `apart` prevents
    that."""
    return jnp.tensordot(apart(x.T), dz, 1, preferred_element_type=wide(x.dtype))


def _dw_classes_first(x, dz, apart=lambda a: a):
    return jnp.tensordot(apart(jnp.moveaxis(dz, 0, -1)), x, 1, preferred_element_type=wide(x.dtype))


def _part(w, start, size, classes_first):
    part = lax.dynamic_slice_in_dim(w, start, size, w.ndim - 2 if classes_first else w.ndim - 1)
    return jnp.moveaxis(part, -1, 0) if classes_first else part


def _by_shard(a, axis, shards) -> Any:
    """The classes along an axis as two axes, [shards classes/shards]."""
    if a is None or shards == 1:
        return a
    axis %= a.ndim
    return a.reshape(*a.shape[:axis], shards, a.shape[axis] // shards, *a.shape[axis + 1:])


def _offsets(classes, shards, rows=1):
    """The first class of each shard, [1 … shards 1] beside scores [rows … shards classes]; 0 if there is one."""
    return jnp.arange(shards, dtype=jnp.int32).reshape((1,) * rows + (-1, 1)) * (classes // shards) if shards > 1 else 0


def _chunks(x, w, classes_first, chunk, shards):
    """The number of classes, the size of the first chunk, where the others start, their size, and the number of shards.
    With shards, sizes and starts are those within each of them."""
    classes = w.shape[0 if classes_first else 1]
    size = min(classes, chunk or chunk_of(math.prod(x.shape[:-1]), classes))
    if shards is None:
        shards = jax.sharding.get_abstract_mesh().shape.get(MODEL, 1)
    if size == classes or not is_whole(classes) or classes % shards:
        shards = 1
    size = max(1, size // shards)
    first = (classes // shards - 1) % size + 1
    return classes, first, jnp.arange(first, classes // shards, size, dtype=jnp.int32), size, shards


def chunk_of(rows, classes):
    """How many classes to process at a time. Two arrays [rows chunk] are all the temporary memory; a smaller chunk
    costs time.

    Measured on a CPU core. All classes as long as the scores take at most 16 MB, since they are then computed only
    once, as the compiler sees that the backward pass needs the same ones: 0.75 of the time of chunks for 256 and 128
    rows, 1024 and 32768 classes. Otherwise at least 512 classes: with 2048 rows this is 3 % faster than 2048 classes,
    with a quarter of the temporary memory; with 512 rows, 512 and 2048 classes differ by 1 %.
    """
    if not is_whole(rows):                  # a symbolic size of jax.export
        return 512
    return classes if rows * classes <= 2**22 else max(512, 2**20 // max(1, rows))


@linear_cross_entropy.check
def linear_cross_entropy_check(x, w, labels, b, weights, *, label_smoothing, z_loss, softcap, ignore_index,
                               classes_first, chunk, shards, reduction):
    name, shapes = "linear_cross_entropy", [list(jnp.shape(a)) for a in (x, w)]
    if len(shapes[1]) != 2 or not shapes[0] or shapes[0][-1] != shapes[1][int(classes_first)]:
        other = not classes_first and len(shapes[1]) == 2 and shapes[0][-1:] == shapes[1][1:]
        raise ValueError(f"{name} takes x [... d] and w {'[k d]' if classes_first else '[d k]'}: x is {shapes[0]} and "
                         f"w is {shapes[1]}"
                         + ("; for w [k d] write classes_first=True" if other else ""))
    classes = shapes[1][1 - classes_first]
    if b is not None and jnp.shape(b) != (classes,):
        raise ValueError(f"{name} takes a bias b [{classes}] for {classes} classes: b is {list(jnp.shape(b))}")
    check_classes(name, "x", x, (*shapes[0][:-1], classes), labels, distributions=True, ignore_index=ignore_index)
    if ignore_index is not None and not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"the ignore_index of {name} needs integer labels; got distributions "
                         f"{list(jnp.shape(labels))}: give the rows to ignore a weight of 0, weights=...")
    check_reduction(name, weights, tuple(shapes[0][:-1]), reduction)
    check_limits(name, LIMITS,
                 {"label_smoothing": label_smoothing, "z_loss": z_loss, "softcap": softcap, "chunk": chunk,
                  "shards": shards})


LIMITS = SOFTENED | {
    "softcap": (lambda cap: cap is None or cap > 0, "None or a positive number"),
    "chunk": (lambda chunk: chunk is None or chunk >= 1, "None or a number of classes ≥ 1"),
    "shards": (lambda shards: shards is None or shards >= 1, "None or a number of devices ≥ 1"),
}

for settings in ({}, {"b": "k", "weights": sample.positive("n"), "chunk": 3, "label_smoothing": 0.1, "z_loss": 0.01},
                 {"b": "k", "weights": sample.positive("n"), "ignore_index": 5, "chunk": 4, "reduction": "none"}):
    linear_cross_entropy.example(x="n d", w="d k", labels=sample.integers("n", below="k"), **settings)
linear_cross_entropy.example(x="n t d", w="k d", labels=sample.integers("n t", below="k"), classes_first=True, chunk=2,
                             softcap=2.0,
                             reduction="sum")
linear_cross_entropy.example(x="n d", w="d k", labels=sample.distribution("n k"), chunk=3)
linear_cross_entropy.example(x="n d", w="d 8", labels=sample.integers("n", below=8), b="8", chunk=4, shards=2,
                             label_smoothing=0.1, z_loss=0.01, reduction="none")
linear_cross_entropy.example(x="n t d", w="9 d", labels=sample.distribution("n t 9"), chunk=6, shards=3,
                             classes_first=True)
linear_cross_entropy.example(x="n t d", w="k d", labels=sample.distribution("n t k"), b="k",
                             weights=sample.positive("n t"), classes_first=True, chunk=4, label_smoothing=0.1,
                             z_loss=0.01, softcap=2.0)
