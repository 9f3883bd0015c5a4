"""Damaged or malicious files: each one raises a ValueError that names it, and nothing in it is run."""

import json
import random
import struct
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

import fnnet as fn
from fnnet import data, layers, ops

pytest.importorskip("safetensors", reason="pip install 'fnnet[store]'")
NET = layers.Serial(layers.Dense(3), layers.BatchNorm(), layers.Function(ops.elu, alpha=0.5), layers.Parallel(layers.Dense(2), join=tuple))
PARAMS = ({"w": jnp.ones((4, 3)), "b": jnp.ones(3)}, {"gamma": jnp.ones(3), "beta": jnp.ones(3)}, {},
          ({"w": jnp.ones((3, 2)), "b": jnp.ones(2)},))
STATE = {}, {"mean": jnp.zeros(3), "var": jnp.ones(3)}, {}, ({},)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    table = {"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [1.5, 2.5, 4]}
    answers, y = data.answers_of(table, "c")
    preprocessing = data.columns_of(table, ["a", "b"]), answers.scaled_as(y)
    fn.save(path, NET, (PARAMS, STATE), x=np.ones((1, 4)), preprocessing=preprocessing)
    return path.read_bytes()


@pytest.fixture
def bad(tmp_path):
    """bad(content): the error of loading a file with these bytes, which names the file."""
    def bad(content):
        path = tmp_path / "bad.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="bad.safetensors") as raised:
            fn.load(path)
        return str(raised.value)
    return bad


def taken_apart(content):
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:8 + size]), content[8 + size:]


def put_together(header, arrays):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + arrays


def forged(content, change):
    """The file with another description and the correct checksum."""
    header, arrays = taken_apart(content)
    described = json.loads(header["__metadata__"]["fnnet"])
    text = change(described)
    text = text if isinstance(text, str) else json.dumps(described)
    header["__metadata__"] = {"fnnet": text, "crc32": f"{zlib.crc32(text.encode()):08x}"}
    return put_together(header, arrays)


def test_helpers_alone_change_nothing(good, tmp_path):
    (tmp_path / "same").write_bytes(forged(good, lambda found: None))
    assert fn.load(tmp_path / "same").net == NET


@pytest.mark.parametrize("make", [
    lambda good: b"", lambda good: good[:5], lambda good: good[:100], lambda good: good[:-1], lambda good: good + b"\0",
    lambda good: struct.pack("<Q", 2**63) + good[8:], lambda good: struct.pack("<Q", 0) + good[8:],
    lambda good: struct.pack("<Q", len(good)) + good[8:], lambda good: b"PK\3\4" + bytes(100), lambda good: b"\x80\4" + bytes(100),
    lambda good: put_together({}, b""), lambda good: put_together({"__metadata__": {"fnnet": "{}"}}, b""),
], ids=range(12))
def test_truncated_file_or_file_of_another_kind_raises(good, bad, make):
    bad(make(good))


def test_false_array_headers_raise(good, bad):
    header, arrays = taken_apart(good)
    for change in ({"shape": [2**40, 2**40]}, {"shape": [-1]}, {"shape": [3, 4]}, {"dtype": "I32"}, {"dtype": "F99"}, {"dtype": 1},
                   {"data_offsets": [0, 2**60]}, {"data_offsets": [40, 0]}, {"shape": [12]}):
        bad(put_together({**header, "params.0.w": header["params.0.w"] | change}, arrays))
    renamed = {("w" if name == "params.0.w" else name): value for name, value in header.items()}
    assert "refers to it twice" in bad(put_together(renamed, arrays))
    extra = {**header, "../../etc/passwd": {"dtype": "F32", "shape": [0], "data_offsets": [len(arrays), len(arrays)]}}
    assert "nothing refers to: ../../etc/passwd" in bad(put_together(extra, arrays))


