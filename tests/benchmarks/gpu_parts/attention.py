"""Cases of attention: weights of one template over bands, and neighborhoods."""

from __future__ import annotations

import math
from dataclasses import replace
from math import prod
from typing import Any

import torch

from dsf.kernels.limits import nearest
from dsf.sim import Pattern, Tiling, bounds, count

from . import attention_reference as reference
from . import peers
from .case import Case, Draw, Inputs, Sizes
from .shapes import MATRIX_FAR, SIX

CHECKS = (
    Sizes("odd length, shared keys", 2, 333, 4, share=2, quick=True, extra={"causal": True}),
    Sizes("packed", 1, 517, 2, starts=(0, 100, 357, 517), quick=True, extra={"causal": True}),
    Sizes("window", 1, 300, 2, 128, 128, extra={"causal": True, "window": 70}),
    Sizes("full, unaligned heads", 2, 129, 3, 40, 40),
    Sizes("one step", 3, 1, 2, extra={"causal": True}),
)
SMALL = (
    Sizes("odd length, shared keys", 2, 21, 4, 8, 8, share=2, extra={"causal": True}),
    Sizes("packed", 1, 19, 2, 8, 8, starts=(0, 7, 19), extra={"causal": True}),
    Sizes("window", 1, 20, 2, 8, 8, extra={"causal": True, "window": 6}),
)
REPEATED = Sizes("repeated", 2, 1024, 16, 128, 128, extra={"causal": True})
FAR = (replace(MATRIX_FAR[0], extra={"causal": True, "window": 128}),)
_CAUSAL = tuple(replace(s, extra={"causal": True}) for s in SIX)
# B, T, H, D of FlashAttention's own tables: 16k tokens, not causal.
_FULL = (
    Sizes("full 8,2048,16,128", 8, 2048, 16, 128, 128, quick=True),
    Sizes("full 1,16384,16,64", 1, 16384, 32, 64, 64),
)


def drawn(draw: Draw, sizes: Sizes) -> Inputs:
    lead = (sizes.batch, sizes.length)
    shared = sizes.heads // sizes.share
    tensors = {
        "q": draw.data(draw.normal(*lead, sizes.heads, sizes.keys)),
        "k": draw.data(draw.normal(*lead, shared, sizes.keys)),
        "v": draw.data(draw.normal(*lead, shared, sizes.values)),
    }
    options: dict[str, Any] = {"scale": sizes.keys**-0.5, "causal": False, **sizes.extra}
    if sizes.starts is not None:
        options["starts"] = draw.starts(sizes)
    return Inputs(tensors, options)


def with_bias(draw: Draw, sizes: Sizes) -> Inputs:
    """Of sigmoid attention: b = -log T."""
    found = drawn(draw, sizes)
    return Inputs(found.tensors, {**found.options, "bias": -math.log(sizes.length)})


def _flops(sizes: Sizes) -> float:
    pairs = sizes.length * sizes.length
    if sizes.extra.get("causal"):
        pairs = pairs // 2
    return 2.0 * sizes.batch * sizes.heads * pairs * (sizes.keys + sizes.values)


def _band(weight: str, draw, also: str = "", **more) -> Case:
    return Case(
        name=f"{weight} attention{also}",
        kernel=f"flash-{weight}",
        operator="dsf.kernels:flash_attention",
        draw=draw,
        exact=reference.attention,
        naive=reference.attention,
        results=("outputs",),
        checks=CHECKS,
        small=SMALL,
        repeated=REPEATED,
        options={"weight": weight, **({"normalised": True} if also else {})},
        flops=_flops,
        **more,
    )


def _grid(name: str, layout, window, stride, **more) -> Sizes:
    pattern = Pattern(layout, window, stride)
    return Sizes(name, length=prod(layout), extra={"pattern": pattern}, **more)


