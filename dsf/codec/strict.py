"""JSON, strictly: bytes to values, every ambiguity refused, and values to one canonical text."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from .errors import CodecError, Path, shown
from .limits import MAX_BYTES, MAX_DEPTH, MAX_NUMBER_CHARS, MAX_PLAIN_INT, MAX_VALUES


class _Refused:
    """Stands in the parsed value where the parser met something refused; `check` says where."""

    def __init__(self, what: str) -> None:
        self.what = what


def loads(data: bytes) -> Any:
    """The JSON value of UTF-8 bytes.

    Refuses, with `CodecError`: repeated keys, NaN and infinities, numbers that overflow float64,
    plain integers beyond 2^53, nesting beyond 64, more than 256 MiB or 4 000 000 values, lone
    surrogates, and what is not JSON or not UTF-8.

    >>> loads(b'{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    >>> loads(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    dsf.codec.errors.CodecError: at the root: the key 'a' stands twice
    """
    if len(data) > MAX_BYTES:
        raise CodecError((), f"{len(data)} bytes; at most {MAX_BYTES} are read")
    # Every value but the first follows one of these bytes, so this bounds the memory of parsing.
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise CodecError((), f"more than {MAX_VALUES} values")
    try:
        value = json.loads(
            bytes(data).decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_real,
            parse_constant=lambda name: _Refused(f"{name} is not a JSON number"),
        )
    except UnicodeDecodeError as error:
        raise CodecError((), f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise CodecError((), f"not JSON: {error}") from None
    except RecursionError:
        raise CodecError((), f"nested deeper than {MAX_DEPTH}") from None
    check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
    return _Refused(f"the key {shown(repeated)} stands twice")


def _integer(text: str) -> Any:
    # Looking at the length first keeps Python's limit on decimal conversion (4 300 digits) away.
    if len(text) > 17 or abs(value := int(text)) > MAX_PLAIN_INT:
        return _Refused('a plain integer beyond 2^53; it must be written as {"$int": "0x..."}')
    return value


def _real(text: str) -> Any:
    if len(text) > MAX_NUMBER_CHARS:
        return _Refused(f"a number of {len(text)} characters; at most {MAX_NUMBER_CHARS}")
    value = float(text)
    return value if math.isfinite(value) else _Refused(f"{shown(text)} overflows float64")


def check(value: Any, max_depth: int = MAX_DEPTH) -> None:
    """Raise `CodecError` unless the value is JSON as `loads` gives it (iterative: no recursion)."""
    stack: list[tuple[Any, Path]] = [(value, ())]
    count = 1
    while stack:
        item, path = stack.pop()
        if not isinstance(item, (list, dict)):
            if complaint := complaint_of(item):
                raise CodecError(path, complaint)
            continue
        if len(path) >= max_depth:
            raise CodecError(path, f"nested deeper than {max_depth}")
        count += len(item)
        if count > MAX_VALUES:
            raise CodecError(path, f"more than {MAX_VALUES} values")
        named = isinstance(item, dict)
        for key, child in item.items() if named else enumerate(item):
            if named and (complaint := _key_complaint(key)):
                raise CodecError(path, complaint)
            if isinstance(child, (list, dict)):
                stack.append((child, (*path, key)))
            elif complaint := complaint_of(child):
                raise CodecError((*path, key), complaint)


def _key_complaint(key: Any) -> str | None:
    if not isinstance(key, str):
        return f"the key {shown(key)} is of type {type(key).__name__}; keys are strings"
    return _text_complaint(key)


def complaint_of(item: Any) -> str | None:
    """Why a scalar is not JSON as we write it, or None."""
    match item:
        case None | bool():
            return None
        case str():
            return _text_complaint(item)
        case int():
            return f"{shown(item)} is beyond 2^53; encode it" if abs(item) > MAX_PLAIN_INT else None
        case float():
            return None if math.isfinite(item) else f"{item} is not finite"
        case _Refused():
            return item.what
        case _:
            return f"a value of type {type(item).__name__} is not JSON; encode it"


def _text_complaint(text: str) -> str | None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return "a string with a lone surrogate has no UTF-8"
    return None


def canonical(value: Any) -> bytes:
    """The one text of a JSON value: sorted keys, no spaces, UTF-8, floats as `repr`.

    Unequal values have unequal texts: 1, 1.0, true, 0.0 and -0.0 all differ.

    >>> canonical({"b": -0.0, "a": [1, 1.0]})
    b'{"a":[1,1.0],"b":-0.0}'
    """
    check(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def dumps(value: Any) -> bytes:
    """The same value for people: sorted keys, two spaces, a final newline."""
    check(value)
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def digest(record: Mapping[str, Any]) -> str:
    """`sha256:` and the hash of the canonical record without its own `digest`.

    >>> digest({"a": 1}) == digest({"a": 1, "digest": "anything"})
    True
    """
    covered = {key: value for key, value in record.items() if key != "digest"}
    return "sha256:" + hashlib.sha256(canonical(covered)).hexdigest()
