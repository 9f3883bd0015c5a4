"""The bench times what it claims to time."""

import json
import platform
import subprocess
import sys

import jax
import pytest

from bench import ahead, clock, forms, inside, ours, peers, plain, readme, results, rules, steps, sweeps
from bench.contender import job
from bench.workloads import WORKLOADS, Workload

SMALL = Workload("s", (6, 5, 5, 3), 4, "momentum", 0.05, dropout=0.5, batches=3)
KINDS = {w.kind: w for w in WORKLOADS}


@pytest.fixture(autouse=True)
def ordinary():
    """The baseline runs as users write it, under JAX's defaults."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.sweep(2)
@pytest.mark.parametrize("optimizer", ["descent", "momentum", "adam"])
def test_all_contenders_compute_the_same(optimizer):
    workload = SMALL._replace(optimizer=optimizer)
    steps.agree(workload, plain.contenders(workload) | ours.contenders(workload), 6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convnet", "recurrent", "transformer"])
def test_all_contenders_have_the_same_network(kind):
    workload = KINDS[kind].small
    steps.agree(workload, plain.contenders(workload) | ours.contenders(workload), 6)


@pytest.mark.slow
def test_stacked_deep_networks_compute_the_same():
    workload = SMALL._replace(sizes=(6, *[5] * 5, 3))
    builds = plain.contenders(workload) | ours.contenders(workload)
    assert "plain JAX step, layers scanned" in builds
    steps.agree(workload, builds, 6)


def test_contender_that_computes_something_else_raises():
    def other(job):
        return plain.per_step(job._replace(workload=job.workload._replace(rate=0.06)))
    with pytest.raises(AssertionError, match="losses of other differ"):
        steps.agree(SMALL, {steps.BASE: plain.per_step, "other": other}, 6)


def test_epoch_visits_the_data_once():
    this = job(SMALL._replace(rate=0.0, dropout=0.0), "float64")
    mean = sum(plain.per_step(this).losses(3)) / 3
    for build in (plain.per_epoch, ours.per_epoch):
        contender = build(this)
        assert contender.steps == 3
        assert contender.losses(2) == pytest.approx([mean, mean], rel=1e-6)      # the second epoch has another order


SLOW = {"torch compiled"}               # a minute of compilation each


@pytest.mark.peers
@pytest.mark.parametrize("kind, name", [
    pytest.param(kind, name, marks=pytest.mark.slow if name in SLOW or kind != "perceptron" else ())
    for kind in KINDS for name in peers.PEERS if kind in peers.ONLY_FOR.get(name, {kind})])
def test_peers_compute_the_same_or_are_named(kind, name):
    found, missing = peers.available(kind)
    assert (name in found) != (name in missing)
    if name in missing:
        pytest.skip(f"{name}: {missing[name]}")
    steps.agree(KINDS[kind].small, {steps.BASE: plain.per_step, name: found[name]}, 20)


def test_peer_that_fails_is_named_and_the_others_are_timed(monkeypatch):
    def broken(job):
        raise RuntimeError("no compiler\nand more")
    monkeypatch.setattr(peers, "available", lambda kind: ({"torch compiled": broken}, {}))
    monkeypatch.setattr(plain, "contenders", lambda workload: {steps.BASE: plain.per_step})
    monkeypatch.setattr(ours, "contenders", lambda workload: {})
    rows, missing = steps.run(SMALL, rounds=1, least=0.0001, check=0)
    assert [row["contender"] for row in rows] == [steps.BASE] and missing == {"torch compiled": "failed: RuntimeError: no compiler"}


def test_gain_is_on_the_best_other_contender():
    x = {"plain JAX step": 1.0, "torch": 0.5, "fnnet step": 0.4, "fnnet epoch": 0.25, "fnnet step, autodiff": 0.9}
    y = {"plain JAX step": 1.0, "torch": 1.2, "fnnet step": 2.0, "fnnet epoch": 4.0}
    rows = [{"workload": name, "contender": contender, "ratio": of[contender]} for name, of in {"x": x, "y": y}.items() for contender in of]
    assert steps.ours_to_best(rows) == {"x": ("torch", 2.0), "y": ("plain JAX step", 0.5)}
    assert steps.mean_gain(rows) == pytest.approx(1)


def test_ratio_compares_times_within_a_round(monkeypatch):
    """With a clock that only work advances; in some rounds the machine is slow for both."""
    now, units = [0.0], {"one": 0, "two": 0}
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def run(name):
        def spend(n):
            units[name] += n
            slow = 3 if 0.3 < now[0] % 1 < 0.5 else 1
            now[0] += slow * n * (0.002 if name == "one" else 0.004)
        return spend
    times = clock.interleaved({name: run(name) for name in units}, rounds=25, least=0.02)
    assert clock.ratio(times["two"], times["one"]) == pytest.approx(2)
    assert clock.median(times["one"]) == pytest.approx(0.002)
    assert units["one"] > 1.5 * units["two"]            # turns of equal length


@pytest.mark.slow
def test_forms_have_one_row_each():
    rows, missing = steps.run(SMALL, rounds=2, least=0.001, only={steps.BASE, "fnnet step", "fnnet epoch"}, check=0)
    assert [row["contender"] for row in rows] == [steps.BASE, "fnnet step", "fnnet epoch"] and missing == {}
    assert rows[0]["ratio"] == 1 and all(row["ms"] > 0 for row in rows)


@pytest.mark.slow
def test_sweep_row(monkeypatch):
    monkeypatch.setattr(sweeps, "WORKLOADS", (SMALL._replace(dropout=0.0),))
    monkeypatch.setattr(sweeps, "RUNS", 3)
    row = sweeps.run("s", rounds=2, least=0.001)
    assert all(row[what] > 0 for what in sweeps.COLUMNS) and set(sweeps.TARGETS) <= {w.name for w in WORKLOADS}


@pytest.mark.slow
def test_inside_row(monkeypatch):
    monkeypatch.setattr(inside, "WORKLOADS", (SMALL,))
    row = inside.run("s", rounds=2, least=0.001)
    assert all(row[what] > 0 for what in inside.COLUMNS) and set(inside.TARGETS) <= {w.name for w in WORKLOADS}


def test_each_workload_has_a_target_among_its_forms():
    assert [w.name for w in WORKLOADS] == ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert all(w.target[0] in ours.contenders(w) for w in WORKLOADS)


def test_rule_row():
    (row,) = rules.run(quick=True, only={"relu"})
    assert row["rule"] == "relu" and row["hand ms"] > 0 and row["gain"] == pytest.approx(row["autodiff ms"] / row["hand ms"])


def test_rule_slower_than_the_best_plain_form_states_its_gain():
    measured = readme.newest()["forms"]
    seconds = {(row["rule"], row["form"]): row["seconds"] for row in measured}
    slower = {rule for rule, form in seconds if seconds[rule, form] < 0.95 * seconds[rule, "hand"]}
    assert slower <= {case.rule for case in forms.CASES if case.buys}


@pytest.mark.slow
def test_targets_refer_to_existing_forms_that_agree():
    for case in forms.CASES:
        assert all(figure in ("seconds", "temp", "saved", "error") and getattr(case, form) for figure, form, _ in case.promised)
    (case,) = forms.chosen(["maxout"])
    small = case._replace(arrays=lambda: forms.normal((8, 6, 4)))
    rows = forms.measured(small, 0.01)
    assert [row["form"] for row in rows] == ["hand", "best", "plain"] and rows[0]["saved"] < rows[2]["saved"]
    with pytest.raises(AssertionError, match="must agree"):
        forms.measured(small._replace(plain=lambda x: x.min(-1)), 0.01)
    (case,) = forms.chosen(["batch_norm"])
    shape = (4, 3, 3, 5)
    assert len(forms.measured(case._replace(arrays=lambda: forms.normal(shape, (5,), (5,), shape)), 0.01)) == 3
    assert forms.gains([{**row, "seconds": {"hand": 1.0, "best": 4.0, "plain": 9.0}[row["form"]]} for row in rows])["seconds"] == 4


def test_results_of_a_day_share_a_file_without_host_names(tmp_path):
    results.save(tmp_path, steps=[1])
    path = results.save(tmp_path, rules=[2])
    kept = json.loads(path.read_text())
    assert kept["steps"] == [1] and kept["rules"] == [2] and kept["machine"]["versions"]["jax"] == jax.__version__
    assert list(tmp_path.iterdir()) == [path]
    assert results.save(tmp_path / "other", of="ahead of time", ahead=[3]).name.startswith("ahead-of-time-2")
    assert platform.node() not in path.read_text() or len(platform.node()) < 3


def test_unknown_name_is_one_sentence():
    got = subprocess.run([sys.executable, "-m", "bench", "steps", "--only", "z"], capture_output=True, text=True)
    assert got.returncode == 1
    assert "--only must name some of a, b, c, d, e, f, g, h; got z" in got.stderr and "Traceback" not in got.stderr


def test_compilers_for_other_devices_are_used_or_named():
    found, missing = ahead.devices()
    assert {*found, *missing} == set(ahead.NEEDS) and set(found).isdisjoint(missing)
    rows = list(ahead.run(only={"relu"}))
    assert [(row["device"], row["form"]) for row in rows] == [(name, form) for name in found for form in ("hand", "autodiff")]
    assert all(row["temp"] >= 0 for row in rows)


def test_compiler_for_another_jax_is_not_used(monkeypatch):
    monkeypatch.setattr(ahead.metadata, "requires", lambda package: ['libtpu==0.0.42.*; extra == "tpu"'])
    monkeypatch.setattr(ahead.metadata, "version", {"libtpu": "0.0.42.1", "nvcc": "12.9"}.__getitem__)
    assert ahead._fitting("libtpu") and ahead._fitting("nvcc")
    monkeypatch.setattr(ahead.metadata, "version", {"libtpu": "0.0.50.0"}.__getitem__)
    assert not ahead._fitting("libtpu")


def test_missing_compilers_are_reported(monkeypatch, capsys):
    from bench.parts import measure_ahead
    monkeypatch.setattr(ahead, "devices", lambda: ({}, ["TPU v5e", "NVIDIA H100"]))
    assert not measure_ahead(None)
    assert "not installed: the compilers for TPU v5e and NVIDIA H100. pip install" in capsys.readouterr().out


def test_program_for_this_device_has_a_row():
    (hand, auto) = ahead._rows({"here": jax.devices()[0]}, "f", "3", {"hand": jax.numpy.sin, "bad": lambda x: x @ "y"}, [jax.numpy.ones(3)])
    assert hand["temp"] >= 0 and hand["instructions"] > 0 and hand["form"] == "hand"
    assert "refused" in auto and "temp" not in auto
