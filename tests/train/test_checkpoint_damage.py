"""Damaged checkpoints are detected and skipped; nothing is restored incorrectly."""

import functools
import random
import shutil
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops, optim, train
from fnnet.train.checkpoint.folder import Folder

# If one array cannot be read, Orbax closes the event loop to which the reads of the others still report from their threads.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


@functools.cache
def training():
    # Wide, since TensorStore has its own checksums for small arrays.
    net, optimizer = layers.Serial(layers.Dense(256), layers.Dense(2)), optim.momentum(1e-2)
    objective = train.supervised(net, ops.softmax_cross_entropy)
    return train.init(net, optimizer, jax.random.key(0), X), train.make_epoch(train.make_step(objective, optimizer), 8)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints of two epochs, 1 and 2."""
    path = tmp_path_factory.mktemp("two")
    run, epoch = training()
    train.fit(run, epoch, (X, Y), epochs=2, checkpoint=path, checkpoint_every=1)
    assert {"1", "2"} <= {p.name for p in path.iterdir()}
    return path


def copied(folder, to):
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return to


def arrays_of(folder, number):
    return sorted(p for p in (folder / str(number) / "leaves").rglob("*") if p.is_file() and p.parent.name == "d")


def renamed(folder):
    """Removes an array from Orbax's own list."""
    path = folder / "leaves" / "_METADATA"
    path.write_text(path.read_text().replace("000001", "000901"))


