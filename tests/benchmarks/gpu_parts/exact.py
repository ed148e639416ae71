"""The recurrences step by step: run in float64 they are what every kernel must equal.

They are written from the equations alone and share nothing with the kernels or with `dsf.forms`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def by_sequence(
    run: Callable[..., Pair], tokens: tuple[Tensor, ...], state: Tensor, starts: Tensor | None
) -> Pair:
    """`run(*tokens, state)` on each packed sequence alone, results put together again."""
    if starts is None:
        return run(*tokens, state)
    ends = starts.tolist()
    found = [
        run(*(x[:, start:stop] for x in tokens), state[n : n + 1])
        for n, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True))
    ]
    return torch.cat([y for y, _ in found], 1), torch.cat([final for _, final in found])


def as_often_as_read(x: Tensor, heads: int) -> Tensor:
    """Every head of (B, T, h, ·) for each head that reads it."""
    return x.repeat_interleave(heads // x.shape[2], dim=2)


def _stacked(rows: list[Tensor], empty: Tensor) -> Tensor:
    return torch.stack(rows, 1) if rows else empty


def decay(q, k, v, g, initial_state, *, scale=1.0, bonus=None, starts=None) -> Pair:
    """S = e^g S + k vᵀ, y = s Sᵀ q; g per head, or per head and key.

    With a bonus u (H, K) a token is read before it is written: y = s (Sᵀ q + (q ∘ u)·k v) of the state before.
    """
    H = g.shape[2]
    q, k, v = (as_often_as_read(x, H) for x in (q, k, v))

    def run(q, k, v, g, S):
        rows = []
        for t in range(q.shape[1]):
            write = k[:, t, :, :, None] * v[:, t, :, None, :]
            after = _faded(S, g[:, t]) + write
            read = after if bonus is None else S + bonus[..., None] * write
            S = after
            rows.append(scale * (q[:, t, :, :, None] * read).sum(-2))
        return _stacked(rows, v), S

    return by_sequence(run, (q, k, v, g), initial_state, starts)


def _faded(S: Tensor, g: Tensor) -> Tensor:
    """e^g S for a decay (B, H) per head or (B, H, K) per key."""
    return g.exp().view(*g.shape, *(1,) * (S.ndim - g.ndim)) * S


def delta(q, k, v, beta, initial_state, *, g=None, scale=1.0, starts=None) -> Pair:
    """S = e^g S, S = S + β k (v - Sᵀ k)ᵀ for each row of k, v and β that a token has, y = s Sᵀ q."""
    H = beta.shape[2]
    if k.ndim == 4:
        k, v, beta = k[..., None, :], v[..., None, :], beta[..., None]
    q, k, v = (as_often_as_read(x, H) for x in (q, k, v))
    gates = q.new_zeros(beta.shape[:3]) if g is None else g

    def run(q, k, v, beta, g, S):
        rows = []
        for t in range(q.shape[1]):
            S = _faded(S, g[:, t])
            for r in range(k.shape[3]):
                key = k[:, t, :, r, :, None]
                error = v[:, t, :, r] - (key * S).sum(-2)
                S = S + key * (beta[:, t, :, r, None] * error)[:, :, None, :]
            rows.append(scale * (q[:, t, :, :, None] * S).sum(-2))
        return _stacked(rows, v[:, :, :, 0]), S

    return by_sequence(run, (q, k, v, beta, gates), initial_state, starts)


def dplr(q, k, v, a, b, g, initial_state, *, scale=1.0, starts=None) -> Pair:
    """S = e^g S + a (bᵀ S) + k vᵀ, where b reads the state before its gate, y = s Sᵀ q."""
    H = g.shape[2]
    q, k, v, a, b = (as_often_as_read(x, H) for x in (q, k, v, a, b))

    def run(q, k, v, a, b, g, S):
        rows = []
        for t in range(q.shape[1]):
            read = (b[:, t, :, :, None] * S).sum(-2)
            S = _faded(S, g[:, t]) + a[:, t, :, :, None] * read[:, :, None, :]
            S = S + k[:, t, :, :, None] * v[:, t, :, None, :]
            rows.append(scale * (q[:, t, :, :, None] * S).sum(-2))
        return _stacked(rows, v), S

    return by_sequence(run, (q, k, v, a, b, g), initial_state, starts)


def gate(a, b, initial_state, *, starts=None) -> Pair:
    """h = a h + b for every channel; all states and the last."""

    def run(a, b, h):
        rows = []
        for t in range(a.shape[1]):
            h = a[:, t] * h + b[:, t]
            rows.append(h)
        return _stacked(rows, b), h

    return by_sequence(run, (a, b), initial_state, starts)


def selective(x, delta, A, b, c, initial_state, *, skip=None, starts=None) -> Pair:
    """h = e^{Δ A} h + Δ b x, y = Σ_n c h + D x; b and c (B, T, G, N) of groups of channels."""
    D = x.shape[2]

    def run(x, delta, b, c, h):
        b, c = as_often_as_read(b, D), as_often_as_read(c, D)
        rows = []
        for t in range(x.shape[1]):
            step = delta[:, t, :, None]
            h = torch.exp(step * A) * h + step * b[:, t] * x[:, t, :, None]
            rows.append((c[:, t] * h).sum(-1))
        return _stacked(rows, x), h

    y, final = by_sequence(run, (x, delta, b, c), initial_state, starts)
    return (y if skip is None else y + skip * x), final


def elementwise(x, a, w, c, initial_state, *, starts=None) -> Pair:
    """h = a ∘ h + w diag(x), y = hᵀ c; a and w (B, T, H, K, V)."""

    def run(x, a, w, c, h):
        rows = []
        for t in range(x.shape[1]):
            h = a[:, t] * h + w[:, t] * x[:, t, :, None, :]
            rows.append((c[:, t, :, :, None] * h).sum(-2))
        return _stacked(rows, x), h

    return by_sequence(run, (x, a, w, c), initial_state, starts)
