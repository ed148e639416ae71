"""RWKV-7 (Goose): a decay per channel, and a removal key with rates per channel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import DPLR, Diagonal
from dsf.system import System

from .architecture import Architecture, Draw, Sample

RATE = math.exp(-0.5)


def rwkv7(
    r: Float[Tensor, "#B #T #H K"],
    w: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    kappa: Float[Tensor, "#B #T #H K"],
    a: Float[Tensor, "#B #T #H K"],
) -> System:
    r"""h_i = (diag(d_i) - (a_i ⊙ κ̂_i) κ̂_iᵀ) h_{i-1} + k_i v_iᵀ,  y_i = h_iᵀ r_i,  d = e^{-e^{-1/2} σ(w)}, κ̂ = κ/‖κ‖.

    System: Λ = diag(d) + (-a ⊙ κ̂) κ̂ᵀ (what is erased is read from the undecayed state), B = k, C = r.
    Receptance `r`, raw decay `w`, replacement key `k`, removal key `kappa` and in-context rates `a` in
    [0, 1] are (B, T, H, K). The bonus of the current token follows the group norm, outside the system.

    Source: Peng et al., "RWKV-7 Goose" (2503.14456), own wording; code: fla, `fla/layers/rwkv7.py`.

    >>> import dsf
    >>> e, w = torch.tensor([1.0, 0.0]).expand(1, 2, 1, 2), torch.full((1, 2, 1, 2), -torch.inf)
    >>> system = rwkv7(e, w, e, 2 * e, torch.ones(1, 2, 1, 2))
    >>> dsf.run(system, torch.tensor([5.0, 6]).reshape(1, 2, 1, 1))[0].flatten()
    tensor([5., 6.])
    """
    removal = torch.nn.functional.normalize(kappa, dim=-1)
    return System(
        DPLR(Diagonal.from_log(-RATE * w.sigmoid()), -(a * removal)[..., None], removal[..., None]),
        OuterCoupling(k),
        OuterCoupling(r),
    )


def _sample(draw: Draw) -> Sample:
    names = ("r", "w", "k", "kappa")
    quantities = {name: draw.normal(*draw.lead, draw.keys) for name in names}
    quantities["a"] = draw.uniform(*draw.lead, draw.keys)
    return Sample(quantities, draw.normal(*draw.lead, draw.values))


RWKV7 = Architecture(
    "rwkv7",
    "RWKV-7",
    r"$h_i = (\mathrm{diag}(d_i) - (a_i \odot \hat{\kappa}_i) \hat{\kappa}_i^\top) h_{i-1} + k_i v_i^\top, "
    r"\quad y_i = h_i^\top r_i, \quad d = e^{-e^{-1/2} \sigma(w)}$",
    "Peng et al., 2503.14456, own wording",
    rwkv7,
    _sample,
)
