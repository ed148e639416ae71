"""Convolution kernels of time-invariant recurrences: Vandermonde, Krylov and Cauchy."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import DenseCoupling, OuterCoupling
from dsf.shapes import Inexact
from dsf.structure import DPLR, Gate, Identity, Structure
from dsf.structure.base import matmul

from .core import Core

CIRCLE = 8.0  # `cauchy_kernel` works where |z|^T = 1/8


def sides(core: Core) -> tuple[Structure, Tensor, Tensor, Tensor]:
    """Of the convolution that a core is: Λ, C (B, H, r, K), B (B, H, K, w), and its tokens (B, H, w, V, T)."""
    writes, reads = (
        (c.stacked() if isinstance(c, OuterCoupling) else c.weights)[:, 0]
        for c in (core.write, core.read)
    )
    tokens = core.tokens
    if isinstance(core.write, DenseCoupling):
        tokens = tokens[..., None]
    else:
        writes = writes.transpose(-1, -2)
        tokens = tokens if tokens.ndim == 5 else tokens[..., None, :]
    transition = core.transition.linear().map(lambda leaf, _: leaf[:, 0])
    return transition, reads, writes, tokens.movedim(1, -1)


def as_read(core: Core, found: Tensor) -> Tensor:
    """(B, T, H, r, V) with the axes that outputs of a core have."""
    if isinstance(core.read, DenseCoupling):
        return found[..., 0]
    assert isinstance(core.read, OuterCoupling)
    return found if core.read.several is not None else found[..., 0, :]


def powers(decay: Inexact[Tensor, "*lead K"], length: int) -> Inexact[Tensor, "*lead K T"]:
    """a^0 … a^{T-1} of gates (…, K) as (…, K, T), by doubling: no logarithm, exact zeros."""
    result = torch.ones_like(decay)[..., None]
    square = decay
    while result.shape[-1] < length:
        result = torch.cat([result, result * square[..., None]], -1)
        square = square * square
    return result[..., :length]


def gate_vector(structure: Structure, key_size: int, like: Tensor) -> Tensor:
    """The diagonal of a gate as (…, K)."""
    if isinstance(structure, Identity):
        return like.new_ones((key_size,))
    assert isinstance(structure, Gate)
    decay = structure.decay
    return decay[..., None].expand(*decay.shape, key_size) if structure.own_axes == 0 else decay


def krylov(
    matrix: Inexact[Tensor, "*lead K K"], vectors: Inexact[Tensor, "*more K w"], length: int
) -> Inexact[Tensor, "*most T K w"]:
    """Λ^0 x … Λ^{T-1} x for vectors (…, K, w) as (…, T, K, w), by doubling and squaring."""
    result, power = vectors[..., None, :, :], matrix
    while result.shape[-3] < length:
        result = torch.cat([result, matmul(power[..., None, :, :], result)], -3)
        power = matmul(power, power)
    return result[..., :length, :, :]


def kernel(
    transition: Structure,
    reads: Inexact[Tensor, "*lead r K"],
    writes: Inexact[Tensor, "*more K w"],
    length: int,
) -> Inexact[Tensor, "*most r w T"]:
    r"""K_t = C Λ^t B for t < T: reads C (…, r, K), writes B (…, K, w), result (…, r, w, T).

    Gates: a Vandermonde product. DPLR: the generating function on a circle, by Cauchy sums and the
    Woodbury identity (`cauchy_kernel`). Block and Dense: Krylov vectors by doubling.
    """
    if isinstance(transition, DPLR):
        return cauchy_kernel(transition, reads, writes, length)
    if isinstance(transition, Identity | Gate):
        return vandermonde_kernel(
            gate_vector(transition, reads.shape[-1], reads), reads, writes, length
        )
    vectors = krylov(transition.dense(reads.shape[-1]), writes, length)
    return matmul(reads[..., None, :, :], vectors).movedim(-3, -1)


def vandermonde_kernel(decay: Tensor, reads: Tensor, writes: Tensor, length: int) -> Tensor:
    """Σ_k c_k b_k a_k^t with t = n q + r, so that K (n + T/n) powers are formed instead of K T."""
    fine, coarse = split_powers(decay, length)
    pairs = reads[..., :, None, :] * writes.transpose(-1, -2)[..., None, :, :]
    rows = pairs[..., None, :] * coarse.transpose(-1, -2)[..., None, None, :, :]
    return matmul(rows, fine[..., None, None, :, :]).flatten(-2)[..., :length]


def split_powers(decay: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """a^r for r < n and a^{n q} for q < T/n, as (…, K, n) and (…, K, T/n): a^{n q + r} is their product."""
    block = 1 << ((max(length, 1) - 1).bit_length() + 1) // 2
    whole = decay
    for _ in range(block.bit_length() - 1):
        whole = whole * whole
    return powers(decay, block), powers(whole, -(-length // block))


def decay_to(decay: Tensor, length: int) -> Tensor:
    """a^T by squaring: exact zeros, no logarithm."""
    result = torch.ones_like(decay)
    while length:
        if length & 1:
            result = result * decay
        decay, length = decay * decay, length >> 1
    return result


def cauchy_kernel(transition: DPLR, reads: Tensor, writes: Tensor, length: int) -> Tensor:
    r"""The kernel of Λ = D + P Qᵀ from its generating function, O((T + K) r²) instead of O(T K²).

    On z = ρ e^{-2πi j / T}, Σ_t K_t z^t = C (I - (zΛ)^T) (I - zΛ)^{-1} B, where (I - zD)^{-1} makes
    Cauchy sums Σ_k x_k y_k / (1 - z d_k) and P Qᵀ an r × r solve (Gu et al., "Efficiently modeling
    long sequences with structured state spaces", 2111.00396, appendix C.3). The radius ρ^T = 1/8
    keeps poles on the unit circle away; it costs three bits.
    """
    keys = reads.shape[-1]
    if reads.numel() == 0:
        return reads.new_zeros((*reads.shape[:-1], writes.shape[-1], length))
    dense = transition.dense(keys)
    wide = torch.promote_types(dense.dtype, torch.promote_types(reads.dtype, writes.dtype))
    shrink = CIRCLE ** (-1.0 / length)
    closed = reads.to(wide) - matmul(reads, torch.linalg.matrix_power(dense, length)) / CIRCLE
    steps = torch.arange(length, device=reads.device, dtype=wide.to_real())
    z = shrink * torch.exp(-2j * torch.pi * steps / length)
    decay = gate_vector(transition.gate, keys, reads)
    resolvent = 1 / (1 - z[:, None] * decay[..., None, :])

    def cauchy(left: Tensor, right: Tensor) -> Tensor:
        """Σ_k left_ak resolvent_jk right_kb as (…, T, a, b)."""
        weighted = resolvent[..., :, None, :] * left[..., None, :, :]
        return matmul(weighted, right[..., None, :, :])

    right = transition.right.transpose(-1, -2)
    inner = cauchy(right, transition.left)
    eye = torch.eye(transition.rank, dtype=inner.dtype, device=inner.device)
    solved = torch.linalg.solve(eye - z[:, None, None] * inner, cauchy(right, writes))
    spectrum = cauchy(closed, writes) + z[:, None, None] * matmul(
        cauchy(closed, transition.left), solved
    )
    scaled = torch.fft.ifft(spectrum.movedim(-3, -1), dim=-1) * shrink**-steps
    return scaled if wide.is_complex else scaled.real
