"""From a system to its core recurrence, and from the core's results back to outputs and state.

Everything that is not the recurrence itself is done here, once for all forms: accumulator type,
the stabiliser m as a gauge, the normaliser as one more value channel of ones, reading before the
update as a shifted read-out, the real part, D u and the offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dsf.coupling import Coupling, DenseCoupling, OuterCoupling
from dsf.state import State
from dsf.structure import Scalar
from dsf.system import System
from dsf.validation import check_state, check_tokens

from .associative import running_maximum
from .core import Core, accumulator, over_time
from .transforms import is_transformed


@dataclass(frozen=True, eq=False)
class Lowered:
    """A core recurrence, and what `finish` needs to turn its results into outputs and a state."""

    system: System
    tokens: Tensor
    given: State
    core: Core
    stabilisers: Tensor | None

    def finish(self, outputs: Tensor, memory: Tensor) -> tuple[Tensor, State]:
        """Outputs (B, T, H, …) in the tokens' type, and the final state."""
        system = self.system
        outputs = self.read_out(outputs, memory)
        normaliser = None
        if system.normaliser is not None:
            outputs = self._divide(outputs, memory.shape[-1] - 1)
            memory, normaliser = memory[..., :-1], memory[..., -1]
        if system.real_part:
            outputs = outputs.real
        outputs = self._add_direct(outputs)
        if system.is_vector:
            memory = memory[..., 0]
        last = self.given.stabiliser
        if self.stabilisers is not None and self.stabilisers.shape[1]:
            last = self.stabilisers[:, -1]
        kept = replace(self.given, memory=memory, normaliser=normaliser, stabiliser=last)
        return outputs.to(_output_dtype(outputs, self.tokens)), kept

    def read_out(self, outputs: Tensor, memory: Tensor) -> Tensor:
        """The core's outputs at the times at which the system reads."""
        timing, read = self.system.timing, self.system.read
        if timing == "end":
            return _wide(read, self.core).extract(memory[:, None])
        if timing == "before" and outputs.shape[1]:
            first = (
                _wide(read, self.core).map(lambda x: x[:, :1]).extract(self.core.memory[:, None])
            )
            return torch.cat([first.to(outputs.dtype), outputs[:, :-1]], 1)
        return outputs

    def _divide(self, outputs: Tensor, values: int) -> Tensor:
        numerator, eta = outputs.split([values, 1], -1)
        eta = self.denominator(eta)
        if is_transformed(numerator, eta):
            return numerator / eta
        return _Quotient.apply(numerator, eta)  # type: ignore[return-value]

    def denominator(self, eta: Tensor) -> Tensor:
        """η, or max(|η|, floor) with the floor in the gauge of the stabiliser."""
        assert self.system.normaliser is not None
        floor = self.system.normaliser.floor
        if floor is None:
            return eta
        least = torch.full_like(eta, floor)
        if self.stabilisers is not None:
            scale = self._read_scale(eta.dtype)[..., None]
            least = least * (scale[..., None] if eta.ndim == 5 else scale)
        return torch.maximum(eta.abs(), least)

    def _read_scale(self, dtype: torch.dtype) -> Tensor:
        """e^{-m} at the read-out, kept representable: beyond that the quotient is 0 or unaffected."""
        assert self.stabilisers is not None and self.given.stabiliser is not None
        m, start = self.stabilisers, self.given.stabiliser[:, None]
        if self.system.timing == "before":
            m = torch.cat([start, m[:, :-1]], 1)
        elif self.system.timing == "end":
            m = torch.cat([start, m], 1)[:, -1:]
        limit = largest_exponent(dtype)
        return torch.exp(-m.clamp(-limit, limit))

    def _add_direct(self, outputs: Tensor) -> Tensor:
        system = self.system
        if system.feedthrough is not None:
            columns = self.tokens[..., None] if self.tokens.ndim == 4 else self.tokens.mT
            direct = system.feedthrough.apply(columns.to(outputs.dtype))
            outputs = outputs + (direct[..., 0] if self.tokens.ndim == 4 else direct.mT)
        return outputs if system.offset is None else outputs + system.offset


def _scaled(x: Tensor, a: Tensor) -> Tensor:
    return x * a if is_transformed(x, a) else _Scaled.apply(x, a)  # type: ignore[return-value]


