"""The runs that are timed: one system per structure, at one size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.mixers import gated_deltanet, linear_attention, mlstm, s4d, s6
from dsf.structure import Diagonal, Scalar
from dsf.system import System


@dataclass(frozen=True)
class Case:
    """A system with its values, float32, B = 1."""

    system: System
    values: Tensor


def cases(length: int, heads: int = 4, size: int = 64) -> dict[str, Callable[[], Case]]:
    """Builders by name; keys and values have `size` channels per head."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    lead = (1, length, heads)
    q, k, v = (normal(*lead, size) for _ in range(3))
    g, beta = -torch.rand(*lead, generator=generator), torch.rand(*lead, generator=generator)
    unit = torch.nn.functional.normalize(k, dim=-1)

    def plain(transition: Scalar | Diagonal) -> Case:
        return Case(System(transition, OuterCoupling(k), OuterCoupling(q)), v)

    def selective() -> Case:
        channels, states = heads * size, 16
        delta = 0.1 * torch.rand(1, length, channels, generator=generator)
        A = -torch.arange(1.0, states + 1).repeat(channels, 1)
        system = s6(delta, A, normal(1, length, states), normal(1, length, states))
        return Case(system, normal(1, length, 1, channels))

    def invariant() -> Case:
        channels, states = heads * size, 16
        A = torch.complex(
            torch.full((channels, states), -0.5),
            torch.pi * torch.arange(states).repeat(channels, 1).float(),
        )
        ones = torch.ones(channels, states, dtype=torch.complex64)
        return Case(
            s4d(torch.full((channels,), 0.01), A, ones, ones), normal(1, length, channels, 1)
        )

    return {
        "linear attention": lambda: Case(linear_attention(q, k), v),
        "scalar decay": lambda: plain(Scalar.from_log(g)),
        "diagonal decay": lambda: plain(
            Diagonal.from_log(-torch.rand(*lead, size, generator=generator))
        ),
        "gated delta rule": lambda: Case(gated_deltanet(q, unit, g, beta), v),
        "mLSTM": lambda: Case(mlstm(q, k, normal(*lead), normal(*lead) + 3), v),
        "S6": selective,
        "S4D": invariant,
    }
