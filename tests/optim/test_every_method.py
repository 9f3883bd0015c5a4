"""Properties shared by every method, transform and schedule that fnnet.optim exports, which are found in its modules."""

import importlib
import inspect

import chex
import jax
import jax.numpy as jnp
import pytest

from fnnet import optim

# The value of a setting without a default, by its name.
SETTINGS = {"rate": 0.1, "decay": 0.5, "limit": 1.0, "steps": 8, "scale": 0.1, "final": 0.0, "every": 2,
            "optimizer": optim.sgd(0.1), "mask": {"w": False, "b": True}, "optimizers": {"all": optim.sgd(0.1)},
            "labels": {"w": "all", "b": "all"}}
# Settings for a name, if those above do not fit.
OF_ONE = {"adadelta": {"rate": 100.0}, "lars": {"rate": 1.0, "trust": 0.01}, "rprop": {"rate": 0.1},
          "adagrad": {"rate": 0.5}, "piecewise": {"rates": [0.1, 0.05], "steps": [5]},
          "join": {"schedules": [0.1, optim.constant(0.05)], "steps": [5]}}
NO_OPTIMIZERS = ("by_path",)
PARAMS = {"w": jnp.full((3, 4), 3.0), "b": jnp.full(4, -2.0)}


def exported(kind):
    module = importlib.import_module(f"fnnet.optim.{kind}")
    return [name for name in module.__all__ if name in optim.__all__ and name not in NO_OPTIMIZERS
            and not isinstance(getattr(optim, name), type)]


def place(name):
    """Where it is: lion in optim/methods/descent.py."""
    return f"{name} in {getattr(optim, name).__module__.removeprefix('fnnet.').replace('.', '/')}.py"


def made(name):
    """The optimizer or schedule with small settings."""
    make, own = getattr(optim, name), OF_ONE.get(name, {})
    needed = [p.name for p in inspect.signature(make).parameters.values() if p.default is p.empty]
    if unknown := [setting for setting in needed if setting not in SETTINGS | own]:
        pytest.fail(f"{place(name)} needs {', '.join(unknown)}: write a value for it into SETTINGS of "
                    "tests/optim/test_every_method.py", pytrace=False)
    return make(**{setting: SETTINGS[setting] for setting in needed if setting not in own}, **own)


def loss(params):
    """A bowl around 1, steeper along some axes than along others."""
    return sum((steepness(p) * (p - 1) ** 2).sum().astype(jnp.float64) for p in jax.tree.leaves(params))


def steepness(p):
    return jnp.linspace(0.1, 1.0, p.size).reshape(p.shape).astype(p.dtype)


def trained(optimizer, params, steps):
    def step(now, _):
        params, state = now
        updates, after = optimizer.update(jax.grad(loss)(params), state, params, value=loss(params), value_fn=loss)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        return (optim.apply_updates(params, updates), after), None
    return jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)[0][0]


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", exported("methods"))
def test_method_decreases_the_loss(name):
    assert loss(trained(made(name), PARAMS, 100)) < loss(PARAMS) / 2


@pytest.mark.sweep(8)
@pytest.mark.parametrize("name", [*exported("methods"), *exported("transforms")])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda dtype: dtype.__name__)
def test_updates_have_the_dtype_of_parameters_and_stay_finite(name, dtype):
    after = trained(made(name), jax.tree.map(lambda p: p.astype(dtype), PARAMS), 3)
    chex.assert_tree_all_finite(after)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(dtype)}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", exported("schedules"))
def test_schedule_gives_a_number_at_every_step_and_works_as_a_rate(name):
    schedule = made(name)
    values = [schedule(step) for step in (0, 1, 7, 8, 1000)]
    traced = jax.jit(jax.vmap(schedule))(jnp.array([0, 1, 7, 8, 1000]))
    chex.assert_trees_all_close(jnp.stack([jnp.asarray(value, traced.dtype) for value in values]), traced, rtol=1e-6)
    assert all(jnp.shape(value) == () and jnp.isfinite(value) and value >= 0 for value in values)
    assert loss(trained(optim.gradient_descent(schedule), PARAMS, 5)) < loss(PARAMS)


@pytest.mark.parametrize("name", [*exported("methods"), *exported("transforms"), *exported("schedules")])
def test_docstring_starts_with_the_formula(name):
    assert any(sign in (getattr(optim, name).__doc__ or "").partition("\n")[0] for sign in "=←→"), (
        f"{place(name)} must have its formula as the first line of its docstring")


def test_method_without_test_settings_is_reported_by_name(monkeypatch):
    monkeypatch.setattr(optim, "tinted", lambda color: None, raising=False)
    with pytest.raises(pytest.fail.Exception, match="tinted in .*test_every_method.py needs color: write a value"):
        made("tinted")
