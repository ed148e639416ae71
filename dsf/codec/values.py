"""Python values to JSON values and back."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from .arrays import ArrayStore, decode_array, encode_array
from .errors import CodecError, Path, shown
from .limits import MAX_DEPTH, MAX_EVIDENCE_DEPTH
from .numbers import decode_integer, decode_rational, encode_integer, encode_rational
from .strict import check, complaint_of


def encode(value: Any, store: ArrayStore | None = None) -> Any:
    """The JSON value of None, numbers, strings, lists, dicts, fractions, arrays and expressions.

    Tuples become lists, numpy scalars become plain numbers; arrays over 64 KiB go to `store` where
    there is one. Raises `CodecError` for anything else.

    >>> from fractions import Fraction
    >>> encode({"n": 2**60, "x": Fraction(1, 3)})
    {'n': {'$int': '0x1000000000000000'}, 'x': {'$rational': ['0x1', '0x3']}}
    """
    encoded = _encode(value, store, ())
    check(encoded, MAX_EVIDENCE_DEPTH)
    return encoded


def _encode(value: Any, store: ArrayStore | None, path: Path) -> Any:
    if len(path) > MAX_EVIDENCE_DEPTH:
        raise CodecError(path, f"nested deeper than {MAX_EVIDENCE_DEPTH}")
    match value:
        case None | bool():
            return value
        case np.bool_():
            return bool(value)
        case str():
            return str.__str__(value)
        case int() | np.integer():
            return encode_integer(int(value), path)
        case float():
            return _finite(float(value), path)
        case np.floating() if value.dtype.itemsize < 8:
            return _finite(float(value), path)
        case Fraction():
            return encode_rational(value, path)
        case np.ndarray():
            return encode_array(value, store, path)
        case list() | tuple():
            return [_encode(item, store, (*path, i)) for i, item in enumerate(value)]
        case Mapping():
            return {_key(k, path): _encode(v, store, (*path, k)) for k, v in value.items()}
    # An expression can only be here if somebody imported sympy already.
    if "sympy" in sys.modules:
        from .trees import encode_tree, is_symbolic

        if is_symbolic(value):
            return {"$sympy": encode_tree(value, path)}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise CodecError(path, f"a {kind} cannot be kept as evidence; see dsf.codec.encode")


def _finite(value: float, path: Path) -> float:
    if not math.isfinite(value):
        raise CodecError(
            path, f"{value} is not finite; say what happened in words, or use an array"
        )
    return value


def _key(key: Any, path: Path) -> str:
    if not isinstance(key, str):
        raise CodecError(path, f"the key {shown(key)} must be a string")
    if key.startswith("$"):
        raise CodecError(path, f"the key {shown(key)} begins with '$', which is reserved")
    return str.__str__(key)


def decode(value: Any, store: ArrayStore | None = None) -> Any:
    """The value that a JSON value encodes; arrays are read-only. Raises `CodecError`.

    >>> decode({"$rational": ["0x1", "0x3"]})
    Fraction(1, 3)
    """
    return _decode(value, store, ())


def _decode(value: Any, store: ArrayStore | None, path: Path) -> Any:
    if len(path) > MAX_DEPTH:
        raise CodecError(path, f"nested deeper than {MAX_DEPTH}")
    match value:
        case dict():
            tags = [key for key in value if isinstance(key, str) and key.startswith("$")]
            if tags:
                return _decode_tagged(value, tags[0], store, path)
            return {key: _decode(item, store, (*path, key)) for key, item in value.items()}
        case list():
            return [_decode(item, store, (*path, i)) for i, item in enumerate(value)]
        case _:
            if complaint := complaint_of(value):
                raise CodecError(path, complaint)
            return value


def _decode_tagged(value: dict[str, Any], tag: str, store: ArrayStore | None, path: Path) -> Any:
    body, here = value[tag], (*path, tag)
    if len(value) != 1:
        raise CodecError(path, f"{shown(tag)} must stand alone in its object")
    match tag:
        case "$int":
            return decode_integer(body, here)
        case "$rational":
            return decode_rational(body, here)
        case "$array":
            return decode_array(body, store, here)
        case "$sympy":
            from .trees import decode_tree

            return decode_tree(body, here)
        case _:
            known = "$int, $rational, $array, $sympy"
            raise CodecError(path, f"unknown tag {shown(tag)}; known are {known}")
