"""The checker on deliberately broken rules, each of which the intended check must catch, and on right rules, which must pass.

The ordinary run uses the quick form on the first of each class; everything, thoroughly, takes the better part of an hour:

    python -m pytest tests/verify/test_families.py -m ""

The whole run ends with a table of what was caught, by class, beside `jax.test_util.check_grads` to order 2 of the same rules.
"""

import functools
import warnings
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fnnet import ops, sample, verify
from fnnet.table import table
from tests.verify.broken import BROKEN
from tests.verify.correct import CORRECT


def cases(family, count):
    """Each case as a parameter; all except the first few of each class are slow."""
    seen, params = Counter(), []
    for case in family:
        seen[case.kind] += case.quick
        slow = not case.quick or seen[case.kind] > count
        params.append(pytest.param(case, id=f"{case.kind}: {case.name}", marks=[pytest.mark.slow] if slow else []))
    return params


@pytest.fixture(autouse=True)
def ordinary_promotion():
    """The families run as user code does: without strict promotion of dtypes and ranks, and with warnings allowed."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def tally(request):
    """{class: [(whether the case is wrong, whether check fails it, whether check_grads fails it)]}, printed when the module is done."""
    found = {}
    yield found
    if not whole(request):
        return
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for wrong, title in ((True, "wrong rules caught"), (False, "alarms on right rules")):
            kinds = {kind: seen for kind, seen in found.items() if seen[0][0] == wrong}
            kinds["all"] = [s for seen in kinds.values() for s in seen]
            rows = [(kind, len(seen), *(f"{100 * np.mean([s[k] for s in seen]):.0f} %" for k in (1, 2)))
                    for kind, seen in kinds.items() if seen]
            rows and print("\n\n" + table((title, "rules", "fnnet.verify.check", "check_grads"), rows))


def whole(request):
    """Whether this is a full run: then every check is thorough, and check_grads is compared."""
    return "not slow" not in request.config.option.markexpr


def looked_at(case, thorough):
    return verify.check(case.f, *case.args, thorough=thorough, **case.options or {})


def check_grads_fails(case):
    """Whether JAX's own check fails the rule, at the same inputs in float64, with arrays without a gradient closed over."""
    options = case.options or {}
    leaves, treedef = jax.tree.flatten(case.args)
    real = [i for i, a in enumerate(leaves) if hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)]

    def f(*xs):
        full = list(leaves)
        for i, x in zip(real, xs):
            full[i] = x
        out = functools.partial(case.f, **options.get("settings") or {})(*treedef.unflatten(full))
        return [y for y in jax.tree.leaves(out) if jnp.issubdtype(y.dtype, jnp.floating)]
    try:
        check_grads(f, [np.asarray(leaves[i], np.float64) for i in real], order=2, modes=["rev"])
    except Exception:
        return True
    return False


@pytest.mark.sweep(2)
@pytest.mark.parametrize("case", cases(BROKEN, 1))
def test_wrong_rule_is_caught_by_the_intended_check(case, tally, request):
    report = looked_at(case, whole(request))
    tally.setdefault(case.kind, []).append((True, not report.ok, whole(request) and check_grads_fails(case)))
    assert {*case.caught} <= {failure.name for failure in report.failures}, report


@pytest.mark.sweep(2)
@pytest.mark.parametrize("case", cases(CORRECT, 2))
def test_right_rule_raises_no_alarm(case, tally, request):
    report = looked_at(case, whole(request))
    tally.setdefault("right: " + case.kind, []).append((False, not report.ok, whole(request) and check_grads_fails(case)))
    report.raise_if_failed()


@pytest.mark.slow
@pytest.mark.parametrize("op, k", [pytest.param(op, k, id=f"{op.__name__}-{k}") for op in ops.rules() for k in range(len(op.examples))])
def test_rule_of_fnnet_raises_no_alarm(op, k, tally):
    arrays, settings = sample.inputs(op, op.examples[k])
    report = verify.check(op, *arrays, settings=settings)
    tally.setdefault("right: fnnet", []).append((False, not report.ok, False))
    report.raise_if_failed()


def test_families_have_the_promised_size():
    assert len({c.name for c in BROKEN}) >= 350 and len({c.kind for c in BROKEN}) >= 16
    assert len(CORRECT) >= 210
