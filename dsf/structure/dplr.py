"""Diagonal plus low rank: the transitions of the delta family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput, require

from .base import Cost, Structure, matmul
from .gates import Diagonal, Identity, Scalar


@dataclass(frozen=True, eq=False)
class DPLR(Structure):
    r"""Λ = D + P Qᵀ with a gate D (Identity, Scalar or Diagonal) and P, Q of rank r: leaves (…, K, r).

    The transpose is plain, without conjugation. A product is again of this kind, with the ranks
    added: `(D₂ + P₂Q₂ᵀ)(D₁ + P₁Q₁ᵀ) = D₂D₁ + [P₂, Λ₂P₁] [D₁Q₂, Q₁]ᵀ`.
    """

    gate: Identity | Scalar | Diagonal
    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.gate, Identity | Scalar | Diagonal):
            raise InvalidInput(
                f"DPLR needs an Identity, Scalar or Diagonal `gate`; got {type(self.gate).__name__}"
            )
        p, q = self.left, self.right
        require("left", p, Tensor)
        require("right", q, Tensor)
        if p.ndim < 2 or q.ndim < 2 or p.shape[-2:] != q.shape[-2:]:
            raise InvalidInput(
                "DPLR needs `left` and `right` of equal last axes (K, r); "
                f"got {tuple(p.shape)} and {tuple(q.shape)}"
            )
        if self.gate.key_size not in (None, p.shape[-2]):
            raise InvalidInput(
                f"DPLR: the gate has K = {self.gate.key_size}, `left` has K = {p.shape[-2]}"
            )

    @classmethod
    def householder(cls, keys: Tensor, strengths: Tensor) -> Self:
        r"""I - β k kᵀ for keys (…, K) and strengths β (…)."""
        return cls(Identity(), (-strengths[..., None] * keys)[..., None], keys[..., None])

    @property
    def rank(self) -> int:
        """r, the number of columns of P and Q."""
        return self.left.shape[-1]

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return (*self.gate.leaves, self.left, self.right)

    @property
    def trailing(self) -> tuple[int, ...]:
        return (*self.gate.trailing, 2, 2)

    def rebuild(self, leaves: tuple[Tensor, ...]) -> Self:
        return type(self)(self.gate.rebuild(leaves[:-2]), leaves[-2], leaves[-1])

    @property
    def key_size(self) -> int:
        return self.left.shape[-2]

    def apply(self, state: Tensor) -> Tensor:
        return self.gate.apply(state) + matmul(
            self.left, matmul(self.right.transpose(-1, -2), state)
        )

    def compose(self, first: Self) -> Self:
        from .join import compose  # the gates of the two may be of different kinds

        gate = compose(self.gate, first.gate)
        assert isinstance(gate, Identity | Scalar | Diagonal)
        left = _columns(self.left, self.apply(first.left))
        right = _columns(first.gate.apply(self.right), first.right)
        return type(self)(gate, left, right)

    def linear(self) -> Self:
        return type(self)(self.gate.linear(), self.left, self.right)

    def transpose(self) -> Self:
        return type(self)(self.gate, self.right, self.left)

    def dense(self, key_size: int) -> Tensor:
        low_rank = matmul(self.left, self.right.transpose(-1, -2))
        gate = self.gate.dense(key_size).to(low_rank.device)
        return gate.to(torch.promote_types(gate.dtype, low_rank.dtype)) + low_rank

    def neutral(self) -> tuple[Tensor, ...]:
        zeros = tuple(
            x.new_zeros((1,) * (x.ndim - 2) + x.shape[-2:]) for x in (self.left, self.right)
        )
        return (*self.gate.neutral(), *zeros)

    def norm(self) -> Tensor:
        return torch.linalg.matrix_norm(self.dense(self.key_size), 2)

    def growth(self) -> Tensor:
        frobenius = torch.linalg.matrix_norm(self.left) * torch.linalg.matrix_norm(self.right)
        return self.gate.growth() + frobenius

    def cost(self, key_size: int, value_size: int) -> Cost:
        gate = self.gate.cost(key_size, value_size)
        low_rank = 2 * key_size * self.rank
        return Cost(gate.multiply_adds + low_rank * value_size, gate.numbers + low_rank)


def _columns(first: Tensor, second: Tensor) -> Tensor:
    lead = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    dtype = torch.result_type(first, second)
    return torch.cat([x.expand(*lead, x.shape[-1]).to(dtype) for x in (first, second)], -1)
