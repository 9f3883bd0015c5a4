"""The pictures show computed results: their labels and lines are read back from the files."""

import json
import re
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest

from examples import choices
from examples.drawing import FOLDER, computed
from examples.pictures import PICTURES
from fnnet import diagnostics
from fnnet.diagnostics import figure
from fnnet.diagnostics.graph import to_dot

SVG = "{http://www.w3.org/2000/svg}"


def test_gate_picture_shows_the_values_and_gradients_of_the_lecture():
    root = ET.parse(FOLDER / "gate.svg").getroot()
    drawn = {group.get("id"): tuple(text.text.strip() for text in group.iter(f"{SVG}text"))
             for group in root.iter(f"{SVG}g") if group.get("class") == "edge"}
    assert sorted(drawn.values()) == sorted([("-2", "∂ -4"), ("5", "∂ -4"), ("-4", "∂ 3"), ("3", "∂ -4"), ("-12", "∂ 1")])
    now = to_dot(diagnostics.trace(lambda x, y, z: (x + y) * z, -2.0, 5.0, -4.0))
    labels = re.findall(r'id="(e\w+)", label=<<FONT[^>]*>(?:&#160;)*([^<]*)</FONT><BR/><FONT[^>]*>(?:&#160;)*([^<]*)', now)
    assert {name: (value, gradient) for name, value, gradient in labels} == drawn


def history():
    return json.loads(ET.parse(FOLDER / "digits.svg").getroot().find(f"{SVG}desc").text)


@pytest.mark.parametrize("name, color", [("loss", figure.BLUE), ("valid_loss", figure.ORANGE)])
def test_learning_curve_lines_match_its_numbers(name, color):
    """The longest line of that color is an affine image of the points (epoch, log loss)."""
    paths = [path.get("d") for path in ET.parse(FOLDER / "digits.svg").getroot().iter(f"{SVG}path")
             if f"stroke: {color.lower()}" in (path.get("style") or "")]
    points = max((np.array(re.findall(r"[ML] (\S+) (\S+)", d), float) for d in paths), key=len)
    told = np.array([(log["epoch"], np.log(log[name]), 1) for log in history()])
    assert len(points) == len(told) == 40
    fitted, *_ = np.linalg.lstsq(told, points, rcond=None)
    np.testing.assert_allclose(told @ fitted, points, atol=0.05)            # of 576 × 360 points
    assert fitted[0, 0] > 0 > fitted[1, 1]


NO_LINES = {"templates", "network", "backward_steps", "convolution", "scores", "softmax", "linear_layers"}
QUICK = {"backward_steps", "convolution", "perceptron", "scores", "softmax", "triplet", "activations", "learning_rates", "polynomial",
         "hinge_and_softmax"}


def numbers(name):
    return json.loads(ET.parse(FOLDER / f"{name}.svg").getroot().find(f"{SVG}desc").text)


@pytest.mark.parametrize("name", PICTURES)
def test_lecture_picture_lines_match_their_numbers(name):
    """Each line named in the file is an affine image of its points, or of their logarithms."""
    told, lines = numbers(name), 0
    for group in ET.parse(FOLDER / f"{name}.svg").getroot().iter(f"{SVG}g"):
        if group.get("id") in told:
            points = np.array(re.findall(r"[ML] (\S+) (\S+)", group.find(f"{SVG}path").get("d")), float)
            x, y = map(np.array, told[group.get("id")])
            assert len(points) == len(x), group.get("id")
            for drawn, values in zip(points.T, (x, y)):
                if np.ptp(values) > 0:
                    fits = [(scaled, np.polyfit(scaled, drawn, 1)) for scaled in (values, *([np.log(values)] if values.min() > 0 else []))]
                    off, slope = min((abs(np.polyval(fit, scaled) - drawn).max(), fit[0]) for scaled, fit in fits)
                    assert off < 0.2 and slope * (1 if values is x else -1) > 0         # a picture is a few hundred points wide
                else:
                    assert np.ptp(drawn) < 0.2
            lines += 1
    assert lines or name in NO_LINES


