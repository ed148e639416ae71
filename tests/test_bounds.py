"""Bounds of convolutions and of mixing transitions: never exceeded, and not so wide that they say nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from lawbook import laws
from torch import Tensor

import dsf.forms.convolution as convolution
import dsf.forms.lti as lti
from dsf.coupling import ChannelCoupling, Coupling, DenseCoupling, OuterCoupling
from dsf.numerics import BoundExceeded
from dsf.state import State
from dsf.structure import DPLR, Block, Dense, Diagonal, Elementwise, Identity, Scalar, Structure
from dsf.system import System

K, V = 3, 2
Drawn = tuple[System, Tensor, State]


class Pen:
    """Random leaves that are constant in time, for one sequence and two heads."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(4)

    def normal(self, *own: int) -> Tensor:
        return torch.randn(1, 1, 2, *own, generator=self._generator, dtype=torch.float64)

    def slow(self, *own: int, gap: float = 1e-3) -> Tensor:
        shape = (1, 1, 2, *own)
        return 1 - gap * torch.rand(shape, generator=self._generator, dtype=torch.float64)

    def phase(self, *own: int) -> Tensor:
        return torch.polar(self.slow(*own), 3 * self.normal(*own))

    def factors(self, rank: int, size: float) -> tuple[Tensor, Tensor]:
        q = torch.linalg.qr(self.normal(K, rank))[0]
        return -size * q, q


TRANSITIONS: dict[str, Callable[[Pen], Structure]] = {
    "sum": lambda p: Identity(),
    "slow scalar": lambda p: Scalar(p.slow()),
    "slow diagonal": lambda p: Diagonal(p.slow(K)),
    "slow and fast": lambda p: Diagonal(p.slow(K) ** (10.0 ** torch.arange(K))),
    "log": lambda p: Diagonal.from_log(-(1 - p.slow(K))),
    "oscillating": lambda p: Diagonal(p.phase(K)),
    "elementwise": lambda p: Elementwise(p.slow(K, V)),
    "rotation": lambda p: Dense(0.999 * torch.linalg.qr(p.normal(K, K))[0]),
    "blocks": lambda p: Block(0.99 * torch.linalg.qr(p.normal(1, K, K))[0]),
    "reflection": lambda p: DPLR(Identity(), *p.factors(1, 1.9)),
    "slow, one factor": lambda p: DPLR(Diagonal(p.slow(K)), *p.factors(1, 0.05)),
    "log, one factor": lambda p: DPLR(Diagonal.from_log(p.slow(K) - 1), *p.factors(1, 0.5)),
    "slow, two factors": lambda p: DPLR(Scalar(p.slow()), *p.factors(2, 0.5)),
    "oscillating, real factor": lambda p: DPLR(Diagonal(p.phase(K)), *p.factors(1, 0.01)),
}

COUPLINGS: dict[str, Callable[[Pen], tuple[Coupling, Coupling, tuple[int, ...]]]] = {
    "outer": lambda p: (OuterCoupling(p.normal(K)), OuterCoupling(p.normal(K)), (V,)),
    "several": lambda p: (OuterCoupling(p.normal(2, K)), OuterCoupling(p.normal(3, K)), (2, V)),
    "channel": lambda p: (ChannelCoupling(p.normal(K, V)), ChannelCoupling(p.normal(K, V)), (V,)),
    "dense": lambda p: (DenseCoupling(p.normal(K, V)), DenseCoupling(p.normal(V, K)), (V,)),
}


def one_large(tokens: Tensor) -> Tensor:
    """One token far larger than the others, which an FFT drowns in its roundings."""
    return torch.cat([tokens[:, :1] * 1e4, tokens[:, 1:]], 1)


@dataclass(frozen=True)
class Case:
    transition: str
    coupling: str

    def draw(self, length: int) -> Drawn:
        pen = Pen()
        transition = TRANSITIONS[self.transition](pen)
        write, read, own = COUPLINGS[self.coupling](pen)
        system = System(transition, write, read)
        generator = torch.Generator().manual_seed(length)
        tokens = torch.randn(1, length, 2, *own, generator=generator, dtype=torch.float64)
        memory = pen.normal(K, 1 if self.coupling == "dense" else V)[:, 0]
        memory = memory[..., 0] if self.coupling == "dense" else memory
        return system, tokens, State(memory + 0j if system.is_complex else memory)


