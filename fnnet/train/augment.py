"""Random image augmentation, so that a network never sees the same image twice: pure functions of a key, inside the compiled step.

    def augmented(key, batch):
        x, y = batch
        turned, moved = jax.random.split(key)
        return augment.flip(turned, augment.crop(moved, x, padding=4)), y

    objective = train.supervised(net, ops.softmax_cross_entropy, augment=augmented)       # in training only

Images are [n h w c], channels last; each has its own random numbers.
"""

from numbers import Integral

import jax
import jax.numpy as jnp
from jax import lax, random

__all__ = ["crop", "cutmix", "cutout", "flip", "mixup"]


def flip(key: jax.Array, x: jax.Array, *, axis: int = 2, chance: float = 0.5) -> jax.Array:
    """Each image of x [n h w c] flipped along `axis` with probability `chance`: 2 swaps left and right, 1 top and bottom.

    >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    >>> train.augment.flip(jax.random.key(0), x, chance=1.0).ravel().tolist()
    [3.0, 2.0, 1.0]
    """
    _images("flip", x)
    if axis not in (1, 2):
        raise ValueError(f"the axis of flip must be 1 (top and bottom) or 2 (left and right); got {axis!r}")
    chosen = random.bernoulli(key, chance, (x.shape[0], 1, 1, 1))
    return jnp.where(chosen, jnp.flip(x, axis), x)


def crop(key: jax.Array, x: jax.Array, *, size: tuple[int, int] | None = None, padding: int = 0) -> jax.Array:
    """A window of size (h′, w′) at a random position in each image of x [n h w c] → [n h′ w′ c]

    The image is first surrounded by `padding` rows and columns of zeros; size defaults to (h, w).

    >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    >>> train.augment.crop(jax.random.key(0), x, size=(2, 2)).shape
    (1, 2, 2, 1)
    >>> train.augment.crop(jax.random.key(0), x, padding=1).shape
    (1, 3, 3, 1)
    """
    _images("crop", x)
    if not _is_count(padding, 0):
        raise ValueError(f"the padding of crop must be a whole number of pixels, 0 or more; got {padding!r}")
    n, height, width, _ = x.shape
    sides, size = (height, width), (height, width) if size is None else size
    if not (isinstance(size, tuple) and len(size) == 2 and all(_is_count(s, 1) for s in size)):
        raise ValueError(f"the size of crop must be (height, width) in pixels; got {size!r}")
    room = [side + 2 * padding - wanted for side, wanted in zip(sides, size, strict=True)]
    if min(room) < 0:
        raise ValueError(f"the size of crop must fit into the images; got {size} for images {sides} with "
                         f"padding={padding}: give a smaller size or a larger padding")
    if max(room) == 0:
        raise ValueError(f"crop must have more than one position to choose from; got images {sides}, size={size}, "
                         f"padding={padding}; write padding=4, or a smaller size")
    wide = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = _places(key, n, [r + 1 for r in room])

    def window(image, corner):
        rows = lax.dynamic_slice_in_dim(image, corner[0], size[0], 0)
        return lax.dynamic_slice_in_dim(rows, corner[1], size[1], 1)
    return jax.vmap(window)(wide, corners)


