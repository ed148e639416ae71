"""The state that every form takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class State:
    r"""What a system remembers between two calls.

    | field        | shape        | present                                                   |
    |--------------|--------------|-----------------------------------------------------------|
    | `memory`     | (B, H, K, V) | always; (B, H, N) for a vector state                      |
    | `normaliser` | (B, H, K)    | where the system has a normaliser: n_i = Λ_i n_{i-1} + B_i 1 |
    | `stabiliser` | (B, H)       | where the write gate is logarithmic: memory and normaliser are scaled by e^{-m} |
    | `carried`    | any          | tokens that a layer keeps (short convolution); handed on unchanged |

    For packed sequences the first axis counts sequences. All fields are differentiable.
    """

    memory: Tensor
    normaliser: Tensor | None = None
    stabiliser: Tensor | None = None
    carried: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "carried", MappingProxyType(dict(self.carried)))

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and files: the view of `carried` that nobody can write to has no pickle."""
        fields = self.memory, self.normaliser, self.stabiliser, dict(self.carried)
        return type(self), fields

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor (to move, detach, select along the batch …)."""

        def optional(x: Tensor | None) -> Tensor | None:
            return None if x is None else function(x)

        carried = {name: function(x) for name, x in self.carried.items()}
        return type(self)(
            function(self.memory), optional(self.normaliser), optional(self.stabiliser), carried
        )

    def true_memory(self) -> Tensor:
        """The memory with the stabiliser multiplied back, h e^{m}: the same in every gauge of m."""
        if self.stabiliser is None:
            return self.memory
        return self.memory * torch.exp(self.stabiliser)[..., None, None]

    def true_normaliser(self) -> Tensor | None:
        """The normaliser with the stabiliser multiplied back, n e^{m}."""
        if self.normaliser is None or self.stabiliser is None:
            return self.normaliser
        return self.normaliser * torch.exp(self.stabiliser)[..., None]