class _Scaled(torch.autograd.Function):
    """x a, where a has axes of one behind (B, T, H): its gradient is made without a product as large as x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor) -> Tensor:
        ctx.save_for_backward(x, a)
        return x * a

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> Any:
        x, a = ctx.saved_tensors
        of_a = torch.linalg.vecdot(x, above)[..., None].sum_to_size(a.shape)
        return above * a.conj(), of_a if a.is_complex() else of_a.real


class _Quotient(torch.autograd.Function):
    """n / d, where d has one value channel: its gradients from the quotient, which autograd would make again."""

    @staticmethod
    def forward(ctx: Any, n: Tensor, d: Tensor) -> Tensor:
        y = n / d
        ctx.save_for_backward(y, d)
        return y

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> Any:
        y, d = ctx.saved_tensors
        of_n = above / d.conj()
        return of_n, -torch.linalg.vecdot(y, of_n)[..., None]


def largest_exponent(dtype: torch.dtype) -> float:
    """The largest |x| for which e^x and e^{-x} are well inside the range of a type."""
    return 0.95 * math.log(torch.finfo(dtype).max)


def lower(system: System, tokens: Tensor, state: State | None) -> Lowered:
    """Check the input and lower `system` to a core in the accumulator type."""
    batch, length, heads = check_tokens(system, tokens)
    values = 1 if system.is_vector else tokens.shape[-1]
    dtype = _working_dtype(system, tokens, state)
    given = _start(system, state, (batch, heads), values, dtype)
    check_state(system, given, (batch, heads), values)

    def widen(x: Tensor) -> Tensor:
        kind = dtype if x.is_complex() else dtype.to_real()
        return x.expand(batch, x.shape[1], heads, *x.shape[3:]).to(kind)

    transition = system.transition.map(lambda leaf, _: widen(leaf))
    write, read, stabilisers = system.write.map(widen), system.read.whole().map(widen), None
    if system.log_write is not None:
        assert given.stabiliser is not None
        log_decay = (
            over_time(transition.leaves[0], length)
            if isinstance(transition, Scalar)
            else tokens.new_zeros((batch, length, heads), dtype=dtype)
        )
        log_write = over_time(widen(system.log_write), length)
        stabilisers, decay, gain = _stabilise(log_decay, log_write, given.stabiliser)
        transition = Scalar.from_log(decay)
        write = write.map(lambda x: _scaled(x, gain.reshape(*gain.shape, *(1,) * (x.ndim - 3))))
    entering, memory = tokens.expand(batch, length, heads, *tokens.shape[3:]), given.memory
    entering = entering.to(dtype if tokens.is_complex() else dtype.to_real())
    if system.is_vector:
        memory = memory[..., None]
    if system.normaliser is not None:
        assert given.normaliser is not None
        entering = torch.cat([entering, entering.new_ones((*entering.shape[:-1], 1))], -1)
        memory = torch.cat([memory, given.normaliser[..., None]], -1)
    core = Core(transition, write, _shifted(read, system, length), entering, memory)
    wide = tokens.expand(batch, length, heads, *tokens.shape[3:])
    return Lowered(_cast_direct(system, dtype), wide, given, core, stabilisers)


def _stabilise(
    log_decay: Tensor, log_write: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """m, log Λ + m_{i-1} - m_i and e^{ĩ - m}: no exponent is positive, and -inf - (-inf) is avoided."""
    m = running_maximum(log_decay, log_write, start)
    reference = torch.where(m == -torch.inf, torch.zeros_like(m), m)
    before = torch.cat([start[:, None], m[:, :-1]], 1)[:, : m.shape[1]]
    return m, log_decay + before - reference, torch.exp(log_write - reference)


def _shifted(read: Coupling, system: System, length: int) -> Coupling:
    """The read-out of the core: as it is, one step earlier ("before"), or none at all ("end")."""
    if system.timing == "end":
        none = (1, 1, 1, 0, system.key_size)
        empty = read.weights.new_zeros(none)
        expanded = empty.expand(read.weights.shape[0], 1, read.weights.shape[2], 0, system.key_size)
        return DenseCoupling(expanded) if system.is_vector else OuterCoupling(expanded)
    if system.timing == "before" and read.weights.shape[1] == length and length > 1:
        return read.map(lambda x: torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1))
    return read


def _wide(read: Coupling, core: Core) -> Coupling:
    """The read-out over all heads and in the accumulator type, for use on a memory."""
    batch, heads = core.memory.shape[:2]

    def widen(x: Tensor) -> Tensor:
        wide = x.expand(batch, x.shape[1], heads, *x.shape[3:])
        return wide.to(torch.promote_types(x.dtype, core.memory.dtype.to_real()))

    return read.whole().map(widen)


def _start(
    system: System, state: State | None, sizes: tuple[int, int], values: int, dtype: torch.dtype
) -> State:
    """The given state in the accumulator type, or the empty state."""
    real = dtype.to_real()
    if state is not None:
        wide = state.map(lambda x: x)
        stabiliser = None if state.stabiliser is None else state.stabiliser.to(real)
        normaliser = None if state.normaliser is None else state.normaliser.to(dtype)
        return replace(
            wide, memory=state.memory.to(dtype), normaliser=normaliser, stabiliser=stabiliser
        )
    device, keys = system.device, system.key_size
    shape = (*sizes, keys) if system.is_vector else (*sizes, keys, values)
    return State(
        torch.zeros(shape, dtype=dtype, device=device),
        None
        if system.normaliser is None
        else torch.zeros((*sizes, keys), dtype=dtype, device=device),
        None
        if system.log_write is None
        else torch.full(sizes, -torch.inf, dtype=real, device=device),
    )


def _working_dtype(system: System, tokens: Tensor, state: State | None) -> torch.dtype:
    dtype = torch.promote_types(system.dtype, tokens.dtype)
    if system.log_write is not None:
        dtype = torch.promote_types(dtype, system.log_write.dtype)
    if state is not None:
        dtype = torch.promote_types(dtype, state.memory.dtype)
    return accumulator(dtype)


def _cast_direct(system: System, dtype: torch.dtype) -> System:
    """D and the offset in the accumulator type (the output is rounded once, at the end)."""
    if system.feedthrough is None and system.offset is None:
        return system

    def cast(x: Tensor) -> Tensor:
        return x.to(dtype if x.is_complex() else dtype.to_real())

    feedthrough = system.feedthrough
    return replace(
        system,
        feedthrough=None if feedthrough is None else feedthrough.map(lambda x, _: cast(x)),
        offset=None if system.offset is None else cast(system.offset),
    )


def _output_dtype(outputs: Tensor, tokens: Tensor) -> torch.dtype:
    """The tokens' precision; where the outputs are complex, that of at least complex64."""
    if not outputs.is_complex() or tokens.is_complex():
        return tokens.dtype
    return accumulator(tokens.dtype).to_complex()
