"""LRU: a stable complex diagonal recurrence with dense couplings, constant in time."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import DenseCoupling
from dsf.shapes import Float, Inexact
from dsf.structure import Diagonal
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def lru(
    log_rate: Float[Tensor, " N"],
    phase: Float[Tensor, " N"],
    b: Inexact[Tensor, "N V"],
    c: Inexact[Tensor, "V N"],
    *,
    skip: Float[Tensor, " V"] | None = None,
) -> System:
    r"""h_i = λ ⊙ h_{i-1} + γ ⊙ (B u_i),  y_i = Re(C h_i) + D u_i,  λ = e^{-e^ν + iθ},  γ = √(1 - |λ|²).

    System: Λ = diag(λ), a vector state of N complex numbers, B = diag(γ) B, C, D = diag(skip); the real
    part. `log_rate` ν and `phase` θ are (N,), `b` complex (N, V), `c` complex (V, N), `skip` (V,). One
    head: the tokens are u (B, T, 1, V).

    Source: Orvieto et al., "Resurrecting recurrent neural networks for long sequences" (2303.06349),
    own wording.

    >>> import dsf
    >>> nu, one = torch.log(torch.tensor([0.6931472])), torch.ones(1, 1, dtype=torch.complex64)
    >>> dsf.run(lru(nu, torch.tensor([torch.pi]), one, one), torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([0.8660, 0.4330, 0.6495])
    """
    decay = -torch.exp(log_rate)
    gain = torch.sqrt(-torch.expm1(2 * decay))
    return System(
        Diagonal.from_log(torch.complex(decay, phase)[None, None, None]),
        DenseCoupling((gain[:, None] * b)[None, None, None]),
        DenseCoupling(c[None, None, None]),
        feedthrough=None if skip is None else Diagonal(skip[None, None, None]),
        real_part=True,
    )


def _sample(draw: Draw) -> Sample:
    states, values = draw.keys, draw.values
    return Sample(
        {
            "log_rate": draw.uniform(states) - 2,
            "phase": 3 * draw.uniform(states),
            "b": torch.complex(draw.normal(states, values), draw.normal(states, values)),
            "c": torch.complex(draw.normal(values, states), draw.normal(values, states)),
            "skip": draw.normal(values),
        },
        draw.normal(draw.batch, draw.length, 1, values),
    )


LRU = Architecture(
    "lru",
    "LRU",
    r"$h_i = \lambda \odot h_{i-1} + \gamma \odot (B u_i), \quad y_i = \mathrm{Re}(C h_i) + D u_i, \quad "
    r"\lambda = e^{-e^{\nu} + i\theta}, \; \gamma = \sqrt{1 - |\lambda|^2}$",
    "Orvieto et al., 2303.06349, own wording",
    lru,
    _sample,
)
