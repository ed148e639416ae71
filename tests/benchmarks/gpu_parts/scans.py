"""Cases of channels: the gated scan, real and complex, the selective and the elementwise scan."""

from __future__ import annotations

import torch
from torch import Tensor

from . import exact, naive, peers
from .case import Case, Draw, Inputs, Sizes
from .shapes import CHANNEL_CHECKS, CHANNEL_FAR, CHANNEL_REPEATED, CHANNEL_SMALL, long

# (B, T, channels): what scans are published at, and a small one.
GATES = (
    Sizes("8,2048,8192", 8, 2048, 1, 1, 8192, quick=True),
    Sizes("8,16384,1536", 8, 16384, 1, 1, 1536),
    Sizes("1,65536,2048", 1, 65536, 1, 1, 2048),
)
MAMBA = (
    Sizes("8,4096,2048, 16 states", 8, 4096, 1, 16, 2048, quick=True),
    Sizes("1,32768,2048, 16 states", 1, 32768, 1, 16, 2048),
)


def _channels(sizes: Sizes) -> int:
    return sizes.heads * sizes.values


def gated(draw: Draw, sizes: Sizes) -> Inputs:
    """Gates in (0, 1); of a complex scan inside the unit circle."""
    shape = (sizes.batch, sizes.length, _channels(sizes))

    def numbers(*shape: int) -> Tensor:
        if draw.dtype.is_complex:
            return torch.complex(draw.normal(*shape), draw.normal(*shape))
        return draw.normal(*shape)

    a = draw.uniform(*shape)
    if draw.dtype.is_complex:
        a = torch.polar(a, 6.28 * draw.uniform(*shape))
    tensors = {"a": draw.data(a), "b": draw.data(numbers(*shape))}
    tensors["initial_state"] = numbers(sizes.sequences, shape[2])
    return Inputs(tensors, {"starts": draw.starts(sizes)})


def selective(draw: Draw, sizes: Sizes) -> Inputs:
    D, N, lead = _channels(sizes), sizes.keys, (sizes.batch, sizes.length)
    rates = -torch.arange(1.0, N + 1, device=draw.device).repeat(D, 1)
    tensors = {
        "x": draw.data(draw.normal(*lead, D)),
        "delta": draw.data(0.1 * draw.uniform(*lead, D)),
        "A": rates * (0.5 + draw.uniform(D, N)),
        "b": draw.data(draw.normal(*lead, sizes.share, N)),
        "c": draw.data(draw.normal(*lead, sizes.share, N)),
        "initial_state": draw.normal(sizes.sequences, D, N),
        "skip": draw.normal(D),
    }
    return Inputs(tensors, {"starts": draw.starts(sizes)})


def elementwise(draw: Draw, sizes: Sizes) -> Inputs:
    """Gates in (0, 1) and writes of every key and channel."""
    lead = (sizes.batch, sizes.length, sizes.heads)
    tensors = {
        "x": draw.data(draw.normal(*lead, sizes.values)),
        "a": draw.data(draw.uniform(*lead, sizes.keys, sizes.values)),
        "w": draw.data(draw.normal(*lead, sizes.keys, sizes.values)),
        "c": draw.data(draw.normal(*lead, sizes.keys)),
        "initial_state": draw.normal(sizes.sequences, sizes.heads, sizes.keys, sizes.values),
    }
    return Inputs(tensors, {"starts": draw.starts(sizes)})


CASES = (
    Case(
        name="gated scan",
        kernel="gated-scan",
        operator="dsf.kernels:gated_scan",
        draw=gated,
        exact=exact.gate,
        naive=naive.gated_scan,
        results=("states", "last state"),
        checks=CHANNEL_CHECKS,
        small=CHANNEL_SMALL,
        repeated=CHANNEL_REPEATED,
        times=GATES,
        long=long(1, 1, 1024),
        far=CHANNEL_FAR,
        dtypes=("bfloat16", "float16", "float32", "complex64"),
        timed="float32",
        peers=(peers.HGRN,),
    ),
    Case(
        name="selective scan",
        kernel="selective-scan",
        operator="dsf.kernels:selective_scan",
        draw=selective,
        exact=exact.selective,
        naive=naive.selective_scan,
        results=("outputs", "last state"),
        checks=CHANNEL_CHECKS,
        small=CHANNEL_SMALL,
        repeated=CHANNEL_REPEATED,
        times=MAMBA,
        long=long(1, 16, 1024),
    ),
    Case(
        name="elementwise scan",
        kernel="elementwise-scan",
        operator="dsf.kernels:elementwise_scan",
        draw=elementwise,
        exact=exact.elementwise,
        naive=naive.elementwise_scan,
        results=("outputs", "last state"),
        checks=CHANNEL_CHECKS,
        small=CHANNEL_SMALL,
        repeated=CHANNEL_REPEATED,
        times=(Sizes("2,4096,1024, 16 states", 2, 4096, 1, 16, 1024, quick=True),),
    ),
)
