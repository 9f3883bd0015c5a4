"""python -m bench device --minutes 8: one command for a GPU or a TPU that is borrowed for a quarter of an hour.

In this order: the audits of every rule on the device, before anything is timed; its peak of products and memory bandwidth; the rules that
gain most, in bfloat16 and float32, beside autodiff of the plain code, JAX's own kernels and PyTorch's where they are; the transformer
block of workload f, a GPT block and PyTorch's as training steps. Results are saved after each item, so that whatever ends the run, what
was measured is kept. An item that fails is recorded with its error, one for which no time is left is recorded as skipped.

peak: the allocator's largest number of bytes in use so far, in this process: an item's own if it is larger than the one before it.
"""

import functools
import math
import os
import subprocess
import sys
import threading
import time
from typing import NamedTuple

AUDITS = ("-m", "pytest", "tests/verify/test_device.py", "-m", "accelerator", "-n", "0", "-q", "-p", "no:cacheprovider")
ON_THE_SIDE = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}        # the audits' process and this one share the device's memory
DTYPES = ("bfloat16", "float32")


class Item(NamedTuple):
    name: str
    run: object             # () -> rows


def audits(seconds):
    """The audits' outcome, {"passed", "summary"}, in a process of their own, before this one takes the device."""
    try:
        done = subprocess.run([sys.executable, *AUDITS], env={**os.environ, **ON_THE_SIDE}, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as stopped:
        text = (stopped.stdout or b"").decode(errors="replace") if isinstance(stopped.stdout, bytes | None) else stopped.stdout
        return {"passed": False, "summary": f"stopped after {seconds:.0f} s: {text.strip()[-200:]}"}
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"passed": done.returncode == 0, "summary": lines[-1] if lines else "", "failed": failed}


def main(minutes, folder=None, small=False):
    """Measures, printing and saving as it goes, and returns the exit code: 0 if nothing failed. With `small`, without the audits."""
    end = time.monotonic() + 60 * minutes
    audited = {"passed": True, "summary": "not run"} if small else audits(0.4 * 60 * minutes)
    print(f"audits: {audited['summary']}", flush=True)
    os.environ |= ON_THE_SIDE
    from bench import results  # JAX takes the device here
    watchdog = threading.Timer(max(1, end + 30 - time.monotonic()), os._exit, [124])      # a compiler cannot be interrupted otherwise
    watchdog.daemon = True
    watchdog.start()
    path, failed = None, not audited["passed"]
    for found in measured(items(small), end, {"audits": audited, "small": small, "items": []}):
        path = results.save(folder or results.HERE, device=found)
        done = found["items"][-1]
        failed |= "failed" in done
        print(lines(done), flush=True)
    watchdog.cancel()
    print(path)
    return int(failed)


def measured(items, end, found):
    """Runs each item until the time `end`, and yields what has been found after it."""
    for item in items:
        record, start = {"item": item.name}, time.monotonic()
        if start > end:
            record["skipped"] = "out of time"
        else:
            try:
                record["rows"] = item.run()
            except Exception as error:
                record["failed"] = brief(error)
        record["seconds"] = time.monotonic() - start
        found["items"].append(record)
        yield found


def lines(record):
    """An item as text: a line for each form."""
    if "rows" not in record or isinstance(record["rows"], dict):
        return f"{record['item']}: {record.get('rows') or record.get('failed') or record.get('skipped')}"
    rows = [f"    {row['form']}: " + (row.get("failed") or f"{1e3 * row['seconds']:.3f} ms") for row in record["rows"]]
    return "\n".join([record["item"], *rows])


