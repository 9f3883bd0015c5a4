"""Pooling against PyTorch, if it is installed: values, indices and gradients. PyTorch's images are channels first."""

import chex
import jax
import numpy as np
import pytest

from fnnet import ops

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="PyTorch is not a dependency; if it is installed, the two must agree")

SETTINGS = [{"window": k, "strides": s, "padding": p, "dilation": r, "ceil_mode": ceil}
            for k, s, p in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), ((2, 3), (3, 2), (1, 0)), (4, 3, 2)) for r in (1, 2, (1, 2))
            for ceil in (False, True)]
X = np.random.default_rng(0).standard_normal((2, 9, 8, 3))


def first(a):
    return torch.tensor(np.moveaxis(np.asarray(a), -1, 1))


def last(a):
    return np.moveaxis(a.detach().numpy(), 1, -1)


def theirs(pool, x):
    """y, what else it returns, and dx for the cotangents sin y."""
    x = first(x).requires_grad_()
    y, *more = [out] if torch.is_tensor(out := pool(x)) else out
    y.backward(torch.sin(y.detach()))
    return last(y), [last(a) for a in more], last(x.grad)


def ours(pool, x):
    y, pull = jax.vjp(lambda x: pool(x)[0] if isinstance(pool(x), tuple) else pool(x), x)
    return y, pull(np.sin(y))[0]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_max_pool(settings):
    names = {"kernel_size": "window", "stride": "strides", "padding": "padding", "dilation": "dilation", "ceil_mode": "ceil_mode"}
    given = {name: settings[here] for name, here in names.items()}
    y, (indices,), dx = theirs(lambda x: torch.nn.functional.max_pool2d(x, **given, return_indices=True), X)
    pairs = {name: tuple((p, p) for p in a) if name == "padding" and isinstance(a, tuple) else a for name, a in settings.items()}
    chex.assert_trees_all_close(ours(lambda x: ops.max_pool(x, **pairs), X), (y, dx), rtol=1e-12, atol=1e-14)
    chex.assert_trees_all_close(ours(lambda x: ops.max_pool_with_indices(x, **pairs), X), (y, dx), rtol=1e-12, atol=1e-14)
    chex.assert_trees_all_equal(ops.max_pool_with_indices(X, **pairs)[1].astype("int64"), indices)


@pytest.mark.parametrize("settings", [s for s in SETTINGS if s["dilation"] == 1], ids=str)
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_avg_pool(settings, count_include_pad):
    """PyTorch's avg_pool2d has no dilation."""
    names = {"kernel_size": "window", "stride": "strides", "padding": "padding", "ceil_mode": "ceil_mode"}
    given = {name: settings[here] for name, here in names.items()}
    y, _, dx = theirs(lambda x: torch.nn.functional.avg_pool2d(x, **given, count_include_pad=count_include_pad), X)
    pairs = {name: tuple((p, p) for p in a) if name == "padding" and isinstance(a, tuple) else a for name, a in settings.items()}
    got = ours(lambda x: ops.avg_pool(x, **pairs, count_include_pad=count_include_pad), X)
    chex.assert_trees_all_close(got, (y, dx), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("window, size", [((2, 2), (9, 8)), ((3, 2), (9, 8)), ((4, 4), (9, 9))])
def test_max_unpool(window, size):
    """Only windows that do not overlap, since otherwise PyTorch documents its result as nondeterministic."""
    x, indices = ops.max_pool_with_indices(X, window=window)
    y, _, dx = theirs(lambda x: torch.nn.functional.max_unpool2d(x, first(indices.astype("int64")), window, output_size=size), x)
    chex.assert_trees_all_close(ours(lambda x: ops.max_unpool(x, indices, size=size), x), (y, dx), rtol=1e-12)
