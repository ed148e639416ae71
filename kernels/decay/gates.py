"""The gradient of log-decays, from those of what is read and written."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.shapes import Packing, repeated


def of_gates(
    q: Tensor, k: Tensor, dq: Tensor, dk: Tensor, g: Tensor, last: Tensor, packing: Packing
) -> Tensor:
    r"""dg_t = Σ_{s ≥ t} (⟨q_s, dq_s⟩ - ⟨k_s, dk_s⟩) + ⟨dS_T, S_T⟩ of each sequence, (B, T, H).

    Every path from a write before t to a read after it passes through g_t: reads after t count all paths to
    them, writes after t those that do not pass. `dq` and `dk` are per head, `last` (N, H) is ⟨dS_T, S_T⟩. The
    differences cancel, so they are formed in float64. A decay of exactly zero has a log without gradient.
    """
    heads = g.shape[2]
    reads = (repeated(q, heads).double() * dq.double()).sum(-1)
    writes = (repeated(k, heads).double() * dk.double()).sum(-1)
    found = packing.sum_of_later(reads - writes) + packing.spread(last)
    return torch.where(torch.isneginf(g), 0.0, found).to(g.dtype)
