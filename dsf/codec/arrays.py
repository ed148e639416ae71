"""Arrays as little-endian base64, or as `.npy` files named by their hash beside the JSON.

Nothing of numpy's own reader is used on a file: the header that an array of the declared dtype and
shape must have is written and compared, so that neither a pickle nor a crafted header is parsed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import os
import re
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from .errors import CodecError, Path, shown
from .files import read_bytes, write_atomically
from .limits import MAX_BYTES, MAX_INLINE_BYTES, MAX_NDIM

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("bool", *_INTEGERS, "float32", "float64", "complex64", "complex128")
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_HEADER = 4096


class ArrayStore:
    """The folder `<FILE>.evidence` that holds the large arrays of FILE, each as `<sha256>.npy`."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = FilePath(folder)

    @classmethod
    def beside(cls, file: str | os.PathLike[str]) -> ArrayStore:
        return cls(f"{os.fspath(file)}.evidence")

    def put(self, npy: bytes) -> str:
        """Keep the bytes of a `.npy` file and return their hash; safe to repeat."""
        sha256 = hashlib.sha256(npy).hexdigest()
        target = self.folder / f"{sha256}.npy"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == sha256):
            write_atomically(target, npy)
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes with this hash; raises `OSError` if there are none, `CodecError` if altered."""
        npy = read_bytes(self.folder / f"{sha256}.npy", MAX_BYTES + _MAX_HEADER)
        if hashlib.sha256(npy).hexdigest() != sha256:
            raise CodecError((), f"the file {sha256}.npy has other bytes than its name says")
        return npy


def encode_array(array: np.ndarray, store: ArrayStore | None, path: Path) -> Any:
    if type(array) is not np.ndarray or array.dtype.name not in _DTYPES:
        kind = f"{type(array).__name__} of dtype {array.dtype}"
        raise CodecError(path, f"{kind} cannot be kept; use a plain array of {', '.join(_DTYPES)}")
    name = array.dtype.name
    raw = np.ascontiguousarray(array, dtype=_DTYPES[name]).tobytes()
    body = {"dtype": name, "shape": list(array.shape)}
    _read_form(body, path)
    return {"$array": body | _kept(raw, body, store)}


def decode_array(body: Any, store: ArrayStore | None, path: Path) -> np.ndarray:
    """A read-only array, C order, native bytes; raises `CodecError`."""
    dtype, shape = _read_form(body, path)
    raw = _raw(body, store, path)
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        what = f"{len(raw)} bytes for shape {list(shape)} of {body['dtype']}: {expected} expected"
        raise CodecError(path, what)
    if dtype.kind == "b" and raw.strip(b"\x00\x01"):
        raise CodecError(path, "a bool array holds bytes other than 0 and 1")
    array = np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    array.flags.writeable = False
    return array


def externalise(encoded: Any, store: ArrayStore) -> Any:
    """The same encoded value with every array over 64 KiB moved into the store."""

    def move(body: dict[str, Any], path: Path) -> dict[str, Any]:
        return _moved(body, store, store, path)

    return _map_arrays(encoded, move, ())


def internalise(encoded: Any, store: ArrayStore) -> Any:
    """The same encoded value with every array of the store written inline."""

    def move(body: dict[str, Any], path: Path) -> dict[str, Any]:
        return _moved(body, store, None, path)

    return _map_arrays(encoded, move, ())


def _moved(
    body: dict[str, Any], source: ArrayStore, target: ArrayStore | None, path: Path
) -> dict[str, Any]:
    _read_form(body, path)
    form = {"dtype": body["dtype"], "shape": body["shape"]}
    return form | _kept(_raw(body, source, path), form, target)


def _map_arrays(value: Any, move: Any, path: Path) -> Any:
    match value:
        case {"$array": dict() as body} if len(value) == 1:
            return {"$array": move(body, (*path, "$array"))}
        case dict():
            return {key: _map_arrays(item, move, (*path, key)) for key, item in value.items()}
        case list():
            return [_map_arrays(item, move, (*path, i)) for i, item in enumerate(value)]
        case _:
            return value


def _kept(raw: bytes, form: dict[str, Any], store: ArrayStore | None) -> dict[str, str]:
    if store is None or len(raw) <= MAX_INLINE_BYTES:
        return {"data": base64.b64encode(raw).decode("ascii")}
    return {"sha256": store.put(_header(form) + raw)}


def _read_form(body: Any, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """dtype and shape of an encoded array, checked before anything is allocated."""
    if not isinstance(body, dict) or not {"dtype", "shape"} <= body.keys():
        raise CodecError(path, "$array must have dtype, shape and either data or sha256")
    name, shape = body["dtype"], body["shape"]
    if not isinstance(name, str) or name not in _DTYPES:
        raise CodecError(path, f"dtype {shown(name)} is not one of {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > MAX_NDIM:
        raise CodecError(path, f"shape must be a list of at most {MAX_NDIM} sizes")
    for size in shape:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise CodecError(path, f"shape {shown(shape)} must hold integers that are not negative")
    # Empty arrays count too: (0, 2**60) has no bytes but a sum over axis 0 would.
    if math.prod(max(size, 1) for size in shape) * _DTYPES[name].itemsize > MAX_BYTES:
        raise CodecError(path, f"shape {shown(shape)} of {name} is larger than {MAX_BYTES} bytes")
    return _DTYPES[name], tuple(shape)


def _raw(body: dict[str, Any], store: ArrayStore | None, path: Path) -> bytes:
    match body:
        case {"dtype": _, "shape": _, "data": str() as text} if len(body) == 3:
            return _from_base64(text, path)
        case {"dtype": _, "shape": _, "sha256": str() as sha256} if len(body) == 3:
            return _from_store(body, sha256, store, path)
        case _:
            raise CodecError(path, "$array must have dtype, shape and either data or sha256")


def _from_base64(text: str, path: Path) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CodecError(path, f"data is not base64: {error}") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise CodecError(path, "data is not the canonical base64 of its bytes")
    return raw


def _from_store(body: dict[str, Any], sha256: str, store: ArrayStore | None, path: Path) -> bytes:
    if not _SHA256.fullmatch(sha256):
        raise CodecError(path, f"sha256 {shown(sha256)} is not 64 hexadecimal digits")
    if store is None:
        raise CodecError(path, f"the array {sha256} lies in a side file, and there is none here")
    try:
        npy = store.get(sha256)
    except FileNotFoundError:
        raise CodecError(path, f"the array {sha256} is missing from the evidence folder") from None
    except CodecError as error:
        raise CodecError(path, error.what) from None
    header = _header(body)
    if not npy.startswith(header):
        raise CodecError(path, f"{sha256}.npy is not a plain array of the dtype and shape declared")
    return npy[len(header) :]


def _header(body: dict[str, Any]) -> bytes:
    """The NPY 1.0 header (numpy.lib.format) of a C-ordered little-endian array."""
    descr, shape = _DTYPES[body["dtype"]].str, tuple(body["shape"])
    fields = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    length = -(-(10 + len(fields) + 1) // 64) * 64 - 10
    text = fields.ljust(length - 1).encode("ascii") + b"\n"
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text
