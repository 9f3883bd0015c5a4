"""Products other than rows times a matrix: of two arrays by the letters of their axes, of pairs of vectors, and with a
matrix that is the product of two thin ones."""

import math
import string
from functools import partial

import jax
import jax.numpy as jnp

from fnnet.form import by_device
from fnnet.numeric import check_real, wide
from fnnet.ops.linear import transposed_product
from fnnet.rule import rule

__all__ = ["bilinear", "dense_low_rank", "einsum"]


@rule
def einsum(a, b, *, letters) -> jax.Array:
    """Y = Σ A·B over the letters that Y lacks,   dA = Σ dY·B over those that A lacks,   dB = Σ A·dY   [Einstein 1916]

    letters "n t d, d h k -> n h t k": one for each axis (spaces are optional), "..." for leading axes, which must be
    the same in both arrays, or absent in one. A letter occurs at most once in an array, and every letter of Y in A or
    B. Sums are computed in at least float32.

    >>> a, b = jnp.array([[1.0, 2.0]]), jnp.array([[3.0], [4.0]])
    >>> ops.einsum(a, b, letters="i j, j k -> i k").tolist()
    [[11.0]]
    >>> ops.einsum(a, b, letters="i j, j k -> j").tolist()
    [3.0, 8.0]
    """
    return _product(*_parse(a, b, letters), a, b)


@einsum.fwd
def einsum_fwd(a, b, *, letters):
    return _product(*_parse(a, b, letters), a, b), (a, b)


@einsum.bwd
def einsum_bwd(dy, a, b, *, letters):
    of_a, of_b, of_y = _parse(a, b, letters)
    return _back(of_y, of_b, of_a, dy, b, a), _back(of_a, of_y, of_b, a, dy, b)


def _product(of_a, of_b, of_y, a, b):
    dtype, sum_in = jnp.result_type(a, b), wide(jnp.result_type(a, b))
    product = partial(jnp.einsum, f"{of_a},{of_b}->{of_y}")
    narrow = partial(product, preferred_element_type=sum_in)
    if dtype == sum_in:
        return narrow(a, b)
    # A CPU has no half-precision products, and its compiler rejects some that sum in another dtype; elsewhere they are
    # the fast ones.
    y = by_device(a, b, cpu=lambda a, b: product(a.astype(sum_in), b.astype(sum_in)), default=narrow)
    return y.astype(dtype)


def _back(of_p, of_q, of_x, p, q, x):
    """The cotangent of x, the product of p and q. Along an axis that is in neither, as only x has it, it is
    constant."""
    kept = "".join(letter for letter in of_x if letter in of_p + of_q)
    dx = _product(of_p, of_q, kept, p, q).astype(x.dtype)
    return jnp.broadcast_to(jnp.expand_dims(dx, [i for i, letter in enumerate(of_x) if letter not in kept]), x.shape)


def _parse(a, b, letters) -> tuple[str, str, str]:
    """The letters of a, b and y, with capitals in place of the dots."""
    *given, of_y = letters.replace(" ", "").replace("->", ",").split(",")
    dots = string.ascii_uppercase[:max(jnp.ndim(x) - len(of_x.replace("...", "")) if "..." in of_x else 0
                                       for of_x, x in zip(given, (a, b), strict=True))]
    of_a, of_b, of_y = (of_x.replace("...", dots) for of_x in (*given, of_y))
    return of_a, of_b, of_y


