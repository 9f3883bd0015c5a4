"""python -m bench device runs on a CPU with small sizes, in time, and survives items that fail."""

import json
import subprocess
import sys
import time

import jax
import pytest

from bench import device, on_torch

ITEMS = list(device.items(small=True))


@pytest.fixture(autouse=True)
def ordinary():
    """The baseline runs as users write it, under JAX's defaults."""
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def run(items, seconds=60.0):
    return [found["items"][-1] | {} for found in device.measured(items, time.monotonic() + seconds, {"items": []})]


def test_peaks_come_first_then_each_rule_and_the_training_steps_in_both_precisions():
    names = [item.name for item in ITEMS]
    assert names[0] == "peaks" and len(set(names)) == len(names)
    rules = {"attention", "linear_cross_entropy", "layer_norm", "softmax_cross_entropy", "batch_norm", "conv", "lstm", "dropout"}
    assert rules == on_torch.FORMS.keys()
    assert {f"{rule} {dtype}" for rule in (*rules, "f", "GPT block") for dtype in ("bfloat16", "float32")} == set(names[1:])
    assert [item.name for item in device.items(small=False)] == names


def test_failed_and_skipped_items_are_recorded():
    def broken():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore lines")
    items = [device.Item("one", broken), device.Item("two", lambda: [{"form": "hand", "seconds": 0.5}])]
    one, two = run(items)
    assert one["failed"] == "RuntimeError: RESOURCE_EXHAUSTED: out of memory" and two["rows"][0]["seconds"] == 0.5
    assert all(item["skipped"] == "out of time" for item in run(items, seconds=-1))
    assert device.lines(two) == "two\n    hand: 500.000 ms" and "out of memory" in device.lines(one)


def test_form_that_fails_leaves_the_others():
    case = device.Case("sum", ((3, 2), (2,)), lambda dtype: {"hand": lambda x, y: x * y, "bad": lambda x, y: x @ "y"}, None)
    hand, bad = device.rows_of(case, "bfloat16", 0.001)
    assert hand["seconds"] > 0 and "temp" in hand and "failed" in bad


@pytest.mark.sweep(20)
@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)
def test_item_runs_on_this_device(item):
    (record,) = run([item])
    assert "failed" not in record and "skipped" not in record
    rows = record["rows"] if isinstance(record["rows"], list) else []
    for row in rows:
        assert row["form"].startswith("torch") or "failed" not in row, row
        assert row.get("failed", "not installed").endswith("not installed"), row


@pytest.mark.slow
def test_products_in_bfloat16_change_the_losses_a_little():
    workload = next(workload for name, workload, _ in device.training(small=True) if name == "f")
    full, low = ({row["form"]: row["losses"] for row in device.training_rows(workload, dtype, 1, 0.001) if "losses" in row}
                 for dtype in ("float32", "bfloat16"))
    for form, losses in low.items():
        assert losses != full[form] and losses == pytest.approx(full[form], rel=0.05)


def test_audits_that_do_not_end_are_stopped(monkeypatch):
    monkeypatch.setattr(device, "AUDITS", ("-c", "print('a start', flush=True); import time; time.sleep(60)"))
    found = device.audits(0.5)
    assert not found["passed"] and found["summary"].startswith("stopped after 0 s")
    monkeypatch.setattr(device, "AUDITS", ("-c", "print('FAILED relu'); print('1 failed'); raise SystemExit(1)"))
    assert device.audits(60) == {"passed": False, "summary": "1 failed", "failed": ["FAILED relu"]}


@pytest.mark.slow
def test_command_saves_what_it_measures(tmp_path):
    done = subprocess.run([sys.executable, "-m", "bench", "device", "--small", "--minutes", "0.0001", "--out", tmp_path],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())["device"]
    assert found["audits"]["summary"] == "not run" and [item["item"] for item in found["items"]] == [item.name for item in ITEMS]
    assert all("skipped" in item for item in found["items"]) and str(path) in done.stdout
