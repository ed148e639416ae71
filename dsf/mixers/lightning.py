"""Lightning attention of TransNormer: a fixed decay per head, slower in deeper layers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.shapes import Float
from dsf.structure import Scalar
from dsf.system import System

from .architecture import Architecture, queries_and_keys


def slopes(heads: int, layer: int, layers: int, variant: Literal["paper", "code"]) -> Tensor:
    """-log λ per head, h = 1 … H: (8h/H)(1 - l/L) on paper, 2^{-8h/H} (1 - l/(L-1) + 1e-5) in the code."""
    if variant not in ("paper", "code"):
        raise InvalidInput(f"`variant` must be 'paper' or 'code'; got {variant!r}")
    if not 0 <= layer < layers:
        raise InvalidInput(f"`layer` must be one of 0 … {layers - 1}; got {layer}")
    h = torch.arange(1, heads + 1, dtype=torch.float64)
    if variant == "paper":
        return 8 * h / heads * (1 - layer / layers)
    if heads & (heads - 1):
        raise InvalidInput(
            f"the code's slopes are given here for a power of two heads; got {heads}"
        )
    return 2.0 ** (-8 * h / heads) * (1 - layer / max(1, layers - 1) + 1e-5)


def lightning(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    *,
    layer: int = 0,
    layers: int = 12,
    variant: Literal["paper", "code"] = "paper",
) -> System:
    r"""h_i = λ h_{i-1} + k_i v_iᵀ,  y_i = h_iᵀ q_i,  λ = e^{-slope} of head h and layer l.

    System: Λ = λ I, constant in time, B = k, C = q for `q`, `k` (B, T, H, K). The two variants differ
    much: for 8 heads in layer 0, λ runs from 0.37 to 0.0003 by the formula of the paper, from 0.61 to
    0.996 in the code, whose slopes are those of ALiBi. Norms and gates of the block are not part of it.

    Raises `InvalidInput` for an unknown variant, and in the code's for H that is no power of two.

    Source: Qin et al., "TransNormerLLM" (2307.14995), own wording; code:
    OpenNLPLab/lightning-attention, `lightning_attn/utils`.

    >>> import dsf
    >>> q = torch.ones(1, 3, 1, 1)
    >>> system = lightning(q, q, layer=11, variant="code")  # the last layer hardly forgets
    >>> [round(y, 3) for y in dsf.run(system, torch.ones(1, 3, 1, 1))[0].flatten().tolist()]
    [1.0, 2.0, 3.0]
    """
    slope = slopes(k.shape[2], layer, layers, variant).to(k)
    return System(Scalar.from_log(-slope[None, None]), OuterCoupling(k), OuterCoupling(q))


LIGHTNING = Architecture(
    "lightning",
    "Lightning attention (TransNormer)",
    r"$h_i = \lambda h_{i-1} + k_i v_i^\top, \quad y_i = h_i^\top q_i, \quad "
    r"\lambda = e^{-\frac{8h}{H}(1 - \frac{l}{L})}$",
    "Qin et al., 2307.14995, own wording",
    lightning,
    queries_and_keys,
)
