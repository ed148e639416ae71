"""S5: one state space for all channels, diagonal and complex, discretised by one step per state."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import DenseCoupling
from dsf.shapes import Float, Inexact
from dsf.structure import Diagonal
from dsf.system import System

from .architecture import Architecture, Draw, Sample
from .discretisation import Rule, discretise


def s5(
    step: Float[Tensor, " N"],
    A: Inexact[Tensor, " N"],
    b: Inexact[Tensor, "N V"],
    c: Inexact[Tensor, "V N"],
    *,
    skip: Float[Tensor, " V"] | None = None,
    discretisation: Rule = "zoh",
) -> System:
    r"""h_i = Λ̄ h_{i-1} + B̄ u_i,  y_i = 2 Re(C h_i) + D u_i with Λ̄, B̄ discretised from diag(A), B.

    System: Λ = diag(e^{ΔA}) by zero-order hold, or (1 + ΔA/2)/(1 - ΔA/2) by the bilinear rule; a vector
    state; the states are one of each conjugate pair, hence 2 Re. `step` Δ and `A` complex are (N,), `b`
    complex (N, V), `c` complex (V, N), `skip` (V,). One head: the tokens are u (B, T, 1, V).

    Source: Smith, Warrington, Linderman, "Simplified state space layers" (2208.04933), own wording.

    >>> import dsf
    >>> one = torch.ones(1, 1, dtype=torch.complex64)
    >>> system = s5(torch.tensor([0.5]), torch.tensor([-1 + 2j]), one, one)
    >>> dsf.explain(system, torch.ones(1, 9, 1, 1))[1].refusal is None  # the scan admits it
    True
    """
    transition, held = discretise(step, A, discretisation)
    return System(
        transition.map(lambda x, _: x[None, None, None]),
        DenseCoupling((held[:, None] * b)[None, None, None]),
        DenseCoupling(2 * c[None, None, None]),
        feedthrough=None if skip is None else Diagonal(skip[None, None, None]),
        real_part=True,
    )


def _sample(draw: Draw) -> Sample:
    states, values = draw.keys, draw.values
    return Sample(
        {
            "step": 0.05 + 0.2 * draw.uniform(states),
            "A": torch.complex(-draw.uniform(states), 3 * draw.normal(states)),
            "b": torch.complex(draw.normal(states, values), draw.normal(states, values)),
            "c": torch.complex(draw.normal(values, states), draw.normal(values, states)),
            "skip": draw.normal(values),
        },
        draw.normal(draw.batch, draw.length, 1, values),
    )


S5 = Architecture(
    "s5",
    "S5",
    r"$h_i = e^{\Delta A} h_{i-1} + \bar{B} u_i, \quad y_i = 2\,\mathrm{Re}(C h_i) + D u_i$",
    "Smith et al., 2208.04933, own wording",
    s5,
    _sample,
)
