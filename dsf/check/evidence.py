"""Evidence for people: one row per value, with a drawing where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from dsf.codec import ArrayStore, decode

from . import plots
from .formulas import Formulas
from .text import number

MOST_ROWS = 24  # the certificate beside the page has all
_MOST_CHARACTERS = 200


@dataclass(frozen=True)
class Row:
    """One value of the evidence: where it stands, what it is, and how it looks."""

    name: str
    kind: str
    text: str
    drawing: Markup = Markup("")


def rows(encoded: Any, store: ArrayStore | None, formulas: Formulas) -> tuple[list[Row], int]:
    """The first rows of encoded evidence, and how many values are left out."""
    found: list[Row] = []
    left_out = 0
    for name, value in _leaves(encoded, ""):
        if len(found) < MOST_ROWS:
            found.append(_row(name, decode(value, store), formulas))
        else:
            left_out += 1
    return found, left_out


def _leaves(encoded: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Encoded values that are not containers; a list of plain numbers stays together."""
    match encoded:
        case dict() if encoded and not any(key.startswith("$") for key in encoded):
            for key, value in encoded.items():
                yield from _leaves(value, f"{name}.{key}" if name else key)
        case list() if encoded and not all(isinstance(item, (int, float)) for item in encoded):
            for i, value in enumerate(encoded):
                yield from _leaves(value, f"{name}[{i}]")
        case _:
            yield name, encoded


def _row(name: str, value: Any, formulas: Formulas) -> Row:
    if isinstance(value, np.ndarray):
        shape = " × ".join(map(str, value.shape)) or "a single value"
        return Row(name, f"{value.dtype.name}, {shape}", _range(value), plots.array(value))
    if isinstance(value, float):
        return Row(name, "number", number(value))
    if isinstance(value, list) and len(value) > 1:
        drawing = plots.array(np.array(value, dtype=np.float64))
        return Row(name, f"list of {len(value)}", _cut(value), drawing)
    if type(value).__module__.partition(".")[0] == "sympy":
        return Row(name, "expression", "", formulas.expression(value))
    return Row(name, type(value).__name__, _cut(value))


def _range(value: np.ndarray) -> str:
    if value.size == 0:
        return "empty"
    if np.iscomplexobj(value):
        magnitude = np.abs(value)
        return f"magnitudes from {magnitude.min():.4g} to {magnitude.max():.4g}"
    if value.size == 1:
        return f"{value.item():.4g}"
    return f"from {float(value.min()):.4g} to {float(value.max()):.4g}"


def _cut(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = str(value)
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + " …"
