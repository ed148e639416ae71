"""Figures of the papers about kernels: counted operations, and published times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dsf.errors import InvalidInput

from .crossover import crossing, softmax
from .operations import forward
from .published import LENGTHS, MILLISECONDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DARK, _LIGHT, _GREY = "#2f6d8f", "#e8963e", "#8a8a86"


def _axes(width: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """One row of axes; raises `InvalidInput` where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidInput("figures need matplotlib: pip install matplotlib") from None
    made = Figure(figsize=(width, 3.8), layout="constrained")
    return made, np.atleast_1d(np.asarray(made.subplots(1, columns))).tolist()


def operations_per_token(
    keys: int = 128, values: int = 128, chunk: int = 64, lengths: Sequence[int] | None = None
) -> Figure:
    """Counted operations per token and head against length: these are counts, not speeds.

    Softmax grows with the length, the chunk form does not; the dotted line is where they are equal. The paper's
    first figure shows measured training speeds of the same two kinds of curve.
    """
    lengths = [2**n for n in range(7, 14)] if lengths is None else list(lengths)
    made, (place,) = _axes(6)
    linear = [forward(chunk, keys, values)] * len(lengths)
    place.plot(lengths, linear, "o-", color=_DARK, label=f"chunks of {chunk}")
    quadratic = [softmax(T, keys, values) / T for T in lengths]
    place.plot(lengths, quadratic, "s-", color=_LIGHT, label="causal softmax")
    equal = crossing(chunk, keys, values)
    place.axvline(float(equal), color=_GREY, linestyle=":", label=f"equal at {float(equal):g}")
    place.set(
        xlabel="tokens",
        ylabel="operations per token and head",
        xscale="log",
        yscale="log",
        title=f"counted, not timed: {keys} keys, {values} values",
    )
    place.legend(fontsize=8)
    return made


def published_times() -> Figure:
    """Published times per step of Lightning attention 2 and FlashAttention 2, from its authors' table.

    Batch 4, 32 heads of 128 keys and values, bfloat16, on a GPU that the table does not name.
    """
    made, axes = _axes(9, 2)
    for way, place in zip(("forward", "backward"), axes, strict=True):
        rows = (("lightning2", "o-", _DARK), ("flash2", "s-", _LIGHT))
        for name, style, colour in rows:
            times = np.array(MILLISECONDS[name, way]) * 1e3 / np.array(LENGTHS)
            place.plot(LENGTHS, times, style, color=colour, label=name)
        place.set(
            xlabel="tokens",
            ylabel="µs per step of the batch",
            xscale="log",
            yscale="log",
            title=way,
        )
    axes[0].legend(fontsize=8)
    return made