NEIGHBORHOOD_CHECKS = (
    _grid("one axis", (333,), (64,), (1,), heads=2, quick=True),
    _grid("two axes, even stride", (17, 22), (6, 9), (2, 4), heads=2, quick=True),
    _grid("three axes", (6, 9, 11), (4, 4, 6), (2, 1, 3), heads=2, dtypes=("bfloat16",)),
)
NEIGHBORHOOD_SMALL = (
    _grid("one axis", (21,), (6,), (1,), heads=2, keys=8, values=8),
    _grid("two axes, even stride", (5, 7), (3, 4), (2, 2), heads=2, keys=8, values=8),
)
# From the tables of Hassani et al. 2025, at sizes of which dense attention is quick too.
_FLAT = ((128, 128), (40, 40))
_VIDEO = ((30, 24, 40), (18, 16, 16))
_WIDE = {"keys": 128, "values": 128}
NEIGHBORHOOD_TIMES = (
    _grid("128x128, window 40x40, stride 1", *_FLAT, (1, 1), heads=8, **_WIDE),
    _grid("128x128, window 40x40, stride 8", *_FLAT, (8, 8), heads=8, quick=True, **_WIDE),
    _grid("30x24x40, window 18x16x16, stride 1", *_VIDEO, (1, 1, 1), heads=4, **_WIDE),
    _grid("30x24x40, window 18x16x16, stride 2x8x8", *_VIDEO, (2, 8, 8), heads=4, **_WIDE),
)


def neighborhood(draw: Draw, sizes: Sizes) -> Inputs:
    pattern = sizes.extra["pattern"]
    found = drawn(draw, replace(sizes, extra={}))
    tensors = {name: x.unflatten(1, pattern.layout) for name, x in found.tensors.items()}
    return Inputs(tensors, {"pattern": pattern, "scale": found.options["scale"]})


def _bound(sizes: Sizes, dtype: str, device: torch.device) -> float:
    """The speed-up over dense attention that the tiles of the kernel allow, padded ones counted."""
    return bounds(count(sizes.extra["pattern"], _tiling(sizes, dtype, device))).padding_aware


def _tiling(sizes: Sizes, dtype: str, device: torch.device) -> Tiling:
    """The tiles of the kernel's forward program, by its own table."""
    from dsf.kernels.attention import flash

    rank = sizes.extra["pattern"].rank
    cuda = device.type == "cuda"
    architecture = nearest(torch.cuda.get_device_capability(device)) if cuda else 90
    program = flash.programs("softmax", rank, True)[0]
    found = flash.tile_for(program, dtype, sizes.keys, architecture, sizes.values).constants
    q, kv = (tuple(int(found[side + axis]) for axis in "ZYX")[-rank:] for side in "QK")
    return Tiling(q, kv)


def _visible_flops(sizes: Sizes) -> float:
    pairs = sizes.extra["pattern"].visible_pairs
    return 2.0 * sizes.batch * sizes.heads * pairs * (sizes.keys + sizes.values)


_DENSE = tuple(replace(s, extra={}) for s in NEIGHBORHOOD_TIMES)

CASES = (
    _band(
        "softmax",
        drawn,
        times=(*_CAUSAL, *_FULL, *_DENSE),
        far=FAR,
        peers=(peers.SDPA, peers.FLEX),
    ),
    _band("sigmoid", with_bias, times=(*_CAUSAL, *_FULL), against="softmax attention"),
    _band("softplus", with_bias, ", divided by its sums", times=_CAUSAL[2:3]),
    _band("softplus", with_bias),
    Case(
        name="neighborhood attention",
        kernel="neighborhood-attention",
        operator="dsf.kernels:neighborhood_attention",
        draw=neighborhood,
        exact=reference.neighborhood_attention,
        naive=reference.neighborhood_attention,
        results=("outputs",),
        checks=NEIGHBORHOOD_CHECKS,
        small=NEIGHBORHOOD_SMALL,
        repeated=NEIGHBORHOOD_CHECKS[1],
        times=NEIGHBORHOOD_TIMES,
        flops=_visible_flops,
        bound=_bound,
        against="softmax attention",
        peers=(peers.NATTEN, peers.FLEX_NEIGHBORHOOD),
    ),
)
