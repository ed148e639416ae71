"""Small inline SVG drawings of numbers and arrays; colours come from the page's style."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

_WIDTH, _HEIGHT = 320.0, 90.0
_CELLS = 24  # at most, of a heat map along one axis
_FLAT = 1e-12  # a relative spread that is drawn as none: rounding
_CELL = 7.0  # the side of a cell, as in the page's style
_FAINTEST = 0.005  # fainter shades round to none
_POINTS = 240  # at most, of a line


def scale(measured: float | None, bound: float | None, predicted: float | None = None) -> Markup:
    """Where the measured value lies against its bound: a logarithmic axis, linear below zero.

    Empty where there are not two numbers to compare.
    """
    marks = [
        (name, value)
        for name, value in (("bound", bound), ("predicted", predicted), ("measured", measured))
        if value is not None and math.isfinite(value)
    ]
    if measured is None or len(marks) < 2:
        return Markup("")
    positions, ticks = _axis([value for _, value in marks])
    left, right, line = 10.0, _WIDTH - 10.0, 22.0
    body = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            left, right, line, line
        )
    ]
    for at, label in ticks:
        x = left + at * (right - left)
        body.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                x, line + 17, "start" if at < 0.1 else "end" if at > 0.9 else "middle", label
            )
        )
        body.append(Markup('<circle class="tick" cx="{:.1f}" cy="{}" r="1.5"/>').format(x, line))
    for (name, value), at in zip(marks, positions, strict=True):
        x = left + at * (right - left)
        shape = Markup(_SHAPES[name]).format(x=f"{x:.1f}", y=line)
        body.append(
            Markup('<g class="{}"><title>{} {}</title>{}</g>').format(
                name, name, f"{value:.6g}", shape
            )
        )
    return _svg("scale", "measured against bound", _WIDTH, 46.0, body)


_SHAPES = {
    "bound": '<rect x="{x}" y="{y}" width="2.5" height="24" transform="translate(-1.25 -12)"/>',
    "predicted": '<path d="M0 -6 6 0 0 6 -6 0Z" transform="translate({x} {y})"/>',
    "measured": '<circle cx="{x}" cy="{y}" r="5"/>',
}


def _axis(values: list[float]) -> tuple[list[float], list[tuple[float, str]]]:
    """Positions in [0, 1] of the values, and labelled ticks. Zero stands at the left end."""
    if min(values) < 0:
        low, high = min(values), max(values)
        half = (high / 2 - low / 2) or 1.0  # halves: the range of float64 must not overflow
        place = [0.05 + 0.9 * (value / 2 - low / 2) / half for value in values]
        return place, [
            (place[i], f"{values[i]:.3g}") for i in (np.argmin(values), np.argmax(values))
        ]
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    low, high = math.floor(min(logs) - 0.05), math.ceil(max(logs) + 0.05)
    start = 0.12 if min(values) == 0 else 0.0  # room for zero before the first power of ten

    def at(exponent: float) -> float:
        return start + (1 - start) * (exponent - low) / (high - low)

    ticks = [(0.0, "0")] if start else []
    step = max(1, math.ceil((high - low) / 5))
    ticks += [(at(float(exponent)), f"1e{exponent}") for exponent in range(low, high + 1, step)]
    return [at(math.log10(value)) if value > 0 else 0.0 for value in values], ticks


def array(values: np.ndarray) -> Markup:
    """A line for a vector, a heat map for a matrix, else nothing; complex by magnitude."""
    if values.size < 2 or values.ndim not in (1, 2):
        return Markup("")
    if values.ndim == 2 and 1 in values.shape:
        values = values.ravel()
    real = np.abs(values) if np.iscomplexobj(values) else values
    real = real.astype(np.float64)
    if not np.isfinite(real).any():
        return Markup("")
    return _line(real) if real.ndim == 1 else _heat_map(real)


def _line(values: np.ndarray) -> Markup:
    picked = np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(int))
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    heights = _fraction(values[picked], low, high)
    x = 5 + (_WIDTH - 10) * picked / (len(values) - 1)
    y = 14 + (_HEIGHT - 28) * (1 - heights)
    pieces, pen = [], "M"
    for px, py in zip(x, y, strict=True):
        if math.isfinite(py):
            pieces.append(f"{pen}{px:.1f} {py:.1f}")
            pen = "L"
        else:
            pen = "M"
    body = [
        Markup('<path class="line" d="{}"/>').format("".join(pieces)),
        Markup('<text class="tick" x="5" y="9">{}</text>').format(f"{high:.4g}"),
        Markup('<text class="tick" x="5" y="{}">{}</text>').format(_HEIGHT - 2, f"{low:.4g}"),
    ]
    return _svg("plot", f"{len(values)} values from {low:.4g} to {high:.4g}", _WIDTH, _HEIGHT, body)


def _heat_map(values: np.ndarray) -> Markup:
    """Means over blocks, blue below zero, red above, as strong as the magnitude is large."""
    finite = np.where(np.isfinite(values), values, 0.0)
    peak = float(np.abs(finite).max()) or 1.0
    means = finite / peak
    for axis in (0, 1):
        starts = np.unique(np.linspace(0, means.shape[axis], _CELLS, endpoint=False).astype(int))
        sizes = np.diff([*starts, means.shape[axis]])
        sums = np.add.reduceat(means, starts, axis)
        means = sums / (sizes[:, None] if axis == 0 else sizes)
    shades = means / (float(np.abs(means).max()) or 1.0)
    body = [
        Markup('<rect class="{}" x="{:g}" y="{:g}" opacity="{:.2f}"/>').format(
            "negative" if shade < 0 else "positive", j * _CELL, i * _CELL, abs(shade)
        )
        for (i, j), shade in np.ndenumerate(shades)
        if abs(shade) >= _FAINTEST
    ]
    label = f"{values.shape[0]} × {values.shape[1]} values, largest magnitude {peak:.4g}"
    return _svg("heat", label, means.shape[1] * _CELL, means.shape[0] * _CELL, body)


def _fraction(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as fractions of the range; halves first, so that no difference overflows."""
    half = high / 2 - low / 2
    if half <= _FLAT * max(abs(high), abs(low)):
        return np.full_like(values, 0.5)
    return (values / 2 - low / 2) / half


def _svg(kind: str, label: str, width: float, height: float, body: list[Markup]) -> Markup:
    return Markup(
        '<svg class="{}" role="img" aria-label="{}" viewBox="0 0 {:g} {:g}" '
        'width="{:g}" height="{:g}">{}</svg>'
    ).format(kind, label, width, height, width, height, Markup("").join(body))