def test_every_flipped_bit_is_detected(good, bad):
    draw = random.Random(0)
    for _ in range(150):
        at = draw.randrange(len(good))
        bad(good[:at] + bytes([good[at] ^ 1 << draw.randrange(8)]) + good[at + 1:])


def at(*places, value):
    def change(found):
        for place in places[:-1]:
            found = found[place]
        found[places[-1]] = value
    return change


DENSE = "net", "fields", "parts", 0
FUNCTION = "net", "fields", "parts", 2, "fields"
COLUMNS, ANSWERS = ("preprocessing", 0, "fields"), ("preprocessing", 1, "fields")
W = "params", 0, "dict", 0, 1


def nested(levels):
    node = {"class": "Flatten", "fields": {}}
    for _ in range(levels):
        node = {"class": "Residual", "fields": {"body": node, "shortcut": {"function": "identity"}}}
    return node


CASES = {
    "a later version": (at("format", value=2), "written by a later version of fnnet (format 2; this one reads 1)"),
    "no version": (at("format", value=None), "has no format"),
    "a version of the past": (at("format", value=0), "must have"),
    "more fields": (at("code", value="import os"), "must have"),
    "a list": (lambda found: "[]", "has no format"),
    "no JSON": (lambda found: "{", "is not JSON"),
    "NaN": (lambda found: '{"format": NaN}', "has no format"),
    "deep JSON": (lambda found: "[" * 100000, "is not JSON"),
    "a number of 5000 digits": (lambda found: '{"format": ' + "9" * 5000 + "}", "is not JSON"),
    "a network that is a word": (at("net", value="os.system"), "net must be a layer"),
    "a network that is a function": (at("net", value={"function": "relu"}), "net must be a layer"),
    "a setting of another kind": (at(*DENSE, "fields", "features", value="many"), "features of Dense must be a whole number"),
    "a setting below 0": (at(*DENSE, "fields", "features", value=-1), "net.parts.0 (Dense)"),
    "a number too large": (at(*DENSE, "fields", "features", value=10**30), "is not a valid description"),
    "more parameters than there is memory": (at(*DENSE, "fields", "features", value=10**12), "params[0]['b'] must be [1000000000000]"),
    "another width": (at(*DENSE, "fields", "features", value=4), "params[0]['b'] must be [4]"),
    "fewer settings": (at(*DENSE, "fields", value={}), "its fields must be"),
    "settings that are a list": (at(*DENSE, "fields", value=[1]), "is not a valid description"),
    "another part": (at(*DENSE, value={"class": "Flatten", "fields": {}}), "Flatten() takes no parameters; got"),
    "parts that are none": (at("net", "fields", "parts", value=3), "its parts must be a tuple"),
    "a foreign class": (at(*DENSE, "module", value="os"), "contains os.Dense, which fnnet does not have"),
    "a module that is a number": (at(*DENSE, "module", value=3), "refers to 'Dense', which this version"),
    "a class that is none": (at(*DENSE, "class", value="__import__"), "refers to '__import__', which this version"),
    "a base class": (at(*DENSE, "class", value="Layer"), "refers to 'Layer', which this version"),
    "a function that is none": (at(*FUNCTION, "f", value={"function": "eval"}), "refers to 'eval', which this version"),
    "a foreign function": (at(*FUNCTION, "f", value={"function": "system", "module": "os"}), "contains os.system"),
    "a setting twice": (at(*FUNCTION, "settings", value=[["f", 1]]), "net.parts.2 (Function)"),
    "keys that are lists": (at("params", 0, value={"dict": [[{"list": []}, 1]]}), "params.0"),
    "a dictionary of triples": (at("params", 0, value={"dict": [[1, 2, 3]]}), "is not a valid description"),
    "an array named twice": (at("params", 0, "dict", 1, 1, "array", value="params.0.w"), "refers to it twice"),
    "an array of another shape": (at(*W, "shape", value=[3, 4]), "must be float64[3, 4], as the network declares; got F64[4, 3]"),
    "an array of shape true": (at(*W, "shape", value=[True, 12]), "is not a valid description"),
    "an array of another dtype": (at(*W, "dtype", value="int64"), "must be int64[4, 3], as the network declares"),
    "an array of no dtype": (at(*W, "dtype", value="object"), "is not a valid description"),
    "an array with another checksum": (at(*W, "crc32", value=1), "params.0.w does not match its checksum"),
    "no parameters": (at("params", value=[]), "that nothing refers to: params.0.b"),
    "a state that is a word": (at("state", value="x"), "that nothing refers to"),
    "preprocessing that is a number": (at("preprocessing", value=3), "that nothing refers to"),
    "preprocessing of two shapes": (at(*ANSWERS, "scaling", "fields", "mean", value={"list": []}), "must have the same shape"),
    "answers without a scaling": (at(*ANSWERS, "scaling", value=1), "answers must have a name, a tuple of class names and"),
    "classes that are numbers": (at(*ANSWERS, "classes", value=[1, 2]), "answers must have a name, a tuple of class names and"),
    "columns that are a word": (at(*COLUMNS, "names", value="ab"), "columns must have names"),
    "columns of another number": (at(*COLUMNS, "names", value=["a"]), "columns must have names"),
    "categories that are numbers": (at(*COLUMNS, "categories", value=[[1], []]), "must be text"),
    "fewer categories": (at(*COLUMNS, "categories", value=[[], ["x"]]), "fill, mean and scale must have shape [2]"),
    "an input that is a word": (at("x", value="x"), "x must be the shapes and dtypes of an input"),
    "an input of a huge size": (at("x", "shape", value=[2**62, 2**62]), "params"),
    "levels without end": (lambda found: '{"format": 1, "net": ' + '{"list": [' * 50000 + "]}" * 50000 + "}", "is not JSON"),
    "too many levels": (at("net", value=nested(200)), "nested more than 120 levels deep"),
}


