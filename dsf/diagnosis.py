"""What to know of a system before it runs: does it contract, can it overflow, where is a bad number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.coupling import Coupling
from dsf.errors import InvalidInput
from dsf.forms.core import accumulator, over_time
from dsf.state import State
from dsf.system import System
from dsf.validation import check_tokens


@dataclass(frozen=True)
class BadNumber:
    """The first number of one tensor that is not finite: where it stands, in time order."""

    tensor: str
    batch: int
    step: int
    head: int

    def __str__(self) -> str:
        return f"`{self.tensor}` at batch {self.batch}, step {self.step}, head {self.head}"


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    `largest_norm` is max ‖Λ_i‖₂ and `largest_at` its step. `overflow_step` is the first step at which
    the bound ‖h_i‖ <= ‖Λ_i‖ ‖h_{i-1}‖ + ‖B_i u_i‖ leaves the range of the accumulator: before it no
    overflow is possible (None: at no step). `bad` names the first bad number of each tensor.
    """

    largest_norm: float
    largest_at: int | None
    overflow_step: int | None
    bad: tuple[BadNumber, ...]

    @property
    def contractive(self) -> bool:
        """True where no transition is longer than 1, but for rounding."""
        return self.largest_norm <= 1 + 64 * torch.finfo(torch.float32).eps

    def require(self) -> None:
        """Raise `InvalidInput` that names the step where this is no contraction of finite numbers."""
        if self.bad:
            raise InvalidInput("not finite: " + "; ".join(map(str, self.bad)))
        if not self.contractive:
            tail = (
                f"; it may overflow from step {self.overflow_step} on" if self.overflow_step else ""
            )
            raise InvalidInput(
                f"the transition is not contractive: its norm is {self.largest_norm:.6g} at step "
                f"{self.largest_at}{tail}. Allowed is up to 1: use log-decays <= 0, and keys of unit "
                "length with strengths in [0, 2] for a delta rule"
            )


def diagnose(system: System, tokens: Tensor, state: State | None = None) -> Diagnosis:
    """Contraction, the earliest possible overflow, and bad numbers of a run; nothing is run.

    >>> from dsf.mixers import gated_deltanet
    >>> k = torch.full((1, 500, 1, 4), 2.0)  # of length 4, not 1
    >>> ones = torch.ones(1, 500, 1)
    >>> found = diagnose(gated_deltanet(k, k, 0 * ones, ones), torch.ones(1, 500, 1, 1))
    >>> found.contractive, round(found.largest_norm), found.overflow_step
    (False, 15, 33)
    """
    _, length, _ = check_tokens(system, tokens)
    norms = over_time(system.transition.norm().detach().double().reshape(_lead(system)), length)
    if length == 0 or norms.numel() == 0:
        return Diagnosis(0.0, None, None, ())
    highest = norms.nan_to_num(nan=math.inf).amax((0, 2))
    at = int(highest.argmax())
    bad = tuple(_bad_numbers(system, tokens))
    overflow = None if bad else _overflow(system, tokens, state, norms, length)
    return Diagnosis(float(highest[at]), at, overflow, bad)


def _lead(system: System) -> tuple[int, ...]:
    lead = system.transition.lead
    return tuple(lead) if len(lead) == 3 else (1, 1, 1)


def _overflow(
    system: System, tokens: Tensor, state: State | None, norms: Tensor, length: int
) -> int | None:
    """The first step whose bound leaves the accumulator's range, in logarithms."""
    dtype = accumulator(torch.promote_types(system.dtype, tokens.dtype).to_real())
    limit = math.log(torch.finfo(dtype).max)
    written = over_time(_write_sizes(system.write, tokens), length)
    grown = torch.log(norms)
    size = torch.full((), -math.inf, dtype=torch.float64)
    if state is not None:
        size = torch.log(
            torch.linalg.vector_norm(state.memory.detach().flatten(2), dim=-1).double()
        )
    for i in range(length):
        size = torch.logaddexp(grown[:, i] + size, written[:, i])
        if bool((size > limit).any()):
            return i
    return None


def _write_sizes(write: Coupling, tokens: Tensor) -> Tensor:
    """log ‖B_i u_i‖ bounded by the product of Frobenius norms (B, T, H)."""
    lengths = torch.linalg.vector_norm(write.weights.detach().flatten(3), dim=-1).double()
    sizes = torch.linalg.vector_norm(tokens.detach().flatten(3), dim=-1).double()
    return torch.log(lengths) + torch.log(sizes)


def _bad_numbers(system: System, tokens: Tensor) -> list[BadNumber]:
    gates = system.transition.linear()
    named = [("transition", x) for x in gates.leaves]
    named += [("write", system.write.weights), ("read", system.read.weights), ("tokens", tokens)]
    if system.log_write is not None:
        named.append(("log_write", torch.where(system.log_write == -math.inf, 0, system.log_write)))
    found = []
    for name, x in named:
        wrong = ~torch.isfinite(x.detach())
        wrong = wrong.flatten(3).any(-1) if wrong.ndim > 3 else wrong
        if bool(wrong.any()):
            step, batch, head = wrong.movedim(1, 0).nonzero()[0].tolist()
            found.append(BadNumber(name, batch, step, head))
    return found
