"""Attention by blocks against attention written out row by row, and position encodings."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import normal

from fnnet import autodiff, ops, rule, verify
from fnnet.measure.compare import saved_bytes
from fnnet.ops.attention import blocks
from fnnet.sample import booleans
from fnnet.sample import key as some_key

KEY = jax.random.key(3)


def draw(shape, seed=0, dtype=jnp.float64):
    return normal([seed, *shape], shape, dtype)


def chance(shape, share=0.6):
    return jax.device_put(np.random.default_rng([9, *shape]).random(shape) < share)


def inputs(n=2, t=7, s=7, h=4, g=2, d=3, e=5):
    return draw((n, t, h, d), 1), draw((n, s, g, d), 2), draw((n, s, g, e), 3)


def row_by_row(q, k, v, bias=None, mask=None, key=None, *, causal=False, scale=None, window=None, softcap=None):
    """In NumPy, only over visible keys, so that nothing is masked."""
    (n, t, h, d), (s, g) = q.shape, k.shape[1:3]
    bias = np.zeros((n, h, t, s)) + (0 if bias is None else np.asarray(bias))
    mask = np.broadcast_to(True if mask is None else np.asarray(mask), (n, h, t, s))
    q, k, v = map(np.asarray, (q, k, v))
    o = np.zeros((n, t, h, v.shape[-1]))
    for a, i, head in np.ndindex(n, t, h):
        place = i + s - t
        seen = [j for j in range(s) if mask[a, head, i, j] and not (causal and j > place) and not (window and abs(place - j) >= window)]
        if not seen:
            continue
        scores = k[a, seen, head * g // h] @ q[a, i, head] * (d**-0.5 if scale is None else scale)
        scores = scores if softcap is None else softcap * np.tanh(scores / softcap)
        p = np.exp(scores + bias[a, head, i, seen])
        o[a, i, head] = p / p.sum() @ v[a, seen, head * g // h]
    return o


CASES = {
    "all keys visible": {},
    "causal": {"causal": True},
    "causal, more keys": {"causal": True, "s": 10},
    "causal, more queries": {"causal": True, "t": 10},
    "one query": {"causal": True, "t": 1},
    "one key": {"s": 1},
    "no keys": {"s": 0},
    "no queries": {"t": 0},
    "no examples": {"n": 0},
    "window": {"window": 3},
    "window, causal, more keys": {"window": 2, "causal": True, "s": 9},
    "window without visible keys": {"window": 2, "t": 9, "s": 5},
    "soft cap": {"softcap": 0.7},
    "scale": {"scale": 0.3},
    "separate keys for every head": {"g": 4},
    "one head of keys": {"g": 1},
    "bias": {"bias": (2, 4, 7, 7)},
    "bias of heads and places": {"bias": (4, 7, 7), "causal": True},
    "bias of keys": {"bias": (7,)},
    "bias of queries": {"bias": (2, 1, 7, 1), "softcap": 2.0},
    "padding": {"mask": (2, 1, 1, 7)},
    "mask of pairs": {"mask": (7, 7), "causal": True},
    "everything": {"t": 9, "s": 8, "bias": (2, 4, 9, 8), "mask": (2, 1, 9, 8), "causal": True, "window": 4, "softcap": 1.5, "scale": 0.9},
    "dropout": {"rate": 0.3},
    "dropout, causal": {"rate": 0.3, "causal": True, "s": 9},
}
each = pytest.mark.parametrize("name", CASES)
# Combined with other settings in further cases, so these are slow tests when computed by blocks.
ELSEWHERE = "causal, more keys", "mask of pairs", "scale", "bias of keys", "bias of queries", "dropout", "window", "one key"


def case(name):
    """The arrays q, k, v, bias, mask, key and the settings for a case."""
    given = dict(CASES[name])
    sizes = {size: given.pop(size) for size in ("n", "t", "s", "h", "g", "d", "e") if size in given}
    bias, mask = given.pop("bias", None), given.pop("mask", None)
    key = KEY if given.get("rate") else None
    return (*inputs(**sizes), None if bias is None else draw(bias, 4), None if mask is None else chance(mask), key), given


@pytest.mark.sweep(3)
@each
def test_reference_matches_row_by_row_attention(name):
    arrays, settings = case(name)
    if settings.get("rate"):
        return                                          # the dropout mask is tested below
    got = jax.jit(partial(ops.attention.reference, **settings))(*arrays)
    chex.assert_trees_all_close(got, row_by_row(*arrays, **settings), rtol=1e-12, atol=1e-14)


@pytest.mark.sweep(8)
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ELSEWHERE)) for name in CASES])
def test_values_and_gradients_by_blocks(name):
    arrays, settings = case(name)
    over = tuple(i for i in range(4) if arrays[i] is not None)

    def loss(*arrays, block=None):
        o = ops.attention(*arrays, **settings, block=block)
        return jnp.sin(o + jnp.arange(1.0, o.size + 1).reshape(o.shape)).sum(), o
    forms = autodiff(loss), loss, partial(loss, block=3)
    ((_, o0), grads0), *ours = jax.jit(lambda *arrays: [jax.value_and_grad(f, over, has_aux=True)(*arrays) for f in forms])(*arrays)
    for (_, o), grads in ours:
        chex.assert_trees_all_close(o, o0, rtol=1e-12, atol=1e-14)
        chex.assert_trees_all_close(grads, grads0, rtol=1e-10, atol=1e-12)


THEIRS = {
    "all keys visible": {},
    "causal": {"is_causal": True},
    "one head of keys": {},
    "window": {"local_window_size": (2, 2)},
    "bias": {},
    "padding": {},
    "scale": {"scale": 0.3},
}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", THEIRS)
def test_agrees_with_jax(name):
    """To float32 accuracy, since JAX computes the softmax in float32; with gradients, if every query sees a key."""
    (q, k, v, bias, mask, _), settings = case(name)
    mask = mask if mask is None else mask.at[..., 0].set(True)
    c = draw((2, 7, 4, 3), 5)

    def ours(q, k, v):
        return (c * ops.attention(q, k, v, bias, mask, block=3, **settings)).sum()

    def theirs(q, k, v):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return (c * jax.nn.dot_product_attention(q, k, v, bias, mask, **THEIRS[name])).sum()
    given = q, k, v[..., :3]                            # JAX needs values as wide as keys
    got, want = jax.jit(jax.value_and_grad(ours, (0, 1, 2)))(*given), jax.jit(jax.value_and_grad(theirs, (0, 1, 2)))(*given)
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("block", [None, 2])
@pytest.mark.parametrize("how", ["mask", "bias"])
def test_query_without_visible_keys(how, block):
    """Its output is 0, nothing is NaN, and it contributes no gradients, whether because of a mask or of a bias of −∞."""
    q, k, v = inputs()
    seen = chance((2, 1, 7, 7)).at[0, :, 2].set(False).at[1].set(False)
    given = {"mask": seen} if how == "mask" else {"bias": jnp.where(seen, 0, -jnp.inf)}

    def loss(q, k, v):
        o = ops.attention(q, k, v, **given, block=block)
        return (draw(o.shape, 6) * o).sum(), o
    (_, o), (dq, dk, dv) = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    chex.assert_trees_all_close(o, row_by_row(q, k, v, mask=seen), rtol=1e-12, atol=1e-14)
    assert not o[0, 2].any() and not o[1].any()
    assert not dq[0, 2].any() and not dq[1].any() and not dk[1].any() and not dv[1].any()
    chex.assert_tree_all_finite((o, dq, dk, dv))
    assert dq[0, 3].any() and dk[0].any() and dv[0].any()


def test_padded_sequences_with_a_mask():
    q, k, v = inputs()
    lengths = jnp.array([7, 4])
    mask = (jnp.arange(7)[None, :] < lengths[:, None])[:, None, None, :]
    o = ops.attention(q, k, v, None, mask)
    chex.assert_trees_all_close(o[1:], ops.attention(q[1:], k[1:, :4], v[1:, :4]), rtol=1e-12)


def in_blocks(**examples):
    """The rule with examples that have several blocks."""
    copy = rule(ops.attention.reference)
    copy.fwd(ops.attention.forward)
    copy.bwd(ops.attention.backward)
    for example in examples.values():
        copy.example(**example)
    return copy


@pytest.mark.slow                                       # values and gradients by blocks are tested above in every case
def test_several_blocks_pass_the_audit():
    """vmap over every argument, scan, remat, second derivatives, float32."""
    small = {"q": "n t 2 c", "k": "n 6 1 c", "v": "n 6 1 c"}
    verify.audit(in_blocks(plain={**small, "causal": True, "block": 2},
                           rich={**small, "bias": "2 t 6", "mask": booleans("n 1 1 6"), "window": 4, "softcap": 2.0, "block": 3},
                           random={**small, "key": some_key(), "rate": 0.25, "block": 2})).raise_if_failed()


@pytest.mark.parametrize("kind", ["auto", "explicit", "shard_map"])
def test_several_blocks_on_a_mesh(kind):
    q, k, v = inputs(n=4)
    bias = draw((4, 4, 7, 7), 4)

    def grads(*arrays):
        return jax.grad(lambda *a: jnp.sin(ops.attention(*a, causal=True, block=3)).sum(), (0, 1, 2, 3))(*arrays)
    want = jax.jit(grads)(q, k, v, bias)
    axis = jax.sharding.AxisType.Explicit if kind == "explicit" else jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis,), devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        sharded = [jax.device_put(a, jax.P("data")) for a in (q, k, v, bias)]
        f = grads if kind != "shard_map" else jax.shard_map(grads, in_specs=jax.P("data"), out_specs=jax.P("data"))
        got = jax.jit(f)(*sharded)
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(want), rtol=1e-11, atol=1e-13)


# Memory

def temporary(t, heads=2, d=8, **settings):
    a = jax.ShapeDtypeStruct((1, t, heads, d), jnp.float32)
    f = jax.jit(jax.grad(lambda q, k, v, do: jnp.vdot(ops.attention(q, k, v, **settings), do), (0, 1, 2)))
    return f.lower(a, a, a, a).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("settings", [{}, {"causal": True}, {"causal": True, "window": 100}], ids=["all", "causal", "window"])
def test_memory_is_linear_in_the_length(settings):
    at = {t: temporary(t, **settings) for t in (2048, 4096, 8192)}
    assert at[8192] < 2.2 * at[4096] < 2.2**2 * at[2048]
    assert at[8192] < 8192**2 / 10                      # 4 bytes for each score of one head


def test_no_whole_array_is_copied_for_the_loop():
    """In addition to the output there are only blocks of scores, a megabyte each: whole arrays of five axes would be copied."""
    assert temporary(2048, heads=8, d=64, causal=True) < 2048 * 8 * 64 * 4 + 4 * 2**20


def test_output_and_two_numbers_per_query_are_saved():
    q, k, v = (a.astype(jnp.float32) for a in inputs(t=40, s=40))
    for block in None, 20:
        assert saved_bytes(partial(ops.attention, block=block), q, k, v) == 4 * 2 * 40 * 4 * (5 + 2)


@pytest.mark.parametrize("t, s, block, causal, window", [
    (40, 40, 8, True, None), (40, 40, 8, True, 10), (40, 40, 8, False, 10), (37, 50, 7, True, 9), (50, 37, 7, True, 9),
    (50, 20, 7, False, 5), (12, 12, 100, True, None), (5, 5, 2, False, None),
])
def test_only_visible_blocks_are_computed(t, s, block, causal, window):
    q, k = jnp.zeros((1, t, 1, 1)), jnp.zeros((1, s, 1, 1))
    plan = blocks.plan(q, k, causal, window, block)
    place, other = np.arange(t)[:, None] + s - t, np.arange(s)[None]
    seen = ((not causal) | (other <= place)) & (window is None or abs(place - other) < window)
    rows, columns = plan.sizes
    needed = {(i, j) for i in range(-(-t // rows)) for j in range(-(-s // columns))
              if seen[i * rows:(i + 1) * rows, j * columns:(j + 1) * columns].any()}
    assert set(plan.pairs) == needed and len(plan.pairs) == len(needed)
    assert rows <= max(block, 1) and columns <= max(block, 1)


@pytest.mark.parametrize("heads, t, s, sizes", [
    (8, 2048, 2048, (256, 128)), (1, 2048, 2048, (512, 256)), (256, 256, 256, (64, 64)), (64, 64, 64, (64, 64)), (16, 128, 128, (128, 128)),
    (64, 128, 128, (64, 64)), (10**6, 100, 100, (64, 64)), (64, 1, 100_000, (1, 4096)), (64, 100_000, 1, (4096, 1)), (1, 0, 5, (0, 5)),
])
def test_block_sizes(heads, t, s, sizes):
    assert blocks.block_sizes(heads, t, s) == sizes


# Dropout

def test_dropout_of_attention_weights():
    """If v is the identity, the output is P itself: dropped with probability p, otherwise scaled up, whatever the blocks."""
    q, k, _ = inputs(t=64, s=48, g=4)
    v = jnp.broadcast_to(jnp.eye(48)[None, :, None, :], (2, 48, 4, 48))
    p, dropped = ops.attention(q, k, v), ops.attention(q, k, v, key=KEY, rate=0.25)
    zero = np.asarray(dropped == 0)
    assert abs(zero.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / zero.size)
    chex.assert_trees_all_close(dropped, jnp.where(zero, 0, p / 0.75), rtol=1e-12)
    for block in 7, 16:
        chex.assert_trees_all_close(ops.attention(q, k, v, key=KEY, rate=0.25, block=block), dropped, rtol=1e-12)
    assert (np.asarray(ops.attention(q, k, v, key=jax.random.key(4), rate=0.25) == 0) != zero).mean() > 0.3


# Numbers

def test_blocks_in_bfloat16_are_as_accurate_as_the_plain_form():
    exact = [a.astype(jnp.bfloat16).astype(jnp.float64) for a in inputs(t=64, s=64, d=16, e=16)]
    grads = lambda f: jax.jit(jax.grad(lambda *a: f(*a, causal=True).astype(jnp.float32).sum(), (0, 1, 2)))
    truth = grads(ops.attention.reference)(*exact)
    low = [a.astype(jnp.bfloat16) for a in exact]
    far = lambda got: max(float(jnp.linalg.norm(a.astype(jnp.float64) - b) / jnp.linalg.norm(b)) for a, b in zip(got, truth, strict=True))
    ours, theirs = far(grads(partial(ops.attention, block=16))(*low)), far(grads(ops.attention.reference)(*low))
    assert ours <= theirs and ours < 1e-2


def test_large_scores_stay_exact():
    """Adding an offset to all scores of a query changes nothing, however large it is."""
    q, k, v = inputs()
    bias = 1e8 * jnp.arange(7.0).reshape(7, 1)
    f = jax.jit(jax.value_and_grad(lambda q, k, v, bias: jnp.sin(ops.attention(q, k, v, bias, block=3)).sum(), (0, 1, 2)))
    chex.assert_trees_all_close(f(q, k, v, bias), f(q, k, v, 0 * bias), rtol=1e-6, atol=1e-7)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype, size, t, d", [("float32", 12345.678, 9, 33), ("float32", 1e5, 10, 32), ("bfloat16", 1e5, 10, 32)])
def test_scores_and_their_maximum_round_consistently(dtype, size, t, d, causal):
    """Scores of 10⁹ and 6·10¹⁰, all equal: their rounding errors are up to 32 and 2048, whose exponentials overflow float32. In the
    backward pass they come from another product, which may be rounded up."""
    q, k = (jnp.full((2, t, heads, d), size, dtype) for heads in (4, 2))
    options = {"xla_backend_optimization_level": 2}         # enables FMA, which conftest.py disables for all other tests
    both = jax.jit(lambda do: (lambda y, pull: (y, pull(do)))(*jax.vjp(partial(ops.attention, causal=causal), q, k, k)),
                   compiler_options=options)
    y, gradients = both(draw(q.shape, dtype=dtype))
    np.testing.assert_allclose(*(np.asarray(a, "float64") for a in (y, q)), rtol=1e-6)
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_nan_propagates():
    q, k, v = inputs()
    assert jnp.isnan(ops.attention(q.at[0, 2, 1, 0].set(jnp.nan), k, v, block=3)[0, 2, 1]).all()


def test_one_token_at_a_time_matches_causal_attention():
    q, k, v = inputs(t=7, s=7)
    whole = ops.attention(q, k, v, causal=True)
    for i in range(7):
        one = ops.attention(q[:, i:i + 1], k[:, :i + 1], v[:, :i + 1], causal=True)
        chex.assert_trees_all_close(one, whole[:, i:i + 1], rtol=1e-12)


# Errors

@pytest.mark.parametrize("change, error, said", [
    ({"k": draw((2, 7, 3, 3))}, ValueError, r"g a divisor of h: q is \[2, 7, 4, 3\], k is \[2, 7, 3, 3\]"),
    ({"q": draw((2, 7, 12))}, ValueError, r"q \[n t h d\].*q is \[2, 7, 12\]"),
    ({"v": draw((2, 6, 2, 5))}, ValueError, r"v is \[2, 6, 2, 5\]"),
    ({"v": draw((2, 7, 2, 5), dtype=jnp.float32)}, TypeError, "one dtype"),
    ({"mask": jnp.ones((2, 1, 1, 7))}, TypeError, r"write mask.astype\(bool\)"),
    ({"mask": jnp.ones((2, 7), bool)}, ValueError, r"axis of the mask must be that of \[n h t s\] = \[2, 4, 7, 7\] or 1; got \[2, 7\]"),
    ({"bias": jnp.ones((1, 2, 4, 7, 7))}, ValueError, "each axis of the bias must be"),
    ({name: draw((2, 7, 2, 3)).astype(int) for name in "qkv"}, TypeError, "real q, k and v of one dtype; got int64, int64"),
    ({"q": draw((2, 7, 4, 0)), "k": draw((2, 7, 2, 0))}, ValueError, r"q is \[2, 7, 4, 0\]"),
    ({"bias": jnp.ones((7, 7), bool)}, TypeError, "got bool: .* as the mask"),
    ({"rate": 0.1}, TypeError, "rate=0.1 draws its mask from one PRNG key; got nothing"),
    ({"rate": 0.1, "key": 0}, TypeError, r"got int64\[\]: write jax.random.key"),
    ({"rate": 1.0, "key": KEY}, ValueError, "the fraction to drop, 0 ≤ rate < 1"),
    ({"window": 0}, ValueError, "the window of attention must be a whole number ≥ 1"),
    ({"window": 2.5}, ValueError, "the window of attention must be a whole number ≥ 1, or None; got 2.5"),
    ({"softcap": -1.0}, ValueError, "the softcap of attention must be above 0"),
    ({"block": 0}, ValueError, "the block of attention must be a whole number ≥ 1"),
])
def test_wrong_arguments_raise(change, error, said):
    given = dict(zip("qkv", inputs())) | change
    with pytest.raises(error, match=said):
        ops.attention(**given)


# Positions

def test_rope_matches_a_product_of_complex_numbers():
    x, positions = draw((2, 7, 3, 8)), jnp.array([0, 1, 5, 100, 2, 3, 99999])
    z = np.asarray(x[..., :4]) + 1j * np.asarray(x[..., 4:])
    turned = z * np.exp(1j * np.asarray(positions)[:, None, None] * 10000.0 ** (-np.arange(4) / 4))
    want = np.concatenate([turned.real, turned.imag], -1)
    chex.assert_trees_all_close(ops.rope(x, positions), want, rtol=1e-9, atol=1e-9)
    several = jnp.stack([positions, positions])
    chex.assert_trees_all_equal(ops.rope(x, several), ops.rope(x, positions))


def test_rope_interleaved_partial_and_with_given_angles():
    x, places, dy = draw((2, 7, 3, 8)), jnp.arange(7), draw((2, 7, 3, 8), 5)
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])                  # adjacent features become the two halves
    chex.assert_trees_all_close(ops.rope(x, places, interleaved=True)[..., order], ops.rope(x[..., order], places), rtol=1e-12)
    some = ops.rope(x, places, features=6)
    chex.assert_trees_all_close(some[..., :6], ops.rope(x[..., :6], places), rtol=1e-12)
    chex.assert_trees_all_equal(some[..., 6:], x[..., 6:])
    angles = np.outer(np.arange(7), 10000.0 ** (-np.arange(4) / 4))
    chex.assert_trees_all_close(ops.rope(x, angles), ops.rope(x, places), rtol=1e-9, atol=1e-9)
    chex.assert_trees_all_close(ops.rope(x, np.stack([angles] * 2)), ops.rope(x, angles), rtol=1e-12)
    _, pull = jax.vjp(ops.rope, x, jnp.asarray(angles))
    _, plain = jax.vjp(ops.rope.reference, x, jnp.asarray(angles))
    chex.assert_trees_all_close(pull(dy), plain(dy), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"angles \[t k\] or \[n t k\], with k = 4 pairs .*, or integer positions; got float64\[7, 3\]"):
        ops.rope(x, jnp.zeros((7, 3)))
    with pytest.raises(ValueError, match=r"features of rope must be an even number.*features=3"):
        ops.rope(x, places, features=3)


def test_products_of_rotated_vectors_depend_on_distance():
    q, k = draw((1, 1, 1, 8), 1), draw((1, 1, 1, 8), 2)
    at = lambda x, place: ops.rope(x, jnp.array([place]))[0, 0, 0]
    chex.assert_trees_all_close(at(q, 13) @ at(k, 4), at(q, 109) @ at(k, 100), rtol=1e-10)
    assert abs(at(q, 13) @ at(k, 4) - at(q, 13) @ at(k, 5)) > 1e-3


def test_backward_pass_of_rope_rotates_back():
    x = draw((2, 7, 3, 8))
    y, pull = jax.vjp(lambda x: ops.rope(x, jnp.arange(7), base=500.0), x)
    chex.assert_trees_all_close(pull(y)[0], x, rtol=1e-12)
    assert saved_bytes(ops.rope, x.astype(jnp.float32), jnp.arange(7)) == 0


@pytest.mark.parametrize("x, positions, error, said", [
    ((2, 7, 3, 8), jnp.arange(6), ValueError, r"positions are \[6\]"),
    ((2, 7, 3, 7), jnp.arange(7), ValueError, "d even"),
    ((2, 7, 8), jnp.arange(7), ValueError, r"x is \[2, 7, 8\]"),
    ((2, 7, 3, 8), jnp.arange(7.0), TypeError, "signed integers"),
    ((2, 7, 3, 8), jnp.arange(7, dtype=jnp.uint32), TypeError, "signed integers"),
    ((2, 7, 3, 0), jnp.arange(7), ValueError, r"x is \[2, 7, 3, 0\]"),
])
def test_rope_rejects_wrong_arguments(x, positions, error, said):
    with pytest.raises(error, match=said):
        ops.rope(jnp.zeros(x), positions)


@pytest.mark.parametrize("base", [0, 1.0, -5.0, True, float("nan")])
def test_invalid_base_raises(base):
    with pytest.raises(ValueError, match=f"the base of rope must be above 1; got {base}: write base=10000.0"):
        ops.rope(jnp.zeros((2, 7, 3, 8)), jnp.arange(7), base=base)


def test_rope_of_integers_raises():
    with pytest.raises(TypeError, match="rope takes real numbers; got int64"):
        ops.rope(jnp.zeros((2, 7, 3, 8), int), jnp.arange(7))


@pytest.mark.parametrize("shape", [(0, 7, 3, 8), (2, 0, 3, 8), (2, 7, 0, 8)])
def test_rope_of_an_empty_array(shape):
    for positions in jnp.arange(shape[1]), jnp.zeros(shape[:2], int):
        assert ops.rope(jnp.zeros(shape), positions).shape == shape


def test_sinusoidal_positions():
    got = ops.sinusoidal(jnp.arange(50).reshape(5, 10), 12, dtype=jnp.float64)
    p, i = np.arange(50).reshape(5, 10, 1), np.arange(6)
    angle = p / 10000 ** (2 * i / 12)
    want = np.empty((5, 10, 12))
    want[..., 0::2], want[..., 1::2] = np.sin(angle), np.cos(angle)
    chex.assert_trees_all_close(got, want, rtol=1e-12, atol=1e-14)
    assert ops.sinusoidal(3, 8).shape == (8,)
    for d in 7, 0, -2:
        with pytest.raises(ValueError, match=f"d of sinusoidal must be even and above 0.*; got {d}"):
            ops.sinusoidal(jnp.arange(3), d)
