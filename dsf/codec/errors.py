"""The one error of the codec, and how it says where."""

from __future__ import annotations

from typing import Any

Path = tuple[str | int, ...]


def pointer(path: Path) -> str:
    """The JSON pointer (RFC 6901) of a path; long keys are cut so that messages stay readable.

    >>> pointer(("claims", 0, "a/b"))
    '/claims/0/a~1b'
    """
    tokens = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join("/" + (token if len(token) <= 64 else token[:61] + "...") for token in tokens)


def shown(value: Any) -> str:
    """`repr` of a value from a file, cut to a length that fits a message."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value[:80]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class CodecError(ValueError):
    """A value or a file that the codec refuses; `pointer` is the JSON pointer of the culprit."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, what)
        self.pointer = pointer(path)
        self.what = what

    def __str__(self) -> str:
        return f"at {self.pointer or 'the root'}: {self.what}"
