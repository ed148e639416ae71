"""RWKV-4: one weight per token and channel, softmax over a past that decays, and a bonus for now."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms.accumulate import accumulate
from dsf.forms.associative import Elements, associative_scan, running_maximum
from dsf.forms.transforms import is_followed
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample

Past = tuple[Tensor, Tensor]


def rwkv4(
    k: Float[Tensor, "B T H"],
    w: Float[Tensor, " H"],
    u: Float[Tensor, " H"],
    *,
    past: Past | None = None,
) -> System:
    r"""y_i = (Σ_{j<i} e^{k_j - (i-1-j) w} v_j + e^{u + k_i} v_i) / (Σ_{j<i} e^{k_j - (i-1-j) w} + e^{u + k_i}).

    The weights are known before the values. With m_i = max(m_{i-1} - w, k_i) and
    n_i = e^{m_{i-1} - w - m_i} n_{i-1} + e^{k_i - m_i} the average over the past is a convex recurrence, h_i =
    (1 - β_i) h_{i-1} + β_i v_i with β_i = e^{k_i - m_i} / n_i, and y_i mixes h_{i-1} with v_i: no exponent is
    positive and no divisor less than 1. System: Λ = 1 - β, B = β, C and D of the mixture, read before the
    update. `k` (B, T, H) finite, decays w ≥ 0 and bonus `u` (H,), a head per channel, tokens v (B, T, H, 1).
    Where a run goes on from an earlier one, `past` is what `sum_of_weights` says of its keys.

    Source: Peng et al., "RWKV: Reinventing RNNs for the Transformer Era" (2305.13048), the WKV operator, own
    wording; code: transformers, `rwkv_linear_attention_cpu`, whose `time_decay` is log w.

    >>> import dsf
    >>> k, v = torch.full((1, 3, 1), 1e4), torch.tensor([0.0, 2, 4]).reshape(1, 3, 1, 1)
    >>> dsf.run(rwkv4(k, torch.zeros(1), torch.zeros(1)), v)[0].flatten()
    tensor([0., 1., 2.])
    """
    m, n = _sums(k, w, past)
    before_m, before_n = m[:, :-1], n[:, :-1]
    if past is not None:
        before_m, before_n = (
            torch.cat([start[:, None], x], 1)
            for start, x in zip(past, (before_m, before_n), strict=True)
        )
    fresh = k.shape[1] - before_m.shape[1]  # the first token of all has nothing before it
    kept = torch.exp(before_m - w - m[:, fresh:]) * before_n / n[:, fresh:]
    top = torch.maximum(before_m, u + k[:, fresh:])
    earlier, now = torch.exp(before_m - top) * before_n, torch.exp(u + k[:, fresh:] - top)

    def whole(share: Tensor, first: float) -> Tensor:
        return torch.cat([torch.full_like(k[:, :fresh], first), share], 1)

    return System(
        Scalar(whole(kept, 0.0)),
        OuterCoupling((torch.exp(k - m) / n)[..., None]),
        OuterCoupling(whole(earlier / (earlier + now), 0.0)[..., None]),
        feedthrough=Scalar(whole(now / (earlier + now), 1.0)),
        timing="before",
    )


def sum_of_weights(
    k: Float[Tensor, "B T H"], w: Float[Tensor, " H"], past: Past | None = None
) -> Past:
    r"""m and n, both (B, H), with e^m n = Σ_j e^{k_j - (T - j) w}: the `past` of tokens that follow T ≥ 1 others.

    >>> k, w = torch.zeros(1, 4, 1), torch.zeros(1)
    >>> sum_of_weights(k, w)[1], sum_of_weights(k[:, 1:], w, sum_of_weights(k[:, :1], w))[1]
    (tensor([[4.]]), tensor([[4.]]))
    """
    m, n = _sums(k, w, past)
    return m[:, -1], n[:, -1]


def _sums(k: Tensor, w: Tensor, past: Past | None) -> Past:
    """m and n of every step (B, T, H)."""
    if not k.shape[1]:
        return k, k
    m, n = (k[:, 0], torch.ones_like(k[:, 0])) if past is None else past
    later = k[:, 1:] if past is None else k
    with torch.no_grad():  # nothing depends on where the exponents are centred
        tops = running_maximum((-w).expand_as(later), later, m)
    before = torch.cat([m[:, None], tops[:, :-1]], 1)[:, : later.shape[1]]
    gates, added = torch.exp(before - w - tops), torch.exp(later - tops)
    first = gates[:, :1] * n[:, None] + added[:, :1]

    sums = torch.cat([first, added[:, 1:]], 1)
    if type(sums) is Tensor and not is_followed(sums, gates):
        accumulate(gates[:, 1:], sums)
        return _joined(past, (m, n), (tops, sums))

    def combine(a: Elements, b: Elements) -> Elements:
        return a[0] * b[0], torch.addcmul(b[1], b[0], a[1])

    return _joined(past, (m, n), (tops, associative_scan(combine, (gates, sums))[1]))


def _joined(past: Past | None, first: Past, later: Past) -> Past:
    """The sums of every step, the first token's own in front where nothing came before."""
    if past is not None:
        return later
    m, n = (torch.cat([x[:, None], y], 1) for x, y in zip(first, later, strict=True))
    return m, n


def _sample(draw: Draw) -> Sample:
    return Sample(
        {
            "k": draw.normal(*draw.lead),
            "w": draw.uniform(draw.heads),
            "u": draw.normal(draw.heads),
        },
        draw.normal(*draw.lead, 1),
    )


RWKV4 = Architecture(
    "rwkv4",
    "RWKV-4",
    r"$y_i = \frac{\sum_{j<i} e^{k_j - (i-1-j) w} v_j + e^{u + k_i} v_i}"
    r"{\sum_{j<i} e^{k_j - (i-1-j) w} + e^{u + k_i}}$",
    "Peng et al., 2305.13048, own wording",
    rwkv4,
    _sample,
)
