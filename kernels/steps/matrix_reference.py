"""What a step on matrix states computes on the CPU: the recurrence in torch, on the active rows of the cache."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.forms.lowering import largest_exponent

from .cache import active
from .matrix import Token


def step(x: Token) -> Tensor:
    """Outputs (B, H, V) in the type of v; the states of the slots are changed."""
    here, rows = active(x.slots, x.state, x.q.shape[0])
    wide, outputs = x.state.dtype, x.output().zero_()

    def own(tensor: Tensor | None) -> Tensor | None:
        """The active sequences of a tensor (B, H, …)."""
        return None if tensor is None else tensor[here].to(wide)

    def of_heads(tensor: Tensor) -> Tensor:
        return tensor[here].repeat_interleave(x.heads // tensor.shape[1], 1).to(wide)

    q, k, v = of_heads(x.q), of_heads(x.k), of_heads(x.v)
    if k.ndim == 3:
        k, v = k[:, :, None], v[:, :, None]
    if (beta := own(x.beta)) is not None:
        weights = k * beta.view(*k.shape[:3], 1)
    else:
        weights = k
    S = x.state[rows]
    y = _read(q, S)
    if x.bonus is not None:
        y = y + (q * x.bonus.to(wide) * weights[:, :, 0]).sum(-1, keepdim=True) * v[:, :, 0]
    faded = S if x.g is None else S * _per_key(own(x.g), S)
    if x.left is not None and x.right is not None:
        S = faded + of_heads(x.left)[..., None] * _read(of_heads(x.right), S)[..., None, :]
    else:
        S = faded
    for turn in range(x.turns):
        value = v[:, :, turn]
        if x.erase == "delta":
            value = value - _read(k[:, :, turn], S)
        S = S + weights[:, :, turn, :, None] * value[..., None, :]
    y = x.scale * (y if x.before else _read(q, S))
    if (divisor := own(x.divisor)) is not None:
        y = y / divisor[..., None]
    x.state[rows] = S
    outputs[here] = y.to(outputs.dtype)
    return outputs


def _read(q: Tensor, S: Tensor) -> Tensor:
    """Sᵀ q for q (B, H, K)."""
    return (q[..., None, :] @ S)[..., 0, :]


def _per_key(g: Tensor | None, S: Tensor) -> Tensor:
    """e^g to be multiplied with S (B, H, K, V)."""
    assert g is not None
    return torch.exp(g).view(*g.shape, *(1,) * (S.ndim - g.ndim))


def normaliser_step(
    q: Tensor,
    k: Tensor,
    log_write: Tensor,
    log_decay: Tensor,
    normaliser: Tensor,
    stabiliser: Tensor,
    slots: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-decays, write strengths and divisors (B, H); n and m of the slots are changed."""
    here, rows = active(slots, normaliser, q.shape[0])
    heads, wide = normaliser.shape[1], normaliser.dtype
    g, beta, divisor = (normaliser.new_ones(q.shape[0], heads) for _ in range(3))
    q, k = (x[here].repeat_interleave(heads // x.shape[1], 1).to(wide) for x in (q, k))
    fades, enters, before = log_decay[here].to(wide), log_write[here].to(wide), stabiliser[rows]
    m = torch.maximum(fades + before, enters)
    reference = torch.where(m == -torch.inf, 0.0, m)
    g[here], beta[here] = fades + before - reference, torch.exp(enters - reference)
    n = torch.exp(g[here])[..., None] * normaliser[rows] + beta[here][..., None] * k
    limit = largest_exponent(wide)
    least = torch.exp(-m.clamp(-limit, limit))
    divisor[here] = torch.maximum((scale * (q * n).sum(-1)).abs(), least)
    normaliser[rows], stabiliser[rows] = n, m
    return g, beta, divisor
