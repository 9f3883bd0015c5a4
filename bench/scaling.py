"""How time and memory of a value and its gradient grow with width, depth, batch, length and vocabulary, beside the count of operations.

An exponent is the slope of a line through the logarithms, without the smallest size, where fixed costs still count.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnnet as fn
from bench import forms
from fnnet import ops


class Case(NamedTuple):
    name: str               # what grows
    what: str
    sizes: tuple
    arrays: object          # size -> arguments
    hand: object
    plain: object
    operations: object      # size -> floating-point operations of the products


def by_rules(x, *weights):
    for w in weights:
        x = ops.relu(ops.dense(x, w, jnp.zeros(w.shape[1], x.dtype)))
    return x


def plain(x, *weights):
    for w in weights:
        x = jax.nn.relu(x @ w)
    return x


def net(batch, width, depth):
    return (*forms.normal((batch, width)), *forms.normal(*[(width, width)] * depth, scale=width**-0.5))


def deep(depth, batch=256, width=256):
    return *forms.normal((batch, width)), *forms.normal((depth, width, width), scale=width**-0.5), jnp.zeros((depth, width), jnp.float32)


def sequence(length, features=64, heads=8):
    return forms.normal(*[(1, length, heads, features)] * 3)


def classes(words, rows=512, features=256):
    return *forms.normal((rows, features), (features, words), scale=0.06), forms.labels(rows, words)


CASES = (
    Case("width", "4 dense layers, batch 256", (256, 512, 1024, 2048), lambda n: net(256, n, 4), by_rules, plain,
         lambda n: 24 * 256 * n * n),
    Case("depth", "dense layers of 256, batch 256", (8, 16, 32, 64), deep, ops.dense_stack, forms.stack(jax.nn.relu),
         lambda n: 6 * 256 * n * 256**2),
    Case("batch", "4 dense layers of 512", (128, 256, 512, 1024), lambda n: net(n, 512, 4), by_rules, plain, lambda n: 24 * n * 512**2),
    Case("length", "causal attention, 8 heads of 64", (512, 1024, 2048, 4096), sequence, functools.partial(ops.attention, causal=True),
         forms.causal, lambda n: 6 * 512 * n * n),
    Case("steps", "LSTM, 16 of 128", (64, 128, 256, 512), lambda n: forms.sequence(4, n=16, t=n), forms.gated(ops.lstm, 4), forms.lstm,
         lambda n: 6 * 16 * n * 256 * 512),
    Case("vocabulary", "linear_cross_entropy of 512 rows of 256", (8192, 16384, 32768, 65536), classes, ops.linear_cross_entropy,
         lambda x, w, k: forms.cross_entropy(x @ w, k), lambda n: 6 * 512 * 256 * n),
)
FIGURES, FORMS = ("seconds", "temp", "saved"), ("hand", "plain")


def run(case, *, seconds=0.5, sizes=None):
    """{"case", "what", "sizes", "operations", "hand": {figure: [one for each size]}, "plain": …, "exponents": {…}}."""
    sizes = sizes or case.sizes
    found = [fn.compare({"hand": case.hand, "plain": case.plain}, *case.arrays(n), seconds=seconds, exact=False).figures for n in sizes]
    row = {"case": case.name, "what": case.what, "sizes": list(sizes), "operations": [case.operations(n) for n in sizes],
           **{form: {figure: [of[form][figure] for of in found] for figure in FIGURES} for form in FORMS}}
    grows = {form: {figure: exponent(sizes, row[form][figure]) for figure in FIGURES} for form in FORMS}
    return {**row, "exponents": {"operations": exponent(sizes, row["operations"]), **grows}}


def exponent(sizes, figures):
    """The slope of log figure over log size by least squares, without the smallest size; 0 if a figure is 0."""
    if min(figures[1:]) == 0:
        return 0.0
    return float(np.polyfit(np.log(sizes[1:]), np.log(figures[1:]), 1)[0])
