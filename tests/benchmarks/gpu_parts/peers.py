"""What one would use instead of each kernel, called as its own documentation says, without a final state."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from dsf.sim import Tiling
from dsf.sim.export import block_mask

from .case import Inputs, Peer


def missing(peer: Peer) -> str | None:
    """Why a peer cannot be called here; None where it can."""
    if importlib.util.find_spec(peer.module.partition(".")[0]) is None:
        return "not installed"
    try:
        importlib.import_module(peer.module)
    except Exception as error:  # a package may be there and want another one, or a device
        return f"not importable: {type(error).__name__}: {error}"[:200]
    return None


def _from(module: str, name: str) -> Any:
    _tune_briefly()
    return getattr(importlib.import_module(module), name)


@functools.cache
def _tune_briefly() -> None:
    """Triton's tuners measure a configuration for 2 + 10 ms, not 25 + 100: some peers try hundreds."""
    from triton.runtime import driver
    from triton.testing import do_bench

    brief = functools.partial(do_bench, warmup=2, rep=10)
    driver.active.get_benchmarker = lambda: brief


def _simple_gla(q, k, v, g, initial_state, *, scale, starts=None):
    return _from("fla.ops.simple_gla", "chunk_simple_gla")(
        q, k, v, g=g, scale=scale, initial_state=initial_state
    )[:1]


def _gla(q, k, v, g, initial_state, *, scale, starts=None):
    return _from("fla.ops.gla", "chunk_gla")(
        q, k, v, g=g, scale=scale, initial_state=initial_state
    )[:1]


def _gated_delta(q, k, v, beta, initial_state, g, *, scale, starts=None):
    return _from("fla.ops.gated_delta_rule", "chunk_gated_delta_rule")(
        q, k, v, g=g, beta=beta, scale=scale, initial_state=initial_state
    )[:1]


def _kda(q, k, v, beta, initial_state, g, *, scale, starts=None):
    return _from("fla.ops.kda", "chunk_kda")(
        q, k, v, g=g, beta=beta, scale=scale, initial_state=initial_state
    )[:1]


def _logs_of_gates(inputs: Inputs) -> Inputs:
    tensors = dict(inputs.tensors)
    return Inputs({"g": tensors.pop("a").float().log(), "x": tensors.pop("b"), **tensors}, {})


def _hgrn(g, x, initial_state):
    return _from("fla.ops.hgrn", "fused_recurrent_hgrn")(x, g, initial_state=initial_state)[:1]


_ONE = ("4,2048,16,128",)  # what tunes hundreds of programs is called at one size
SIMPLE_GLA = Peer("fla", "fla.ops.simple_gla", _simple_gla)
GLA = Peer("fla", "fla.ops.gla", _gla, sizes=_ONE)
GATED_DELTA = Peer("fla", "fla.ops.gated_delta_rule", _gated_delta, sizes=_ONE)
KDA = Peer("fla", "fla.ops.kda", _kda, sizes=_ONE)
HGRN = Peer("fla", "fla.ops.hgrn", _hgrn, _logs_of_gates)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, *, causal=False, scale=1.0, **_: Any):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    found = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
    )
    return (found.transpose(1, 2),)


SDPA = Peer("scaled_dot_product_attention", "torch", _sdpa)


@functools.cache
def _flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@functools.cache
def _causal_mask(length: int, device: str) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(lambda b, h, q, kv: q >= kv, None, None, length, length, device=device)


def _flex_band(q: Tensor, k: Tensor, v: Tensor, *, causal=False, scale=1.0, **_: Any):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mask = _causal_mask(q.shape[2], str(q.device)) if causal else None
    return (_flex()(q, k, v, block_mask=mask, scale=scale).transpose(1, 2),)


FLEX = Peer(
    "FlexAttention",
    "torch.nn.attention.flex_attention",
    _flex_band,
    sizes=_ONE,
)
_FLEX_TILES = {1: "128/128", 2: "8x16/8x16", 3: "4x4x8/4x4x8"}


def _permuted(inputs: Inputs) -> Inputs:
    """Tokens of a tile side by side, as FlexAttention's blocks are rows of tokens."""
    pattern = inputs.options["pattern"]
    device = inputs.tensors["q"].device
    mask, blocks = block_mask(pattern, Tiling.parse(_FLEX_TILES[pattern.rank]), str(device))

    def moved(x: Tensor, order: Any) -> Tensor:
        place = torch.from_numpy(order).to(device)
        taken = x[:, place.clamp(min=0)] * (place >= 0)[:, None, None]
        return taken.transpose(1, 2).contiguous()

    flat = {name: x.flatten(1, pattern.rank) for name, x in inputs.tensors.items()}
    orders = {"q": blocks.q.order, "k": blocks.kv.order, "v": blocks.kv.order}
    tensors = {name: moved(x, orders[name]) for name, x in flat.items()}
    back = torch.from_numpy(blocks.q.inverse).to(device)
    options = {"mask": mask, "back": back, "layout": pattern.layout}
    return Inputs(tensors, {**options, "scale": inputs.options["scale"]})


def _flex_neighborhood(
    q: Tensor, k: Tensor, v: Tensor, *, mask, back: Tensor, layout, scale: float
):
    found = _flex()(q, k, v, block_mask=mask, scale=scale)
    return (found[:, :, back].transpose(1, 2).unflatten(1, layout),)


FLEX_NEIGHBORHOOD = Peer(
    "FlexAttention",
    "torch.nn.attention.flex_attention",
    _flex_neighborhood,
    _permuted,
    ("128x128, window 40x40, stride 8",),
)


def _natten(q: Tensor, k: Tensor, v: Tensor, *, pattern: Any, scale: float, **_: Any):
    function = _from("natten.functional", f"na{pattern.rank}d")
    found = function(
        q,
        k,
        v,
        kernel_size=pattern.window,
        stride=pattern.stride,
        dilation=pattern.dilation,
        is_causal=pattern.causal,
        scale=scale,
    )
    return (found,)


NATTEN = Peer("NATTEN", "natten.functional", _natten)
