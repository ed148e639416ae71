"""Transitions that mix keys: small blocks on the diagonal (Block) and full matrices (Dense)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput, require

from .base import Cost, Structure, matmul


def _square(kind: str, matrices: Tensor, axes: int) -> None:
    require("matrices", matrices, Tensor)
    if matrices.ndim < axes or matrices.shape[-1] != matrices.shape[-2]:
        wanted = "(…, G, b, b)" if axes == 3 else "(…, K, K)"
        raise InvalidInput(f"{kind} needs matrices {wanted}; got shape {tuple(matrices.shape)}")


@dataclass(frozen=True, eq=False)
class Block(Structure):
    """Λ = blockdiag(M₁ … M_G), K = G·b (rotations, companion matrices): leaf (…, G, b, b)."""

    blocks: Tensor

    def __post_init__(self) -> None:
        _square("Block", self.blocks, 3)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return (self.blocks,)

    @property
    def trailing(self) -> tuple[int, ...]:
        return (3,)

    def rebuild(self, leaves: tuple[Tensor, ...]) -> Self:
        return type(self)(leaves[0])

    @property
    def width(self) -> int:
        """b, the size of one block."""
        return self.blocks.shape[-1]

    @property
    def key_size(self) -> int:
        return self.blocks.shape[-3] * self.width

    def apply(self, state: Tensor) -> Tensor:
        grouped = state.unflatten(-2, (self.blocks.shape[-3], self.width))
        return matmul(self.blocks, grouped).flatten(-3, -2)

    def compose(self, first: Self) -> Self:
        return type(self)(matmul(self.blocks, first.blocks))

    def transpose(self) -> Self:
        return type(self)(self.blocks.transpose(-1, -2))

    def dense(self, key_size: int) -> Tensor:
        groups, width = self.blocks.shape[-3], self.width
        eye = torch.eye(groups, dtype=self.blocks.dtype, device=self.blocks.device)
        spread = torch.einsum("...gij,gh->...gihj", self.blocks, eye)
        return spread.reshape(*self.blocks.shape[:-3], groups * width, groups * width)

    def neutral(self) -> tuple[Tensor, ...]:
        eye = torch.eye(self.width, dtype=self.blocks.dtype, device=self.blocks.device)
        shape = (1,) * (self.blocks.ndim - 3) + self.blocks.shape[-3:]
        return (eye.expand(shape),)

    def norm(self) -> Tensor:
        return torch.linalg.matrix_norm(self.blocks, 2).amax(-1)

    def growth(self) -> Tensor:
        return torch.linalg.matrix_norm(self.blocks.abs(), 2).amax(-1)

    def cost(self, key_size: int, value_size: int) -> Cost:
        return Cost(key_size * self.width * value_size, key_size * self.width)


@dataclass(frozen=True, eq=False)
class Dense(Structure):
    """Λ = any matrix: leaf (…, K, K)."""

    matrix: Tensor

    def __post_init__(self) -> None:
        _square("Dense", self.matrix, 2)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return (self.matrix,)

    @property
    def trailing(self) -> tuple[int, ...]:
        return (2,)

    def rebuild(self, leaves: tuple[Tensor, ...]) -> Self:
        return type(self)(leaves[0])

    @property
    def key_size(self) -> int:
        return self.matrix.shape[-1]

    def apply(self, state: Tensor) -> Tensor:
        return matmul(self.matrix, state)

    def compose(self, first: Self) -> Self:
        return type(self)(matmul(self.matrix, first.matrix))

    def transpose(self) -> Self:
        return type(self)(self.matrix.transpose(-1, -2))

    def dense(self, key_size: int) -> Tensor:
        return self.matrix

    def neutral(self) -> tuple[Tensor, ...]:
        eye = torch.eye(self.key_size, dtype=self.matrix.dtype, device=self.matrix.device)
        return (eye.expand((1,) * (self.matrix.ndim - 2) + self.matrix.shape[-2:]),)

    def norm(self) -> Tensor:
        return torch.linalg.matrix_norm(self.matrix, 2)

    def growth(self) -> Tensor:
        return torch.linalg.matrix_norm(self.matrix.abs(), 2)

    def cost(self, key_size: int, value_size: int) -> Cost:
        return Cost(key_size * key_size * value_size, key_size * key_size)