def large_weights_saturate_and_small_ones_stop_the_signal(found):
    saturated, silent, healthy = (np.reshape(values[1], (-1, 40)) for name, values in found.items() if name.endswith("z³"))
    assert saturated[:, [0, -1]].sum(1).min() > 0.5 and silent[:, 19:21].sum(1).min() > 0.99 and healthy[0, 19:21].sum() < 0.2


def deep_networks_need_another_activation_than_sigmoid(found):
    shallow, deep = ({name: found[f"{size}, {name}"][1][-1] for name in choices.ACTIVATIONS} for size in choices.NETS)
    assert max(cost for name, cost in shallow.items() if name != "identity") < 0.3
    assert deep["sigmoid"] > 1 > 0.3 > max(deep[name] for name in ("tanh", "ReLU", "leaky ReLU", "ELU"))


def each_optimizer_has_its_own_rates(found):
    best = {name: choices.RATES[int(found[f"{name}: best"][1][0])] for name in choices.OPTIMIZERS}
    assert best["Adam"] < 0.1 * best["gradient descent"] and best["momentum, β = 0.9"] < 0.5 * best["gradient descent"]
    assert max(min(found[f"{name}: J at the best α"][1]) for name in choices.OPTIMIZERS) < 0.1
    assert min(found[f"{name}: J against α"][1][-1] for name in choices.OPTIMIZERS) > 2


SHOWN = {"histograms": large_weights_saturate_and_small_ones_stop_the_signal,
         "activations_on_digits": deep_networks_need_another_activation_than_sigmoid,
         "optimizers_on_digits": each_optimizer_has_its_own_rates}


@pytest.mark.parametrize("name", SHOWN)
def test_pictures_of_training_show_what_the_pages_say(name):
    SHOWN[name](numbers(name))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PICTURES])
