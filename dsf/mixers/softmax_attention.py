"""Softmax attention: the mixer whose state grows with every token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import InvalidInput, Refusal

from .protocol import Mixer


@dataclass(frozen=True, eq=False)
class Cache:
    """The growing state of softmax attention: all keys (B, t, H, K) and values (B, t, H, V) so far."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class SoftmaxAttention(Mixer):
    r"""y_i = Σ_{j≤i} e^{q_i·k_j/√K} v_j / Σ_{j≤i} e^{q_i·k_j/√K} for `q`, `k` (B, T, H, K).

    Its system is refused: e^{q·k} = Σ_p (q·k)^p / p! is a sum of infinitely many separable terms, so
    no map of tokens to a state of fixed size reproduces it for all queries and keys. What continues
    it is the `Cache`.

    Source: Vaswani et al. (1706.03762), equation 1; the refusal: Sieber et al. (2405.15731), section 4.1.

    >>> q = k = torch.zeros(1, 3, 1, 2)
    >>> mixer = SoftmaxAttention(q, k)
    >>> mixer(torch.tensor([0.0, 2.0, 4.0]).reshape(1, 3, 1, 1)).flatten()
    tensor([0., 1., 2.])
    >>> bool(mixer.system()), mixer.state_size(100) > mixer.state_size(10)
    (False, True)
    """

    q: Tensor
    k: Tensor

    def __post_init__(self) -> None:
        if self.q.ndim != 4 or self.q.shape != self.k.shape:
            raise InvalidInput(
                f"`q` and `k` must have one shape (B, T, H, K); got {tuple(self.q.shape)}, {tuple(self.k.shape)}"
            )

    def __call__(self, values: Tensor) -> Tensor:
        return self.continued(values, None)[0]

    def continued(self, values: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Outputs (B, T, H, V) and the cache after the last token; `cache` holds earlier tokens."""
        if values.shape[:3] != self.k.shape[:3]:
            raise InvalidInput(
                f"`values` must have leading sizes {tuple(self.k.shape[:3])}; got {tuple(values.shape[:3])}"
            )
        keys = self.k if cache is None else torch.cat([cache.keys, self.k], 1)
        held = values if cache is None else torch.cat([cache.values, values], 1)
        outputs = torch.einsum("bhij,bjhv->bihv", self._weights(keys), held)
        return outputs, Cache(keys, held)

    def _weights(self, keys: Tensor) -> Tensor:
        logits = torch.einsum("bihk,bjhk->bhij", self.q, keys) / self.q.shape[-1] ** 0.5
        earlier = keys.shape[1] - self.q.shape[1]
        ahead = torch.ones_like(logits[0, 0], dtype=torch.bool).triu(earlier + 1)
        return torch.softmax(logits.masked_fill(ahead, -torch.inf), -1)

    def matrix(self) -> Tensor:
        return self._weights(self.k)

    def system(self) -> Refusal:
        return Refusal(
            "softmax attention",
            "its kernel e^{q·k} has an infinite-dimensional feature space, so no state of fixed size "
            "reproduces it for all queries and keys; its state is the cache of all keys and values.",
            "Use the matrix, or a truncated or random feature map, which is a System with an error.",
        )

    @property
    def causal(self) -> bool:
        return True

    @property
    def gate_looks_ahead(self) -> bool:
        return False

    @property
    def linear_in_values(self) -> bool:
        return True

    def state_size(self, length: int) -> int:
        return 2 * length * self.k.shape[-1]

    def multiply_adds(self, length: int, values: int) -> int:
        return length * (length + 1) // 2 * (self.k.shape[-1] + values)
