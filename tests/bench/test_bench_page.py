"""bench/README.md and its pictures show the results."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import jax
import pytest

from bench import devices, machine, parts, pictures, readme, scaling, startup
from bench.workloads import WORKLOADS

TITLES = [workload.title for workload in WORKLOADS]
STEPS = [{"workload": title, "contender": name, "ms": 2 * ratio * k, "ratio": ratio, "first s": 1.5}
         for k, title in enumerate(TITLES, 1)
         for name, ratio in (("plain JAX step", 1.0), ("fnnet epoch", 0.5), ("fnnet step", 0.8), ("torch", 0.75))]
FORMS = [{"rule": "dense", "sizes": "2×3", "form": form, "ms": 1e3 * seconds, "seconds": seconds, "saved": 8, "temp": 4, "error": 0.0,
          "products": 5e8, "bytes": 1e6} for form, seconds in (("hand", 0.01), ("plain", 0.02))]
GROWN = {"seconds": [1e-3, 2e-3, 4e-3], "temp": [0, 0, 0], "saved": [4, 8, 16]}
RECORD = {
    "date": "2026-01-01", "machine": {"device": "a machine", "cores": 2, "python": "3.11", "versions": {"jax": "0.10"}},
    "steps": STEPS, "forms": FORMS, "sweeps": [{"workload": TITLES[0], "gain on plain JAX": 3.0}],
    "machine peaks": {"peaks": {"GFLOP/s": {"float32": 100.0}, "GB/s": 10.0},
                      "work": {title: {"operations": 1e8, "bytes": 1e7} for title in TITLES}},
    "scaling": [{"case": "width", "what": "layers", "sizes": [1, 2, 4], "operations": [2, 4, 8], "hand": GROWN, "plain": GROWN,
                 "exponents": {"operations": 1.0, "hand": {"seconds": 1.0, "temp": 0.0, "saved": 1.0},
                               "plain": {"seconds": 1.0, "temp": 0.0, "saved": 1.0}}}],
    "startup": {"import": {"jax": 0.5, "fnnet": 0.55}, "import ratio": 1.1,
                "first step": [{"workload": "a", "form": "fnnet step", "cold": 1.25, "cached": 0.25}],
                "digits": {"fnnet": {"seconds": 2.5, "epochs": 9, "accuracy": 0.97}}},
    "devices": [{"layout": "fsdp", "grows": "work", "devices": n, "batch": 64 * n, "loss": 2.0, "ms": 1.5 * n, "held": 2**20 // n,
                 "exchanged": 2**21, "exchanges": {"all-gather": 6}} for n in (1, 2)]}


@pytest.fixture(autouse=True)
def ordinary():
    """The baseline runs as users write it, under JAX's defaults."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def drawn(path):
    """The data that a picture carries."""
    description = next(ElementTree.parse(path).iter("{http://purl.org/dc/elements/1.1/}description"))
    return json.loads(description.text)


def test_committed_pictures_are_drawn_from_the_newest_results():
    wanted = pictures.data(readme.newest())
    paths = {path.stem: path for path in pictures.FOLDER.glob("*.svg")}
    assert paths.keys() == wanted.keys(), "run python -m bench pictures"
    assert all(path.stat().st_size < 100_000 for path in paths.values())
    for name, path in paths.items():
        assert drawn(path) == wanted[name], "run python -m bench pictures"


def test_pictures_show_the_parts_that_were_measured():
    found = pictures.data(RECORD)
    assert found["roofline"]["points"]["a"] == [10.0, 100.0, 66.67]         # 1 ms by fnnet, 1.5 by torch
    assert found["ratios"][TITLES[2]] == {"plain JAX step": 1, "fnnet epoch": 0.5, "fnnet step": 0.8, "torch": 0.75}
    assert found["scaling"]["width"]["hand"] == [1, 2, 4]
    assert pictures.data({"steps": STEPS}).keys() == {"ratios"}


@pytest.mark.slow
def test_drawn_pictures_carry_their_data(tmp_path):
    paths = pictures.draw(RECORD, tmp_path)
    assert {path.stem: drawn(path) for path in paths} == pictures.data(RECORD)
    assert "fnnet epoch" in paths[0].read_text()


def test_page_shows_each_part_of_the_results():
    page = readme.markdown(RECORD)
    row = next(line for line in page.splitlines() if line.startswith(f"| {TITLES[0]} "))
    assert re.findall(r"[\d.]+", row.replace(TITLES[0], "")) == ["2", "0.50", "0.80", "0.75", "1.50"] and "(torch)" in row
    assert "mean 1.50" in page and "100 GFLOP/s" in page and "10.0 GB/s" in page
    of_machine = next(line for line in page.splitlines() if line.startswith(f"| {TITLES[0]} ") and "%" in line)
    assert "100 %" in of_machine                            # 10⁸ operations in 1 ms, of 10¹¹ a second
    assert "50 %" in next(line for line in page.splitlines() if "`dense`" in line)
    assert "takes 1.10 of the time" in page and "fnnet 2.5 s (9 epochs)" in page and "1.25" in page
    assert set(re.findall(r"pictures/(\w+)\.svg", page)) == set(pictures.DATA)


def test_page_leaves_out_parts_that_were_not_measured():
    page = readme.markdown({part: RECORD[part] for part in ("date", "machine", "steps", "forms", "sweeps")})
    assert "roofline" not in page and "of the peak" not in page and "exponents" not in page