def test_lecture_pictures_show_computed_values(name):
    """Results of training differ a little between machines; where rounding grows into other numbers, only what they show is checked."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        now = computed(PICTURES[name][0])
    then = numbers(name)
    assert now.keys() == then.keys()
    if name in SHOWN:
        return SHOWN[name](now)
    for line in now:
        for one, other in zip(now[line], then[line]):
            assert len(one) == len(other)
            np.testing.assert_allclose(one, other, rtol=0.01, atol=0.01 * np.abs(other).max(initial=0), err_msg=line)


def test_lecture_pictures_support_the_claims_of_the_lectures():
    rates, xor, starts = numbers("learning_rates"), numbers("xor"), numbers("initialization")
    small, good, large = (abs(path[0][-1]) for path in rates.values())
    assert good < 1e-3 < 1 < small < 2 < large
    assert xor["a line"][1][-1] == pytest.approx(np.log(2), rel=1e-3) and xor["two hidden units"][1][-1] < 0.01
    assert 0.1 < xor["share of stuck seeds"][1][0] < 0.9
    for start, units in (("all weights 0", 1), ("all weights 0.5", 1), ("W ~ N(0, 1)", 4)):
        assert len({tuple(starts[f"{start}: unit {j}"][1]) for j in range(1, 5)}) == units
    plain, *others = (0.5 * (x[-1]**2 + 60 * y[-1]**2) for x, y in numbers("optimizer_paths").values())
    assert max(others) < plain / 5                                  # momentum and the others are faster
    without, with_norm = numbers("batch_norm").values()
    assert with_norm[1][-1] < 0.2 < 2 < without[1][-1]
    fits = [values[1] for line, values in numbers("polynomial").items() if line.endswith("J_validation")]
    assert [fit[0] for fit in fits] == sorted(fit[0] for fit in fits) and min(fits, key=lambda fit: fit[1]) == fits[1]


def test_pictures_of_neurons_and_scores_show_the_numbers_of_the_lectures():
    gates, scores, softmax = numbers("perceptron"), numbers("scores"), numbers("softmax")
    assert [z for name, (_, z) in gates.items() if "corners" in name] == [[0, 0, 0, 1], [0, 1, 1, 1]]                # AND, OR
    assert set(gates["threshold: slope"][1]) == {0} and max(gates["σ(a): slope"][1]) == pytest.approx(0.25, rel=1e-3)
    assert scores["s = Wx + b"][1] == [-96.8, 437.9, 60.75]
    assert softmax["s"][1] == [3.2, 5.1, -1.7] and softmax["P"][1] == pytest.approx([0.13, 0.87, 0.001], abs=0.002)
    assert softmax["L"][1][0] == pytest.approx(-np.log(softmax["P"][1][0]), rel=1e-3)
    image, y = (np.reshape(numbers("convolution")[name][1], (side, side)) for name, side in (("image", 8), ("horizontal edges: y", 6)))
    assert y[2, 3] == pytest.approx(image[2, 3:6].sum() - image[4, 3:6].sum(), abs=1e-3)
    errors = {name: min(y) for name, (x, y) in numbers("tangent").items() if "float" in name}
    assert errors["central, float64"] < errors["forward, float64"] < errors["forward, float32"] and errors["central, float32"] < 1e-5


def test_picture_of_the_backward_pass_matches_the_formulas():
    seen = {name: np.array(values) for name, (_, values) in numbers("backward_steps").items()}
    z, above = seen["z"], seen["y"] - seen["t"]
    np.testing.assert_allclose(seen["δₖ"], above, atol=1e-3)
    np.testing.assert_allclose(seen["δⱼ"], (1 - z**2) * (seen["wₖⱼ"].reshape(2, 2) @ above), atol=1e-3)
    np.testing.assert_allclose(seen["∂E/∂wₖⱼ"].reshape(2, 2), np.outer(z, above), atol=1e-3)
    np.testing.assert_allclose(seen["∂E/∂wⱼᵢ"].reshape(2, 2), np.outer(seen["x"], seen["δⱼ"]), atol=1e-3)


def test_pictures_of_layers_and_training_support_the_claims_of_the_lectures():
    one, three, curved = (values[1] for name, values in numbers("linear_layers").items() if "accuracy" in name)
    assert one[0] == pytest.approx(three[0], rel=1e-2) and curved[0] < one[0] / 3 and curved[1] > one[1] + 0.05
    costs = numbers("hidden_units")["J"][1]
    assert costs == sorted(costs, reverse=True) and costs[0] > 100 * costs[-1]
    assert numbers("triplet")["L"][1][-1] == 0
    moved = numbers("augmentation")
    plain, better = (moved[f"{name}: J_validation"][1] for name in ("without", "half of them moved"))
    assert better[-1] < 0.75 * plain[-1] and plain[-1] > min(plain)
    layers = {name: delta[0] / delta[-1] for name, (_, delta) in numbers("vanishing").items()}
    assert layers["sigmoid"] < 1e-6 < 1e-2 < min(ratio for name, ratio in layers.items() if "sigmoid" not in name and "¼" not in name)
    regions = numbers("decision_regions")
    worst, *others = (regions[f"{name}: J and accuracy on unseen points"][1]
                      for name in ("no remedy", "early stopping", "dropout, p = 0.5", "L2, λ = 0.01"))
    assert all(loss < 0.6 * worst[0] and right > worst[1] for loss, right in others)
    sizes = numbers("learning_curves")
    (bias, bias_unseen), (variance, variance_unseen) = ([sizes[f"{name}: {kind}"][1] for kind in ("J_train", "J_validation")]
                                                        for name in ("high bias: degree 1", "high variance: degree 9"))
    assert bias_unseen[-1] - bias[-1] < 0.02 and bias[-1] > 0.1 > variance_unseen[-1]
    assert variance_unseen[0] - variance[0] > 10 * (variance_unseen[-1] - variance[-1])
    best = np.argmin(sizes["λ: J_validation"][1])
    assert 0 < best < len(sizes["λ: J_validation"][1]) - 1
    constant, falling, _ = (values[1][-1] for name, values in numbers("decay").items() if name.endswith("J"))
    assert falling < constant / 10


def test_front_page_shows_the_run_that_is_drawn():
    best = min(history(), key=lambda log: log["valid_loss"])
    readme = (FOLDER.parents[1] / "README.md").read_text()
    assert f"the best was epoch {best['epoch']}, validation loss {best['valid_loss']:.4g}\n" in readme
