"""Pictures and words for choices made by validation, and for what a classifier has learned."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from fnnet import diagnostics
from fnnet.diagnostics.flow import draw_flow
from fnnet.diagnostics.layer_stats import FIGURES
from fnnet.diagnostics.layer_stats import VALUES as EDGES
from fnnet.train import RangeTest, SizeCurve, Sweep

VALUES = [0.0, 0.01, 0.1, 1.0]
SWEEP = Sweep([{"decay": d, "seed": s} for d in VALUES for s in (0, 1)],
              {"loss": np.array([[9, d + 0.1 + s / 10] for d in VALUES for s in (0, 1)]),
               "valid_loss": np.array([[9, (d - 0.1) ** 2 + 0.5 + s / 10] for d in VALUES for s in (0, 1)])},
              {"loss": np.zeros((8, 2)), "valid_loss": np.full((8, 2), 0.05)}, [None] * 8, "valid_loss", "min")
SIZES = SizeCurve(np.array([10, 100, 1000]), np.array([0.1, 0.2, 0.3]), np.array([0.9, 0.5, 0.35]), "loss")
RATES = np.geomspace(1e-5, 1, 50)
RANGE = RangeTest(RATES, np.where(RATES < 0.1, 2 - RATES, np.nan), np.where(RATES < 0.1, 2 - RATES, np.nan), 0.01)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be written."""
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path: seen.append(self))
    return seen


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_validation_curve_takes_the_best_over_other_settings_and_marks_the_choice(tmp_path, drawn):
    diagnostics.validation_curve(SWEEP, "decay", tmp_path / "a.png")
    axes = drawn[0].axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    curves = [container.lines[0] for container in axes.containers]
    np.testing.assert_allclose(np.asarray(curves[1].get_xdata(), float), VALUES)
    np.testing.assert_allclose(np.asarray(curves[1].get_ydata(), float), [(d - 0.1) ** 2 + 0.5 for d in VALUES])     # seed 0 is better
    assert lines["best in validation: 0.1"].get_xdata()[0] == 0.1 and axes.get_xlabel() == "decay"
    assert {"training", "validation"} <= set(texts(axes))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("draw", [lambda path: diagnostics.validation_curve(SWEEP, "decay", path),
                                  lambda path: diagnostics.size_curve(SIZES, path, target=0.2),
                                  lambda path: diagnostics.range_curve(RANGE, path),
                                  lambda path: diagnostics.confusion([0, 1, 1], [0, 1, 0]).plot(path),
                                  lambda path: diagnostics.first_layer(np.eye(12), (2, 2, 3), path),
                                  lambda path: diagnostics.first_layer(np.eye(16), (4, 4), path, units=5),
                                  lambda path: diagnostics.decision_boundary(np.abs, np.eye(2), np.array([0, 1]), path, resolution=20)])
def test_pictures_are_written_to_the_given_path(tmp_path, draw):
    assert draw(tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")


LAYERS = diagnostics.Inside(("0 Dense(3)", "1 relu"), ("", "relu"), np.ones(3), np.ones((3, len(FIGURES), 2)),
                            np.ones((3, 2, 2, len(EDGES) - 1)))
FLOW = {"said": "", "kinds": [], "names": ["0 Dense(3)", "1 Dense(2)"], "delta": [0.1, 0.2], "rms": [1, 1], "dead": [0.5, None],
        "saturated": [None, None]}


@pytest.mark.parametrize("draw, axes", [
    (lambda **to: diagnostics.learning_curve([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}], **to), 1),
    (lambda **to: diagnostics.validation_curve(SWEEP, "decay", **to), 1),
    (lambda **to: diagnostics.size_curve(SIZES, **to), 1),
    (lambda **to: diagnostics.range_curve(RANGE, **to), 1),
    (lambda **to: diagnostics.confusion([0, 1, 1], [0, 1, 0]).plot(**to), 2),             # one is the color bar's
    (lambda **to: diagnostics.first_layer(np.eye(4), (2, 2), **to), 6),
    (lambda **to: diagnostics.decision_boundary(np.abs, np.eye(2), np.array([0, 1]), resolution=20, **to), 1),
    (lambda **to: diagnostics.heat_map(LAYERS, **to), 2),
    (lambda **to: diagnostics.histograms(LAYERS, **to), 4),
    (lambda **to: draw_flow(FLOW, **to), 2)])
def test_pictures_can_be_drawn_on_given_axes(tmp_path, monkeypatch, draw, axes):
    monkeypatch.chdir(tmp_path)
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([1, 2])
    drawn = draw(ax=right)
    assert drawn is right or drawn in figure.subfigs
    assert len(figure.axes) == 1 + axes and len(left.lines) == 1 and not list(tmp_path.iterdir())
    figure.canvas.draw()


@pytest.mark.parametrize("draw", [lambda: diagnostics.first_layer(np.eye(4), (2, 2), ax=3), lambda: diagnostics.range_curve(RANGE, ax=3)])
def test_axes_of_another_kind_raise(draw):
    with pytest.raises(TypeError, match=re.escape("ax must be matplotlib axes; got int: write figure, ax = plt.subplots()")):
        draw()


