"""Random image augmentation: outputs are parts of the inputs, determined by the key, and only in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops, optim, train
from fnnet.train import augment

KEY = jax.random.key(3)
X = jnp.arange(1.0, 1 + 40 * 6 * 5 * 2).reshape(40, 6, 5, 2)
LABELS = jnp.arange(40, dtype=jnp.int32) % 3


def test_flip_returns_the_image_or_its_mirror_image():
    for axis in (1, 2):
        y = jax.jit(lambda k, x: augment.flip(k, x, axis=axis))(KEY, X)
        turned = [bool((a == jnp.flip(b, axis - 1)).all()) for a, b in zip(y, X)]
        assert 10 < sum(turned) < 30
        assert all(t or (a == b).all() for t, a, b in zip(turned, y, X))
    assert (augment.flip(KEY, X, chance=1.0) == X[:, :, ::-1]).all() and augment.flip(KEY, X.astype("uint8")).dtype == "uint8"


def test_crop_returns_windows_of_the_padded_image():
    for settings, room in (({"padding": 1}, (2, 2)), ({"size": (4, 5)}, (2, 0)), ({"size": (6, 6), "padding": 1}, (2, 1))):
        y, p = augment.crop(KEY, X, **settings), settings.get("padding", 0)
        h, w = settings.get("size", (6, 5))
        wide, met = np.pad(X, ((0, 0), (p, p), (p, p), (0, 0))), set()
        for a, b in zip(np.asarray(y), wide):
            places = [(i, j) for i in range(room[0] + 1) for j in range(room[1] + 1) if (b[i:i + h, j:j + w] == a).all()]
            assert len(places) == 1
            met.add(places[0])
        assert len(met) == (room[0] + 1) * (room[1] + 1)


def test_cutout_clips_its_square_at_the_border():
    y = np.asarray(augment.cutout(KEY, X, size=3, value=-1.0))
    sizes = set()
    for a, b in zip(y, np.asarray(X)):
        gone = (a == -1).all(-1)
        assert (a[~gone] == b[~gone]).all() and ((a == -1).any(-1) == gone).all()
        rows, columns = gone.any(1), gone.any(0)
        assert (gone == np.outer(rows, columns)).all()
        sizes.add((rows.sum(), columns.sum()))
    assert sizes == {(h, w) for h in (2, 3) for w in (2, 3)}


def test_mixup_mixes_examples_and_targets_in_the_same_proportion():
    own = jax.nn.one_hot(jnp.arange(40), 40)                    # a separate class for each, so that y shows which were mixed
    x, y = augment.mixup(KEY, X, own, alpha=1.0)
    np.testing.assert_allclose(x, jnp.tensordot(y, X, 1), rtol=1e-6)
    assert len(np.unique(np.diag(y).round(6))) > 30
    _, y = augment.mixup(KEY, X, LABELS, classes=3)
    assert y.shape == (40, 3)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)


def test_cutmix_replaces_a_rectangle_and_weights_by_area():
    own = jax.nn.one_hot(jnp.arange(40), 40)
    x, y = augment.cutmix(KEY, X, own)
    areas = set()
    for i, (image, target) in enumerate(zip(np.asarray(x), np.asarray(y))):
        j = int(np.argmax(np.where(np.arange(40) == i, 0, target)))
        new = (image != np.asarray(X)[i]).any(-1)
        assert (image[new] == np.asarray(X)[j][new]).all() and (new == np.outer(new.any(1), new.any(0))).all()
        np.testing.assert_allclose(target[i] if j != i else 1, 1 - new.mean(), atol=1e-6)
        areas.add(int(new.sum()))
    assert len(areas) > 8


def test_augmentation_applies_in_training_but_not_in_evaluation():
    net = layers.Serial(layers.Flatten(), layers.Dense(3))
    x = jax.nn.one_hot(LABELS, 60).reshape(X.shape)
    run = train.init(net, optim.sgd(0.1), KEY, x)
    plain = train.supervised(net, ops.softmax_cross_entropy)
    mixed = train.supervised(net, ops.softmax_cross_entropy, augment=lambda key, batch: augment.mixup(key, *batch, classes=3))
    loss = {name: objective(run.params, run.state, (x, LABELS), key=KEY, train=train_)[0]
            for name, objective, train_ in (("plain", plain, True), ("mixed", mixed, True), ("measured", mixed, False))}
    assert loss["measured"] == loss["plain"] != loss["mixed"]
    epoch = train.make_epoch(train.make_step(mixed, optim.sgd(0.1)), 8)
    fit = train.fit(run, epoch, (x, LABELS), epochs=2, evaluate=train.make_evaluate(mixed, (x, LABELS)))
    assert fit.history[1]["valid_loss"] < fit.history[0]["valid_loss"] and "valid_accuracy" in fit.history[0]


@pytest.mark.parametrize("call, said", [
    (lambda: augment.flip(KEY, X[0]), r"flip takes images \[n h w c\]; got \[6, 5, 2\]; for grayscale images write x\[..., None\]"),
    (lambda: augment.flip(KEY, X, axis=3), r"axis of flip must be 1 \(top and bottom\) or 2"),
    (lambda: augment.crop(KEY, X), "crop must have more than one position to choose from; got .*; write padding=4"),
    (lambda: augment.crop(KEY, X, size=(9, 5)), r"must fit into the images; got \(9, 5\) for images \(6, 5\)"),
    (lambda: augment.crop(KEY, X, size=4), r"must be \(height, width\) in pixels; got 4"),
    (lambda: augment.cutout(KEY, X, size=0), "must be a whole number of pixels above 0; got 0"),
    (lambda: augment.mixup(KEY, X, LABELS), "must know the number of classes; write classes=10"),
    (lambda: augment.cutmix(KEY, X, LABELS, alpha=0, classes=3), "the alpha of cutmix must be above 0; got 0"),
    (lambda: augment.mixup(KEY, LABELS, LABELS), r"x of mixup must be floating point; got int32; write x.astype\(jnp.float32\)"),
    (lambda: train.supervised(layers.Dense(3), ops.softmax_cross_entropy, augment=3), "must be a function .*; got 3"),
    (lambda: train.supervised(layers.Dense(3), ops.softmax_cross_entropy, augment=lambda k, b: b[0])({}, {}, (X, LABELS), key=KEY),
     "augment must return a batch like the one it was given"),
    (lambda: train.supervised(layers.Dense(3), ops.softmax_cross_entropy, augment=lambda k, b: b)({}, {}, (X, LABELS)),
     "augment draws random numbers and needs a key")])
def test_invalid_call_is_one_sentence(call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call()
