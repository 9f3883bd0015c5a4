"""Transforms, wrappers and the global norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import optim

RANDOM = np.random.default_rng(1)
PARAMS = {"w": jnp.asarray(RANDOM.normal(size=(3, 4))), "b": jnp.asarray(RANDOM.normal(size=4))}
GRADS = [jax.tree.map(lambda p: jnp.asarray(RANDOM.normal(size=p.shape)), PARAMS) for _ in range(12)]


def one(optimizer, grads, params=None, **extra):
    return optimizer.update(grads, optimizer.init(grads if params is None else params), params, **extra)[0]


def run(optimizer, grads=GRADS, params=PARAMS, **extra):
    state = optimizer.init(params)
    for g in grads:
        updates, state = optimizer.update(g, state, params, **extra)
        params = optim.apply_updates(params, updates)
    return params, state


def equal(got, want, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14), got, want)


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.sweep(6)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("gradient, limit, want", [
    ([3e20, 4e20], 1.0, [0.6, 0.8]),
    ([3e20, 4e20], 5e20, [3e20, 4e20]),
    ([3e38, 3e38], 1.0, [0.5**0.5] * 2),                    # the norm itself is beyond float32
    ([LARGEST] * 4, 2.0, [1.0] * 4),
    ([LARGEST] * 4, 1e38, [5e37] * 4),
    ([3e-20, 4e-20], 1e-20, [0.6e-20, 0.8e-20]),            # the squares underflow
    ([3e-30, 4e-30], 1e-31, [0.6e-31, 0.8e-31]),
    ([3e-37, 4e-37], 1e-37, [0.6e-37, 0.8e-37]),
    ([3e10, 4e10], 1e-30, [0.6e-30, 0.8e-30]),              # limit/norm underflows
    ([3e20, 4e20], 1e-36, [0.6e-36, 0.8e-36]),
    ([3e38, 1e-30], 1.0, [1.0, 0.0]),
    ([3e-20, 4e-20], 5e-20, [3e-20, 4e-20]),
    ([3.0, 4.0], 5.0, [3.0, 4.0]),
    ([3.0, 4.0], float("inf"), [3.0, 4.0]),
    ([3.0, 4.0], 0.0, [0.0, 0.0]),
    ([0.0, 0.0], 1e-38, [0.0, 0.0]),
])
def test_the_global_norm_is_clipped_for_every_finite_gradient(gradient, limit, want, compiled):
    with jax.enable_x64(False):
        g = {"a": jnp.array(gradient[:1], jnp.float32), "b": jnp.array(gradient[1:], jnp.float32)}
        optimizer = optim.clip_by_global_norm(limit)
        update = jax.jit(optimizer.update) if compiled else optimizer.update
        clipped, _ = update(g, optimizer.init(g))
        got = np.concatenate([clipped["a"], clipped["b"]])
        np.testing.assert_allclose(got, np.float32(want), rtol=4e-7, atol=0)
        if want == gradient:
            np.testing.assert_array_equal(got, np.float32(gradient))


def test_a_step_after_a_huge_gradient_keeps_the_parameters():
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1))
    params = {"w": jnp.ones(2, jnp.float32)}
    params, _ = run(optimizer, [{"w": jnp.array([3e20, 4e20], jnp.float32)}], params)
    np.testing.assert_allclose(params["w"], 0.9, rtol=1e-5)


@pytest.mark.parametrize("dtype, values", [(jnp.float16, [6e-8, 6e4, -3e-5]), (jnp.bfloat16, [1e38, 1e-38, 3e38]),
                                           (jnp.float32, [1e-45, 2e-45, 3e-44])])
def test_gradients_within_the_limit_are_unchanged_bit_for_bit(dtype, values):
    """Even subnormal ones, which a multiplication by 1 would flush to 0 on most devices."""
    g = jnp.array(values, dtype)
    np.testing.assert_array_equal(np.asarray(one(optim.clip_by_global_norm(float("inf")), g)).view(np.uint8),
                                  np.asarray(g).view(np.uint8))


def test_global_norm_of_mixed_dtypes():
    g = {"half": jnp.array([3e4, 3e4], jnp.float16), "single": jnp.array([3e38], jnp.float32),
         "double": jnp.array([4e38, 1e200]),
         "complex": jnp.array([3e38 + 4e38j])}
    norm = 1e200
    clipped = one(optim.clip_by_global_norm(1e199), g)
    for name, a in g.items():
        assert clipped[name].dtype == a.dtype
        wide = np.asarray(a).astype(np.complex128 if name == "complex" else np.float64)
        want = (wide * (1e199 / norm)).astype(a.dtype)
        np.testing.assert_allclose(clipped[name], want, rtol=1e-12, atol=1e-300)
    small = {name: g[name] for name in ("half", "single", "complex")}
    np.testing.assert_allclose(optim.global_norm(small), np.sqrt(2 * 3e4**2 + 9e76 + 25e76), rtol=1e-6)
    assert optim.global_norm({}) == 0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_clipping_does_not_hide_nonfinite_gradients(bad):
    for g in ({"a": jnp.array([bad]), "b": jnp.ones(2)}, {"a": jnp.array([bad]), "b": jnp.full(2, 1e200)}):
        assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(one(optim.clip_by_global_norm(1.0), g)))


def test_clipping_works_under_vmap_and_grad():
    def clipped(scale):
        return jnp.sum(one(optim.clip_by_global_norm(1.0), {"a": scale * jnp.array([3.0, 4.0])})["a"])
    np.testing.assert_allclose(jax.vmap(clipped)(jnp.array([0.1, 1.0, 1e200])), [0.7, 1.4, 1.4], rtol=1e-12)
    np.testing.assert_allclose(jax.grad(clipped)(0.1), 7.0, rtol=1e-12)


def test_clipping_block_by_block():
    g = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.1]), "c": jnp.array([3e200, 4e200])}
    got = one(optim.clip_by_block_rms(1.0), g)
    direction = np.array([3, 4]) / np.sqrt(12.5)
    equal(got, {"a": direction, "b": [0.1], "c": direction})


def test_adaptive_clipping_is_per_output():
    g = {"w": GRADS[0]["w"].at[:, 1].set(0), "b": GRADS[0]["b"] * 1e200}
    got = one(optim.adaptive_clip(0.1, eps=1e-3), g, PARAMS)
    for j in range(4):
        column, theta = np.asarray(g["w"][:, j]), np.asarray(PARAMS["w"][:, j])
        norm = np.linalg.norm(column)
        np.testing.assert_allclose(got["w"][:, j],
                                   column * (min(1, 0.1 * np.linalg.norm(theta) / norm) if norm else 1), rtol=1e-12)
    direction = np.asarray(GRADS[0]["b"]) / np.linalg.norm(GRADS[0]["b"])
    np.testing.assert_allclose(got["b"], direction * 0.1 * np.linalg.norm(PARAMS["b"]), rtol=1e-12)


def test_clip_by_value_of_complex_numbers_keeps_their_direction():
    np.testing.assert_allclose(one(optim.clip_by_value(1.0), jnp.array([3 + 4j, 0.1j, 0])), [0.6 + 0.8j, 0.1j, 0],
                               rtol=1e-12)


def test_centralize_and_scale():
    got = one(optim.chain(optim.centralize(), optim.scale(2.0)), GRADS[0])
    w = np.asarray(GRADS[0]["w"])
    equal(got, {"w": 2 * (w - w.mean(0)), "b": 2 * GRADS[0]["b"]})


def test_noise_has_its_variance_and_is_reproducible():
    zeros = {"w": jnp.zeros((200, 200)), "v": jnp.zeros(40000)}
    optimizer = optim.add_noise(0.5, power=1.0, seed=3)
    state = optimizer.init(zeros)
    first, state = optimizer.update(zeros, state)
    second, _ = optimizer.update(zeros, state)
    assert np.var(first["w"]) == pytest.approx(0.5, rel=0.03) and np.var(second["v"]) == pytest.approx(0.25, rel=0.03)
    equal(one(optimizer, zeros), first)
    flat = np.asarray(first["w"]).reshape(-1)
    for other in (np.asarray(first["v"]), np.asarray(second["w"]).reshape(-1)):
        assert abs(np.corrcoef(flat, other)[0, 1]) < 0.03


def test_accumulate_uses_the_mean_of_the_gradients():
    small = optim.accumulate(optim.chain(optim.clip_by_global_norm(0.5), optim.adamw(0.1)), every=3)
    got, state = run(small)
    means = [jax.tree.map(lambda *g: sum(g) / 3, *GRADS[i:i + 3]) for i in range(0, 12, 3)]
    equal(got, run(optim.chain(optim.clip_by_global_norm(0.5), optim.adamw(0.1)), means)[0])
    assert optim.hyperparams(state)["rate"] == 0.1
    half, _ = run(small, GRADS[:5])
    equal(half, run(small, GRADS[:3])[0])                   # nothing moves in between


def test_accumulate_sums_in_float32():
    params = {"w": jnp.zeros(1, jnp.bfloat16)}
    grads = [{"w": jnp.array([x], jnp.bfloat16)} for x in [256.0] + [1.0] * 7]
    moved, _ = run(optim.accumulate(optim.sgd(1.0), every=8), grads, params)
    assert moved["w"] == -jnp.array(263 / 8, jnp.bfloat16)


def test_nonfinite_steps_are_skipped_and_counted():
    bad = {**GRADS[1], "b": GRADS[1]["b"].at[0].set(jnp.nan)}
    optimizer = optim.skip_nonfinite(optim.adam(0.1))
    got, state = jax.jit(lambda: run(optimizer, [GRADS[0], bad, GRADS[2]]))()
    equal(got, run(optim.adam(0.1), [GRADS[0], GRADS[2]])[0])
    assert state.inner[0].skipped == 1


def test_evaluation_params_return_the_moving_average():
    optimizer = optim.chain(optim.sgd(0.1), optim.moving_average(0.8))
    params, state, average = PARAMS, optimizer.init(PARAMS), PARAMS
    for g in GRADS:
        updates, state = optimizer.update(g, state, params)
        params = optim.apply_updates(params, updates)
        average = jax.tree.map(lambda a, p: 0.8 * a + 0.2 * p, average, params)
    equal(params, run(optim.sgd(0.1))[0])
    equal(optim.evaluation_params(state, params), average)
    equal(optim.evaluation_params(optim.sgd(0.1).init(PARAMS), PARAMS), PARAMS)


def test_a_moving_average_with_a_schedule_is_the_mean():
    optimizer = optim.chain(optim.sgd(0.1), optim.moving_average(lambda s: s.astype(float) / (s.astype(float) + 1)))
    params, state, seen = PARAMS, optimizer.init(PARAMS), []
    for g in GRADS:
        updates, state = optimizer.update(g, state, params)
        params = optim.apply_updates(params, updates)
        seen.append(params)
    equal(optim.evaluation_params(state, params), jax.tree.map(lambda *p: sum(p) / 12, *seen))


def test_groups_by_path_and_by_subtree():
    params = {"body": [PARAMS, PARAMS], "head": PARAMS}
    grads = {"body": [GRADS[0], GRADS[1]], "head": GRADS[2]}
    for labels in (optim.by_path({r"\['head'\]": "fast"}, rest="slow"), {"body": "slow", "head": "fast"},
                   lambda params: {"body": "slow", "head": "fast"}):
        groups = optim.partition({"slow": optim.sgd(0.1),
                                  "fast": optim.chain(optim.sgd(1.0), optim.moving_average(0.5))}, labels)
        updates, state = groups.update(grads, groups.init(params), params)
        equal(updates, {"body": jax.tree.map(lambda g: -0.1 * g, grads["body"]),
                        "head": jax.tree.map(lambda g: -g, GRADS[2])})
        moved = optim.apply_updates(params, updates)
        average = jax.tree.map(lambda p, q: (p + q) / 2, params["head"], moved["head"])
        equal(optim.evaluation_params(state, moved), {"body": moved["body"], "head": average})


def test_frozen_parameters_stay_and_have_no_state():
    optimizer = optim.freeze(optim.adamw(0.1, decay=0.5), {"w": True, "b": False})
    got, state = run(optimizer)
    equal(got, {"w": PARAMS["w"], "b": run(optim.adamw(0.1, decay=0.5))[0]["b"]}, rtol=0)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 2 * 4 + 8


def test_plateau_lowers_the_scale():
    optimizer = optim.chain(optim.sgd(1.0),
                            optim.reduce_on_plateau(0.5, patience=2, cooldown=1, window=2, smallest=0.2))
    state, scales = optimizer.init(PARAMS), []
    losses = [3, 1] + [2, 2, 3, 1] + [9, 9] + [2, 2, 2, 2] + [1, 1] + [1, 1, 1, 1] + [5, 5] * 4     # windows of two
    for loss in losses:
        updates, state = optimizer.update(GRADS[0], state, PARAMS, value=jnp.float32(loss))
        scales.append(float(optim.hyperparams(state)["scale"]))
        equal(updates, jax.tree.map(lambda g: -scales[-1] * g, GRADS[0]))
    # windows: 2 (best) | 2 2 → halved | 9 cooling | 2 2 → halved | 1 better, cooling | 1 1 → at least 0.2 | …
    assert scales == [1.0] * 5 + [0.5] * 6 + [0.25] * 6 + [0.2] * 9
    state = optim.with_hyperparams(state, scale=1.0)
    assert optim.hyperparams(state)["scale"] == 1

