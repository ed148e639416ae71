"""Well-known patterns as Generalized Neighborhood Attention: a window, a stride, a layout."""

from __future__ import annotations

from dsf.errors import InvalidInput

from .pattern import Pattern, PerAxis, Shape, as_shape, show


def dense(layout: PerAxis) -> Pattern:
    """Every query sees every key."""
    shape = as_shape("layout", layout)
    return Pattern(shape, window=shape)


def sliding_window(layout: PerAxis, window: PerAxis, causal: bool = False) -> Pattern:
    """Neighborhood attention: a window around every query, or, causal, that ends at it."""
    shape = as_shape("layout", layout)
    return Pattern(shape, as_shape("window", window, len(shape)), causal=causal)


def strided(layout: PerAxis, window: PerAxis, stride: PerAxis) -> Pattern:
    """Queries in groups of `stride` share the window of the group's middle."""
    return Pattern(layout, window, stride)


def blocked(layout: PerAxis, block: PerAxis) -> Pattern:
    """Blocks that see themselves alone (Swin without shift): window = stride = block.

    Raises `InvalidInput` unless blocks divide the layout: the last window would slide back and
    overlap the block before it.
    """
    shape = as_shape("layout", layout)
    size = as_shape("block", block, len(shape))
    _divides("block", size, shape)
    return Pattern(shape, size, size)


def halo(layout: PerAxis, block: PerAxis, halo: PerAxis) -> Pattern:
    """HaloNet's blocked local attention: blocks that see `halo` tokens more on every side.

    window = block + 2 halo, stride = block. At the edges windows slide back and stay full, where
    HaloNet pads with zeros.

    Source: Vaswani et al. 2021 (arXiv 2103.12731), section 2.2.

    >>> halo(64, block=8, halo=4).window
    (16,)
    """
    shape = as_shape("layout", layout)
    size, margin = as_shape("block", block, len(shape)), as_shape("halo", halo, len(shape))
    _divides("block", size, shape)
    return Pattern(shape, tuple(b + 2 * h for b, h in zip(size, margin, strict=True)), size)


def sliding_tile(layout: PerAxis, window: PerAxis, tile: PerAxis) -> Pattern:
    """Sliding tile attention (STA): windows of whole tiles that move by whole tiles.

    Source: Zhang et al. 2025 (arXiv 2502.04507), section 3; windows slide back at the edges here.
    Raises `InvalidInput` unless tiles divide window and layout.
    """
    shape = as_shape("layout", layout)
    size = as_shape("tile", tile, len(shape))
    wide = as_shape("window", window, len(shape))
    _divides("tile", size, shape)
    _divides("tile", size, wide, of="window")
    return Pattern(shape, wide, size)


def _divides(key: str, size: Shape, whole: Shape, of: str = "layout") -> None:
    for axis, (part, length) in enumerate(zip(size, whole, strict=True)):
        if part < 1 or length % part:
            allowed = [n for n in range(1, length + 1) if length % n == 0]
            nearest = min(allowed, key=lambda n: (abs(n - part), n))
            raise InvalidInput(
                f"axis {axis} of {of} {show(whole)}: {key} {part} was given, but it must divide "
                f"{length}; the nearest valid value is {nearest}"
            )
