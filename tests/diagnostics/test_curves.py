"""The learning curve."""

import pytest

from fnnet import diagnostics

HISTORY = [{"epoch": i, "loss": 1 / i, "valid_loss": 0.3 + 1 / i + 0.01 * i, "accuracy": 1 - 1 / (i + 1)} for i in range(1, 21)]


def test_curve_is_a_png_at_the_path(tmp_path):
    path = diagnostics.learning_curve(HISTORY, tmp_path / "deep" / "curve.png")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG") and int.from_bytes(data[16:20], "big") == 1200
    assert diagnostics.learning_curve(HISTORY, tmp_path / "plain").is_file()        # it returns where it wrote, even without a suffix


def test_best_epoch_is_marked(tmp_path, monkeypatch):
    from matplotlib.figure import Figure
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path: seen.append(self))
    diagnostics.learning_curve(HISTORY, tmp_path / "a.png")
    diagnostics.learning_curve(HISTORY, tmp_path / "b.png", metric="accuracy", monitor="accuracy")
    diagnostics.learning_curve([HISTORY[0] | {"valid_loss": float("nan")}, *HISTORY[1:]], tmp_path / "c.png")
    labels = [[text.get_text() for text in figure.axes[0].get_legend().get_texts()] for figure in seen]
    assert labels[0] == ["training", "validation", "best epoch 10: validation loss 0.5"]
    assert labels[2] == labels[0]
    assert labels[1] == ["training", "best epoch 20: accuracy 0.952"]
    assert seen[0].axes[0].get_xlabel() == "epoch" and seen[0].axes[0].get_ylabel() == "loss"


@pytest.mark.parametrize("history, metric, sentence", [([], "loss", "at least one epoch"),
                                                       (HISTORY, "error", "metric must be one of epoch, loss.*; got 'error'")])
def test_wrong_history_is_one_sentence(tmp_path, history, metric, sentence):
    with pytest.raises(ValueError, match=sentence):
        diagnostics.learning_curve(history, tmp_path / "c.png", metric=metric)