CASES = [
    Case(t, c)
    for t in TRANSITIONS
    for c in COUPLINGS
    if t != "elementwise" or c in ("outer", "channel")
]

SOME = [case for i, case in enumerate(CASES) if (i + i // 4) % 2 == 0]


def case_id(case: Case) -> str:
    return f"{case.transition}-{case.coupling}".replace(" ", "_")


def hold(case: Case, large: bool) -> None:
    system, tokens, state = case.draw(251 if large else 256)  # a prime, and a power of two
    tokens = one_large(tokens) if large else tokens
    laws.forms_agree("convolution", system, tokens, state, torch.float32)
    laws.gradients_agree("convolution", system, tokens, state, torch.float32)


@pytest.mark.parametrize("case", SOME, ids=case_id)
def test_a_long_convolution_is_within_its_bounds(case) -> None:
    hold(case, large=bool(SOME.index(case) // 2 % 2))


@pytest.mark.full
@pytest.mark.parametrize("large", [False, True], ids=["even", "one_large"])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_long_convolution_is_within_its_bounds_for_all(case, large) -> None:
    hold(case, large)


def coarse(x: Tensor) -> Tensor:
    """Rounded to 8 bits: forward, or back where x is a gradient."""
    parts = torch.view_as_real(x) if x.is_complex() else x
    parts = parts.to(torch.bfloat16).to(parts.dtype)
    return torch.view_as_complex(parts) if x.is_complex() else parts


class CoarseBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, above):
        return coarse(above)


PLANTED = {
    "taps": lambda convolve: lambda taps, series: convolve(coarse(taps), series),
    "tokens": lambda convolve: lambda taps, series: convolve(taps, coarse(series)),
    "way back": lambda convolve: lambda *given: CoarseBack.apply(convolve(*given)),
}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("transition", ["sum", "slow diagonal", "oscillating", "rotation"])
def test_a_convolution_of_eight_bits_exceeds_its_bounds(transition, planted, monkeypatch) -> None:
    """Roundings 2^15 times too coarse: independent ones use about 1/300 of a bound that adds them all up."""
    system, tokens, state = Case(transition, "outer").draw(256)
    convolve = convolution._filter
    monkeypatch.setattr(convolution, "_filter", PLANTED[planted](convolve))
    with pytest.raises(BoundExceeded):
        if planted == "way back":
            laws.gradients_agree("convolution", system, tokens, state, torch.float32)
        else:
            laws.forms_agree("convolution", system, tokens, state, torch.float32)


def test_a_kernel_on_a_circle_with_a_wrong_radius_exceeds_its_bounds(monkeypatch) -> None:
    """C - C Λ^T / 8 on a circle where z^T is 1/8 only to 1 %."""
    system, tokens, state = Case("slow, one factor", "outer").draw(256)
    power = torch.linalg.matrix_power
    monkeypatch.setattr(lti.torch.linalg, "matrix_power", lambda x, n: 1.01 * power(x, n))
    with pytest.raises(BoundExceeded):
        laws.forms_agree("convolution", system, tokens, state, torch.float32)


def test_channels_that_write_and_read_different_keys_of_a_mixing_transition() -> None:
    """No single key is both written and read, so only the norm of Λ says what its powers make of it."""
    swap = torch.tensor([[0, 0.99993], [0.99981, 0]], dtype=torch.float64)[None, None, None]
    first, second = (
        ChannelCoupling(x.expand(1, 1, 1, 2, V))
        for x in torch.tensor([[0.1, 0], [0, 0.3]], dtype=torch.float64)[..., None]
    )
    tokens = torch.randn(
        1, 800, 1, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    laws.forms_agree("recurrent", System(Dense(swap), first, second), tokens, None, torch.float32)
