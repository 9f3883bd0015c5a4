"""Convolution: by hand, against loops, in every form, and errors. Tests shared by all rules are in test_rules.py."""

import itertools
import re
from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fnnet import autodiff, config, ops
from fnnet.ops.conv import forms as chapter
from fnnet.ops.conv.forms import ELSEWHERE, FORMS, Products, exchanged, form, to_input, to_kernel, to_output
from fnnet.ops.windows import window_of

close = partial(chex.assert_trees_all_close, rtol=1e-11, atol=1e-12)

# name: shapes of x and w, settings
CASES = {
    "same": ((2, 5, 4, 3), (3, 2, 3, 4), {}),
    "even kernel, strides": ((2, 7, 6, 2), (4, 2, 2, 3), {"strides": (2, 3)}),
    "strides beyond the kernel": ((2, 8, 3), (2, 3, 2), {"strides": 3, "padding": "VALID"}),
    "dilated": ((2, 9, 7, 2), (3, 3, 2, 3), {"dilation": (3, 2), "padding": "VALID"}),
    "causal": ((2, 6, 3), (3, 3, 4), {"dilation": 2, "padding": ((4, 0),)}),
    "wide padding": ((1, 2, 2, 2), (3, 3, 2, 2), {"padding": 3, "strides": 2}),
    "negative padding": ((2, 6, 5, 2), (2, 2, 2, 3), {"padding": ((-1, 0), (2, -2))}),
    "many places": ((1, 9, 19, 3), (2, 3, 3, 2), {"padding": "VALID", "strides": (1, 2)}),
    "1×1": ((2, 4, 3, 3), (1, 1, 3, 5), {}),
    "1×1, strides": ((2, 5, 4, 3), (1, 1, 3, 2), {"strides": 2}),
    "three axes": ((1, 3, 4, 2, 2), (2, 3, 1, 2, 3), {"strides": (1, 2, 1)}),
    "depthwise": ((2, 5, 5, 4), (3, 3, 1, 4), {"groups": 4}),
    "depthwise, strides": ((2, 6, 5, 3), (3, 2, 1, 3), {"groups": 3, "strides": 2, "dilation": (1, 2)}),
    "depthwise, two outputs each": ((2, 4, 4, 3), (2, 3, 1, 6), {"groups": 3, "padding": "VALID"}),
    "few channels in a group": ((2, 5, 4), (3, 2, 4), {"groups": 2, "strides": 2}),
    "groups": ((2, 5, 4, 6), (3, 2, 3, 6), {"groups": 2, "strides": (1, 2)}),
    "groups, three axes": ((1, 3, 2, 3, 6), (2, 1, 2, 3, 4), {"groups": 2}),
}
EVERY_CASE = pytest.mark.parametrize("name", CASES)


