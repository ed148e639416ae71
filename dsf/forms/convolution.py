"""One causal convolution for the whole sequence, for systems that do not change in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.errors import Refusal
from dsf.numerics import Roundings
from dsf.structure import Gate, Identity, Structure
from dsf.structure.base import matmul
from dsf.system import System

from .base import Form, Sizes
from .containment import contained
from .core import Core, differs_by_channel, merge_channels, split_channels
from .lti import as_read, decay_to, gate_vector, kernel, krylov, sides, split_powers
from .recurrent import inner_terms
from .transforms import is_transformed

_BLOCK = 64


@dataclass(frozen=True)
class Convolution(Form):
    r"""y = K * u with K_t = C Λ^t B by FFT of length >= 2T, plus C Λ^{t+1} h₀.

    Admits systems whose Λ, B and C are constant in time. Work T log T per channel and T K for the
    kernel. Rounding is relative to the largest entries of a sequence, not to each output.
    """

    name: ClassVar[str] = "convolution"

    def admits(self, system: System) -> Literal[True] | Refusal:
        if not system.is_time_invariant:
            return Refusal(
                self.name,
                "Λ, B and C vary in time, so the map is no convolution.",
                "Use chunkwise, scan or recurrent; give constant leaves a time axis of size 1.",
            )
        return True

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        if core.length == 0:
            return core.empty_outputs(), core.memory
        return contained(_convolve)(core)

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        depth = max(2, 2 * sizes.length).bit_length()
        return Roundings(
            step=4 + inner_terms(system), path=8 + 2 * system.key_size + 16, spread=8 * depth
        )

    def operations(self, system: System, sizes: Sizes) -> float:
        depth = max(2, 2 * sizes.length).bit_length()
        gate = isinstance(system.transition, Identity | Gate)
        kernel_cost = system.key_size * (1 if gate else system.key_size)
        per_step = (
            20 * depth * (sizes.values + 1) + 2 * system.key_size * sizes.values + kernel_cost
        )
        return sizes.length * sizes.sequences * per_step + 7_000_000  # the calls, measured


def _convolve(core: Core) -> tuple[Tensor, Tensor]:
    if differs_by_channel(core):
        outputs, memory = _convolve(split_channels(core))
        return merge_channels(outputs, memory, core.value_size)
    transition, reads, writes, series = sides(core)
    outputs = _filter(kernel(transition, reads, writes, core.length), series)
    followed = core.memory.requires_grad or is_transformed(core.memory)
    if followed or bool((core.memory != 0).any()):
        outputs = outputs + _free_response(transition, reads, core.memory, core.length)
    memory = _final_memory(transition, writes, series, core.memory)
    return as_read(core, outputs.movedim(-1, 1)), memory


def _filter(taps: Tensor, series: Tensor) -> Tensor:
    """Causal convolution of (B, H, w, V, T) with taps (B, H, r, w, T), summed over w."""
    length = series.shape[-1]
    size = 1 << (2 * length - 1).bit_length()
    if taps.numel() == 0 or series.numel() == 0:
        return taps.new_zeros((*taps.shape[:3], *series.shape[3:]))
    if taps.is_complex() or series.is_complex():
        spectra = torch.fft.fft(taps, size), torch.fft.fft(series, size)
        back = torch.fft.ifft
    else:
        spectra = torch.fft.rfft(taps, size), torch.fft.rfft(series, size)
        back = torch.fft.irfft
    product = torch.einsum("bhrwf,bhwvf->bhrvf", *spectra)
    return back(product, size)[..., :length]


def _free_response(transition: Structure, reads: Tensor, memory: Tensor, length: int) -> Tensor:
    """C Λ^{t+1} h₀ as (B, H, r, V, T): the kernel of (Λ, h₀, C Λ)."""
    moved = transition.transpose().apply(reads.transpose(-1, -2)).transpose(-1, -2)
    return kernel(transition, moved, memory, length)


def _final_memory(transition: Structure, writes: Tensor, series: Tensor, memory: Tensor) -> Tensor:
    """Λ^T h₀ + Σ_j Λ^{T-1-j} B u_j, by blocks of steps."""
    keys, length = writes.shape[-2], series.shape[-1]
    if isinstance(transition, Identity | Gate):
        decay = gate_vector(transition, keys, writes)
        fine, coarse = split_powers(decay, length)
        block, blocks = fine.shape[-1], coarse.shape[-1]
        aged = torch.nn.functional.pad(series.flip(-1), (0, block * blocks - length))
        aged = aged.unflatten(-1, (blocks, block))
        inner = torch.einsum(
            "bhkn,bhwvqn->bhkwvq", *_same_type(fine.expand(*memory.shape[:-1], block), aged)
        )
        gathered = torch.einsum(
            "bhkq,bhkwvq->bhkwv", *_same_type(coarse.expand(*memory.shape[:-1], blocks), inner)
        )
        return decay_to(decay, length)[..., None] * memory + (writes[..., None] * gathered).sum(-2)
    matrix = transition.dense(keys)
    for start in range(0, length, _BLOCK):
        block_series = series[..., start : start + _BLOCK]
        steps = block_series.shape[-1]
        vectors = krylov(matrix, writes, steps).flip(-3)
        local = torch.einsum("bhtkw,bhwvt->bhkv", *_same_type(vectors, block_series))
        memory = matmul(torch.linalg.matrix_power(matrix, steps), memory) + local
    return memory


def _same_type(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)
