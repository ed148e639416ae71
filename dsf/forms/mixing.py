"""The token-mixing matrix of a whole system: everything between tokens and outputs that is linear."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dsf.coupling import DenseCoupling
from dsf.errors import InvalidInput
from dsf.precision import keeps_precision
from dsf.structure import Dense, Scalar, Structure
from dsf.system import System

from .core import Core, split_channels
from .lowering import lower
from .matrix import Matrix, token_mixing


@keeps_precision
def mixing_matrix(system: System, length: int | None = None) -> Tensor:
    r"""Φ with y = Φ u from an empty state: normaliser, read timing and feedthrough included, offset not.

    Shape (B, H, T, T) where all value channels share one Φ, (B, H, V, T, T) where they differ,
    (B, H, T, R, T, R) for several writes or read-outs per step, (B, H, T, out, T, in) for dense
    couplings; with timing "end" the rows are queries. `length` is needed for a time-invariant system.
    Work T² K per head.

    >>> from dsf.mixers import retnet
    >>> q = torch.ones(1, 3, 1, 1)
    >>> mixing_matrix(retnet(q, q, decay=torch.tensor([0.5])))[0, 0]
    tensor([[1.0000, 0.0000, 0.0000],
            [0.5000, 1.0000, 0.0000],
            [0.2500, 0.5000, 1.0000]])
    """
    if system.boundaries is not None:
        raise InvalidInput(
            "`mixing_matrix` takes one sequence at a time: use `dsf.packing.unpack` first"
        )
    if system.length is None and length is None:
        raise InvalidInput("the system is time-invariant: give `length`")
    steps = system.length if length is None else length
    assert steps is not None
    plain = replace(system, offset=None)
    if system.is_vector:
        return _of_dense(plain, steps)
    if isinstance(system.feedthrough, Dense):
        raise InvalidInput("a Dense feedthrough mixes value channels: there is no Φ per channel")
    return _of_outer(plain, steps)


def _of_outer(system: System, length: int) -> Tensor:
    """Φ as the outputs for tokens that are the identity: one value channel per token."""
    batch, _, heads = system.lead
    values = system.value_size
    if values is None and system.feedthrough is not None:
        values = system.feedthrough.key_size
    writes = system.writes or 1
    if values is not None:
        system = channels_as_heads(system, values)
    basis = torch.eye(length * writes, dtype=_real(system), device=system.device)
    tokens = basis.reshape(length, 1, writes, length * writes)
    tokens = tokens if system.writes is not None else tokens[:, :, 0]
    tokens = tokens[None].expand(batch, length, system.lead[2], *tokens.shape[2:])
    lowered = lower(system, tokens, None)
    phi, _ = lowered.finish(*Matrix().evaluate(lowered.core))
    phi = phi.movedim(1, 2)
    if phi.ndim == 5 or system.writes is not None:
        phi = phi.unflatten(-1, (length, writes))
    return phi if values is None else phi.unflatten(1, (heads, values))


def _of_dense(system: System, length: int) -> Tensor:
    """Φ of a vector state, from the core's rows and the feedthrough on the diagonal."""
    assert isinstance(system.write, DenseCoupling)
    width = system.write.weights.shape[-1]
    tokens = torch.zeros(1, length, 1, width, dtype=_real(system), device=system.device)
    phi = token_mixing(lower(system, tokens, None).core)
    if system.timing == "before":
        phi = torch.cat([torch.zeros_like(phi[:, :, :1]), phi[:, :, :-1]], 2)
    elif system.timing == "end":
        raise InvalidInput(
            "Φ of dense couplings is not given for timing 'end': read the final state"
        )
    phi = phi.real if system.real_part else phi
    if system.feedthrough is None:
        return phi
    eye = torch.eye(length, dtype=phi.dtype, device=phi.device)
    direct = system.feedthrough.dense(width).to(phi.dtype)
    direct = direct.expand(phi.shape[0], length, phi.shape[1], *direct.shape[-2:])
    return phi + torch.einsum("bihrw,ij->bhirjw", direct, eye)


def channels_as_heads(system: System, values: int) -> System:
    """The same system with every value channel in a head of its own: H · V heads, V = 1."""
    batch, length, heads = system.lead
    filler = torch.zeros(batch, length, heads, values, device=system.device, dtype=_real(system))
    if system.writes is not None:
        filler = filler[..., None, :].expand(batch, length, heads, system.writes, values)

    def widen(x: Tensor) -> Tensor:
        return x.expand(x.shape[0], x.shape[1], heads, *x.shape[3:])

    memory = filler.new_zeros((batch, heads, system.key_size, values))
    transition = system.transition.map(lambda leaf, _: widen(leaf))
    core = Core(transition, system.write.map(widen), system.read.map(widen), filler, memory)
    split = split_channels(core)
    direct = system.feedthrough
    if direct is not None:
        direct = _direct_per_head(direct, heads, values)
    log_write = system.log_write
    if log_write is not None:
        log_write = widen(log_write).repeat_interleave(values, 2)
    return replace(
        system,
        transition=split.transition,
        write=split.write,
        read=split.read,
        feedthrough=direct,
        log_write=log_write,
    )


def _direct_per_head(direct: Structure, heads: int, values: int) -> Scalar:
    diagonal = torch.diagonal(direct.dense(values), dim1=-2, dim2=-1)
    lead = diagonal.shape[:2] if diagonal.ndim > 1 else (1, 1)
    return Scalar(diagonal.expand(*lead, heads, values).flatten(2))


def _real(system: System) -> torch.dtype:
    return system.dtype.to_real() if system.is_complex else system.dtype