def test_several_panels_need_axes_from_a_grid():
    with pytest.raises(ValueError, match=re.escape("write figure, ax = plt.subplots()")):
        diagnostics.first_layer(np.eye(4), (2, 2), ax=Figure().add_axes((0, 0, 1, 1)))


@pytest.mark.parametrize("errors, words", [
    ({"training": 0.3, "validation": 0.32, "test": 0.33, "target": 0.05}, "high bias"),
    ({"training": 0.05, "validation": 0.32, "test": 0.33, "target": 0.05}, "high variance"),
    ({"training": 0.05, "validation": 0.07, "test": 0.33}, "fitted to the validation data"),
    ({"training": 0.05, "validation": 0.3, "training_like_test": 0.07}, "the data differ"),
    ({"training": 0.05, "validation": 0.3, "training_like_test": 0.28}, "high variance"),
    ({"training": 0.05, "validation": 0.051, "target": 0.05}, "neither bias nor variance"),
    ({"training": 1.07, "validation": 0.53}, "training error exceeds validation error, so the two are not measured in the same way"),
    ({"training": 0.0, "validation": 0.0186, "test": 0.0185, "baseline": 0.9}, "neither bias nor variance"),      # 98 % of digits
    ({"training": 0.0, "validation": 0.3, "test": 0.3, "baseline": 0.9}, "high variance"),
    ({"training": 0.5, "validation": 0.52, "baseline": 0.9}, "high bias"),
])
def test_bias_or_variance_in_words(errors, words):
    said = diagnostics.bias_or_variance(**errors)
    assert words in said and ("Try: " in said or words.startswith("neither"))


def test_unseen_examples_are_drawn_and_scored_on_shared_axes(drawn, tmp_path):
    x, unseen = np.array([[0.0, 0.0], [1.0, 1.0]]), (np.array([[0.2, 3.0], [0.4, 0.0], [0.9, 9.0]]), np.array([0, 1, 1]))
    diagnostics.decision_boundary(lambda p: (p[:, 0] - 0.5)[:, None], x, np.array([0, 1]), tmp_path / "b.png", test=unseen,
                                  limits=((-1, 2), (-3, 4)), title="Two moons")
    axes = drawn[0].axes[0]
    assert axes.get_title() == "Two moons\naccuracy 66.7% on unseen examples (small), 100.0% on the examples"
    assert axes.get_xlim() == (-1, 2) and axes.get_ylim() == (-3, 4) and axes.get_aspect() == 1
    assert sorted(len(points.get_offsets()) for points in axes.collections[-4:]) == [1, 1, 1, 2]


def test_confusion_matrix_counts():
    found = diagnostics.confusion(np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 1]), ("cat", "dog", "emu"))
    np.testing.assert_array_equal(found.counts, [[1, 1, 0], [1, 2, 0], [0, 1, 0]])
    assert found.accuracy == 0.5
    np.testing.assert_allclose(found.recall, [1 / 2, 2 / 3, 0])
    np.testing.assert_allclose(found.precision, [1 / 2, 1 / 2, np.nan])
    assert found.worst(2) == [("cat", "dog", 1), ("dog", "cat", 1)]
    assert [line.split()[0] for line in str(found).splitlines()] == ["true", "cat", "dog", "emu", "accuracy"]
    scores = np.eye(3)[[0, 1, 1, 1, 0, 1]]
    np.testing.assert_array_equal(diagnostics.confusion([0, 0, 1, 1, 1, 2], scores).counts, found.counts)


def test_boundary_of_a_linear_classifier_is_in_the_right_place(tmp_path, drawn):
    x = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    diagnostics.decision_boundary(lambda p: (p[:, 0] - 0.5)[:, None], x, np.array([0, 1, 0, 1]), tmp_path / "b.png",
                                  classes=("left", "right"))
    axes = drawn[0].axes[0]
    assert texts(axes) == ["left", "right"] and "accuracy 100.0% on the examples" in axes.get_title()


@pytest.mark.parametrize("call, sentence", [
    (lambda: diagnostics.validation_curve(SWEEP, "rate"), "setting must be one of decay, seed; got 'rate'"),
    (lambda: diagnostics.validation_curve(SWEEP, "decay", metric="accuracy"), "metric must be one of .*; got 'accuracy'"),
    (lambda: diagnostics.bias_or_variance(0.1, float("nan")), "must be finite; got validation=nan"),
    (lambda: diagnostics.confusion([0, 1], [0, 1, 1]), r"got \[2\] and \[3\]"),
    (lambda: diagnostics.confusion([0, 3], [0, 1], ("a", "b")), "labels must be 0 to 1; got label 3"),
    (lambda: diagnostics.first_layer(np.eye(10), (3, 3)), r"d = 9 for images \(3, 3\)"),
    (lambda: diagnostics.decision_boundary(lambda x: x, np.eye(3), np.arange(3)), r"takes x \[n 2\] and labels y \[n\]"),
])
def test_invalid_call_is_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
