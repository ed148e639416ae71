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
            pairs, start = _delayed(pairs, 0.0), _delayed(start, 1.0)
        y = _scores(q, k, pairs) @ v + (q * start) @ S
        if bonus is not None:
            y = y + (q * bonus.to(narrow)[:, None] * k).sum(-1, keepdim=True) * v
        final = whole * S + (k * end).mT @ v
        return (scale * y).transpose(1, 2), final.to(state.dtype)

    H = g.shape[2]
    tokens = (*(as_often_as_read(x, H) for x in (q, k, v)), g)
    return by_sequence(run, tokens, initial_state, starts)


def _delayed(x: Tensor, first: float) -> Tensor:
    """Products of decays up to the step before, along axis 2."""
    return torch.cat([torch.full_like(x[:, :, :1], first), x[:, :, :-1]], 2)


def _scores(q: Tensor, k: Tensor, pairs: Tensor) -> Tensor:
    """Σ_k q_ik D_ijk k_jk, or q_i·k_j D_ij for a decay per head."""
    if pairs.ndim == 4:
        return q @ k.mT * pairs
    return (q[:, :, :, None] * k[:, :, None] * pairs).sum(-1)


def _per_key(x: Tensor) -> Tensor:
    """Factors (B, H, T) of whole keys, or (B, H, T, K), beside keys (B, H, T, K)."""
    return x[..., None] if x.ndim == 3 else x


def _solved(system: Tensor, right: Tensor) -> Tensor:
    """(1 + system)⁻¹ right for a strictly lower system; in float32, as torch has no narrower solver."""
    unit = torch.eye(system.shape[-1], device=system.device)
    found = torch.linalg.solve_triangular(
        unit + system.tril(-1).float(), right.float(), upper=False, unitriangular=True
    )
    return found.to(right.dtype)


def delta_rule(q, k, v, beta, initial_state, *, g=None, scale=1.0, starts=None) -> Pair:
    """The triangular system of all steps; several rows of a token are as many steps, the last of which is read."""
    H = beta.shape[2]
    gates = torch.zeros(beta.shape[:3], device=q.device) if g is None else g
    if (R := 1 if k.ndim == 4 else k.shape[3]) > 1:
        k, v, beta = (x.transpose(2, 3).flatten(1, 2) for x in (k, v, beta))
        q = q.repeat_interleave(R, 1)
        still = torch.zeros_like(gates)
        gates = torch.stack([gates, *[still] * (R - 1)], 2).flatten(1, 2)
        starts = None if starts is None else R * starts

    def run(q, k, v, beta, g, state):
        if not q.shape[1]:
            return v, state
        narrow = v.dtype
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        weight = beta.transpose(1, 2)[..., None].to(narrow)
        pairs, start, end = (x.to(narrow) for x in _between(g.transpose(1, 2)))
        start, end = _per_key(start), _per_key(end)
        S = state.to(narrow)
        writes = _solved(weight * _scores(k, k, pairs), weight * (v - (k * start) @ S))
        y = scale * (_scores(q, k, pairs) @ writes + (q * start) @ S)
        final = start[:, :, -1, :, None] * S + (k * end).mT @ writes
        return y.transpose(1, 2), final.to(state.dtype)

    tokens = (*(as_often_as_read(x, H) for x in (q, k, v)), beta, gates)
    y, final = by_sequence(run, tokens, initial_state, starts)
    return y[:, R - 1 :: R], final


def dplr_rule(q, k, v, a, b, g, initial_state, *, scale=1.0, starts=None) -> Pair:
    """The same system: what each b reads is a sum over what was written before it."""

    def run(q, k, v, a, b, g, state):
        if not q.shape[1]:
            return v, state
        narrow = v.dtype
        q, k, v, a, b = (x.transpose(1, 2) for x in (q, k, v, a, b))
        pairs, start, end = (x.to(narrow) for x in _between(g.transpose(1, 2)))
        before, since = _delayed(pairs, 0.0), _per_key(_delayed(start, 1.0))
        start, end = _per_key(start), _per_key(end)
        S = state.to(narrow)
        read = _solved(-_scores(b, a, before), _scores(b, k, before) @ v + (b * since) @ S)
        y = _scores(q, a, pairs) @ read + _scores(q, k, pairs) @ v + (q * start) @ S
        final = start[:, :, -1, :, None] * S + (a * end).mT @ read + (k * end).mT @ v
        return (scale * y).transpose(1, 2), final.to(state.dtype)

    H = g.shape[2]
    tokens = (*(as_often_as_read(x, H) for x in (q, k, v, a, b)), g)
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


def elementwise_scan(x, a, w, c, initial_state, *, starts=None) -> Pair:
    """The loop in float32, outputs rounded to the type of x."""
    wide = (each.float() for each in (x, a, w, c, initial_state))
    y, final = exact.elementwise(*wide, starts=starts)
    return y.to(x.dtype), final
