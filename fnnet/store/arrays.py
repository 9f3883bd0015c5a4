"""Named arrays and one text in a safetensors file: written atomically, and checked on reading."""

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
TEXT = "fnnet"          # the metadata entries: a description, and its CRC-32
CHECK = "crc32"


class Damaged(ValueError):
    """An error about the contents of a file, without its name."""


def safetensors() -> Any:
    """The safetensors library, or an error that says how to install it."""
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("storing networks needs safetensors, which is not installed: "
                          "pip install 'fnnet[store]'") from None
    return safetensors


def array(value: Any, name: str) -> np.ndarray:
    """A leaf as a NumPy array, or an error with its name if it cannot be stored."""
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} must be an array of numbers; got a random key: store jax.random.key_data(key) "
                            "instead")
        if value.is_deleted():
            raise ValueError(f"{name} has been donated to a later step and is deleted: save the state that the last "
                             "step returned")
        if not (value.is_fully_addressable or value.is_fully_replicated):
            raise ValueError(f"{name} is sharded across processes: gather it first, "
                             "jax.experimental.multihost_utils.process_allgather")
    found = np.asarray(value, order="C")
    if found.dtype.name not in DTYPES:
        raise TypeError(f"{name} must have a dtype that safetensors can store ({', '.join(DTYPES)}); got "
                        f"{found.dtype.name}: cast it first")
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def crc(content: np.ndarray | str) -> int:
    """CRC-32 of an array's bytes or of a text: the threat is a bad disk, not a forger."""
    if isinstance(content, str):
        return zlib.crc32(content.encode("utf-8", "surrogatepass"))
    return zlib.crc32(content.reshape(-1).view(np.uint8).data) if content.size else 0


def write(path: Path, arrays: Mapping[str, np.ndarray], text: str) -> None:
    """Writes under a temporary name in the same folder and renames once everything is on disk: readers see the old file or the complete
    new one."""
    library = safetensors()
    if path.is_dir():
        raise IsADirectoryError(f"path must be a file; got the folder {path}; write {path / 'model.safetensors'}")
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
    """An open safetensors file and its metadata. Raises Damaged if its header is invalid or does not cover the file."""
    library = safetensors()
    try:
        file = library.safe_open(path, "np")
    except OSError:
        raise
    except Exception as problem:        # SafetensorError, which derives directly from Exception
        raise Damaged(f"it is not a complete safetensors file ({str(problem)[:200]}): is the file truncated?") from None
    with file:
        yield file, file.metadata() or {}


def description(metadata: Mapping[str, str]) -> Any:
    """The description stored as text in the metadata, after checking its checksum."""
    if TEXT not in metadata:
        raise Damaged("it does not hold a network saved by fn.save; for parameters only, write fn.store.from_torch")
    text = metadata[TEXT]
    if metadata.get(CHECK) != f"{crc(text):08x}":
        raise Damaged("the description of the network does not match its checksum: the file has been damaged or edited")
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError) as problem:
        said = str(problem)[:200] or type(problem).__name__
        raise Damaged(f"the description of the network is not JSON ({said})") from None


def read(file: Any, name: str, shape: tuple, dtype: str, check: int) -> np.ndarray:
    """One array, which must have the shape, dtype and checksum given in the description."""
    part = file.get_slice(name)
    found = tuple(part.get_shape()), part.get_dtype()
    if found != (shape, DTYPES[dtype]):
        raise Damaged(f"{name} must be {dtype}{list(shape)}, as the network declares; got {found[1]}{list(found[0])}")
    content = file.get_tensor(name)
    if crc(np.asarray(content, order="C")) != check:
        raise Damaged(f"{name} does not match its checksum")
    return content