def numbers(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def loops(x, w, strides=1, padding="SAME", dilation=1, groups=1):
    """The definition, one place and one tap at a time, in NumPy."""
    axes = range(x.ndim - 2)
    s, r = ([v] * len(axes) if isinstance(v, int) else v for v in (strides, dilation))
    reach = [(w.shape[i] - 1) * r[i] + 1 for i in axes]
    if padding == "SAME":
        total = [max((-(-x.shape[1 + i] // s[i]) - 1) * s[i] + reach[i] - x.shape[1 + i], 0) for i in axes]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        padding = 0 if padding == "VALID" else padding
        pads = [(padding, padding)] * len(axes) if isinstance(padding, int) else padding
    places = [(x.shape[1 + i] + sum(pads[i]) - reach[i]) // s[i] + 1 for i in axes]
    y = np.zeros((x.shape[0], *places, w.shape[-1]))
    c, k = x.shape[-1] // groups, w.shape[-1] // groups
    for o in itertools.product(*map(range, places)):
        for u in itertools.product(*map(range, w.shape[:-2])):
            at = tuple(s[i] * o[i] + r[i] * u[i] - pads[i][0] for i in axes)
            if all(0 <= at[i] < x.shape[1 + i] for i in axes):
                for g in range(groups):
                    inputs, outputs = slice(g * c, (g + 1) * c), slice(g * k, (g + 1) * k)
                    y[(slice(None), *o, outputs)] += x[(slice(None), *at, inputs)] @ w[(*u, slice(None), outputs)]
    return y


def window_at(name):
    x_shape, w_shape, settings = CASES[name]
    return window_of("conv", x_shape[1:-1], w_shape[:-2], settings.get("strides", 1), settings.get("padding", "SAME"),
                     settings.get("dilation", 1))


def pulled(f):
    """(dy, *arrays) -> y and the cotangents of the arrays."""
    return jax.jit(lambda dy, *arrays: (lambda y, back: (y, back(dy)))(*jax.vjp(f, *arrays)))


def test_by_hand():
    x, w = jnp.array([1., 2, 4, 8]).reshape(1, 4, 1), jnp.array([1., 10, 100]).reshape(3, 1, 1)
    assert ops.conv(x, w).ravel().tolist() == [210, 421, 842, 84]           # not flipped
    assert ops.conv(x, w, jnp.ones(1), padding="VALID").ravel().tolist() == [422, 843]
    dx, dw = jax.grad(lambda x, w: ops.conv(x, w, padding="VALID", strides=2).sum(), (0, 1))(x, w)
    assert dx.ravel().tolist() == [1, 10, 100, 0] and dw.ravel().tolist() == [1, 2, 4]
    y = jnp.array([1., 2]).reshape(1, 2, 1)
    assert ops.conv_transpose(y, w, strides=2, padding="VALID").ravel().tolist() == [1, 10, 102, 20, 200]
    assert ops.conv_transpose(y, w, jnp.ones(1), strides=2).ravel().tolist() == [2, 11, 103, 21]
    assert ops.conv_transpose(y, w, strides=2, padding=((0, -2),)).ravel().tolist() == [1, 10, 102, 20, 200, 0, 0]


@pytest.mark.sweep(3)
@EVERY_CASE
def test_matches_the_definition(name):
    x_shape, w_shape, settings = CASES[name]
    x, w, b = numbers(x_shape, w_shape, w_shape[-1:])
    want = loops(x, w, **settings)
    dy, dx, dw = numbers(want.shape, x_shape, w_shape, seed=1)
    y, (gx, gw, gb) = pulled(partial(ops.conv, **settings))(dy, x, w, b)
    close(y, want + b)
    # y is linear in x and in w, so that one direction of each determines the gradients
    close(np.vdot(gx, dx), np.vdot(dy, loops(dx, w, **settings)))
    close(np.vdot(gw, dw), np.vdot(dy, loops(x, dw, **settings)))
    close(gb, dy.reshape(-1, dy.shape[-1]).sum(0))


@pytest.mark.sweep(3)
@EVERY_CASE
def test_conv_transpose_is_the_transpose_of_conv(name):
    """⟨conv(x, w), y⟩ = ⟨x, conv_transpose(y, w)⟩, over as much of x as the windows see."""
    x_shape, w_shape, settings = CASES[name]
    groups, window = settings.get("groups", 1), window_at(name)
    settings = {**settings, "padding": window.padding}
    x, w, y, b = numbers(x_shape, w_shape, (2, *window.places(x_shape[1:-1]), w_shape[-1]), x_shape[-1:])
    turned = jax.jit(partial(exchanged, groups=groups))
    op, w_turned = partial(ops.conv_transpose, **settings), turned(w)
    x = np.resize(x, jax.eval_shape(op, y, w_turned).shape)
    got, (dy, dw, db) = pulled(op)(x, y, w_turned, b)
    close(np.vdot(np.asarray(got) - b, x), np.vdot(y, loops(x, w, **settings)))
    close(dy, loops(x, w, **settings))
    other, = numbers(w_shape, seed=1)
    close(np.vdot(dw, turned(other)), np.vdot(y, loops(x, other, **settings)))
    close(db, x.reshape(-1, x.shape[-1]).sum(0))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("size, stride", list(itertools.product((1, 2, 3, 5), (1, 2, 3))))
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_conv_transpose_matches_the_sizes_of_other_libraries(size, stride, padding):
    """The sizes of JAX and Flax, whose kernel is flipped; for numbers PyTorch's formula, (places − 1)·s − 2p + k."""
    x, w = numbers((1, 4, 2), (size, 2, 3))
    close(ops.conv_transpose(x, w, strides=stride, padding=padding),
          lax.conv_transpose(x, np.flip(w, 0), (stride,), padding, dimension_numbers=("NHC", "HIO", "NHC")))
    p = size // 2
    assert ops.conv_transpose(x, w, strides=stride, padding=p).shape == (1, 3 * stride - 2 * p + size, 3)


RUN = {form.name: form.run for form in FORMS}
CHOSEN = {"same": "convolution", "three axes": "tap by tap", "depthwise, strides": "channel by channel", "groups": "group by group"}


def products(name):
    """The three products of a case, as functions of two arrays, with arrays for each."""
    x_shape, w_shape, settings = CASES[name]
    groups = settings.get("groups", 1)
    window = window_at(name)
    x, w, y = map(jnp.asarray, numbers(x_shape, w_shape, (x_shape[0], *window.places(x_shape[1:-1]), w_shape[-1])))
    geometry = {"window": window, "groups": groups}
    return {"to_output": (partial(to_output, **geometry), x, w), "to_kernel": (partial(to_kernel, **geometry), x, y),
            "to_input": (partial(to_input, spatial=x_shape[1:-1], **geometry), y, w)}, form(w_shape, groups).name


def test_every_form_is_chosen_in_some_case():
    assert {name: products(name)[1] for name in CHOSEN} == CHOSEN and {*CHOSEN.values(), "row by row", "patches"} == set(RUN)
    assert form((3, 3, 32, 64), 1, (64, 24, 24)).name == "row by row"
    assert form((3, 3, 1, 32), 1, (64, 26, 26)).name == form((3, 3, 3, 64), 1, (16, 112, 112)).name == "patches"
    for shape, places in (((3, 3, 32, 64), (32, 24, 24)), ((3, 3, 16, 64), (64, 24, 24)), ((3, 3, 32, 32), (128, 24, 24)),
                          ((5, 5, 32, 64), (64, 24, 24)), ((3, 3, 64, 64), (4, 112, 112)), ((3, 32, 64), (64, 576)),
                          ((3, 3, 3, 16), (64, 32, 32)), ((3, 3, 4, 32), (64, 32, 32)), ((5, 5, 1, 32), (64, 28, 28))):
        assert form(shape, 1, places).name == "convolution"


def instead(monkeypatch, name, run):
    """Replaces one formulation by another."""
    monkeypatch.setattr(chapter, "FORMS", tuple(replace(form, run=run) if form.name == name else form for form in FORMS))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name, product", [(name, product) for name, form in CHOSEN.items() for product in Products._fields
                                           if getattr(RUN[form], product) is not getattr(ELSEWHERE, product)])
def test_every_form_of_every_product_under_every_transformation(name, product, monkeypatch):
    """Against the plain convolution: value, gradient of both arrays, over batches of either array, and in a loop."""
    f, a, b = products(name)[0][product]

    def everything(a, b):
        many = [jnp.stack([v, jnp.cos(v)]) for v in (a, b)]
        grads = jax.grad(lambda a, b: jnp.sin(f(a, b)).sum(), (0, 1))
        return (f(a, b), grads(a, b), jax.vmap(f)(*many), jax.vmap(f, (0, None))(many[0], b), jax.vmap(f, (None, 0))(a, many[1]),
                jax.vmap(grads, (0, None))(many[0], b), lax.scan(lambda s, v: (s, f(v, b)), 0.0, many[0])[1])
    got = jax.jit(everything)(a, b)
    instead(monkeypatch, CHOSEN[name], ELSEWHERE)
    close(got, jax.jit(lambda a, b: everything(a, b))(a, b))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", ["same", "even kernel, strides", "dilated", "wide padding", "negative padding", "many places"])
@pytest.mark.parametrize("form, sizes", [("row by row", (1, 10**6)), ("patches", (1,))])
def test_forms_of_dw_over_many_places(name, form, sizes, monkeypatch):
    """Row by row: an image at a time, and all at once."""
    f, x, y = products(name)[0]["to_kernel"]
    grads = jax.grad(lambda x, y: jnp.sin(f(x, y)).sum(), (0, 1))
    want = jax.jit(lambda x, y: (f(x, y), grads(x, y)))(x, y)
    instead(monkeypatch, "convolution", RUN[form])
    for at_once in sizes:
        monkeypatch.setattr(chapter, "AT_ONCE", at_once)

        def everything(x, y):
            many = jnp.stack([x, jnp.cos(x)])
            return (f(x, y), grads(x, y)), jax.vmap(f, (0, None))(many, y), jnp.stack([f(x, y), f(many[1], y)])
        program = jax.jit(everything).lower(x, y)
        assert "dot_general" in program.as_text()
        got, mapped, one_by_one = program.compile()(x, y)
        close(got, want)
        close(mapped, one_by_one)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("settings, ways, ways_back", [
    ({}, 2, 2), ({"padding": "VALID"}, 3, 1), ({"dilation": (1, 2)}, 2, 2), ({"padding": ((0, 2), (3, 1))}, 2, 2),
    ({"padding": ((2, 2), (1, 1))}, 1, 3), ({"strides": 2}, 1, 1)], ids=str)
def test_extra_padding_does_not_change_the_result(settings, ways, ways_back, monkeypatch):
    """Whichever of the two libraries the padding selects, the places wanted are the same, forward and backward."""
    settings = {"strides": 1, "padding": "SAME", "dilation": 1} | settings
    x, w, wide = map(jnp.asarray, numbers((1, 17, 18, 3), (3, 2, 3, 32), (3, 2, 32, 8)))
    window = window_of("conv", x.shape[1:-1], w.shape[:-2], **settings)
    y = jnp.asarray(*numbers((1, *window.places(x.shape[1:-1]), 8)))

    def forth(x, w):
        return to_output(x, w, window, 1)

    def back(y, w):
        return to_input(y, w, x.shape[1:-1], window, 1)
    for f, args, expected in (forth, (x, w), ways), (back, (y, wide), ways_back):
        answers, texts = [], set()
        for two_libraries, cores in (False, 1), (True, 1), (True, 2):
            monkeypatch.setattr(chapter, "TWO_LIBRARIES", two_libraries)
            op = jax.jit(lambda *args: f(*args))
            with config.use(cores=cores):
                texts.add(op.lower(*args).as_text())
                answers.append(op(*args))
        close(answers[1:], answers[:1] * 2)
        assert len(texts) == expected
    close(answers[0], jax.vjp(lambda x: forth(x, wide), jnp.zeros((*x.shape[:-1], 32)))[1](y)[0])
    close(forth(x, w), loops(x, w, **settings))


def test_large_images_are_processed_one_by_one(monkeypatch):
    f, x, y = products("depthwise, strides")[0]["to_kernel"]
    want = f(x, y)
    monkeypatch.setattr(chapter, "FITS", 1)
    assert "while" in jax.jit(lambda x, y: f(x, y)).lower(x, y).as_text()
    close(f(x, y), want)


def test_cpu_convolutions_have_the_usual_axis_order():
    """The CPU compiler is fast only for this order; inside a loop others are 50 times slower."""
    x, w = map(jnp.asarray, numbers((2, 6, 5, 3), (3, 3, 3, 4)))

    def text(f):
        return jax.jit(jax.grad(lambda x, w: jnp.sin(f(x, w)).sum(), (0, 1))).lower(x, w).as_text()

    def numbered(text):
        return re.findall(r"dim_numbers = (\S+->\S+|\[.*?\]x\[.*?\]->\[.*?\])", text)
    assert set(numbered(text(ops.conv))) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    assert len(set(numbered(text(autodiff(ops.conv))))) == 3


def test_sums_accumulate_in_float32():
    """4096 products of 1 and 2⁻⁸: added one by one in bfloat16, the sum would stay at 1."""
    half = partial(jnp.full, dtype=jnp.bfloat16)
    x, w = half((1, 16, 16, 16), 1.0), half((16, 16, 16, 1), 2.0**-8)
    assert ops.conv(x, w, padding="VALID").ravel().tolist() == [16]
    dw = jax.grad(lambda w: ops.conv(half((1, 66, 66, 1), 2.0**-8), w, padding="VALID").astype(jnp.float32).sum())(half((3, 3, 1, 1), 1.0))
    assert dw.dtype == jnp.bfloat16 and set(dw.ravel().tolist()) == {16}


REFUSED = {
    "one image": (((5, 5, 2), (3, 3, 2, 4)), {}, r"write x\[None\] for a single image"),
    "channels": (((1, 5, 5, 2), (3, 3, 3, 4)), {}, r"w must be \[3, 3, 2, 4\]"),
    "groups": (((1, 5, 5, 3), (3, 3, 1, 4)), {"groups": 3}, "groups of conv must divide"),
    "window": (((1, 2, 2, 3), (3, 3, 3, 4)), {"padding": "VALID"}, "does not fit into an image"),
    "strides": (((1, 5, 5, 2), (3, 3, 2, 4)), {"strides": (1, 2, 3)}, "the strides of conv must be .* each of the 2 spatial axes"),
    "zero": (((1, 5, 5, 2), (3, 3, 2, 4)), {"dilation": 0}, "the dilation of conv must be a whole number ≥ 1.* got 0"),
    "padding": (((1, 5, 5, 2), (3, 3, 2, 4)), {"padding": "FULL"}, "'SAME', 'VALID'"),
    "bias": (((1, 5, 5, 2), (3, 3, 2, 4), (2,)), {}, r"a bias b \[4\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_raise(name):
    shapes, settings, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        ops.conv(*map(jnp.zeros, shapes), **settings)


def test_conv_transpose_that_cuts_off_everything_raises():
    with pytest.raises(ValueError, match="cuts off all of"):
        ops.conv_transpose(jnp.zeros((1, 2, 3)), jnp.zeros((2, 3, 4)), padding=2)
