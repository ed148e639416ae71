"""The nearest window and stride that need no mask, so that the FLOP bound is attained."""

from __future__ import annotations

from dataclasses import dataclass

from .axis import Axis
from .axis_counts import count_axis
from .pattern import Pattern
from .tiling import Tiling


@dataclass(frozen=True)
class Suggestion:
    """A block-sparse pattern near a given one, or None with the axes for which there is none."""

    pattern: Pattern | None
    reasons: tuple[str, ...] = ()


def suggest(pattern: Pattern, tiling: Tiling) -> Suggestion:
    """Search for the nearest block-sparse window and stride, axis by axis.

    Axes are independent: a pattern is block-sparse where each axis is. The window changes as little
    as possible, then the stride; of two as near the smaller is taken.

    >>> found = suggest(Pattern((30, 48, 80), (18, 24, 24), (1, 1, 1)), Tiling((4, 8, 8), (2, 8, 8)))
    >>> found.pattern.window, found.pattern.stride
    ((18, 24, 24), (16, 8, 8))
    """
    tiling.check(pattern.layout)
    found, reasons = [], []
    for axis, q, kv in zip(pattern.axes, tiling.q, tiling.kv, strict=True):
        nearest = _nearest(axis, q, kv, tiling.dynamic)
        found.append(nearest)
        if nearest is None:
            why = "it is causal" if axis.causal else "tiles do not fit any window of it"
            reasons.append(f"{axis.name} cannot be block-sparse with tiles {q}/{kv}: {why}")
    if reasons:
        return Suggestion(None, tuple(reasons))
    axes = [axis for axis in found if axis is not None]
    return Suggestion(
        Pattern(
            pattern.layout,
            [axis.window for axis in axes],
            [axis.stride for axis in axes],
            pattern.dilation,
            pattern.causal,
            pattern.heads,
            pattern.kv_heads,
            pattern.extra_keys,
        )
    )


def _nearest(axis: Axis, q: int, kv: int, dynamic: bool) -> Axis | None:
    """The first query's window begins at 0, so only multiples of the KV tile, or all, can do."""
    widest = axis.length // axis.dilation
    sizes = {size for size, _ in axis.groups}
    if not axis.causal:
        windows = [w for w in range(2, widest + 1) if w % kv == 0 or w in sizes]
    else:
        windows = list(range(2, widest + 1)) if q == kv == 1 else []
    for window in sorted(windows, key=lambda w: (abs(w - axis.window), w)):
        for stride in sorted(range(1, window + 1), key=lambda s: (abs(s - axis.stride), s)):
            made = Axis(axis.length, window, stride, axis.dilation, axis.causal, axis.name)
            if count_axis(made, q, kv, dynamic).exact:
                return made
    return None
