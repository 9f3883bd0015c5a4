"""Reads damaged files of one kind in a separate process, python tests/data/fuzz.py KIND COUNT SEED, and prints the outcomes.

Every mutant must be read, or raise an error that names its file; memory must not grow with what a file declares.
"""

import gzip
import io
import json
import pickle
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

EXPECTED = ValueError, TypeError, FileNotFoundError
NUMBERS = 0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1
CELLS = ("", " ", "nan", "-inf", "1e39", "1e999", "1_000", "٣", "½", "0x10", "1,5", '"', '"a""b"', "\0", "\ud7ff", "a" * 200_000,
         "1" * 5000, "-", "1e", "𝟙", "1.5", "red", "\r", "\t")
VALUES = (None, True, 0, -1, 1.5, 2**63, 10**400, 1e308, 5e-324, float("nan"), float("inf"), "", "text", "\ud800", "$\\frac$ $x$",
          "</script>", "a" * 5000, [], {}, [[]], [None], [{}], {"": 1}, [1, "a"], [[1, 2], [3]], "\0")
GIGABYTE = 2**30


def kept(content):
    """No damage."""
    return content


def flipped(draw, content, near=400):
    """One to four changes: flipped bits, bytes, cuts, repeats and overwritten numbers, mostly in the file's structure."""
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        ends = [draw.randrange(min(near, len(content)) or 1), max(len(content) - 1 - draw.randrange(near), 0)]
        at = draw.choice([*ends, *ends, draw.randrange(len(content) or 1)])
        length = draw.choice([1, 2, 4, 8, draw.randrange(1, 200)])
        number = draw.choice(NUMBERS)
        damage = draw.randrange(8)
        if damage == 0 and content:
            content[at:at + 1] = bytes([content[at] ^ 1 << draw.randrange(8)])
        elif damage == 1:
            content[at:at + 1] = bytes([draw.randrange(256)])
        elif damage == 2:
            content[at:at + length] = b""
        elif damage == 3:
            content[at:at] = draw.choice([draw.randbytes(length), bytes(length), b"\xff" * length])
        elif damage == 4:
            content[at:at] = content[at:at + length] * draw.choice([1, 2, 100])
        elif damage == 5:
            size = draw.choice([1, 2, 4, 8])
            content[at:at + size] = (number % 256**size).to_bytes(size, draw.choice(["little", "big"]))
        elif damage == 6 and draw.random() < 0.3:
            content = content[:at]
        elif damage == 7:
            other = draw.randrange(len(content) or 1)
            content[at:at + length] = content[other:other + length]
    return bytes(content)


def pickles(draw, damage, folder):
    rows, kinds = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072), np.array([3, 7])
    labels = draw.choice([[3, 7], kinds, kinds.astype(np.uint8), list(kinds)])
    batch = {b"batch_label": b"testing", b"labels": labels, b"data": draw.choice([rows, np.asfortranarray(rows)]),
             b"filenames": [b"a.png", b"b.png"]}
    good = pickle.dumps(batch, protocol=draw.choice([0, 2, 3, 4, 5]))
    if draw.random() < 0.3:
        good = good.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    for name, content in (("data_batch_1", good), ("test_batch", damage(good))):
        (folder / name).write_bytes(content)
    return data.read_cifar10, folder


