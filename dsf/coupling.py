"""How tokens enter and leave the state: outer, per channel, or dense.

| coupling          | leaf                  | as B: u becomes            | as C: h becomes y   |
|-------------------|-----------------------|----------------------------|---------------------|
| `OuterCoupling`   | (B, T, H, K)          | b ⊗ u                      | Σ_k c_k h_kv        |
| `OuterCoupling`   | (B, T, H, R, K)       | Σ_r b_r ⊗ u_r, u (…, R, V) | the same, per r     |
| `ChannelCoupling` | (B, T, H, K, V)       | b_kv u_v                   | Σ_k c_kv h_kv       |
| `ScaledCoupling`  | (B, T, H, K), (…, V)  | b_k g_v u_v                | Σ_k b_k g_v h_kv    |
| `DenseCoupling`   | (B, T, H, out, in)    | M u, the state a vector    | M h                 |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput, require
from dsf.structure.base import matmul


@dataclass(frozen=True, eq=False)
class Coupling(ABC):
    """One tensor with leading axes (B, T, H) and the two ways to use it."""

    weights: Tensor

    own_axes: ClassVar[tuple[int, ...]]

    def __post_init__(self) -> None:
        require("weights", self.weights, Tensor)
        allowed = [3 + axes for axes in self.own_axes]
        if self.weights.ndim not in allowed:
            raise InvalidInput(
                f"{type(self).__name__} needs a tensor with axes {self.axes()}; "
                f"got shape {tuple(self.weights.shape)}"
            )

    @classmethod
    @abstractmethod
    def axes(cls) -> str:
        """The axes of the tensor, for messages."""

    @property
    @abstractmethod
    def key_size(self) -> int:
        """K as a read-out or write of a matrix state."""

    @property
    def value_size(self) -> int | None:
        """V where the coupling fixes it, otherwise None."""
        return None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the coupling is held as: one tensor, or the factors of one."""
        return (self.weights,)

    @property
    def lead(self) -> torch.Size:
        """The leading sizes (B, T, H)."""
        return torch.broadcast_shapes(*(x.shape[:3] for x in self.tensors))

    def rebuild(self, tensors: tuple[Tensor, ...]) -> Self:
        """The same kind of coupling with other tensors."""
        return type(self)(*tensors)

    def whole(self) -> Coupling:
        """The same coupling held as one tensor."""
        return self

    @abstractmethod
    def inject(self, tokens: Tensor) -> Tensor:
        """B u: tokens (…, [R,] V) to increments of the state (…, K, V)."""

    @abstractmethod
    def extract(self, state: Tensor) -> Tensor:
        """C h: states (…, K, V) to outputs (…, [R,] V)."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function that keeps the number of axes to each tensor."""
        return self.rebuild(tuple(function(x) for x in self.tensors))

    def transpose(self) -> Self:
        """Bᵀ as a read-out, or Cᵀ as a write."""
        return self


class OuterCoupling(Coupling):
    """I_V ⊗ b: one vector (B, T, H, K), or R of them (B, T, H, R, K), shared by all value channels."""

    own_axes = (1, 2)

    @classmethod
    def axes(cls) -> str:
        return "(B, T, H, K) or (B, T, H, R, K)"

    @property
    def key_size(self) -> int:
        return self.weights.shape[-1]

    @property
    def several(self) -> int | None:
        """R, the number of vectors per step, or None for a single one without an axis of its own."""
        return self.weights.shape[3] if self.weights.ndim == 5 else None

    def stacked(self) -> Tensor:
        """The vectors with their axis R, (B, T, H, R, K)."""
        return self.weights if self.several is not None else self.weights[..., None, :]

    def inject(self, tokens: Tensor) -> Tensor:
        if self.several is None:
            return self.weights[..., :, None] * tokens[..., None, :]
        return matmul(self.weights.transpose(-1, -2), tokens)

    def extract(self, state: Tensor) -> Tensor:
        weights = self.stacked()
        outputs = weights * state if self.key_size == 1 else matmul(weights, state)
        return outputs if self.several is not None else outputs[..., 0, :]


class ChannelCoupling(Coupling):
    """One weight per key and value channel, (B, T, H, K, V): diagonal in the value channels."""

    own_axes = (2,)

    @classmethod
    def axes(cls) -> str:
        return "(B, T, H, K, V)"

    @property
    def key_size(self) -> int:
        return self.weights.shape[-2]

    @property
    def value_size(self) -> int | None:
        size = self.weights.shape[-1]
        return size if size != 1 else None

    def inject(self, tokens: Tensor) -> Tensor:
        return self.weights * tokens[..., None, :]

    def extract(self, state: Tensor) -> Tensor:
        return (self.weights * state).sum(-2)


@dataclass(frozen=True, eq=False, init=False)
class ScaledCoupling(ChannelCoupling):
    """b ⊗ g, an `OuterCoupling` with a gain for each value channel, held as the two vectors.

    `keys` b (B, T, H, K) and `gains` g (B, T, H, V): the weights (B, T, H, K, V) of a `ChannelCoupling`
    that are an outer product (Mamba-1: b ⊗ Δ) are formed only where something asks for them.

    >>> import torch
    >>> coupling = ScaledCoupling(torch.ones(1, 1, 1, 2), torch.tensor([2.0, 3.0]).reshape(1, 1, 1, 2))
    >>> coupling.weights[0, 0, 0]
    tensor([[2., 3.],
            [2., 3.]])
    """

    keys: Tensor
    gains: Tensor

    def __init__(self, keys: Tensor, gains: Tensor) -> None:
        for name, x in (("keys", keys), ("gains", gains)):
            require(name, x, Tensor)
            if x.ndim != 4:
                axes = "(B, T, H, K)" if name == "keys" else "(B, T, H, V)"
                raise InvalidInput(
                    f"ScaledCoupling needs `{name}` with axes {axes}; got shape {tuple(x.shape)}"
                )
            object.__setattr__(self, name, x)

    @property
    def weights(self) -> Tensor:  # type: ignore[override]
        """The outer product (B, T, H, K, V), made anew at each call."""
        return self.keys[..., :, None] * self.gains[..., None, :]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.keys, self.gains)

    @property
    def key_size(self) -> int:
        return self.keys.shape[-1]

    @property
    def value_size(self) -> int | None:
        size = self.gains.shape[-1]
        return size if size != 1 else None

    def whole(self) -> ChannelCoupling:
        return ChannelCoupling(self.weights)

    def inject(self, tokens: Tensor) -> Tensor:
        return self.keys[..., :, None] * (self.gains * tokens)[..., None, :]

    def extract(self, state: Tensor) -> Tensor:
        return self.gains * OuterCoupling(self.keys).extract(state)


class DenseCoupling(Coupling):
    """Any matrix (B, T, H, out, in) between tokens and a vector state, kept as (…, N, 1) inside."""

    own_axes = (2,)

    @classmethod
    def axes(cls) -> str:
        return "(B, T, H, out, in)"

    @property
    def key_size(self) -> int:
        raise NotImplementedError  # a matrix is written into from the left and read from the right

    def inject(self, tokens: Tensor) -> Tensor:
        return matmul(self.weights, tokens[..., None])

    def extract(self, state: Tensor) -> Tensor:
        return matmul(self.weights, state)[..., 0]

    def transpose(self) -> Self:
        return type(self)(self.weights.transpose(-1, -2))
