r"""What a Fourier transform adds to the bounds: errors relative to a whole sequence, not to each path.

The three transforms of a convolution K * u err in each output by at most

    u · spread · Σ_w ‖K_rw‖₂ ‖u_w‖₂,    as (1/N) Σ_f |K̂_f| |û_f| <= ‖K‖₂ ‖u‖₂,

and so do the correlations of its way back: of K with ∂y in the gradient of the tokens, and of u with
∂y in that of each tap. Where the kernel is itself made by a transform, every tap of it errs alike: by
8^{t/T} times what the values on the circle err by in the mean (`around`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsf.coupling import Coupling, DenseCoupling
from dsf.structure import DPLR, Gate, Identity, Scalar

from .core import Core, differs_by_channel, split_channels
from .lti import CIRCLE, as_read, gate_vector, kernel, sides

_FINER = 16.0  # 2^-20 would move poles beyond 2^20 / 32 steps: the growth is taken at 2^-24
_NONE = 1e-100  # in the place of what is not positive
_NODE = 32.0  # roundings of z d: 2πj/T has three, so 19 of 1; then exp, the radius, a product


def energy(core: Core) -> Tensor:
    """Σ_w ‖K_rw‖₂ ‖u_w‖₂ per output channel, (B, 1, H, …): what an FFT rounds relative to."""
    if differs_by_channel(core):
        whole = energy(split_channels(core))
        return whole[..., 0].unflatten(2, (-1, core.value_size)).movedim(3, -1)
    filters, signal = (torch.linalg.vector_norm(x, dim=-1) for x in _sides(_sized(core)))
    return as_read(core, torch.einsum("bhrw,bhwv->bhrv", filters, signal)[:, None])


def pull(core: Core, cotangent: Tensor) -> Tensor:
    r"""Σ_rwv ‖∂y_rv‖₂ (‖K_rw‖₂ Σ_t u_wvt + Σ_t K_rwt ‖u_wv‖₂), with both norms of K and u held constant.

    For a `core` of sizes. Its derivative by a leaf is what the FFTs err by in the gradient of that
    leaf, in units of u · spread: Σ_r ‖K_rw‖₂ ‖∂y_rv‖₂ for a token, Σ_t |∂K_t/∂θ| ‖∂y‖₂ ‖u‖₂ for θ in K.
    """
    if differs_by_channel(core):
        wide = cotangent.expand(*cotangent.shape[:-1], core.value_size)
        return pull(split_channels(core), wide.movedim(-1, 3).flatten(2, 3)[..., None])
    taps, series = _sides(core)
    if isinstance(core.read, DenseCoupling):
        cotangent = cotangent[..., None]
    elif cotangent.ndim == 4:
        cotangent = cotangent[..., None, :]
    seeds = torch.linalg.vector_norm(cotangent, dim=1)
    filters, signal = (torch.linalg.vector_norm(x.detach(), dim=-1) for x in (taps, series))
    of_tokens = torch.einsum("bhrv,bhrw,bhwvt->", seeds, filters, series)
    return of_tokens + torch.einsum("bhrv,bhrwt,bhwv->", seeds, taps, signal)


def _sized(core: Core) -> Core:
    """Absolute values, and norms over the keys where the transition mixes them."""
    gate, tokens = core.transition.linear(), core.tokens.abs()
    if isinstance(gate, Gate | Identity):
        gate = gate.map(lambda x, _: x.abs())
        write, read = (c.map(torch.abs) for c in (core.write, core.read))
        return Core(gate, write, read, tokens, core.memory.abs())
    if isinstance(core.write, DenseCoupling):
        tokens = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    norm = Scalar(core.transition.norm())
    return Core(norm, _norms(core.write), _norms(core.read), tokens, core.memory[..., :1, :].abs())


def _norms(coupling: Coupling) -> Coupling:
    axes = (-2, -1) if isinstance(coupling, DenseCoupling) else -1
    return coupling.map(lambda x: torch.linalg.vector_norm(x, dim=axes, keepdim=True))


def _sides(core: Core) -> tuple[Tensor, Tensor]:
    """The kernel (B, H, r, w, T) of a core of sizes and its tokens (B, H, w, V, T)."""
    transition, reads, writes, series = sides(core)
    return kernel(transition, reads, writes, max(1, core.length)), series


def around(
    exact: DPLR, sizes: Sequence[Tensor], norm: Tensor, core: Core, spread: float, epsilon: float
) -> Tensor:
    r"""Outputs of the kernel 8^{t/T} ‖C‖ A_ε ‖B‖: their growth in ε is what a kernel made on a circle adds.

    `cauchy_kernel` sums S_j = C̄ (G + z G P M⁻¹ Qᵀ G) B, C̄ = C (I - Λ^T/8), over |z_j| = 8^{-1/T}, and
    the way back sums the same, so A is the mean over j of (1 + ‖Λ‖^T/8) (g + g² |z| ‖P‖ ‖Q‖ m) with
    g = max_k 1/|1 - z d_k| and m = ‖M⁻¹‖, M = I - z Qᵀ G P: each 1 - z d_k, sum, and pivot inflated.
    """
    length, keys = core.length, exact.key_size
    radius = CIRCLE ** (-1.0 / length)
    gap, pivot, largest = _on_circle(exact, radius, length)
    left, right = sizes[-2:]
    moved = radius * (sizes[0] - sizes[0].detach()) if exact.gate.leaves else 0.0 * left
    plain = 1 + radius * (left * right).detach() / gap

    def size(epsilon: float) -> Tensor:
        g = _inverse(gap * (1 - 6 * epsilon) - epsilon * _NODE * radius * largest - moved)
        product = radius * left * right * g
        elimination = (1 + product) * (1 + epsilon * (keys + 8 + 8 * exact.rank**2))
        m = _inverse(pivot - (elimination - plain))
        mean = (g + g * product * m).mean(1, keepdim=True)
        sums = 1 + epsilon * (2 * keys + exact.rank + 24 + spread)
        return mean * sums * (1 + norm**length / CIRCLE)

    a = size(epsilon / _FINER) * _FINER - size(0.0) * (_FINER - 1)
    read = core.read.map(lambda x: x * a.reshape(*a.shape, *(1,) * (x.ndim - 3)))
    steps = torch.arange(length, device=norm.device, dtype=norm.dtype)[:, None, None, None]
    entered = (core.write.inject(core.tokens) * radius**steps).cumsum(1)
    first = norm[..., None, None] * core.memory[:, None]
    return read.extract((entered + first) / radius**steps)


def _on_circle(exact: DPLR, radius: float, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """min_k |1 - z d_k| and 1/‖M⁻¹‖ along axis 1 of (B, T, H), and max_k |d_k|."""
    exact = exact.map(lambda x, _: x[:, 0].detach())
    steps = torch.arange(length, device=exact.left.device, dtype=torch.float64)
    z = radius * torch.exp(-2j * torch.pi * steps / length)[:, None]
    decay = gate_vector(exact.gate, exact.key_size, exact.left)
    gaps = 1 - z * decay[..., None, :]
    left, right = (x[..., None, :, :].to(gaps.dtype) for x in (exact.left, exact.right))
    inner = right.mT @ (left / gaps[..., None])
    eye = torch.eye(exact.rank, dtype=inner.dtype, device=inner.device)
    pivot = 1 / torch.linalg.matrix_norm(torch.linalg.inv(eye - z[..., None] * inner))
    found = gaps.abs().amin(-1).expand(pivot.shape), pivot
    gap, pivot = (x.movedim(-1, 1) for x in found)
    return gap, pivot, decay.abs().amax(-1).expand(pivot.shape[::2])[:, None]


def _inverse(x: Tensor) -> Tensor:
    """1/x, and beyond all bounds where an inflated x is not positive."""
    return 1 / (x + (x.clamp_min(_NONE) - x).detach())