def npz(draw, damage, folder):
    """Damage to the archive, or to an array within an intact archive."""
    x = draw.choice([np.ones((6, 3)), np.arange(18, dtype=np.int32).reshape(6, 3).T.copy().T, np.ones((6, 2, 2), np.float16)])
    arrays = {"x": x, "y": draw.choice([np.arange(6), np.ones(6), np.array([True] * 6), np.arange(6, dtype=np.uint64)])}
    path = folder / "t.npz"
    (np.savez if draw.random() < 0.5 else np.savez_compressed)(path, **arrays)
    if draw.random() < 0.5:
        path.write_bytes(damage(path.read_bytes()))
    else:
        parts = []
        for array in arrays.values():
            file = io.BytesIO()
            np.save(file, array)
            parts.append(file.getvalue())
        at = draw.randrange(2)
        parts[at] = damage(parts[at])
        with zipfile.ZipFile(path, "w", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            for name, part in zip(arrays, parts):
                archive.writestr(f"{name}.npy", part)
    return data.read_npz, path


def idx(draw, damage, folder):
    """Plain; gzipped and then damaged; damaged and then gzipped."""
    array = np.arange(60, dtype=np.uint8).reshape(draw.choice([(60,), (5, 12), (3, 4, 5)]))
    good = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    way = draw.randrange(3)
    path = folder / ("a.gz" if way else "a")
    path.write_bytes((damage(good), damage(gzip.compress(good)), gzip.compress(damage(good)))[way])
    return data.read_idx, path


def table(draw, damage, folder):
    """Bytes, or single cells."""
    rows = [["a", "b", "y"], *([str(draw.uniform(-9, 9)), str(draw.randrange(99)), draw.choice(["1", "2", "red"])] for _ in range(8))]
    path = folder / "t.csv"
    if draw.random() < 0.5:
        for _ in range(draw.randint(1, 3) if damage is not kept else 0):
            draw.choice(rows)[draw.randrange(3)] = draw.choice(CELLS)
        path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    else:
        path.write_bytes(damage("\n".join(",".join(row) for row in rows).encode()))
    return lambda path: data.read_csv(path, "y"), path


def run(draw, damage, folder):
    """Bytes, or single fields: of another type, missing, or duplicated."""
    found = {"data": "digits", "what": "12 examples", "stopped": "ran all 2 epochs", "network": "Serial(Dense(2))", "summary": "layer",
             "classes": ["a", "c"], "confusion": [[4, 1], [2, 5]], "device": "cpu", "settings": {"rate": 0.1, "net": None},
             "rules": [{"rule": "dense", "checks": 18, "gradient": 1e-16, "differences": 3e-11}], "versions": {"jax": "0"},
             "history": [{"epoch": i, "loss": 1 / i, "valid_loss": 1.2 / i, "accuracy": 0.5, "valid_accuracy": 0.6} for i in (1, 2)],
             "training": {"loss": 0.1}, "validation": {"loss": 0.9}, "test": {"loss": 0.95, "accuracy": 0.75},
             "flow": {"said": "fine", "kinds": [], "names": ["0 Dense(4)", "2 Dense(2)"], "delta": [0.1, 0.1], "rms": [1.0, None],
                      "dead": [None, 0.2], "saturated": [0.5, None]}}
    path = folder / "run.json"
    if draw.random() < 0.75:
        for _ in range(draw.randint(1, 2) if damage is not kept else 0):
            at, key = draw.choice(list(places(found)))
            way = draw.randrange(5)
            if way == 0:
                del at[key]
            elif way == 1 and isinstance(at, list):
                at.append(at[key])
            else:
                at[key] = draw.choice(VALUES)
        path.write_text(json.dumps(found), encoding="utf-8")
    else:
        path.write_bytes(damage(json.dumps(found).encode()))
    return lambda path: diagnostics.report(path, folder / "page.html"), path


def places(value):
    """Every (container, key) below a value."""
    for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(part, dict | list):
            yield from places(part)


def cells(draw, damage, folder):
    """A table as text, its columns and the column to predict."""
    _, path = table(draw, damage, folder)
    missing = draw.choice(["error", "drop", "mean"])

    def read(path):
        found = data.read_cells(path)
        answers, y = data.answers_of(found, "y")
        columns = data.columns_of(found, ["a", "b"], missing=missing)
        assert np.isfinite(columns(found)).all() and len(answers.scaled_as(y)(found)) == len(found.rows)
    return read, path


KINDS = {"pickle": pickles, "npz": npz, "idx": idx, "csv": table, "cells": cells, "run.json": run}


def tried(kind, count, seed):
    """{outcome: count}, with the raw errors, and the memory that reading took beyond that for a good file."""
    told = {"read": 0, "named": 0, "raw": [], "seconds": 0.0}
    with tempfile.TemporaryDirectory() as name:
        for i in range(-1, count):                          # the first is undamaged: its memory does not count as growth
            draw, folder = random.Random(f"{seed} {i}"), Path(name)
            for old in folder.iterdir():
                old.unlink()
            read, path = KINDS[kind](draw, partial(flipped, draw) if i >= 0 else kept, folder)
            started = time.process_time()
            try:
                read(path)
                told["read"] += 1
            except EXPECTED as problem:
                told["named"] += str(folder) in str(problem)
                if str(folder) not in str(problem):
                    told["raw"].append(f"{i}: {type(problem).__name__}: {str(problem)[:200]}")
            except BaseException as problem:
                told["raw"].append(f"{i}: {type(problem).__name__}: {str(problem)[:200]}")
            told["seconds"] = max(told["seconds"], time.process_time() - started)
            if i < 0:
                before = memory()
    return told | {"megabytes": (memory() - before) / 1024}


def remembered(draw):
    """Draws each picture only once: damage leaves most pictures of a run unchanged, and drawing takes nearly all the time."""
    seen = {}

    def drawn(what, file, **settings):
        key = repr((what, settings))
        if key not in seen:
            made = io.StringIO()
            draw(what, made, **settings)
            if len(seen) > 50:
                seen.clear()
            seen[key] = made.getvalue()
        file.write(seen[key])
    return drawn


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    kind, count, seed = sys.argv[1], *map(int, sys.argv[2:])
    if kind == "run.json":
        from fnnet import diagnostics
        module = sys.modules["fnnet.diagnostics.report"]        # in the package, the function shadows the module
        module.learning_curve, module.draw_flow = remembered(module.learning_curve), remembered(module.draw_flow)
        diagnostics.Confusion.plot = remembered(diagnostics.Confusion.plot)
    else:
        from fnnet import data
    warnings.simplefilter("ignore" if kind == "run.json" else "error")         # glyphs missing from a font; any other warning is a fault
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if Path("/proc/self/statm").exists() else 0
    if taken:
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2 * GIGABYTE,) * 2)    # memory reserved but never touched is not counted above
    print(json.dumps(tried(kind, count, seed)))
