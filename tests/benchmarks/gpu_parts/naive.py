"""The same computations as one would write them in torch, in the type of the data.

A kernel's error may be twice theirs. So they are good ones: whole sequences as products of matrices (which
torch accumulates in float32), decays in float32 and rounded once, scans in float32. What the operators
promise in float32, states of scans, is float32 here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import exact
from .exact import Pair, as_often_as_read, by_sequence


def _between(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Products of decays (…, T, …) along axis 2: from step j to i, from the start to i, from i to the end.

    Zeros are counted apart from the sums of logarithms.
    """
    zero = torch.isneginf(g)
    sums = torch.where(zero, 0.0, g).cumsum(2)
    zeros = zero.long().cumsum(2)
    steps = torch.arange(g.shape[2], device=g.device)
    earlier = (steps[:, None] >= steps[None, :]).view(len(steps), len(steps), *[1] * (g.ndim - 3))

    def product(keep: Tensor, exponent: Tensor) -> Tensor:
        return torch.where(keep, torch.where(keep, exponent, 0.0).exp(), 0.0)

    late, early = slice(-1, None), slice(None)
    pairs = product(
        earlier & (zeros[:, :, :, None] == zeros[:, :, None]),
        sums[:, :, :, None] - sums[:, :, None],
    )
    start = product(zeros == 0, sums)
    end = product(zeros == zeros[:, :, late], sums[:, :, late] - sums[:, :, early])
    return pairs, start, end


def scalar_decay(q, k, v, g, initial_state, *, scale=1.0, starts=None) -> Pair:
    """(Q Kᵀ ∘ M) V, all steps at once."""

    def run(q, k, v, g, state):
        if not q.shape[1]:
            return v, state
        narrow = v.dtype
        q, k, v, g = (x.transpose(1, 2) for x in (q, k, v, g))
        pairs, start, end = (x.to(narrow) for x in _between(g))
        S = state.to(narrow)
        y = scale * ((q @ k.mT * pairs) @ v + start[..., None] * (q @ S))
        final = start[:, :, -1, None, None] * S + (k * end[..., None]).mT @ v
        return y.transpose(1, 2), final.to(state.dtype)

    H = g.shape[2]
    tokens = (*(as_often_as_read(x, H) for x in (q, k, v)), g)
    return by_sequence(run, tokens, initial_state, starts)


def diagonal_decay(q, k, v, g, initial_state, *, scale=1.0, bonus=None, starts=None) -> Pair:
    """The same with a decay per key: scores are sums over keys of three factors."""

    def run(q, k, v, g, state):
        if not q.shape[1]:
            return v, state
        narrow = v.dtype
        q, k, v, g = (x.transpose(1, 2) for x in (q, k, v, g))
        pairs, start, end = (x.to(narrow) for x in _between(g))
        S, whole = state.to(narrow), start[:, :, -1, :, None]
        if bonus is not None:  # a read at i sees decays up to i - 1, of writes before i
            pairs = torch.cat([torch.zeros_like(pairs[:, :, :1]), pairs[:, :, :-1]], 2)
            start = torch.cat([torch.ones_like(start[:, :, :1]), start[:, :, :-1]], 2)
        scores = (q[:, :, :, None] * k[:, :, None] * pairs).sum(-1)
        y = scores @ v + (q * start) @ S
        if bonus is not None:
            y = y + (q * bonus.to(narrow)[:, None] * k).sum(-1, keepdim=True) * v
        final = whole * S + (k * end).mT @ v
        return (scale * y).transpose(1, 2), final.to(state.dtype)

    H = g.shape[2]
    tokens = (*(as_often_as_read(x, H) for x in (q, k, v)), g)
    return by_sequence(run, tokens, initial_state, starts)


def delta_rule(q, k, v, beta, g, initial_state, *, scale=1.0, starts=None) -> Pair:
    """The triangular system of all steps; it is solved in float32, as torch has no narrower solver."""

    def run(q, k, v, beta, g, state):
        if not q.shape[1]:
            return v, state
        narrow = v.dtype
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        weight = beta.transpose(1, 2)[..., None].to(narrow)
        pairs, start, end = (x.to(narrow) for x in _between(g.transpose(1, 2)))
        if g.ndim == 3:  # a decay per head
            decayed, scores, overlap = start[..., None], q @ k.mT * pairs, k @ k.mT * pairs
            late, whole = end[..., None], start[:, :, -1, None, None]
        else:
            decayed, late, whole = start, end, start[:, :, -1, :, None]
            scores = (q[:, :, :, None] * k[:, :, None] * pairs).sum(-1)
            overlap = (k[:, :, :, None] * k[:, :, None] * pairs).sum(-1)
        S = state.to(narrow)
        system = (weight * overlap).tril(-1).float()
        system = system + torch.eye(q.shape[2], device=q.device)
        right = weight * (v - (k * decayed) @ S)
        writes = torch.linalg.solve_triangular(
            system, right.float(), upper=False, unitriangular=True
        ).to(narrow)
        y = scale * (scores @ writes + (q * decayed) @ S)
        final = whole * S + (k * late).mT @ writes
        return y.transpose(1, 2), final.to(state.dtype)

    H = beta.shape[2]
    tokens = (*(as_often_as_read(x, H) for x in (q, k, v)), beta, g)
    return by_sequence(run, tokens, initial_state, starts)


def _wide(x: Tensor) -> Tensor:
    return x if x.is_complex() else x.float()


def gated_scan(a, b, initial_state, *, starts=None) -> Pair:
    """The loop in float32 (complex64 for a complex gate)."""
    return exact.gate(_wide(a), _wide(b), _wide(initial_state), starts=starts)


def selective_scan(x, delta, A, b, c, initial_state, *, skip=None, starts=None) -> Pair:
    """The loop in float32, outputs rounded to the type of x, in which D x is added."""
    wide = (each.float() for each in (x, delta, A, b, c, initial_state))
    y, final = exact.selective(*wide, starts=starts)
    return (y.to(x.dtype) if skip is None else y.to(x.dtype) + skip.to(x.dtype) * x), final
