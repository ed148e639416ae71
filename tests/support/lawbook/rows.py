"""Systems to test on, one row per kind of transition and coupling, drawn from an explicit seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dsf.coupling import (
    ChannelCoupling,
    Coupling,
    DenseCoupling,
    OuterCoupling,
    ScaledCoupling,
)
from dsf.state import State
from dsf.structure import (
    DPLR,
    Block,
    Dense,
    Diagonal,
    Discretised,
    Elementwise,
    Identity,
    Scalar,
    Structure,
)
from dsf.system import System

B, H, K, V = 2, 3, 4, 5


@dataclass(frozen=True)
class Pen:
    """Random numbers for leaves with leading axes (B, T or 1, H)."""

    generator: torch.Generator
    steps: int

    def normal(self, *own: int) -> Tensor:
        return torch.randn(B, self.steps, H, *own, generator=self.generator, dtype=torch.float64)

    def uniform(self, *own: int) -> Tensor:
        return torch.rand(B, self.steps, H, *own, generator=self.generator, dtype=torch.float64)

    def phase(self, *own: int) -> Tensor:
        return torch.polar(self.uniform(*own), 6 * self.uniform(*own))

    def unit(self, *own: int) -> Tensor:
        return torch.nn.functional.normalize(self.normal(*own), dim=-1)

    def rotation(self, *own: int) -> Tensor:
        return torch.linalg.qr(self.normal(*own))[0] if self.steps else self.normal(*own)


TRANSITIONS: dict[str, Callable[[Pen], Structure]] = {
    "identity": lambda p: Identity(),
    "scalar": lambda p: Scalar(2 * p.uniform() - 1),
    "log scalar": lambda p: Scalar.from_log(torch.log(p.uniform())),
    "complex scalar": lambda p: Scalar(p.phase()),
    "diagonal": lambda p: Diagonal(p.uniform(K)),
    "log diagonal": lambda p: Diagonal.from_log(-p.uniform(K)),
    "complex diagonal": lambda p: Diagonal(p.phase(K)),
    "elementwise": lambda p: Elementwise(p.uniform(K, V)),
    "discretised": lambda p: Discretised(p.uniform(1, V), -2 * p.uniform(K, V)),
    "block": lambda p: Block(0.9 * p.rotation(K // 2, 2, 2)),
    "householder": lambda p: DPLR.householder(p.unit(K), 2 * p.uniform()),
    "two factors": lambda p: DPLR(Scalar(p.uniform()), 0.2 * p.normal(K, 2), 0.2 * p.normal(K, 2)),
    "diagonal and rank one": lambda p: DPLR(
        Diagonal(p.uniform(K)), 0.2 * p.normal(K, 1), 0.2 * p.normal(K, 1)
    ),
    "complex and rank one": lambda p: DPLR(
        Diagonal(p.phase(K)), 0.2 * p.phase(K, 1), 0.2 * p.phase(K, 1)
    ),
    "dense": lambda p: Dense(0.95 * p.rotation(K, K)),
}

COUPLINGS: dict[str, Callable[[Pen], tuple[Coupling, Coupling, tuple[int, ...]]]] = {
    "outer": lambda p: (OuterCoupling(p.normal(K)), OuterCoupling(p.normal(K)), (V,)),
    "several": lambda p: (OuterCoupling(p.normal(2, K)), OuterCoupling(p.normal(3, K)), (2, V)),
    "scaled": lambda p: (
        ScaledCoupling(p.normal(K), p.normal(V)),
        OuterCoupling(p.normal(K)),
        (V,),
    ),
    "channel": lambda p: (ChannelCoupling(p.normal(K, V)), ChannelCoupling(p.normal(K, V)), (V,)),
    "dense": lambda p: (DenseCoupling(p.normal(K, V)), DenseCoupling(p.normal(V, K)), (V,)),
}


@dataclass(frozen=True)
class Row:
    """One kind of system; `draw` gives a system, its tokens and a start state, in float64."""

    transition: str
    coupling: str
    constant: bool = False
    options: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        words = [self.transition, self.coupling, *("constant" * self.constant,), *self.options]
        return "-".join(w for w in words if w).replace(" ", "_")

    def draw(self, length: int, seed: int = 0) -> tuple[System, Tensor, State]:
        generator = torch.Generator().manual_seed(seed)
        pen = Pen(generator, 1 if self.constant else length)
        transition = TRANSITIONS[self.transition](pen)
        write, read, own = COUPLINGS[self.coupling](pen)
        system = System(transition, write, read, **self.options)  # type: ignore[arg-type]
        tokens = torch.randn(B, length, H, *own, generator=generator, dtype=torch.float64)
        shape = (B, H, K) if self.coupling == "dense" else (B, H, K, V)
        memory = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return system, tokens, State(memory + 0j if system.is_complex else memory)


def possible(transition: str, coupling: str) -> bool:
    """Elementwise gates have no vector state and no several writes with channels of their own."""
    return not (transition == "elementwise" and coupling in ("dense", "several"))


ALL_ROWS = [
    Row(t, c, constant)
    for t in TRANSITIONS
    for c in COUPLINGS
    if t != "discretised" and c != "scaled"
    for constant in (False, True)
    if possible(t, c)
]

# Every transition with every coupling at least once, constant and varying in turn.
ROWS = [row for i, row in enumerate(ALL_ROWS) if (i + i // 2) % 2 == 0]

# Transitions and couplings that are held in factors.
FACTORED = [
    *(
        Row("discretised", coupling, constant)
        for coupling in ("outer", "channel", "scaled")
        for constant in (False, True)
    ),
    *(
        Row(t, "scaled")
        for t in ("scalar", "complex diagonal", "elementwise", "householder", "block")
    ),
]
ALL_ROWS += FACTORED
ROWS += FACTORED


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """To a real precision, or to the complex type of it."""
    if not x.is_complex():
        return x.to(dtype)
    return x.to(torch.complex64 if dtype != torch.float64 else torch.complex128)


def wide(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)
