"""train.distributed: starting several processes, their shares of the data, and arrays whole in each of them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnet import layers, ops, optim, train
from fnnet.train.checkpoint.fingerprint import changes
from fnnet.train.distributed import SCHEDULERS, agree

ROOT = Path(__file__).parents[2]


@pytest.fixture
def calls(monkeypatch):
    """The arguments with which JAX would be started, with none of the variables of a scheduler set."""
    for name in (*(name for names in SCHEDULERS.values() for name in names if name), "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    met = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **more: met.append((*given, more["cluster_detection_method"])))
    monkeypatch.setattr(train.distributed, "_reach", lambda coordinator, timeout: None)
    preemption = jax.config.jax_enable_preemption_service
    yield met
    train.distributed._started.clear()
    jax.config.update("jax_enable_preemption_service", preemption)


@pytest.mark.parametrize("given, environment, want", [
    (("node1:1234", 4, 3), {}, ("node1:1234", 4, 3, "deactivate")),
    (("[::1]:1234", 4, 3), {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, ("[::1]:1234", 4, 3, "deactivate")),
    ((None, 4, 3), {"JAX_COORDINATOR_ADDRESS": "node1:1"}, ("node1:1", 4, 3, "deactivate")),
    ((), {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (None, 2, 1, None)),
    ((), {"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (None, 8, 0, None)),
    (("train-0.train:1234", 4), {"JOB_COMPLETION_INDEX": "2"}, ("train-0.train:1234", 4, 2, None)),
    ((), {}, (None, None, None, None)),                                                            # JAX may know more
])
def test_what_is_left_out_comes_from_the_environment(calls, monkeypatch, given, environment, want):
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    train.distributed.start(*given)
    assert calls == [want]


def test_a_second_call_is_harmless_unless_it_differs(calls, monkeypatch):
    train.distributed.start("node1:1234", 4, 3)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    train.distributed.start()
    train.distributed.start("node1:1234", 4, 3)
    assert len(calls) == 1
    with pytest.raises(RuntimeError, match="start was called before, with process=3; got 2: call it once"):
        train.distributed.start("node1:1234", 4, 2)


@pytest.mark.parametrize("given, environment, sentence", [
    (("node1:1234",), {}, "start needs processes and process as well: write train.distributed.start.\"HOST:PORT\""),
    (("node1:1234", 2), {}, "start needs process as well"),
    ((None, 2, 0), {}, "start needs coordinator as well"),
    (("node1:1234",), {"JOB_COMPLETION_INDEX": "2"}, "start needs processes as well, and Kubernetes does not give it here"),
    ((), {"SLURM_PROCID": "one", "SLURM_NTASKS": "2"}, "SLURM_PROCID must be a whole number; got 'one': SLURM sets it"),
    (("node1", 2, 0), {}, "coordinator must be \"HOST:PORT\".* got 'node1'; write"),
    (("node1:70000", 2, 0), {}, "coordinator must be \"HOST:PORT\""),
    (("http://node1:80", 2, 0), {}, "coordinator must be \"HOST:PORT\""),
    (("node1:1", 0, 0), {}, "processes must be a whole number ≥ 1; got 0"),
    (("node1:1", 2.0, 0), {}, "processes must be a whole number ≥ 1; got 2.0"),
    (("node1:1", 2, 2), {}, "process must be a whole number from 0 to processes − 1, which is 1; got 2"),
    (("node1:1", 2, -1), {}, "process must be a whole number from 0 to .* got -1"),
    (("node1:1", 2, True), {}, "process must be a whole number from 0 to .* got True"),
])
def test_wrong_calls_say_what_to_write(calls, monkeypatch, given, environment, sentence):
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=sentence):
        train.distributed.start(*given)
    assert not calls


@pytest.mark.parametrize("environment, error, kind, sentence", [
    ({}, RuntimeError("jax.distributed.initialize() must be called before any"), RuntimeError, "must be called before anything computes"),
    ({}, ValueError("coordinator_address should be defined."), ValueError, "neither SLURM, Open MPI nor Kubernetes started"),
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, ValueError("coordinator_address should be defined."), ValueError,
     "SLURM does not say here where process 0 runs .* start the processes with srun"),
    ({}, RuntimeError("UNKNOWN: Failed to start RPC server"), OSError, "the port is in use there, or this is not that host"),
])
def test_errors_of_jax_are_explained(calls, monkeypatch, environment, error, kind, sentence):
    for name, text in environment.items():
        monkeypatch.setenv(name, text)

    def fail(*given, **more):
        raise error
    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(kind, match=sentence):
        train.distributed.start()


def test_after_a_computation_it_is_too_late(monkeypatch):
    jnp.ones(1).block_until_ready()
    preemption = jax.config.jax_enable_preemption_service
    with pytest.raises(RuntimeError, match="train.distributed.start must be called before anything computes or asks for a device"):
        train.distributed.start("127.0.0.1:1234", 1, 0)
    jax.config.update("jax_enable_preemption_service", preemption)


def test_a_process_0_that_does_not_answer(monkeypatch):
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="process 0 did not answer at 127.0.0.1:9 within 0.1 seconds .*start all processes within"):
        train.distributed.start("127.0.0.1:9", 2, 1, timeout=0.1)
    assert time.monotonic() - begun < 10


def test_shares_together_are_the_data():
    x = {"a": np.arange(12).reshape(6, 2), "b": np.arange(6.0)}
    parts = [train.distributed.share(x, i, 3) for i in range(3)]
    assert all(np.array_equal(np.concatenate([part[name] for part in parts]), x[name]) for name in x)
    assert np.array_equal(train.distributed.share(x)["a"], x["a"])
    with pytest.raises(ValueError, match=r"must divide evenly among the 4 processes; got \[6, 2\]: leave out the last 2"):
        train.distributed.share(x, 0, 4)
    with pytest.raises(ValueError, match="process must be a whole number from 0 to 2; got 3"):
        train.distributed.share(x, 3, 3)


def test_batches_train_like_the_batches_they_are_made_of():
    mesh = jax.make_mesh((8,), ("data",))
    x, y = np.random.default_rng(0).normal(size=(16, 3)), np.random.default_rng(1).normal(size=(16, 1))
    net, optimizer = layers.Dense(1), optim.gradient_descent(0.1)
    epoch = train.make_epoch(train.make_step(train.supervised(net, ops.squared_error), optimizer), batch_size=8)
    run = train.init(net, optimizer, jax.random.key(0), x)
    halves = [(x[:8], y[:8]), (x[8:], y[8:])]
    want = epoch(run, halves)[1]["loss"]
    with jax.set_mesh(mesh):
        got = epoch(train.sharding.place(run, mesh), train.distributed.batches(lambda: iter(halves), mesh))[1]["loss"]
    assert abs(float(got) - float(want)) < 1e-6
    with pytest.raises(TypeError, match="must be reusable in each epoch; got an iterator"):
        train.distributed.batches(iter(halves), mesh)
    with pytest.raises(TypeError, match="batches takes an iterable of batches, .*got tuple: for arrays write train.sharding.shard"):
        train.distributed.batches((x, y), mesh)


def test_uneven_batches_of_processes_are_an_error(monkeypatch):
    mesh = jax.make_mesh((8,), ("data",))
    monkeypatch.setattr(train.distributed, "agree", lambda numbers: np.array([[8], numbers]))
    with pytest.raises(ValueError, match="for batch 1 of the epoch process 0 has one of 8 examples, process 1 no batch left: "):
        list(train.distributed.batches([(np.ones((8, 2)),)], mesh))


def test_gather_gives_whole_arrays_and_keys():
    mesh = jax.make_mesh((8,), ("data",))
    tree = {"x": train.sharding.shard(jnp.arange(16.0), mesh), "key": jax.random.key(3), "n": 2}
    got = train.distributed.gather(tree)
    assert isinstance(got["x"], np.ndarray) and np.array_equal(got["x"], np.arange(16.0)) and got["n"] == 2
    assert jnp.array_equal(jax.random.key_data(got["key"]), jax.random.key_data(tree["key"]))
    assert agree([3, 4]).tolist() == [[3, 4]]


def test_arrays_that_were_not_hashed_are_compared_by_shape():
    assert changes({"data[0]": "float32[8, 2]"}, {"data[0]": "float32[8, 2] #0123"}) == []
    assert changes({"data[0]": "float32[8, 2]"}, {"data[0]": "float32[9, 2] #0123"}) != []
    assert changes({"data[0]": "float32[8, 2] #4567"}, {"data[0]": "float32[8, 2] #0123"}) != []


@pytest.mark.slow           # 5 s of computing each
@pytest.mark.parametrize("environment", [
    lambda i: {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_PROCID": i, "SLURM_LOCALID": i},
    lambda i: {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": i,
               "OMPI_COMM_WORLD_LOCAL_RANK": i, "OMPI_VERSION": "4.1.5"},
    lambda i: {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": i, "JAX_COORDINATOR_ADDRESS": "localhost:61239"},
    lambda i: {"JOB_COMPLETION_INDEX": i, "JAX_COORDINATOR_ADDRESS": "localhost:61240", "PROCESSES": "2"},
], ids=["SLURM", "Open MPI 4", "Open MPI 5", "Kubernetes"])
def test_a_scheduler_s_variables_suffice(environment):
    code = ("import os, jax; from fnnet import train\n"
            "train.distributed.start(processes=int(os.environ['PROCESSES']) if 'PROCESSES' in os.environ else None)\n"
            "print('is', jax.process_index(), jax.process_count(), train.distributed.agree([7 + jax.process_index()]).tolist())")
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={
        **os.environ, "JAX_PLATFORMS": "cpu", **environment(str(i))}) for i in (0, 1)]
    said = [process.communicate(timeout=300) for process in started]
    assert [out.splitlines()[-1] for out, _ in said] == [f"is {i} 2 [[7], [8]]" for i in (0, 1)], said
