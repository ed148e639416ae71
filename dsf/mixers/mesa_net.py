"""MesaNet: the regularised least-squares fit of all values to their keys, read at the query."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms import run
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample, delta_rule


def mesa_net(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    beta: Float[Tensor, "#B #T #H"],
    g: Float[Tensor, "#B #T #H"],
    ridge: Float[Tensor, "H K"],
) -> System:
    r"""y_i = G_iᵀ (H_i + diag(λ))⁻¹ q_i,  H_i = e^{g_i} H_{i-1} + β_i k_i k_iᵀ,  G_i = e^{g_i} G_{i-1} + β_i k_i v_iᵀ.

    A composition of two systems with one transition: the first runs on the keys as values and gives H,
    the second has Λ = e^g I, B = β k and C = (H_i + diag λ)⁻¹ q_i. `q`, `k` are (B, T, H, K), `beta` >= 0
    and the log-decays `g` (B, T, H), `ridge` λ (H, K) positive. Solved directly, where the code takes
    30 steps of conjugate gradients.

    Source: von Oswald et al., "MesaNet" (2506.05233), own wording; code: fla, `fla/ops/mesa_net/naive.py`.

    >>> import dsf
    >>> k, one = torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1)
    >>> v = torch.tensor([1.0, 3.0, 5.0]).reshape(1, 3, 1, 1)
    >>> dsf.run(mesa_net(k, k, one, 0 * one, torch.tensor([[1e-6]])), v)[0].flatten()  # running means
    tensor([1.0000, 2.0000, 3.0000])
    """
    write = OuterCoupling(beta[..., None] * k)
    eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)[None, None, None]
    seen, _ = run(System(Scalar.from_log(g), write, OuterCoupling(eye)), k, form="recurrent")
    solved = torch.linalg.solve(seen + torch.diag_embed(ridge), q[..., None])[..., 0]
    return System(Scalar.from_log(g), write, OuterCoupling(solved))


def _sample(draw: Draw) -> Sample:
    return delta_rule(
        draw, g=-draw.uniform(*draw.lead), ridge=0.5 + draw.uniform(draw.heads, draw.keys)
    )


MESA_NET = Architecture(
    "mesa-net",
    "MesaNet",
    r"$y_i = G_i^\top (H_i + \mathrm{diag}\,\lambda)^{-1} q_i, \quad H_i = e^{g_i} H_{i-1} + \beta_i k_i k_i^\top, "
    r"\quad G_i = e^{g_i} G_{i-1} + \beta_i k_i v_i^\top$",
    "von Oswald et al., 2506.05233, own wording",
    mesa_net,
    _sample,
)
