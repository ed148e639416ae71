"""Steps that are read before their update, and of their own write what a bonus lets through (RWKV-6)."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.forms.chunk_layout import InChunks
from dsf.forms.core import Core
from dsf.forms.workspace import Workspace
from dsf.kernels.pieces import own

Result = Tensor | InChunks | None


class Bonus:
    r"""y_i = (h_{i-1} + Diag(u) k_i v_iᵀ)ᵀ q_i for a bonus u (H, K), from a core that reads h_i with q_{i+1}.

    A piece of time begins by reading the memory that it is given.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.found = torch.zeros_like(weights)
        """The gradient of the bonus so far."""

    def reads(self, q: Tensor, space: Workspace) -> Tensor:
        """What the core of a piece reads with."""
        self._q = q
        return _later(q, "later reads", space)

    def outputs(self, core: Core, outputs: Tensor | InChunks, space: Workspace) -> Tensor:
        """The outputs (B, T, H, V) from those of the core."""
        seen = _earlier(outputs, "seen", space)
        torch.matmul(self._q[:, 0, :, None], core.memory, out=seen[:, 0, :, None])
        return seen.addcmul_(self._own(core), core.tokens)

    def above(self, above: Tensor, space: Workspace) -> Tensor:
        """The cotangent of the core's outputs."""
        self._above = above
        return _later(above, "later above", space)

    def back(
        self, core: Core, of_memory: Tensor, found: tuple[Result, ...], space: Workspace
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of the memory, q, k and v, from those of the core's memory, reads, writes and tokens."""
        of_reads, of_k, of_v = found
        q, k, above = self._q, core.write.tensors[0], self._above
        of_q = _earlier(of_reads, "of q", space)
        of_q[:, 0] = (core.memory @ above[:, 0, :, :, None])[..., 0]
        of_memory = of_memory + q[:, 0, :, :, None] * above[:, 0, :, None]
        down = (above * core.tokens).sum(-1, keepdim=True)
        self.found += (down * q * k).sum((0, 1))
        down = down * self.weights
        of_v = own(of_v).addcmul_(self._own(core), above)
        return of_memory, of_q.addcmul_(down, k), own(of_k).addcmul_(down, q), of_v

    def _own(self, core: Core) -> Tensor:
        return (self._q * self.weights * core.write.tensors[0]).sum(-1, keepdim=True)


def _later(x: Tensor, name: str, space: Workspace) -> Tensor:
    """x_{i+1} at every step i, zero at the last."""
    moved = space(name, x.shape, x)
    moved[:, :-1] = x[:, 1:]
    moved[:, -1] = 0
    return moved


def _earlier(x: Result, name: str, space: Workspace) -> Tensor:
    """x_{i-1} at every step i, and room at the first."""
    assert x is not None
    like = x if isinstance(x, Tensor) else x.view
    moved = space(name, (x.shape[0], x.shape[1] + 1, *x.shape[2:]), like)
    moved[:, 1:].copy_(x) if isinstance(x, Tensor) else x.copy_to(moved[:, 1:])
    return moved[:, :-1]
