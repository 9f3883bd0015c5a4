"""The defaults of every operation. Results depend on them, so users must be told of changes. The defaults of layers are pinned in
tests/layers/test_declarations.py, those of optimizers in tests/optim/test_schedules.py."""

import inspect
import re

from fnnet import ops
from fnnet.ops.losses import reduction

EACH_EXAMPLE = {"weights": None, "reduction": "mean"}
EACH_FEATURE = {**EACH_EXAMPLE, "features": "mean"}
SCALED = {"gamma": None, "beta": None, "eps": 1e-5}
CONVOLVED = {"b": None, "strides": 1, "padding": "SAME", "dilation": 1, "groups": 1}
UNFOLDED = {"strides": 1, "padding": "VALID", "dilation": 1}
WINDOWS = {"strides": None, "padding": "VALID", "dilation": 1, "ceil_mode": False}
OVER_ALL, OVER_LAST = {"axis": None, "keepdims": False}, {"axis": -1, "keepdims": False}
DEFAULTS = {
    "celu": {"alpha": 1.0}, "elu": {"alpha": 1.0}, "leaky_relu": {"alpha": 0.01}, "squareplus": {"b": 4.0},
    "gelu": {"approximate": True}, "geglu": {"approximate": True}, "glu": {"axis": -1}, "maxout": {"axis": -1},
    "softmax": {"axis": -1, "where": None}, "log_softmax": {"axis": -1, "where": None}, "logsumexp": {**OVER_ALL, "where": None},
    "logmeanexp": OVER_ALL, "sparsemax": {"axis": -1}, "entmax15": {"axis": -1},
    "hard_shrink": {"threshold": 0.5}, "soft_shrink": {"threshold": 0.5}, "threshold": {"threshold": 0.0, "value": 0.0},
    "attention": {"bias": None, "mask": None, "key": None, "causal": False, "scale": None, "window": None, "softcap": None, "rate": 0.0,
                  "block": None},
    "rope": {"base": 10000.0, "interleaved": False, "features": None},
    "conv": CONVOLVED, "conv_transpose": CONVOLVED, "fold": UNFOLDED, "unfold": UNFOLDED, "pad": {"mode": "zeros"},
    "resize": {"method": "bilinear"},
    "dense_stack": {"activation": "relu"}, "dense": {"b": None, "compute_dtype": None}, "bilinear": {"b": None},
    "dense_low_rank": {"b": None, "scale": 1.0},
    "dropout": {"rate": 0.5, "channels": False}, "relu_dropout": {"rate": 0.5}, "stochastic_depth": {"rate": 0.5},
    "absolute_error": EACH_FEATURE, "log_cosh": EACH_FEATURE, "gaussian_nll": EACH_FEATURE, "poisson_nll": EACH_FEATURE,
    "squared_error": {**EACH_FEATURE, "scale": 1.0}, "huber": {**EACH_FEATURE, "delta": 1.0}, "pinball": {**EACH_FEATURE, "quantile": 0.5},
    "binary_cross_entropy": EACH_FEATURE, "binary_cross_entropy_with_logits": {**EACH_FEATURE, "pos_weight": 1.0},
    "binary_focal": {**EACH_FEATURE, "gamma": 2.0, "alpha": 0.5}, "binary_hinge": {**EACH_FEATURE, "margin": 1.0},
    "softmax_cross_entropy": {**EACH_EXAMPLE, "label_smoothing": 0.0, "z_loss": 0.0, "ignore_index": None},
    "linear_cross_entropy": {**EACH_EXAMPLE, "b": None, "label_smoothing": 0.0, "z_loss": 0.0, "softcap": None, "ignore_index": None,
                             "classes_first": False, "chunk": None, "shards": None},
    "nll": {**EACH_EXAMPLE, "ignore_index": None}, "dice": {**EACH_EXAMPLE, "smooth": 1.0},
    "multiclass_poly": {**EACH_EXAMPLE, "epsilon": 1.0},
    "margin_ranking": {**EACH_FEATURE, "margin": 0.0},
    "kl_divergence": EACH_EXAMPLE, "multiclass_focal": {**EACH_EXAMPLE, "gamma": 2.0}, "multiclass_hinge": {**EACH_EXAMPLE, "margin": 1.0},
    "cosine_distance": EACH_EXAMPLE, "nt_xent": {**EACH_EXAMPLE, "temperature": 0.5},
    "triplet": {**EACH_EXAMPLE, "margin": 1.0, "swap": False},
    "ctc": {**EACH_EXAMPLE, "lengths": None, "label_lengths": None, "blank": 0, "infeasible": "inf"},
    "batch_norm": SCALED, "batch_norm_relu": SCALED, "batch_norm_inference": {"eps": 1e-5}, "group_norm": SCALED, "instance_norm": SCALED,
    "layer_norm": SCALED, "rms_norm": {"gamma": None, "eps": 1e-6}, "weight_standardize": {"eps": 1e-5},
    "l2_norm": OVER_LAST, "l2_normalize": {"axis": -1}, "lp_normalize": {"axis": -1}, "variance": {**OVER_LAST, "ddof": 0},
    "standard_deviation": {**OVER_LAST, "ddof": 0},
    "elastic_net": {"beta": 1.0},
    "adaptive_avg_pool": {"size": 1}, "adaptive_max_pool": {"size": 1}, "avg_pool": {**WINDOWS, "count_include_pad": True},
    "lp_pool": WINDOWS, "max_pool": WINDOWS, "max_pool_with_indices": WINDOWS, "relu_max_pool": WINDOWS,
    "rnn": {"h0": None, "lengths": None, "activation": "tanh", "reverse": False},
    "gru": {"bh": None, "h0": None, "lengths": None, "reset": "after", "reverse": False, "recompute": None},
    "lstm": {"h0": None, "c0": None, "p": None, "lengths": None, "reverse": False, "recompute": None},
}


def defaults(op):
    return {p.name: p.default for p in inspect.signature(op).parameters.values() if p.default is not p.empty}


def test_defaults_are_pinned():
    found = {op.__name__: settings for op in ops.rules() if (settings := defaults(op))}
    assert found == DEFAULTS, "write the defaults of each operation into DEFAULTS of tests/ops/test_defaults.py"


def test_docstrings_explain_boolean_settings():
    """A docstring that says what classes_first=True does implies that the default is False; no default is described as an option."""
    wrong = []
    for op in ops.rules():
        own = {name: str(value) for name, value in defaults(op).items() if isinstance(value, bool)}
        wrong += [f"{op.__name__}: {name}" for name, value in re.findall(r"\b(\w+)=(True|False)\b", op.__doc__) if own.get(name) == value]
    assert not wrong


def test_documented_default_reduction():
    said = re.search(r'reduction +"(\w+)" \(default\)', reduction.__doc__)[1]
    assert {settings["reduction"] for settings in map(defaults, ops.rules()) if "reduction" in settings} == {said}
