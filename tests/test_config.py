"""The configuration, and the formulations chosen by it and by sizes."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import pytest
from drawn import normal
from jax import export

from fnnet import cli, config, ops
from fnnet.form import Form, always, by_device, choose
from fnnet.ops.linear import cpu_form


def python(code, **environment):
    """The output of a new process."""
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_environment_is_read_and_import_does_not_start_a_backend():
    """Reading the configuration does not either. A nonexistent backend would raise as soon as it is started."""
    code = ("import fnnet, jax; print(fnnet.config.current())\n"
            "with fnnet.config.use(cores=3): print(fnnet.config.current().cores, fnnet.config.sources())\n"
            "try: jax.devices()\nexcept RuntimeError: print('none was started')")
    assert python(code, JAX_PLATFORMS="none_such", FNNET_BACKEND="gpu", FNNET_CORES="7").splitlines() == [
        "Config(backend='gpu', cores=7)",
        "3 {'backend': 'the environment, FNNET_BACKEND', 'cores': 'fnnet.config.use'}", "none was started"]


def test_use_lasts_until_the_end_of_its_block():
    before = config.current()
    with config.use(cores=5):
        config.use(backend="tpu")
        assert config.current() == config.Config("tpu", 5)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(config.current).result() == config.Config("tpu", 5)
        with config.use(backend="auto") as now:
            assert now == config.Config("auto", 5)
    assert config.current() == before


@pytest.mark.parametrize("given, message", [
    ({"backend": "cuda"}, "backend must be one of auto, cpu, gpu, tpu; got 'cuda': write backend=auto"),
    ({"cores": 0}, "cores must be a whole number ≥ 1; got 0: write cores=2"),
    ({"cores": True}, "cores must be a whole number ≥ 1; got True"), ({"cores": 1.5}, "got 1.5")])
def test_wrong_settings_raise(given, message):
    before = config.current()
    with pytest.raises(ValueError, match=message):
        config.use(**given)
    assert config.current() == before


@pytest.mark.parametrize("name, value, message", [
    ("FNNET_BACKEND", "cuda", "FNNET_BACKEND must be one of auto, cpu, gpu, tpu; got 'cuda': write FNNET_BACKEND=auto"),
    ("FNNET_CORES", "-1", "FNNET_CORES must be a whole number ≥ 1; got '-1': write FNNET_CORES=2")])
def test_wrong_environment_raises(name, value, message, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    config._environment.cache_clear()
    try:
        assert cli.main(["config"]) == 1 and message in capsys.readouterr().err
    finally:
        monkeypatch.undo()
        config._environment.cache_clear()


def test_command_prints_settings_and_their_sources(capsys):
    with config.use(cores=3):
        assert cli.main(["config"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["backend", "auto", "the", "default"] in lines and ["cores", "3", "fnnet.config.use"] in lines
    assert ["JAX", jax.__version__] in [line[:2] for line in lines]


def test_programs_are_traced_again_under_another_configuration():
    """Including eagerly called rules, each of which is jitted by itself."""
    traced = []

    @jax.jit
    def f(x):
        traced.append(config.current())
        return by_device(x, cpu=lambda x: x + 1, tpu=lambda x: x + 2, default=lambda x: x + 3)
    assert [f(0), f(0)] == [1, 1] and len(traced) == 1
    for backend, y in ("cpu", 1), ("gpu", 3), ("tpu", 2), ("auto", 1):
        with config.use(backend=backend):
            assert f(0) == y
    assert {now.backend for now in traced} == {"auto", "cpu", "gpu", "tpu"}
    x = normal(0, (1, 6, 6, 2))
    for backend, kept in ("cpu", 0), ("tpu", 1), ("auto", 0):
        with config.use(backend=backend):
            _, back = jax.vjp(lambda x: ops.max_pool(x, window=2), x)
            assert kept == max(jnp.size(a) == x.size for a in jax.tree.leaves(back))


@pytest.mark.sweep(2)
@pytest.mark.parametrize("forth, back", [("tpu", "cpu"), ("cpu", "tpu"), ("tpu", "auto"), ("auto", "tpu")])
def test_gradient_is_right_if_the_configuration_changed_after_the_forward_pass(forth, back):
    x, dy = normal(0, (2, 5, 6, 3)), normal(1, (2, 2, 3, 3))
    for op in ops.max_pool, ops.relu_max_pool:
        want = jax.vjp(lambda x: op(x, window=2), x)[1](dy)
        with config.use(backend=forth):
            _, pull = jax.vjp(lambda x: op(x, window=2), x)
        with config.use(backend=back):
            chex.assert_trees_all_close(pull(dy), want, rtol=1e-12)


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_the_formulations_of_every_backend_agree(backend):
    arrays = normal(0, (40, 300)), normal(1, (300, 10)), jnp.arange(40) % 10

    def grads(x, w, labels):
        return jax.value_and_grad(lambda x, w: ops.linear_cross_entropy(ops.layer_norm(ops.dense(x, w @ w.T)), w, labels)
                                  + ops.softmax_cross_entropy(x @ w, labels), (0, 1))(x, w)
    want = jax.jit(grads)(*arrays)
    with config.use(backend=backend):
        chex.assert_trees_all_close(jax.jit(grads)(*arrays), want, rtol=1e-10)


# Forms

def test_first_fitting_form_is_chosen_and_symbolic_sizes_get_the_general_form():
    n, = export.symbolic_shape("n")
    forms = (Form("few cores", lambda cores, k: cores < 3 and k > 4, None, ""),
             Form("large", lambda n: n > 10, None, ""), Form("general", always, None, ""))
    with config.use(cores=2):
        assert [choose(forms, n=11, k=k).name for k in (4, 5)] == ["large", "few cores"]
        assert [choose(forms, n=n, k=k).name for k in (4, 5)] == ["general", "few cores"]
        assert choose(forms, n=11, k=n).name == "large"
    with pytest.raises(LookupError, match="none of few cores, large fits .*'n': 3.*make `always` the predicate of the last one"):
        choose(forms[:2], n=3, k=3)


def test_symbolic_batch_uses_the_form_for_many_rows():
    n, = export.symbolic_shape("n")
    assert [cpu_form(*shape).name for shape in ((n, 784, 10), (n, 784, 128), (n, 8, 8), (128, n, 10), (128, 784, n))] == [
        "from the right", "transpose first", "plain", "plain", "plain"]
