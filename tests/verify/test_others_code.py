"""`check` on code from other libraries and from JAX itself that contains gradient rules: no false alarms, and mistakes are found."""

import re
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas

from fnnet import cli, verify
from tests.verify.family import LABELS, LOGITS, V, W, X, slope, vjp

pytestmark = pytest.mark.filterwarnings("ignore")
SINE, WRONG = slope(jnp.sin, jnp.cos), slope(jnp.sin, lambda x: jnp.cos(x) + 0.1)


@pytest.fixture(autouse=True)
def ordinary_promotion():
    """Third-party code is not written for strict promotion of dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def passes(f, *args, **run):
    verify.check(f, *args, thorough=False, **run).raise_if_failed()


def fails(f, *args, **run):
    report = verify.check(f, *args, thorough=False, **run)
    assert {failure.name for failure in report.failures} & {"gradient", "inputs"}, report


@pytest.mark.peers
@pytest.mark.parametrize("sine, outcome", [(SINE, passes), (WRONG, fails)], ids=("right", "wrong"))
def test_equinox_module_with_a_rule_inside(sine, outcome):
    eqx = pytest.importorskip("equinox")

    class Layer(eqx.Module):
        w: jax.Array
        b: jax.Array
        name: str = eqx.field(static=True, default="layer")

        def __call__(self, x):
            return sine(x @ self.w + self.b)
    outcome(lambda layer, x: layer(x), Layer(W, jnp.ones(5, W.dtype)), X)


@pytest.mark.peers
@pytest.mark.parametrize("sine, outcome", [(SINE, passes), (WRONG, fails)], ids=("right", "wrong"))
def test_flax_apply_with_a_rule_inside(sine, outcome):
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(sine(nn.Dense(3)(x)))
    net = Net()
    outcome(net.apply, net.init(jax.random.key(0), X), X)


@pytest.mark.peers
def test_optax_loss_and_one_with_a_mistake():
    optax = pytest.importorskip("optax")
    loss = optax.softmax_cross_entropy_with_integer_labels
    passes(loss, LOGITS, LABELS)
    twice = vjp(lambda z, t: loss(z, t), lambda g, z, t: (2 * g[:, None] * (jax.nn.softmax(z) - jax.nn.one_hot(t, z.shape[-1])), None))
    fails(twice, LOGITS, LABELS, reference=loss)


def kernel_of(f):
    """f computed by a Pallas kernel in interpret mode."""
    def kernel(x_ref, y_ref):
        y_ref[...] = f(x_ref[...])

    def run(x):
        return pallas.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)
    return run


@pytest.mark.sweep(2)
@pytest.mark.parametrize("slope_, outcome", [(lambda x: jnp.cos(x) + 0.1, fails), (jnp.cos, passes)], ids=("wrong", "right"))
def test_pallas_kernel_in_interpret_mode(slope_, outcome):
    forward, derivative = kernel_of(jnp.sin), kernel_of(slope_)
    outcome(vjp(forward, lambda g, x: g * derivative(x)), V, reference=jnp.sin)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("sine, outcome", [(WRONG, fails), (SINE, passes)], ids=("wrong", "right"))
def test_rule_inside_shard_map(sine, outcome):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.shard_map(lambda x: sine(x), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    outcome(lambda x: rows(x), jnp.stack([V, V[::-1]]))


def test_shell_prints_the_regression_test_of_an_audit(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_to_keep.py").write_text("import jax, jax.numpy as jnp\nf = jax.custom_vjp(jnp.sin)\n"
                                              "f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert cli.main(["audit", "mine_to_keep:f", "--args", "x: f[N]", "--quick"]) == 0
    line = re.search(r"^ *(def test_f\(check_gradient\): .*)$", capsys.readouterr().out, re.MULTILINE)[1]
    called, names = [], {}
    exec(f"import mine_to_keep\n{line}", names)
    names["test_f"](lambda f, **run: called.append(verify.check(f, thorough=False, **run).ok))
    assert called == [True]
