"""What makes weights of scores, and what a call of attention must fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import InvalidInput

WEIGHTS = ("softmax", "sigmoid", "softplus")


@dataclass(frozen=True)
class Weighing:
    """The function of the scores s q·k + b, and whether the weights of a row are divided by their sum."""

    weight: str
    normalised: bool
    scale: float
    bias: float

    @classmethod
    def of(
        cls, q: Tensor, weight: str, normalised: bool, scale: float | None, bias: float | None
    ) -> Weighing:
        """With the scale 1/√K where none is given; raises `InvalidInput`."""
        if weight not in WEIGHTS:
            raise InvalidInput(f"`weight` is one of {', '.join(WEIGHTS)}; got {weight!r}")
        if weight == "softmax" and bias is not None:
            raise InvalidInput("a `bias` changes no weight of softmax: leave it out")
        size = max(1, q.shape[-1])
        normalised = normalised or weight == "softmax"
        return cls(weight, normalised, size**-0.5 if scale is None else scale, bias or 0.0)

    @property
    def options(self) -> tuple[str, bool, float, float]:
        """As an operator takes it."""
        return self.weight, self.normalised, self.scale, self.bias

    def row(self, q: Tensor, dtype: torch.dtype) -> Tensor:
        """Room for a number per row (B, Tq, H), or for none where weights are not divided by their sum."""
        return q.new_empty(q.shape[:3] if self.normalised else (0,), dtype=dtype)


def check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise `InvalidInput` unless q (B, Tq, H, K), k (B, Tk, Hk, K), v (B, Tk, Hk, V) fit, H a multiple of Hk."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4:
            raise InvalidInput(f"`{name}` must be (B, T, heads, channels); got {tuple(x.shape)}")
    if k.shape[:3] != v.shape[:3]:
        raise InvalidInput(
            f"`k` and `v` must agree in (B, T, heads); got {tuple(k.shape[:3])}, {tuple(v.shape[:3])}"
        )
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise InvalidInput(
            f"`q` and `k` must agree in B and channels; got {tuple(q.shape)}, {tuple(k.shape)}"
        )
    if not k.shape[2] or q.shape[2] % k.shape[2]:
        raise InvalidInput(f"the {q.shape[2]} heads of `q` cannot share the {k.shape[2]} of `k`")