@einsum.check
def einsum_check(a, b, *, letters):
    if not isinstance(letters, str):
        raise TypeError(f"the letters of einsum must be a string; got {letters!r}: write letters='n d, d k -> n k'")
    shapes = [list(jnp.shape(x)) for x in (a, b)]
    wrong = f"einsum takes letters such as 'n t d, d k -> n t k'; got {letters!r}"
    plain = letters.replace(" ", "").replace("...", "")
    if (plain.count("->") != 1 or plain.split("->")[0].count(",") != 1
            or not set(plain) <= {*string.ascii_lowercase, *",->"}):
        raise ValueError(f"{wrong}: write lowercase letters, a comma between the two arrays, and an arrow")
    of = dict(zip("aby", letters.replace(" ", "").replace("->", ",").split(",")))
    bare = {name: text.replace("...", "") for name, text in of.items()}
    repeated = sorted({letter for text in bare.values() for letter in text if text.count(letter) > 1})
    if repeated or any(text.count("...") > 1 for text in of.values()):
        raise ValueError(f"{wrong}: {repeated[0] if repeated else '...'} occurs twice in one array; take its diagonal "
                         "first")
    if lost := sorted(set(bare["y"]) - set(bare["a"] + bare["b"])):
        raise ValueError(f"{wrong}: {lost[0]} is in the product but in neither array")
    dotted = [name for name in "ab" if "..." in of[name]]
    if bool(dotted) != ("..." in of["y"]):
        raise ValueError(f"{wrong}: the axes of '...' are not summed, so the product must have '...' if and only if an "
                         "array has")
    fronts, sizes = [], {}
    for name, shape in zip("ab", shapes):
        front = len(shape) - len(bare[name])
        if front < 0 or (front and name not in dotted):
            raise ValueError(f"{wrong} for arrays {shapes[0]} and {shapes[1]}: {of[name]} has {len(bare[name])} "
                             f"letters for {len(shape)} axes")
        fronts += [tuple(shape[of[name].index("..."):][:front])] if name in dotted else []
        axes = bare[name] if name not in dotted else of[name].replace("...", "." * front)
        for letter, size in zip(axes, shape):
            if letter != "." and sizes.setdefault(letter, size) != size:
                raise ValueError(f"{wrong} for arrays {shapes[0]} and {shapes[1]}: {letter} is {sizes[letter]} in one "
                                 f"and {size} in the other")
    if len(set(fronts)) > 1:
        raise ValueError(f"{wrong} for arrays {shapes[0]} and {shapes[1]}: '...' is {list(fronts[0])} in one and "
                         f"{list(fronts[1])} in the other; write letters, or '...' in only one of them")


@rule
def bilinear(x, z, w, b=None) -> jax.Array:
    """Yₖ = xᵀ·Wₖ·z + bₖ,   P = x·zᵀ,   dP = Σₖ dYₖ·Wₖ,   dx = dP·z,   dz = dPᵀ·x,   dWₖ = Σ dYₖ·P,   db = Σ dY

    x [... d], z [... e], w [d e k], b [k] or None → y [... k]. The products P [... d e] are computed for all k at once,
    and again in the backward pass: one product with w forward and two backward, one of which dx and dz share. For a
    single k they are not needed: Y = Σₑ (x·W)∘z, dx = dY∘(z·Wᵀ), dz = dY∘(x·W), dW = (dY∘x)ᵀ·z.

    >>> x, z, w = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), jnp.ones((2, 2, 1))
    >>> ops.bilinear(x, z, w).tolist()  # (1 + 2)(3 + 4)
    [21.0]
    """
    y = jnp.einsum("...d,dek,...e->...k", x, w, z)
    return y if b is None else y + jnp.broadcast_to(b, y.shape)


@bilinear.fwd
def bilinear_fwd(x, z, w, b):
    if w.shape[-1] == 1:
        product = jnp.matmul(x, w[..., 0], preferred_element_type=wide(x.dtype)) * z.astype(wide(x.dtype))
        y = product.sum(-1, keepdims=True)
    else:
        pairs = (x[..., :, None] * z[..., None, :]).reshape(*x.shape[:-1], w.shape[0] * w.shape[1])
        y = jnp.matmul(pairs, w.reshape(w.shape[0] * w.shape[1], w.shape[2]), preferred_element_type=wide(x.dtype))
    return (y if b is None else y + jnp.broadcast_to(b, y.shape).astype(y.dtype)).astype(x.dtype), (x, z, w, b)


@bilinear.bwd
def bilinear_bwd(dy, x, z, w, b):
    d, e, k = w.shape
    n = math.prod(x.shape[:-1])
    dtype = wide(x.dtype)
    rows, others, drows = x.reshape(n, d), z.reshape(n, e), dy.reshape(n, k)
    if k == 1:
        dx = drows.astype(dtype) * jnp.matmul(others, w[..., 0].T, preferred_element_type=dtype)
        dz = drows.astype(dtype) * jnp.matmul(rows, w[..., 0], preferred_element_type=dtype)
        dw = transposed_product(drows * rows, others)
    else:
        pairs = (rows[:, :, None] * others[:, None, :]).reshape(n, d * e)
        dpairs = jnp.matmul(drows, w.reshape(d * e, k).T, preferred_element_type=dtype).reshape(n, d, e)
        dx = jnp.einsum("nde,ne->nd", dpairs, others.astype(dtype))
        dz = jnp.einsum("nde,nd->ne", dpairs, rows.astype(dtype))
        dw = transposed_product(pairs, drows)
    dw = dw.reshape(w.shape).astype(w.dtype)
    db = None if b is None else drows.astype(dtype).sum(0).astype(b.dtype)
    return dx.reshape(x.shape).astype(x.dtype), dz.reshape(z.shape).astype(z.dtype), dw, db


