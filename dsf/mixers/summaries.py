"""Summaries: every query reads one state, made of all tokens; its size does not grow with them."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.precision import keeps_precision
from dsf.shapes import Float
from dsf.structure import Identity
from dsf.system import System

from .recurrence import Recurrence
from .scores import check_queries


@keeps_precision
def agent_attention(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T H K"], agents: int
) -> Recurrence:
    r"""Φ = softmax(Q Aᵀ/√K) softmax(A Kᵀ/√K) for `agents` A: means of Q over equal stretches of tokens.

    System: Λ = I on one key channel per agent, B_j = softmax_j(a·k_j/√K), C_i = softmax_a(q_i·a/√K), read
    at the end. The second softmax is over all tokens, so both A and B look ahead; rank Φ <= `agents`.
    Position biases and the convolution beside it are not part of it. `agents` must divide T.

    Source: Han et al., "Agent attention" (2312.08874), own wording; code: LeapLabTHU/Agent-Attention,
    `agent_transformer/models/agent_deit.py` (which pools over a grid of two axes).

    >>> q = torch.zeros(1, 4, 1, 2)
    >>> agent_attention(q, q, 2)(torch.tensor([0.0, 2, 4, 6]).reshape(1, 4, 1, 1)).flatten()
    tensor([3., 3., 3., 3.])
    """
    check_queries(q, k)
    length, size = q.shape[1], q.shape[-1]
    if agents < 1 or length % agents:
        raise InvalidInput(f"`agents` must divide T = {length}; got {agents}")
    pooled = q.unflatten(1, (agents, -1)).mean(2)
    seen = torch.softmax(torch.einsum("bahk,bjhk->bjha", pooled, k) / size**0.5, 1)
    asked = torch.softmax(torch.einsum("bihk,bahk->biha", q, pooled) / size**0.5, -1)
    return Recurrence(
        System(Identity(), OuterCoupling(seen), OuterCoupling(asked), timing="end"),
        later=True,
        rows=1.0,
        gates=2 * length * agents * size,
    )


def inline_attention(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T H K"], *, causal: bool = False
) -> Recurrence:
    r"""Φ_ij = q_i·(k_j - k̄)/(N√K) + 1/N: linear attention that subtracts its mean where others divide.

    System: Λ = I on K + 1 key channels. Read at the end, B_j = (k_j - k̄, 1)/N, C_i = (q_i/√K, 1); with
    `causal` N is the number i of tokens so far and k̄_i their mean, B_j = (k_j, 1) and
    C_i = (q_i/√K, 1 - q_i·k̄_i/√K)/i. Rows sum to 1, weights may be negative. The convolution beside
    it is not part of it, and the feature map is the identity; the causal one is not in the paper.

    Source: Han et al., "Bridging the divide" (2412.06590), equation 5, with the scale of the code:
    LeapLabTHU/InLine, `models/inline_deit.py`.

    >>> q = torch.zeros(1, 3, 1, 2)
    >>> v = torch.tensor([0.0, 2, 4]).reshape(1, 3, 1, 1)
    >>> inline_attention(q, q, causal=True)(v).flatten()
    tensor([0., 1., 2.])
    """
    check_queries(q, k)
    length, scaled = q.shape[1], q / q.shape[-1] ** 0.5
    one = torch.ones_like(k[..., :1])
    if not causal:
        written = torch.cat([k - k.mean(1, keepdim=True), one], -1) / max(1, length)
        asked = OuterCoupling(torch.cat([scaled, one], -1))
        system = System(Identity(), OuterCoupling(written), asked, timing="end")
        return Recurrence(system, later=True, rows=1.0)
    seen = torch.arange(1, length + 1, dtype=k.dtype, device=k.device)[None, :, None, None]
    rest = 1 - (scaled * k.cumsum(1) / seen).sum(-1, keepdim=True)
    asked = OuterCoupling(torch.cat([scaled, rest], -1) / seen)
    system = System(Identity(), OuterCoupling(torch.cat([k, one], -1)), asked)
    return Recurrence(system, rows=1.0, gates=length * k.shape[-1])


def flow_attention(
    q: Float[Tensor, "B T H K"], k: Float[Tensor, "B T H K"], *, eps: float = 1e-6
) -> Recurrence:
    r"""y_i = σ(Î_i) φ(q_i)·Σ_j φ(k_j) N softmax_j(Ô) v_j / I_i: sinks i share what sources j conserve, φ = σ.

    I_i = φ(q_i)·Σ_j φ(k_j), O_j = φ(k_j)·Σ_i φ(q_i); conserved, Î_i = φ(q_i)·Σ_j φ(k_j)/O_j and
    Ô_j = φ(k_j)·Σ_i φ(q_i)/I_i, clamped to [-1, 1]. `eps` is added to both factors of each of the four
    products, as the code does; with eps = 0 the conserved flows sum to N exactly.

    System: Λ = I, B_j = N softmax_j(Ô) φ(k_j), C_i = σ(Î_i) φ(q_i)/I_i, read at the end.

    Source: Wu et al., "Flowformer" (2202.06258), own wording; code: thuml/Flowformer, `Flow_Attention.py`.

    >>> q = torch.zeros(1, 2, 1, 1)
    >>> float(flow_attention(q, q)(torch.ones(1, 2, 1, 1))[0, 0]) - float(torch.tensor(1.0).sigmoid()) < 1e-5
    True
    """
    check_queries(q, k)
    sinks, sources, length = q.sigmoid(), k.sigmoid(), q.shape[1]

    def flow(of: Tensor, total: Tensor) -> Tensor:
        return ((of + eps) * (total + eps)).sum(-1, keepdim=True)

    entering = flow(sinks, sources.sum(1, keepdim=True))
    leaving = flow(sources, sinks.sum(1, keepdim=True))
    kept_sink = flow(sinks, (sources / leaving).sum(1, keepdim=True))
    kept_source = flow(sources, (sinks / entering).sum(1, keepdim=True)).clamp(-1.0, 1.0)
    competition = torch.softmax(kept_source, 1) * length
    system = System(
        Identity(),
        OuterCoupling(competition * sources),
        OuterCoupling(kept_sink.sigmoid() * sinks / entering),
        timing="end",
    )
    return Recurrence(system, later=True, gates=6 * length * q.shape[-1])