def brief(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def items(small):
    """Everything to be measured, the most important first."""
    from bench import machine
    sizes = {"sizes": (64,), "megabytes": 1, "seconds": 0.01} if small else {"sizes": (4096, 8192), "megabytes": 1024}
    yield Item("peaks", functools.partial(machine.peaks, dtypes=DTYPES, **sizes))
    for dtype in DTYPES:
        for case in cases(small):
            yield Item(f"{case.rule} {dtype}", functools.partial(rows_of, case, dtype, 0.02 if small else 0.5))
    for name, workload, dtype in training(small):
        yield Item(f"{name} {dtype}", functools.partial(training_rows, workload, dtype, 2 if small else 7, 0.001 if small else 0.05))


class Case(NamedTuple):
    rule: str
    shapes: tuple           # of the arrays that are drawn
    forms: object           # dtype -> {name: f}; the first is the hand-derived rule
    torch: object           # () -> f(*tensors), or None
    labels: int = 0         # classes of an integer array after the others, with one label for each of its rows; 0: none


def cases(small):
    """The rules, at sizes of networks in use on accelerators, or at small ones."""
    import jax
    import jax.numpy as jnp

    from bench import forms
    from fnnet import ops

    def s(*large, small_):
        return small_ if small else large
    key = jax.random.key(1)
    q = s(4, 2048, 16, 64, small_=(1, 16, 2, 8))
    rows, d = s(8192, 2048, small_=(16, 8))
    tokens, width, words = s(8192, 1024, 32768, small_=(16, 8, 32))
    images = s(64, 56, 56, 128, small_=(2, 6, 6, 4))
    c = images[-1]
    n, t, k = s(64, 128, 512, small_=(2, 5, 4))
    attention = {"hand": functools.partial(ops.attention, causal=True), "autodiff": forms.causal,
                 "jax.nn": functools.partial(jax.nn.dot_product_attention, is_causal=True)}

    def kernels(dtype):
        cudnn = jax.default_backend() == "gpu" and dtype == "bfloat16"
        fastest = functools.partial(jax.nn.dot_product_attention, is_causal=True, implementation="cudnn")
        return attention | ({"cuDNN": fastest} if cudnn else {})
    same = lambda **given: lambda dtype: given
    from bench.on_torch import FORMS
    return [
        Case("attention", (q, q, q), kernels, FORMS["attention"]),
        Case("linear_cross_entropy", ((tokens, width), (width, words)), same(
            hand=ops.linear_cross_entropy, autodiff=lambda x, w, k: forms.cross_entropy(x @ w, k)), FORMS["linear_cross_entropy"], words),
        Case("layer_norm", ((rows, d), (d,), (d,)), same(hand=ops.layer_norm, autodiff=forms.layer_norm), FORMS["layer_norm"]),
        Case("softmax_cross_entropy", ((tokens, words),),
             same(hand=ops.softmax_cross_entropy, autodiff=forms.cross_entropy_by_logsumexp), FORMS["softmax_cross_entropy"], words),
        Case("batch_norm", (images, (c,), (c,), images), same(
            hand=forms.weighted(lambda *a: ops.batch_norm(*a)[0]), autodiff=forms.weighted(forms.batch_norm)), FORMS["batch_norm"]),
        Case("conv", (images, (3, 3, c, c)), same(hand=ops.conv, autodiff=forms.convolution), FORMS["conv"]),
        Case("lstm", ((n, t, k), (k, 4 * k), (k, 4 * k), (4 * k,)), same(hand=forms.gated(ops.lstm, 4), autodiff=forms.lstm),
             FORMS["lstm"]),
        Case("dropout", ((rows, d),), same(hand=lambda x: ops.dropout(x, key), autodiff=lambda x: forms.dropout(x, key),
                                           **{"identity": jnp.positive}), FORMS["dropout"]),
    ]


def rows_of(case, dtype, seconds):
    """A row for each form: seconds of value and gradient, saved and temporary bytes, or how it failed."""
    import jax
    import jax.numpy as jnp

    import fnnet as fn
    arrays = [(jax.random.normal(jax.random.key(i), shape) * (shape[0] ** -0.5 if len(shape) == 2 and i else 1)).astype(dtype)
              for i, shape in enumerate(case.shapes)]
    if case.labels:
        arrays.append(jax.random.randint(jax.random.key(9), (len(arrays[0]),), 0, case.labels))
    jax.block_until_ready(arrays)
    rows = []
    for name, f in case.forms(dtype).items():
        row = {"form": name}
        try:
            figures = fn.compare({name: f}, *arrays, seconds=seconds, rounds=30, exact=False).figures[name]
            row |= {what: figures[what] for what in ("seconds", "saved", "temp", "compile")} | {"peak": allocated()}
        except Exception as error:
            row["failed"] = brief(error)
        rows.append(row)
    if case.torch is not None:
        try:
            from bench import on_torch
            rows.append({"form": "torch", **on_torch.timed(case.torch, [jnp.asarray(a) for a in arrays], dtype, seconds)})
        except ImportError as error:
            rows.append({"form": "torch", "failed": f"{error.name} is not installed"})
        except Exception as error:
            rows.append({"form": "torch", "failed": brief(error)})
    return rows


def allocated():
    """The allocator's largest number of bytes in use so far; None where the device does not say."""
    import jax
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def training(small):
    from bench import transformer
    from bench.workloads import WORKLOADS
    f = next(w for w in WORKLOADS if w.name == "f")
    gpt = f._replace(name="GPT", sizes=transformer.Sizes(32768, 1024, 768, 12, 3072), batch=8, batches=2)
    for name, workload in (("f", f), ("GPT block", gpt)):
        for dtype in DTYPES:
            yield name, workload.small if small else workload, dtype


def training_rows(workload, dtype, rounds, least):
    """A row for each contender: seconds of a step and of the first call, and the first losses; products in `dtype`, parameters float32."""
    import jax

    from bench import clock, ours, peers, plain
    from bench.contender import job
    builds = {name: plain.contenders(workload)[name] for name in ("plain JAX step",)} | ours.contenders(workload)
    found, _ = peers.available(workload.kind)
    builds |= {name: found[name] for name in ("torch", "torch compiled")[:1 if rounds < 5 else 2] if name in found}
    this, rows = job(workload._replace(compute=dtype)), []
    for name, build in builds.items():
        row = {"form": name}
        try:
            contender = build(this)
            runner = contender.runner()
            first, losses = runner.begin(3)
            times = clock.interleaved({name: runner}, rounds=rounds, least=least)[name]
            row |= {"seconds": clock.median(times) / contender.steps, "first": first, "losses": losses, "peak": allocated()}
            if not all(map(math.isfinite, losses)):
                row["failed"] = "losses are not finite"
        except Exception as error:
            row["failed"] = brief(error)
        rows.append(row)
        jax.clear_caches()
    return rows
