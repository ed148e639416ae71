"""The gradient of log-decays per key on a GPU: its program and its launch."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.contract import Program, Tile
from dsf.kernels.shapes import Packing
from dsf.registry import resolve

PROGRAM = Program(
    "dsf.kernels.triton_code.key_gates:of_key_gates",
    {"q": "data", "k": "data", "starts": "i64", "last": "fp64"}
    | dict.fromkeys(("g", "dq", "dk", "dg"), "fp32"),
    ("length", "heads", "q_heads", "k_heads"),
    flags={"BEFORE": 0, "PACKED": 1, "UPCAST": 0},
)


def tile_for(keys: int) -> Tile:
    """Few keys of many steps: there are as many programs as tiles of keys, and each waits for memory."""
    return Tile({"K": keys, "C": 32, "BK": 16, "KT": -(-keys // 16)}, 2, products=False)


def of_key_gates(
    q: Tensor,
    k: Tensor,
    dq: Tensor,
    dk: Tensor,
    g: Tensor,
    last: Tensor,
    packing: Packing,
    *,
    before: bool = False,
    upcast: bool = False,
) -> Tensor:
    r"""dg_t = Σ_{s ≥ t} (q_s ∘ dq_s - k_s ∘ dk_s) + last of each sequence, (B, T, H, K) in float32.

    As for one decay per head (`gates.of_gates`), without the sum over keys: `dq` and `dk` (B, T, H, K) are float32,
    `last` (N, H, K) is Σ_v dS_T ∘ S_T. Where steps are read `before` their own decay, the read at t does not pass g_t,
    and dq and dk are those of reads from the state alone, without a bonus.
    """
    found, tile, heads = torch.empty_like(g), tile_for(g.shape[3]), g.shape[2]
    grid = (int(tile.constants["KT"]) * packing.sequences * heads,)
    if 0 not in grid:
        resolve(PROGRAM.function)[grid](
            *(q, k, g, dq, dk, last.double().contiguous(), found, packing.starts),
            *(packing.length, heads, q.shape[2], k.shape[2]),
            BEFORE=before,
            PACKED=packing.starts is not None,
            UPCAST=upcast,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **tile.constants,
        )
    return found
