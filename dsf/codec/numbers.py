"""Exact numbers: integers past 2^53 and rationals as hexadecimal strings.

Every number has one encoding: a small integer is never `$int`, a rational is in lowest terms.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

from .errors import CodecError, Path, shown
from .limits import MAX_BITS, MAX_PLAIN_INT

_HEX = re.compile(r"0x0|-?0x[1-9a-f][0-9a-f]*")
_MAX_CHARS = 3 + MAX_BITS // 4


def encode_integer(value: int, path: Path) -> Any:
    _refuse_long(value, path)
    return int(value) if abs(value) <= MAX_PLAIN_INT else {"$int": hex(value)}


def encode_rational(value: Fraction, path: Path) -> Any:
    for part in (value.numerator, value.denominator):
        _refuse_long(part, path)
    return {"$rational": [hex(value.numerator), hex(value.denominator)]}


def decode_integer(body: Any, path: Path) -> int:
    value = _from_hex(body, path)
    if abs(value) <= MAX_PLAIN_INT:
        raise CodecError(path, f"$int {body} is at most 2^53; it must be written plainly")
    return value


def decode_rational(body: Any, path: Path) -> Fraction:
    if not (isinstance(body, list) and len(body) == 2):
        raise CodecError(path, "$rational must be [numerator, denominator], both hexadecimal")
    numerator, denominator = (_from_hex(part, (*path, i)) for i, part in enumerate(body))
    if denominator < 1 or math.gcd(numerator, denominator) != 1:
        raise CodecError(path, "$rational must be in lowest terms with a positive denominator")
    return Fraction(numerator, denominator)


def _from_hex(text: Any, path: Path) -> int:
    if not isinstance(text, str):
        raise CodecError(path, f"{shown(text)} must be a hexadecimal string such as '0x1f'")
    if len(text) > _MAX_CHARS:
        raise CodecError(path, f"an integer of more than {MAX_BITS} bits")
    if not _HEX.fullmatch(text):
        raise CodecError(path, f"{shown(text)} must be a hexadecimal string such as '0x1f'")
    value = int(text, 16)
    _refuse_long(value, path)
    return value


def _refuse_long(value: int, path: Path) -> None:
    if value.bit_length() > MAX_BITS:
        raise CodecError(path, f"an integer of {value.bit_length()} bits; at most {MAX_BITS}")