@bilinear.check
def bilinear_check(x, z, w, b):
    check_real("bilinear", "arrays", x, z, w, b)
    shapes = [jnp.shape(a) for a in (x, z, w)]
    if (len(shapes[2]) != 3 or not shapes[0] or shapes[0][-1:] != shapes[2][:1]
            or shapes[1] != (*shapes[0][:-1], shapes[2][1])):
        raise ValueError(f"bilinear takes x [... d], z [... e] and w [d e k]: x is {list(shapes[0])}, z is "
                         f"{list(shapes[1])} and w is {list(shapes[2])}")
    if b is not None and jnp.shape(b) != shapes[2][2:]:
        raise ValueError(f"bilinear takes a bias b {list(shapes[2][2:])} for w {list(shapes[2])}: b is "
                         f"{list(jnp.shape(b))}")


@rule
def dense_low_rank(x, w, down, up, b=None, *, scale=1.0) -> jax.Array:
    """Y = X·W + s·(X·A)·B + b,   dX = dY·Wᵀ + H·Aᵀ,   H = s·dY·Bᵀ,   dA = Xᵀ·H,   dB = s·(X·A)ᵀ·dY,   dW = Xᵀ·dY
    [Hu et al. 2022]

    x [... d], w [d k], down A [d r], up B [r k], b [k] or None → y [... k]. W is changed by a matrix of rank r that is
    never formed. To train A and B but not W, differentiate with respect to A and B: the compiler then removes dW.
    Saved: X·A, r numbers per row.

    >>> x, w = jnp.array([[1.0, 2.0]]), jnp.eye(2)
    >>> down, up = jnp.array([[1.0], [1.0]]), jnp.array([[10.0, 0.0]])
    >>> ops.dense_low_rank(x, w, down, up).tolist()  # [1, 2] + (1 + 2)·[10, 0]
    [[31.0, 2.0]]
    """
    y = x @ w + scale * ((x @ down) @ up)
    return y if b is None else y + jnp.broadcast_to(b, y.shape)


@dense_low_rank.fwd
def dense_low_rank_fwd(x, w, down, up, b, *, scale):
    inner = x @ down
    y = x @ w + scale * (inner @ up)
    return y if b is None else y + jnp.broadcast_to(b, y.shape), (x, w, down, up, b, inner)


@dense_low_rank.bwd
def dense_low_rank_bwd(dy, x, w, down, up, b, inner, *, scale):
    n = math.prod(x.shape[:-1])
    rows, inner, drows = (a.reshape(n, a.shape[-1]) for a in (x, inner, dy))
    hidden = scale * (drows @ up.T)
    dx = (drows @ w.T + hidden @ down.T).reshape(x.shape)
    dw, ddown = transposed_product(rows, drows), transposed_product(rows, hidden)
    dup = scale * transposed_product(inner, drows)
    db = None if b is None else drows.sum(0).astype(b.dtype)
    return dx.astype(x.dtype), dw.astype(w.dtype), ddown.astype(down.dtype), dup.astype(up.dtype), db


@dense_low_rank.check
def dense_low_rank_check(x, w, down, up, b):
    shapes = [jnp.shape(a) for a in (x, w, down, up)]
    fits = all(len(s) == 2 for s in shapes[1:]) and shapes[0] and shapes[0][-1] == shapes[1][0] == shapes[2][0]
    if not fits or shapes[3] != (shapes[2][1], shapes[1][1]):
        raise ValueError("dense_low_rank takes x [... d], w [d k], down [d r] and up [r k]: "
                         f"x is {list(shapes[0])}, w is {list(shapes[1])}, down is {list(shapes[2])} and up is "
                         f"{list(shapes[3])}")
    if b is not None and jnp.shape(b) != shapes[1][1:]:
        raise ValueError(f"dense_low_rank takes a bias b {list(shapes[1][1:])} for w {list(shapes[1])}: b is "
                         f"{list(jnp.shape(b))}")


einsum.example(a="n d", b="d c k", letters="n d, d c k -> n c k")
einsum.example(a="c t d", b="c m d", letters="... t d, ... m d -> ... t m")
einsum.example(a="m d", b="d k", letters="m d, d k -> k m")
einsum.example(a="m t d", b="k", letters="m t d, k -> k m")
bilinear.example(x="n c", z="n d", w="c d k", b="k")
bilinear.example(x="n t c", z="n t p", w="c p 2")
bilinear.example(x="n d", z="n c", w="d c 1", b="1")
dense_low_rank.example(x="n d", w="d k", down="d p", up="p k", b="k")
dense_low_rank.example(x="n t d", w="d k", down="d c", up="c k", scale=0.5)
dense_low_rank.example(x="d", w="d k", down="d p", up="p k", b="k")
