"""From the gradients of rows per head to those of what was given: shared heads, strengths and gates."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.shapes import repeated, shared

from .quantities import Quantities


def gathered(
    x: Quantities, dq: Tensor, dk: Tensor, db: Tensor, dv: Tensor, last: Tensor
) -> tuple[Tensor, ...]:
    r"""Gradients of q, k, b, v, β and g from those per head; `dk` is that of β k, `last` is dh_T ∘ h_T (N, H, K, V).

    Products that cancel or are long are formed in float64.
    """
    of_strengths = (_repeated(x.k, dk) * dk.double()).sum(-1)
    dk = dk * x.beta[..., None].to(dk.dtype)
    return (
        shared(dq, x.q),
        shared(dk, x.k),
        shared(db, x.b),
        shared(dv, x.v),
        of_strengths.to(x.beta.dtype),
        _of_gates(x, dq, dk, db, last),
    )


def _of_gates(x: Quantities, dq: Tensor, dk: Tensor, db: Tensor, last: Tensor) -> Tensor:
    r"""dg_t = Σ_{s ≥ t} (q_s dq_s - k_s dk_s) + Σ b_s db_s + dh_T h_T per key, summed over keys where gates are.

    Every path through t from a write before to a read after passes the gate. Erases count from s ≥ t, or, where they
    see the state before their token's gate, from s > t. A decay of exactly zero has a log without gradient.
    """
    keyed = x.g.ndim == 4
    reads, erases, writes = (
        _per_token(_repeated(like, found) * found.double(), x.q.shape[1], keyed)
        for like, found in ((x.q, dq), (x.b, db), (x.k, dk))
    )
    ends = last.double().sum(-1) if keyed else last.double().sum((-1, -2))
    found = x.packing.sum_of_later(reads + erases - writes)
    found = found + x.packing.spread(ends.flatten(1))
    if x.together:
        found = found - erases
    found = found.view_as(x.g)
    return torch.where(torch.isneginf(x.g), 0.0, found).to(x.g.dtype)


def _repeated(x: Tensor, like: Tensor) -> Tensor:
    return repeated(x, like.shape[2]).double()


def _per_token(x: Tensor, tokens: int, keyed: bool) -> Tensor:
    """Σ over the rows of each token of (B, T n, H, K), (B, T, H K) or (B, T, H)."""
    x = x if keyed else x.sum(-1, keepdim=True)
    rows = x.shape[1] // tokens if tokens else 1
    return x.unflatten(1, (tokens, rows)).sum(2).flatten(2)
