"""Attention by its definition, every pair at once in float64, and how far float32 accumulators may be from it.

Nothing of `dsf.kernels` is used. Bounds are first-order running errors on absolute values, doubled for what is of
second order: e of a score, d of a weight and of its slope, then of every sum in which they stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dsf.numerics import unit_roundoff


@dataclass(frozen=True, eq=False)
class Problem:
    """q, k, v, the cotangent of the outputs, which query sees which key, and what makes weights."""

    q: Tensor
    k: Tensor
    v: Tensor
    do: Tensor
    seen: Tensor
    weight: str = "softmax"
    normalised: bool = False
    scale: float = 0.3
    bias: float = 0.0
    tiles: int = 1  # of keys that a row goes through at most

    @property
    def divided(self) -> bool:
        return self.normalised or self.weight == "softmax"

    @property
    def share(self) -> int:
        return self.q.shape[2] // self.k.shape[2]


@dataclass(frozen=True, eq=False)
class Truth:
    """Outputs and gradients of q, k, v in float64, each with its bound."""

    outputs: Tensor
    gradients: tuple[Tensor, Tensor, Tensor]
    of_outputs: Tensor
    of_gradients: tuple[Tensor, Tensor, Tensor]


def outputs(p: Problem, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition; a row that sees no key is zero."""
    k, v = (x.repeat_interleave(p.share, 2) for x in (k, v))
    x = torch.einsum("bihk,bjhk->bhij", q, k) * p.scale + p.bias
    if p.weight == "softmax":
        x = x.masked_fill(~p.seen, -torch.inf)
        if x.shape[-1]:
            x = x - x.detach().amax(-1, keepdim=True).nan_to_num(neginf=0.0)
        w = torch.where(p.seen, x.exp(), 0)
    else:
        # As e^{log σ}, whose derivative σ(x) σ(-x) does not round to zero where σ rounds to one.
        w = logsigmoid(x).exp() if p.weight == "sigmoid" else softplus(x)
        w = torch.where(p.seen, w, 0)
    if p.divided:
        sums = w.sum(-1, keepdim=True)
        w = w / torch.where(sums > 0, sums, 1)
    return torch.einsum("bhij,bjhv->bihv", w, v)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), also where torch's own would give x."""
    return x.clamp_min(0) + torch.log1p((-x.abs()).exp())


def truth(p: Problem) -> Truth:
    leaves = [x.double().requires_grad_() for x in (p.q, p.k, p.v)]
    found = outputs(p, *leaves)
    gradients = torch.autograd.grad(found, leaves, p.do.double())
    of_outputs, of_gradients = bounds(p, found.detach())
    return Truth(found.detach(), gradients, of_outputs, of_gradients)


def bounds(p: Problem, found: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Of the outputs, and of the gradients of q, k and v."""
    narrow = p.q.dtype
    u, w = unit_roundoff(torch.float32), unit_roundoff(narrow)
    if narrow == torch.float64:
        u = w
    less = (
        torch.finfo(narrow).tiny * torch.finfo(narrow).eps
    )  # what an underflow of the stored type may cost
    q, do = p.q.double(), p.do.double()
    k, v = (x.double().repeat_interleave(p.share, 2) for x in (p.k, p.v))
    K, V, keys, queries = q.shape[-1], v.shape[-1], k.shape[1], q.shape[1]

    def scores(a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("bihk,bjhk->bhij", a, b)

    def spread(weights: Tensor, values: Tensor) -> Tensor:
        return torch.einsum("bhij,bjhv->bihv", weights, values)

    def gathered(weights: Tensor, values: Tensor) -> Tensor:
        return torch.einsum("bhij,bihv->bjhv", weights, values)

    def zero(x: Tensor) -> Tensor:
        return torch.where(p.seen, x, 0)

    x = scores(q, k) * p.scale + p.bias
    e = (K + 6) * u * (scores(q.abs(), k.abs()) * abs(p.scale) + abs(p.bias))
    if p.weight == "softmax":
        x, e = zero(x), zero(e)
        size = x.abs().amax(-1, keepdim=True) if keys else x.sum(-1, keepdim=True)
        hidden = x.masked_fill(~p.seen, -torch.inf)
        top = hidden.amax(-1, keepdim=True).nan_to_num(neginf=0.0) if keys else size
        weights = (hidden - top).exp()
        sums = weights.sum(-1, keepdim=True)
        weights = slopes = weights / torch.where(sums > 0, sums, 1)
        each = e + u * (8 * size + 6 * p.tiles + 8)
        of_row = (weights * each).sum(-1, keepdim=True) + (keys + 4) * u
        of_weights = of_slopes = weights * (each + of_row)
    else:
        up, down = torch.sigmoid(x), torch.sigmoid(-x)
        e = e + 4 * u * x.abs()
        if p.weight == "sigmoid":
            weights, slopes, curves = up, up * down, up * down
        else:
            weights, slopes, curves = softplus(x), up, up * down
        weights, slopes, curves = zero(weights), zero(slopes), zero(curves)
        of_weights, of_slopes = slopes * e + 12 * u * weights, curves * e + 12 * u * slopes
        if p.normalised:
            sums = weights.sum(-1, keepdim=True)
            sums = torch.where(sums > 0, sums, 1)
            of_row = of_weights.sum(-1, keepdim=True) / sums + (keys + 4) * u
            of_weights = (of_weights + weights * of_row) / sums
            of_slopes = (of_slopes + slopes * of_row) / sums
            weights, slopes = weights / sums, slopes / sums
    stored = of_weights + (w + (keys + 4) * u) * weights + zero(torch.full_like(x, less))
    of_outputs = spread(stored, v.abs()) + w * found.abs() + less
    many = queries * p.share + 4
    stored = of_weights + (w + many * u) * weights + zero(torch.full_like(x, less))
    of_v = gathered(stored, do.abs())
    above, size = scores(do, v), scores(do.abs(), v.abs())
    of_above = (V + 4) * u * size
    if p.divided:
        delta = (do * found).sum(-1).movedim(1, 2)[..., None]
        above = above - delta
        rest = do.abs() * (2 * of_outputs + (V + 4) * u * found.abs())
        of_above = of_above + rest.sum(-1).movedim(1, 2)[..., None] + u * delta.abs()
    ds = slopes * above
    of_ds = of_slopes * above.abs() + slopes * of_above + zero(torch.full_like(x, less))
    each = of_ds + (w + (keys + 4) * u) * ds.abs()
    of_q = abs(p.scale) * spread(each, k.abs()) + less
    each = of_ds + (w + many * u) * ds.abs()
    of_k = abs(p.scale) * gathered(each, q.abs()) + less

    def shared(x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, p.share)).sum(3)

    exact = (
        p.scale * spread(ds, k),
        p.scale * shared(gathered(ds, q)),
        shared(gathered(weights, do)),
    )
    pairs = zip((of_q, shared(of_k), shared(of_v)), exact, strict=True)
    of_q, of_k, of_v = (2 * (bound + w * value.abs() + less) for bound, value in pairs)
    return 2 * of_outputs, (of_q, of_k, of_v)
