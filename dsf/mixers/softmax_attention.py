"""Softmax attention: the mixer whose state grows with every token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import InvalidInput, Refusal
from dsf.precision import keeps_precision

from .band import CAUSAL, Band
from .scores import ScoreMixer, check_queries, check_values, scores


@dataclass(frozen=True, eq=False)
class Cache:
    """The growing state of softmax attention: all keys (B, t, H, K) and values (B, t, H, V) so far."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class SoftmaxAttention(ScoreMixer):
    r"""y_i = Σ_{j≤i} e^{q_i·k_j/√K} v_j / Σ_{j≤i} e^{q_i·k_j/√K} for `q`, `k` (B, T, H, K).

    Other bands give softmax over a window, or over all tokens. With an unlimited band the system is
    refused: e^{q·k} = Σ_p (q·k)^p / p! is a sum of infinitely many separable terms, so no map of tokens to
    a state of fixed size reproduces it for all queries and keys. What continues it is the `Cache`. Φ is never
    formed by `dsf.kernels.flash_attention`, which computes the same outputs tile by tile.

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
    band: Band = CAUSAL

    def __post_init__(self) -> None:
        check_queries(self.q, self.k)

    def weights(self) -> Tensor:
        return self._weights(self.k)

    @keeps_precision
    def continued(self, values: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Outputs (B, T, H, V) and the cache after the last token; `cache` holds earlier tokens.

        Raises `InvalidInput` where outputs read later tokens.
        """
        if not self.causal:
            raise InvalidInput(
                "softmax over later tokens cannot be continued: give all tokens at once"
            )
        check_values(values, self.k)
        keys = self.k if cache is None else torch.cat([cache.keys, self.k], 1)
        held = values if cache is None else torch.cat([cache.values, values], 1)
        outputs = torch.einsum("bhij,bjhv->bihv", self._weights(keys), held)
        return outputs, Cache(keys, held)

    def _weights(self, keys: Tensor) -> Tensor:
        earlier = keys.shape[1] - self.q.shape[1]
        seen = self.band.mask(keys.shape[1])[earlier:]
        return torch.softmax(scores(self.q, keys).masked_fill(~seen, -torch.inf), -1)

    def _infinite(self) -> Refusal:
        return Refusal(
            "softmax attention",
            "its kernel e^{q·k} has an infinite-dimensional feature space, so no state of fixed size "
            "reproduces it for all queries and keys; its state is the cache of all keys and values.",
            "Use the matrix, or a truncated or random feature map, which is a System with an error.",
        )

    @property
    def gate_looks_ahead(self) -> bool:
        return self.band.after != 0

    @property
    def row_sum(self) -> float:
        return 1.0
