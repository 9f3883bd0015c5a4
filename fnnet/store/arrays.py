"""Arrays by name in a safetensors file, one text beside them: written whole or not at all, and checked on reading."""

import contextlib
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# NumPy's names of the dtypes, and those of safetensors.
DTYPES = {"bool": "BOOL", "int8": "I8", "uint8": "U8", "int16": "I16", "uint16": "U16", "int32": "I32",
          "uint32": "U32", "int64": "I64", "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32",
          "float64": "F64", "complex64": "C64"}
TEXT = "fnnet"          # the entries of the metadata: a description, and its CRC-32
CHECK = "crc32"


class Damaged(ValueError):
    """What is wrong with a file, without its name."""


def safetensors() -> Any:
    """The library, or a sentence."""
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("networks are stored by safetensors, which is not installed: "
                          "pip install 'fnnet[store]'") from None
    return safetensors


def array(value: Any, name: str) -> np.ndarray:
    """A leaf as NumPy's array, or a sentence with its name where it cannot be stored."""
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} must be an array of numbers; got a random key: store jax.random.key_data(key) "
                            "instead")
        if value.is_deleted():
            raise ValueError(f"{name} has been donated to a later step and holds nothing now: save the state that the "
                             "last step returned")
        if not (value.is_fully_addressable or value.is_fully_replicated):
            raise ValueError(f"{name} is sharded over processes: gather it first, "
                             "jax.experimental.multihost_utils.process_allgather")
    found = np.asarray(value, order="C")
    if found.dtype.name not in DTYPES:
        raise TypeError(f"{name} must be of a dtype that safetensors stores ({', '.join(DTYPES)}); got "
                        f"{found.dtype.name}: cast it first")
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def crc(content: np.ndarray | str) -> int:
    """CRC-32 of an array's bytes or of a text: the enemy is a bad disk, not a forger."""
    if isinstance(content, str):
        return zlib.crc32(content.encode("utf-8", "surrogatepass"))
    return zlib.crc32(content.reshape(-1).view(np.uint8).data) if content.size else 0


def write(path: Path, arrays: Mapping[str, np.ndarray], text: str) -> None:
    """Writes under another name in the same folder and renames once all is on the disk: a file is old, or whole."""
    library = safetensors()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: write the name of a file, {path / 'model.safetensors'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        library.numpy.save_file(dict(arrays), beside, metadata={TEXT: text, CHECK: f"{crc(text):08x}"})
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """An open safetensors file and its metadata. Damaged where its header is not one, or does not cover the file."""
    library = safetensors()
    try:
        file = library.safe_open(path, "np")
    except OSError:
        raise
    except Exception as problem:        # SafetensorError, which is an Exception and no more
        raise Damaged(f"it is not a complete safetensors file ({str(problem)[:200]}): is the file cut short?") from None
    with file:
        yield file, file.metadata() or {}


def description(metadata: Mapping[str, str]) -> Any:
    """The data that the metadata hold as text, once it matches its checksum."""
    if TEXT not in metadata:
        raise Damaged("it holds no network: fn.save writes such files; for parameters alone write fn.store.from_torch")
    text = metadata[TEXT]
    if metadata.get(CHECK) != f"{crc(text):08x}":
        raise Damaged("the description of the network does not match its checksum: the file has been damaged or edited")
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError) as problem:
        said = str(problem)[:200] or type(problem).__name__
        raise Damaged(f"the description of the network is not JSON ({said})") from None


def read(file: Any, name: str, shape: tuple, dtype: str, check: int) -> np.ndarray:
    """One array, which must have the shape, dtype and checksum that the description says."""
    part = file.get_slice(name)
    found = tuple(part.get_shape()), part.get_dtype()
    if found != (shape, DTYPES[dtype]):
        raise Damaged(f"{name} must be {dtype}{list(shape)}, as the network says; got {found[1]}{list(found[0])}")
    content = file.get_tensor(name)
    if crc(np.asarray(content, order="C")) != check:
        raise Damaged(f"{name} does not match its checksum")
    return content
