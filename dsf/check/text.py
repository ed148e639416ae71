"""Text from claims made fit for XML and HTML."""

from __future__ import annotations

import re

# What XML 1.0 section 2.2 leaves out of its production for Char.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def legal(text: object) -> str:
    """`str(text)` with every character that XML 1.0 forbids shown as U+FFFD.

    >>> legal("bell \\x07, tab \\t")
    'bell �, tab \\t'
    """
    return _ILLEGAL.sub("\ufffd", str(text))


def number(value: float | None) -> str:
    """A measured value or bound for people: four significant digits, a dash for none.

    >>> number(0.000123456), number(3.0), number(None)
    ('0.0001235', '3', '–')
    """
    return "–" if value is None else f"{value:.4g}"
