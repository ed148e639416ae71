"""Softmax attention with its exponential cut off after a degree: a finite state, with an error."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.shapes import Float
from dsf.system import System

from .architecture import Architecture, queries_and_keys
from .linear_attention import linear_attention


def symmetric_features(x: Tensor, degree: int) -> Tensor:
    r"""φ(x) with φ(x)ᵀφ(y) = Σ_{p ≤ degree} (xᵀy)^p / p!: each monomial x^a once, weighted by 1/√(a!).

    (…, K) becomes (…, C(K + degree, degree)), against K^0 + … + K^degree for all tensor powers.

    >>> x = torch.tensor([1.0, 2.0])
    >>> features = symmetric_features(x, 3)
    >>> features.shape[-1], float((features**2).sum())  # 1 + 5 + 25/2 + 125/6
    (10, 39.33333206176758)
    """
    columns = []
    for power in range(degree + 1):
        for chosen in itertools.combinations_with_replacement(range(x.shape[-1]), power):
            weight = math.prod(math.factorial(chosen.count(i)) for i in set(chosen)) ** -0.5
            column = torch.full_like(x[..., 0], weight)
            for i in chosen:
                column = column * x[..., i]
            columns.append(column)
    return torch.stack(columns, -1)


def taylor_attention(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    *,
    degree: int = 2,
) -> System:
    r"""y_i = Σ_{j≤i} w_ij v_j / Σ_{j≤i} w_ij,  w_ij = Σ_{p≤P} s^p / p!,  s = q_iᵀk_j / √K.

    System: linear attention with the features of `symmetric_features` for `q`, `k` (B, T, H, K). Weights
    are positive for an even degree P; an odd one can be negative and is refused, since its normaliser
    may vanish.

    Raises `InvalidInput` for a degree that is odd or negative.

    Source: Sieber et al. (2405.15731), section 4.1 (truncation of the exponential kernel), own wording.

    >>> import dsf
    >>> q = torch.zeros(1, 4, 1, 2)
    >>> dsf.run(taylor_attention(q, q), torch.arange(4.0).reshape(1, 4, 1, 1))[0].flatten()
    tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """
    if degree < 0 or degree % 2:
        raise InvalidInput(
            f"`degree` must be even: odd truncations of exp are negative somewhere; got {degree}"
        )
    scale = k.shape[-1] ** -0.25
    return linear_attention(
        symmetric_features(scale * q, degree), symmetric_features(scale * k, degree), feature=None
    )


TAYLOR_ATTENTION = Architecture(
    "taylor-attention",
    "Softmax attention, Taylor-truncated",
    r"$y_i = \sum_{j \leq i} w_{ij} v_j \,/\, \sum_{j \leq i} w_{ij}, \quad "
    r"w_{ij} = \sum_{p \leq P} \frac{1}{p!} (q_i^\top k_j / \sqrt{K})^p$",
    "Sieber et al., 2405.15731, section 4.1, own wording",
    taylor_attention,
    queries_and_keys,
)
