"""Linear attention: a sum of keys and values, read by queries, divided by the sum of weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Identity
from dsf.system import Normaliser, System

from .architecture import Architecture, queries_and_keys


def elu_plus_one(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1, positive, so that no sum of weights vanishes."""
    return torch.nn.functional.elu(x) + 1


def linear_attention(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    *,
    feature: Callable[[Tensor], Tensor] | None = elu_plus_one,
    normalise: bool = True,
) -> System:
    r"""y_i = Σ_{j≤i} φ(q_i)ᵀφ(k_j) v_j / Σ_{j≤i} φ(q_i)ᵀφ(k_j).

    System: Λ = I, B = φ(k), C = φ(q), normalised at the read-out; `dsf.gauges` moves the normaliser
    into the state. `q`, `k` are (B, T, H, K), the tokens are the values (B, T, H, V); `feature=None`
    takes q and k as they are, `normalise=False` leaves the sums undivided.

    Source: Katharopoulos, Vyas, Pappas, Fleuret, "Transformers are RNNs" (2006.16236), section 3.

    >>> import dsf
    >>> q = k = torch.zeros(1, 4, 1, 2)
    >>> y, _ = dsf.run(linear_attention(q, k), torch.arange(4.0).reshape(1, 4, 1, 1))
    >>> y.flatten()
    tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """
    if feature is not None:
        q, k = feature(q), feature(k)
    return System(
        Identity(),
        OuterCoupling(k),
        OuterCoupling(q),
        normaliser=Normaliser() if normalise else None,
    )


LINEAR_ATTENTION = Architecture(
    "linear-attention",
    "Linear attention",
    r"$h_i = h_{i-1} + \phi(k_i) v_i^\top, \quad y_i = h_i^\top \phi(q_i) \,/\, \eta_i$",
    "Katharopoulos et al., 2006.16236, section 3",
    linear_attention,
    queries_and_keys,
)