def test_operations_of_a_step_are_those_of_its_products():
    """Counted for small sizes by hand: n=4; 6→5→3: forward 4·2·(30+15), backward twice that without the first dX."""
    w = next(w for w in WORKLOADS if w.name == "a").small._replace(sizes=(6, 5, 3))
    operations, moved = machine.work(w)
    assert operations == 3 * 4 * 2 * (30 + 15) - 4 * 2 * 30
    params = 4 * (6 * 5 + 5 + 5 * 3 + 3)
    assert moved == 2 * 3 * params + 4 * 6 * 4 + 4 * 4


def test_operations_of_an_lstm():
    """5 steps of 2 inputs, 4 features with 4 gates, 3 classes: the products of inputs, of states and of the scores."""
    w = next(w for w in WORKLOADS if w.name == "e").small
    assert w.model.operations(w) == 2 * (2 * 5 * 2 * 16) + 3 * (2 * 5 * 4 * 16 + 2 * 4 * 3)


@pytest.mark.parametrize("name", "df")
def test_operations_agree_with_the_compiler(name):
    """XLA counts the same products, and elementwise operations besides."""
    from bench.contender import job
    from bench.plain import cross_entropy
    w = next(w for w in WORKLOADS if w.name == name).small
    w = w._replace(sizes=w.sizes._replace(**{"d": {"hidden": 64}, "f": {"words": 300}}[name]))
    this = job(w)
    loss = lambda params, x, y: cross_entropy(w.model.forward(params, x, None, 0.0), y)
    counted = jax.jit(jax.grad(loss)).lower(this.weights, *this.batches[0]).compile().cost_analysis()["flops"]
    assert 0.7 < machine.work(w)[0] / counted < 1.05


def test_peaks_are_measured():
    found = machine.peaks(sizes=(32,), megabytes=1, seconds=0.01)
    assert found["GFLOP/s"]["float32"] > 0 and found["GB/s"] > 0
    assert machine.share(2e9, 1e9, 1.0, {"GFLOP/s": {"float32": 4.0}, "GB/s": 5.0}) == {"of products": 0.5, "of bandwidth": 0.2}


def test_exponent_is_the_slope_without_the_smallest_size():
    assert scaling.exponent((1, 2, 4, 8), (50, 4, 16, 64)) == pytest.approx(2)
    assert scaling.exponent((1, 2, 4), (0, 0, 0)) == 0


@pytest.mark.sweep(12)
@pytest.mark.parametrize("case", scaling.CASES, ids=lambda case: case.name)
def test_scaling_row(case):
    small = {"length": (128, 256, 512), "vocabulary": (64, 128, 256), "width": (8, 16, 32)}.get(case.name, (2, 4, 8))
    row = scaling.run(case, seconds=0.001, sizes=small)
    assert len(row["hand"]["seconds"]) == len(row["plain"]["temp"]) == 3
    assert row["exponents"]["operations"] == pytest.approx({"width": 2, "length": 2}.get(case.name, 1), abs=1e-6)
    assert row["exponents"]["plain"]["seconds"] != 0


def test_startup_runs_each_program_in_a_process_of_its_own(monkeypatch):
    ran = []

    def output(*argv, **environment):
        ran.append((argv, environment))
        return '{"seconds": 3.0, "epochs": 2, "accuracy": 0.98}' if "bench.digits" in argv else "0.5"
    monkeypatch.setattr(startup, "output", output)
    found = startup.run(rounds=2, names="a")
    assert found["import ratio"] == 1 and found["first step"][1] == {"workload": "a", "form": "fnnet step", "cold": 0.5, "cached": 0.5}
    assert found["digits"]["fnnet"]["epochs"] == 2
    firsts = [environment["JAX_COMPILATION_CACHE_DIR"] for argv, environment in ran if "bench.startup" in argv]
    assert firsts[0] == firsts[1] != firsts[2]              # the second finds what the first has compiled


def test_failed_program_shows_its_error():
    with pytest.raises(RuntimeError, match="No module named bench.nothing"):
        startup.output("-m", "bench.nothing")


@pytest.mark.slow
@pytest.mark.parametrize("library", ["fnnet", "plain JAX", "torch"])
def test_digits_are_learned(library):
    if library == "torch":
        pytest.importorskip("torch")
    found = json.loads(startup.output("-m", "bench.digits", library, XLA_FLAGS=""))
    assert found["accuracy"] >= 0.97 and 1 < found["epochs"] < 40 and found["seconds"] > 0


def test_each_word_of_the_command_line_measures_known_parts():
    from bench.__main__ import WHAT
    assert {*parts.MEANS, "device", "pictures"} == set(WHAT)
    assert all(set(means) <= set(parts.PARTS) for means in parts.MEANS.values()) and set(parts.PAGE) <= set(parts.MEANS["all"])
    assert {parts.SAVED.get(part, part) for part in parts.PAGE} == {*readme.PARTS}
    assert Path(pictures.FOLDER).parent == Path(readme.HERE).parent


def test_devices_are_compared_with_one():
    text = readme.markdown(RECORD)
    assert re.search(r"\| `fsdp`, batch grows \| +2 \| +128 \| +3 \| +2.00 \| +512k \| +2.0M \| 6 all-gather \|", text)


@pytest.mark.slow
def test_simulated_devices_hold_their_share_and_have_the_loss_of_one():
    rows = devices.run(rounds=1)
    of = {(row["layout"], row["grows"], row["devices"]): row for row in rows}
    assert len(of) == len(rows) == 16
    for layout in devices.LAYOUTS:
        assert abs(of[layout, "devices", 8]["loss"] - of[layout, "devices", 1]["loss"]) < 1e-5
    assert of["fsdp", "devices", 8]["held"] < 1.1 / 8 * of["fsdp", "devices", 1]["held"]
    assert of["data", "devices", 1]["exchanges"] == {} and set(of["data", "devices", 8]["exchanges"]) == {"all-reduce"}