def cutout(key: jax.Array, x: jax.Array, *, size: int, value: float = 0.0) -> jax.Array:
    """A square of size × size pixels in each image of x [n h w c] set to `value`. Its center is a random pixel, so
    part of the square may lie outside   [DeVries & Taylor 2017]

    >>> x = jnp.ones((1, 5, 5, 1))
    >>> gone = 25 - int(train.augment.cutout(jax.random.key(0), x, size=3).sum())
    >>> 4 <= gone <= 9      # less than 9 pixels where the square reaches over the edge
    True
    """
    _images("cutout", x)
    if not _is_count(size, 1):
        raise ValueError(f"the size of cutout must be a whole number of pixels above 0; got {size!r}")
    middles = _places(key, x.shape[0], x.shape[1:3])
    return jnp.where(_inside(x, middles - size // 2, middles - size // 2 + size), jnp.asarray(value, x.dtype), x)


def mixup(key: jax.Array, x: jax.Array, y: jax.Array, *, alpha: float = 0.2,
          classes: int | None = None) -> tuple[jax.Array, jax.Array]:
    """x′ = λx + (1 − λ)x̃,   y′ = λy + (1 − λ)ỹ,   λ ~ Beta(α, α) for each example   [Zhang et al. 2018]

    x̃, ỹ are the examples in a random order. x [n ...] real; y [n ...] real, or integer labels [n] with classes=k, which
    become distributions [n k].

    >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([0, 1])
    >>> x, y = jax.eval_shape(lambda key: train.augment.mixup(key, x, y, classes=2), jax.random.key(0))
    >>> x.shape, y.shape        # labels have become distributions
    ((2, 1), (2, 2))
    """
    y = _targets("mixup", x, y, alpha, classes)
    of_order, of_weight = random.split(key)
    order = random.permutation(of_order, x.shape[0])
    share = random.beta(of_weight, alpha, alpha, (x.shape[0],))
    x, y = (_mixed(share.astype(a.dtype), a, a[order]) for a in (x, y))
    return x, y


def cutmix(key: jax.Array, x: jax.Array, y: jax.Array, *, alpha: float = 1.0,
           classes: int | None = None) -> tuple[jax.Array, jax.Array]:
    """A rectangle of each image replaced by the same rectangle of another: its area is 1 − λ of the image, λ ~ Beta(α, α),
    its center a random pixel. y′ = λ′y + (1 − λ′)ỹ, λ′ the fraction of the image that remains   [Yun et al. 2019]

    The rectangle has the image's aspect ratio.

    x [n h w c]; y as in mixup.

    >>> x, y = jnp.ones((2, 4, 4, 1)), jnp.array([0, 1])
    >>> mixed, shares = jax.eval_shape(lambda key: train.augment.cutmix(key, x, y, classes=2), jax.random.key(0))
    >>> mixed.shape, shares.shape
    ((2, 4, 4, 1), (2, 2))
    """
    _images("cutmix", x)
    y = _targets("cutmix", x, y, alpha, classes)
    of_order, of_area, of_place = random.split(key, 3)
    n, sides = x.shape[0], x.shape[1:3]
    order = random.permutation(of_order, n)
    half = jnp.array([sides], y.dtype) * jnp.sqrt(1 - random.beta(of_area, alpha, alpha, (n, 1), y.dtype)) / 2
    middle = _places(of_place, n, sides).astype(y.dtype)
    inside = _inside(x, jnp.round(middle - half).astype(jnp.int32), jnp.round(middle + half).astype(jnp.int32))
    left = 1 - inside.mean((1, 2, 3), dtype=y.dtype)
    return jnp.where(inside, x[order], x), _mixed(left, y, y[order])


def _places(key, n, below):
    """[n 2]: two random integers for each example, each in [0, bound)."""
    return jnp.stack([random.randint(own, (n,), 0, bound, "int32") for own, bound in zip(random.split(key), below, strict=True)], -1)


def _inside(x, low, high):
    """[n h w 1]: the pixels of the rectangles [low, high), corners [n 2]."""
    low, high = low[:, None, None, :], high[:, None, None, :]
    here = jnp.stack(jnp.meshgrid(*(jnp.arange(side, dtype=low.dtype) for side in x.shape[1:3]), indexing="ij"), -1)[None]
    return ((low <= here) & (here < high)).all(-1, keepdims=True)


def _mixed(share, a, b):
    share = share.reshape(-1, *[1] * (a.ndim - 1))
    return share * a + (1 - share) * b


def _targets(name, x, y, alpha, classes):
    """y as real numbers, one entry per example."""
    if isinstance(alpha, int | float) and not alpha > 0:
        raise ValueError(f"the alpha of {name} must be above 0; got {alpha!r}; to mix nothing, leave {name} out")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x of {name} must be floating point; got {x.dtype}; write x.astype(jnp.float32)")
    if jnp.issubdtype(y.dtype, jnp.integer):
        if classes is None:
            raise ValueError(f"{name} turns integer labels into distributions and must know the number of classes; write classes=10")
        y = jax.nn.one_hot(y, classes, dtype=x.dtype)
    if y.ndim == 0 or y.shape[0] != x.shape[0]:
        raise ValueError(f"x and y of {name} must have equally many examples; got {list(x.shape)} and {list(y.shape)}")
    return y


def _is_count(n, least):
    return isinstance(n, Integral) and not isinstance(n, bool) and n >= least


def _images(name, x):
    if jnp.ndim(x) != 4:
        raise ValueError(f"{name} takes images [n h w c]; got {list(jnp.shape(x))}; for grayscale images write x[..., None]")
