"""Cases of matrix states: scalar decay, decay per key, the delta rule."""

from __future__ import annotations

import torch
from torch import Tensor

from . import exact, naive, peers
from .case import Case, Draw, Inputs, Sizes
from .shapes import MATRIX_CHECKS, MATRIX_FAR, MATRIX_REPEATED, MATRIX_SMALL, SIX, long

RESULTS = ("outputs", "final state")


def _reads_and_writes(draw: Draw, sizes: Sizes) -> dict[str, Tensor]:
    shared = sizes.heads // sizes.share
    lead = (sizes.batch, sizes.length)
    return {
        "q": draw.data(draw.normal(*lead, shared, sizes.keys)),
        "k": draw.data(draw.normal(*lead, shared, sizes.keys)),
        "v": draw.data(draw.normal(*lead, sizes.heads, sizes.values)),
    }


def _state(draw: Draw, sizes: Sizes) -> Tensor:
    return draw.normal(sizes.sequences, sizes.heads, sizes.keys, sizes.values)


def _logs(draw: Draw, sizes: Sizes, *channels: int) -> Tensor:
    """Log-decays from -1 to 0; where it is hard, one in eight is 40 times that, and one in eight -inf."""
    shape = (sizes.batch, sizes.length, sizes.heads, *channels)
    g = -draw.uniform(*shape)
    if sizes.hard:
        kind = draw.uniform(*shape)
        g = torch.where(kind < 0.125, 40 * g, g)
        g = torch.where(kind > 0.875, -torch.inf, g)
    return g


def _options(draw: Draw, sizes: Sizes) -> dict[str, object]:
    return {"scale": sizes.keys**-0.5, "starts": draw.starts(sizes)}


def scalar(draw: Draw, sizes: Sizes) -> Inputs:
    tensors = _reads_and_writes(draw, sizes)
    tensors |= {"g": _logs(draw, sizes), "initial_state": _state(draw, sizes)}
    return Inputs(tensors, _options(draw, sizes))


def diagonal(draw: Draw, sizes: Sizes) -> Inputs:
    tensors = _reads_and_writes(draw, sizes)
    tensors |= {"g": _logs(draw, sizes, sizes.keys), "initial_state": _state(draw, sizes)}
    return Inputs(tensors, _options(draw, sizes))


def bonus(draw: Draw, sizes: Sizes) -> Inputs:
    drawn = diagonal(draw, sizes)
    own = draw.normal(sizes.heads, sizes.keys)
    return Inputs({**drawn.tensors, "bonus": own}, drawn.options)


def delta_net(draw: Draw, sizes: Sizes) -> Inputs:
    """Keys of length one and β in (0, 1): no eigenvalue is beyond one. No gate."""
    tensors = _reads_and_writes(draw, sizes)
    unit = torch.nn.functional.normalize(tensors["k"].float(), dim=-1)
    tensors |= {
        "k": draw.data(unit),
        "beta": draw.uniform(sizes.batch, sizes.length, sizes.heads),
        "initial_state": _state(draw, sizes),
    }
    return Inputs(tensors, _options(draw, sizes))


def gated_delta(draw: Draw, sizes: Sizes) -> Inputs:
    drawn = delta_net(draw, sizes)
    return Inputs({**drawn.tensors, "g": _logs(draw, sizes)}, drawn.options)


def delta_per_key(draw: Draw, sizes: Sizes) -> Inputs:
    drawn = delta_net(draw, sizes)
    return Inputs({**drawn.tensors, "g": _logs(draw, sizes, sizes.keys)}, drawn.options)


def delta_product(draw: Draw, sizes: Sizes) -> Inputs:
    """Two rows of keys and values in a token."""
    drawn = gated_delta(draw, sizes)
    lead = (sizes.batch, sizes.length)
    k = draw.normal(*lead, sizes.heads // sizes.share, 2, sizes.keys)
    rows = {
        "k": draw.data(torch.nn.functional.normalize(k, dim=-1)),
        "v": draw.data(draw.normal(*lead, sizes.heads, 2, sizes.values)),
        "beta": draw.uniform(*lead, sizes.heads, 2),
    }
    return Inputs({**drawn.tensors, **rows}, drawn.options)


def dplr(draw: Draw, sizes: Sizes) -> Inputs:
    """As RWKV-7 has it: a = -(rate ∘ κ) and b = κ of length one."""
    drawn = diagonal(draw, sizes)
    shape = (sizes.batch, sizes.length, sizes.heads // sizes.share, sizes.keys)
    b = torch.nn.functional.normalize(draw.normal(*shape), dim=-1)
    both = {"a": draw.data(-draw.uniform(*shape) * b), "b": draw.data(b)}
    return Inputs({**drawn.tensors, **both}, drawn.options)


def _flops(sizes: Sizes) -> float:
    """Products of the chunk form with 64 steps in a chunk."""
    per_step = 2 * 64 * (sizes.keys + sizes.values) + 4 * sizes.keys * sizes.values
    return float(per_step * sizes.tokens * sizes.heads)


def _case(name: str, operator: str, *parts, **more) -> Case:
    draw, truth, plain = parts
    return Case(
        name=name,
        operator=f"dsf.kernels:{operator}",
        draw=draw,
        exact=truth,
        naive=plain,
        results=RESULTS,
        checks=MATRIX_CHECKS,
        small=MATRIX_SMALL,
        repeated=MATRIX_REPEATED,
        flops=_flops,
        **more,
    )


CASES = (
    _case(
        "scalar decay",
        "scalar_decay",
        scalar,
        exact.decay,
        naive.scalar_decay,
        kernel="scalar-decay",
        times=SIX,
        long=long(8, 64, 64),
        far=MATRIX_FAR,
        peers=(peers.SIMPLE_GLA,),
    ),
    _case(
        "decay per key",
        "diagonal_decay",
        diagonal,
        exact.decay,
        naive.diagonal_decay,
        kernel="diagonal-decay",
        times=SIX,
        long=long(8, 64, 64),
        far=MATRIX_FAR,
        peers=(peers.GLA,),
    ),
    _case(
        "decay per key, with a bonus",
        "diagonal_decay",
        bonus,
        exact.decay,
        naive.diagonal_decay,
        kernel="diagonal-decay",
    ),
    _case(
        "gated delta rule",
        "delta_rule",
        gated_delta,
        exact.delta,
        naive.delta_rule,
        kernel="delta",
        times=SIX,
        long=long(8, 64, 64),
        far=MATRIX_FAR,
        peers=(peers.GATED_DELTA,),
    ),
    _case(
        "delta rule without a gate",
        "delta_rule",
        delta_net,
        exact.delta,
        naive.delta_rule,
        kernel="delta",
    ),
    _case(
        "delta rule with a gate per key",
        "delta_rule",
        delta_per_key,
        exact.delta,
        naive.delta_rule,
        kernel="delta",
        times=SIX[2:3],
        peers=(peers.KDA,),
    ),
    _case(
        "delta product",
        "delta_rule",
        delta_product,
        exact.delta,
        naive.delta_rule,
        kernel="delta",
    ),
    _case(
        "diagonal plus low rank",
        "dplr_rule",
        dplr,
        exact.dplr,
        naive.dplr_rule,
        kernel="delta",
        times=SIX[2:3],
    ),
)