def cut(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


DAMAGES = {
    "arrays emptied": lambda f: [p.write_bytes(b"") for p in arrays_of(f, 2)],
    "arrays cut": lambda f: [cut(p) for p in arrays_of(f, 2)],
    "arrays deleted": lambda f: shutil.rmtree(f / "2" / "leaves"),
    "array renamed": lambda f: renamed(f / "2"),
    "log emptied": lambda f: (f / "2" / "log" / "metadata").write_bytes(b""),
    "log cut": lambda f: cut(f / "2" / "log" / "metadata"),
    "log without history": lambda f: (f / "2" / "log" / "metadata").write_text('{"names": []}'),
    "log is a list": lambda f: (f / "2" / "log" / "metadata").write_text("[1]"),
    "folder emptied": lambda f: [shutil.rmtree(f / "2"), (f / "2").mkdir()],
    "foreign folder": lambda f: [shutil.rmtree(f / "2"), (f / "2").mkdir(), (f / "2" / "notes.txt").write_text("mine")],
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("damage", DAMAGES)
def test_training_resumes_from_the_checkpoint_before_a_damaged_one(two, tmp_path, damage):
    folder, (run, epoch) = copied(two, tmp_path / "c"), training()
    DAMAGES[damage](folder)
    with pytest.warns(UserWarning, match=r"c.2 is damaged: .*; resuming from .*c.1, the newest intact"):
        resumed = train.fit(run, epoch, (X, Y), epochs=4, checkpoint=folder, checkpoint_every=1)
    whole = train.fit(run, epoch, (X, Y), epochs=4)
    assert resumed.history == whole.history
    assert {p.name for p in folder.iterdir()} - {"lock"} == {"4", "5"} | ({"2"} if damage == "foreign folder" else set())


def test_no_intact_checkpoint_raises(two, tmp_path):
    folder, (run, epoch) = copied(two, tmp_path / "c"), training()
    for number in (1, 2):
        cut(folder / str(number) / "log" / "metadata")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read: .*2 is damaged: .*1 is damaged: .* Restore a copy, or delete"):
        train.fit(run, epoch, (X, Y), epochs=4, checkpoint=folder)


def test_unfinished_folders_are_removed_and_others_left_alone(two, tmp_path):
    folder, (run, epoch) = copied(two, tmp_path / "c"), training()
    (folder / "3.orbax-checkpoint-tmp-17" / "leaves").mkdir(parents=True)
    (folder / "notes").mkdir()
    (folder / "notes" / "7.txt").write_text("mine")
    train.fit(run, epoch, (X, Y), epochs=3, checkpoint=folder)
    assert {p.name for p in folder.iterdir()} == {"2", "3", "notes", "lock"}


def flips(two, tmp_path, count, files):
    """The number of flipped bits that were detected; fails for an undetected flip that changes what is restored."""
    (run, _), dice, noticed = training(), random.Random(1), 0
    with Folder(copied(two, tmp_path / "c")) as folder:
        true = {number: numbers_of(folder._read(folder.path / str(number), run, None)) for number in (1, 2)}
        for i in range(count):
            path = dice.choice(files(folder.path))
            good = path.read_bytes()
            bad, bit = bytearray(good), dice.randrange(8 * len(good))
            bad[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(bad))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = folder.latest(run, lambda: None)
            path.write_bytes(good)
            assert found is not None
            number = int(found.path.name)
            assert numbers_of(found) == true[number], f"bit {bit} of {path} changes what is restored, silently"
            assert (number == 1) == bool(caught)
            noticed += number == 1
    return noticed


def numbers_of(saved):
    leaves = jax.tree.leaves((saved.last._replace(key=jax.random.key_data(saved.last.key)), saved.best))
    return [np.asarray(leaf).tobytes() for leaf in leaves] + [saved.log["history"]]


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_flipped_bits_in_arrays_are_detected(two, tmp_path, count):
    assert flips(two, tmp_path, count, lambda folder: arrays_of(folder, 2)) > count / 10


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_flipped_bits_in_any_file_are_detected_or_harmless(two, tmp_path, count):
    assert flips(two, tmp_path, count, lambda folder: sorted(p for p in (folder / "2").rglob("*") if p.is_file()
                                                             and p.stat().st_size)) > 0


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_flipped_bits_in_the_log_are_detected(two, tmp_path, count):
    assert flips(two, tmp_path, count, lambda folder: [folder / "2" / "log" / "metadata"]) > count * 0.9


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float8_e4m3fn", "int4", "uint8", "bool", "complex64"])
def test_arrays_of_each_dtype_are_restored(tmp_path, dtype):
    run, _ = training()
    run = run._replace(state=[jnp.arange(6).reshape(2, 3).astype(dtype), jnp.zeros((0, 3), dtype), jnp.ones((), dtype)])
    with Folder(tmp_path) as folder:
        folder.save(run, None, None, {"history": []})
        assert folder.wait()
        back = folder.latest(run, lambda: None).last
    assert jax.tree.map(jax.typeof, back) == jax.tree.map(jax.typeof, run)
    assert [np.asarray(a).tobytes() for a in back.state] == [np.asarray(a).tobytes() for a in run.state]


def test_sharded_arrays_are_restored_to_their_devices(tmp_path):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    run, _ = training()
    run = run._replace(state=jax.device_put(jnp.arange(16.0), jax.NamedSharding(mesh, jax.P("d"))))
    with Folder(tmp_path) as folder:
        folder.save(run, None, None, {"history": []})
        assert folder.wait()
        back = folder.latest(run, lambda: None).last
    assert back.state.sharding == run.state.sharding
    np.testing.assert_array_equal(back.state, run.state)


def test_failed_save_warns_and_training_continues(tmp_path, monkeypatch):
    from fnnet.train.checkpoint import storage
    run, epoch = training()

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(storage, "write", full)
    with pytest.warns(UserWarning, match="could not be saved in .*; training continues: OSError: .*No space left"):
        assert len(train.fit(run, epoch, (X, Y), epochs=2, checkpoint=tmp_path).history) == 2


def test_checkpoint_of_version_0_1_is_read(tmp_path):
    """Written by version 0.1.0: three epochs, the second of which was the best."""
    folder = copied(Path(__file__).parent / "checkpoint_of_0_1", tmp_path / "c")
    run = train.TrainState({"b": jnp.zeros((), "float32"), "w": jnp.zeros(3, "float32")}, {"seen": jnp.zeros((), "int32")},
                           {"b": jnp.zeros((), "float32"), "w": jnp.zeros(3, "float32")}, jnp.zeros((), "int32"), jax.random.key(0))
    result = train.fit(run, lambda run, data: (run, {}), (X,), epochs=3, evaluate=lambda run: {}, checkpoint=folder)
    assert [log["valid_loss"] for log in result.history] == [3.0305349826812744, 0.690947413444519, 1.2824703454971313]
    assert int(result.run.step) == 4
    np.testing.assert_array_equal(result.run.params["w"], np.float32([1.7262324, -2.5077426, 1.2955128]))
    np.testing.assert_array_equal(jax.random.key_data(result.run.key), np.uint32([928981903, 3453687069]))


def test_training_of_version_0_1_with_adam_resumes(tmp_path):
    """Its state had neither hyperparams nor a loss scale; made with train.init, clip_by_global_norm and adam, as in the lines below."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        folder = copied(Path(__file__).parent / "checkpoint_of_0_1_adam", tmp_path / "c")
        x, y = jnp.asarray(np.arange(16).reshape(8, 2) / 16, jnp.float32), jnp.arange(8) % 2
        net, optimizer = layers.Serial(layers.Dense(2)), optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1))
        epoch = train.make_epoch(train.make_step(train.supervised(net, ops.softmax_cross_entropy), optimizer), batch_size=4)
        resumed = train.fit(train.init(net, optimizer, jax.random.key(0), x), epoch, (x, y), epochs=3, checkpoint=folder).run
        np.testing.assert_array_equal(resumed.params[0]["b"], np.float32([0.3766428, -0.3766428]))
        first, second = resumed.opt_state.inner[1]
        np.testing.assert_array_equal(first[0]["b"], np.float32([-0.05979188, 0.05979188]))
        assert int(resumed.step) == int(resumed.opt_state.step) == 6 and optim.hyperparams(resumed.opt_state)["rate"] == np.float32(0.1)
        after = train.fit(train.init(net, optimizer, jax.random.key(0), x), epoch, (x, y), epochs=5, checkpoint=folder)
        assert int(after.run.step) == 10 and after.history[-1]["loss"] < after.history[0]["loss"]