@pytest.mark.parametrize("change, sentence", CASES.values(), ids=CASES)
def test_invalid_description_raises(good, bad, change, sentence):
    assert sentence in bad(forged(good, change))


VALUES = [None, True, -1, 0, 10**19, 1e308, "", "x", "\ud800", [], {}, [[]], {"list": 3}, {"dict": {}}, {"float": "1e999"},
          {"number": ["int8", 500]}, {"number": ["float32", {"float": "nan"}]}, {"dtype": "int4"}, {"function": "rules"},
          {"function": "tuple"}, {"partial": 1, "args": [], "keywords": {"dict": []}}, {"class": "normal", "fields": {"stddev": "x"}},
          {"class": "Repeat", "fields": {"layer": nested(1), "times": 10**9, "keep": "nothing"}}, {"shape": [], "dtype": "int8"},
          {"initializer": "x"}, {"class": [], "fields": []}]


def places(node, here=()):
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [here, *(found for name, part in inside for found in places(part, (*here, name)))]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.fuzz) for seed in range(1, 40))])
def test_any_changed_value_is_an_error_or_a_network(good, tmp_path, seed):
    draw = random.Random(seed)
    everywhere = places(json.loads(taken_apart(good)[0]["__metadata__"]["fnnet"]))[1:]
    path = tmp_path / "bad.safetensors"
    for _ in range(60):
        path.write_bytes(forged(good, at(*draw.choice(everywhere), value=draw.choice(VALUES))))
        try:
            assert isinstance(fn.load(path), fn.store.Model)
        except ValueError as problem:
            assert "bad.safetensors" in str(problem)


def test_missing_file_and_folder_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*nowhere: fn.save writes one"):
        fn.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read"):
        fn.load(tmp_path)


def test_parameters_of_another_library_raise_with_a_remedy(tmp_path):
    import safetensors.numpy
    safetensors.numpy.save_file({"weight": np.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"it does not hold a network saved by fn.save; for parameters only, write fn.store.from_torch"):
        fn.load(tmp_path / "w.safetensors")
