"""The token-mixing matrix Φ, built row by row, and y = Φ u."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.coupling import DenseCoupling, OuterCoupling
from dsf.errors import Refusal
from dsf.numerics import Roundings
from dsf.structure.base import matmul
from dsf.system import System

from .base import Form, Sizes
from .core import Core, differs_by_channel, merge_channels, over_time, split_channels
from .plain import loop
from .recurrent import inner_terms
from .transforms import is_transformed


@dataclass(frozen=True)
class Matrix(Form):
    r"""Φ_ij = C_i Λ_i … Λ_{j+1} B_j, then y = Φ u + C Λ … Λ h₀: quadratic, and nothing hidden.

    The products Λ_i … Λ_{j+1} B_j of all j are carried along as one wide state, so every structure
    is admitted. Work T² K, and V times that where channels differ.
    """

    name: ClassVar[str] = "matrix"

    def admits(self, system: System) -> Literal[True] | Refusal:
        return True

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        if core.length == 0:
            return core.empty_outputs(), core.memory
        if differs_by_channel(core):
            outputs, memory = self.evaluate(split_channels(core))
            return merge_channels(outputs, memory, core.value_size)
        phi, carried = _rows(core)
        tokens = _stacked_tokens(core)
        outputs = _mix(phi, tokens)
        if isinstance(core.read, DenseCoupling):
            outputs = outputs[..., 0]
        elif isinstance(core.read, OuterCoupling) and core.read.several is None:
            outputs = outputs[..., 0, :]
        started, memory = loop(replace(core, tokens=torch.zeros_like(core.tokens)))
        written = tokens.movedim(1, 2).flatten(2, 3)
        return outputs + started, memory + matmul(carried, written)

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        path = 4 + 2 * system.key_size + 2 * sizes.length * (system.writes or 1)
        return Roundings(step=4 + inner_terms(system), path=path)

    def operations(self, system: System, sizes: Sizes) -> float:
        step = system.transition.cost(system.key_size, sizes.length).multiply_adds
        per_pair = 2 * system.key_size + sizes.values
        overhead = 4_000_000 + sizes.length * 1_800_000  # the calls, measured
        return sizes.length * sizes.sequences * (step + sizes.length * per_pair) + overhead


def token_mixing(core: Core) -> Tensor:
    """Φ of a core whose channels do not differ: (B, H, T, r, T, w), r read-outs and w writes per step."""
    return _rows(core)[0]


def _stacked_tokens(core: Core) -> Tensor:
    """Tokens as (B, T, H, w, V), V = 1 for dense couplings."""
    if isinstance(core.write, DenseCoupling):
        return core.tokens[..., None]
    assert isinstance(core.write, OuterCoupling)
    return core.tokens if core.write.several is not None else core.tokens[..., None, :]


def _rows(core: Core) -> tuple[Tensor, Tensor]:
    """Φ, and the carried products Λ_T … Λ_{j+1} B_j (B, H, K, T w) at the end."""
    length = core.length
    columns, reads = (
        c.stacked() if isinstance(c, OuterCoupling) else c.weights for c in (core.write, core.read)
    )
    if isinstance(core.write, OuterCoupling):
        columns = columns.transpose(-1, -2)
    columns, reads = over_time(columns, length), over_time(reads, length)
    width, outputs = columns.shape[-1], reads.shape[-2]
    linear = core.transition.linear()
    leaves = [over_time(leaf, length).unbind(1) for leaf in linear.leaves]
    batch, heads = core.memory.shape[:2]
    carried = columns.new_zeros((batch, heads, core.key_size, 0))
    rows = []
    for i in range(length):
        transition = linear.rebuild(tuple(leaf[i] for leaf in leaves))
        moved = transition.apply(carried)
        column = columns[:, i].expand(batch, heads, -1, -1)
        carried = torch.cat([moved, column.to(moved.dtype)], -1)
        row = matmul(reads[:, i].expand(batch, heads, -1, -1), carried)
        rows.append(torch.nn.functional.pad(row, (0, (length - i - 1) * width)))
    phi = torch.stack(rows, 2)
    return phi.reshape(batch, heads, length, outputs, length, width), carried


def _mix(phi: Tensor, tokens: Tensor) -> Tensor:
    """Φ u (B, T, H, r, V); a token that is not finite touches only the rows from its own on."""
    flat = tokens.movedim(1, 2).flatten(2, 3)
    finite = torch.isfinite(flat)
    rows = phi.flatten(4).flatten(2, 3)
    if is_transformed(flat) or bool(finite.all()):
        mixed = matmul(rows, flat)
    else:
        mixed = matmul(rows, torch.where(finite, flat, 0))
        width, outputs = phi.shape[-1], phi.shape[3]
        for column in (~finite).any(-1).flatten(0, 1).any(0).nonzero()[:, 0].tolist():
            bad = torch.where(finite, 0, flat)[:, :, column : column + 1]
            start = column // width * outputs
            late = matmul(rows[:, :, start:, column : column + 1], bad)
            mixed = torch.cat([mixed[:, :, :start], mixed[:, :, start:] + late], 2)
    return mixed.unflatten(2, (phi.shape[2], phi.shape[3])).movedim(2, 1)
