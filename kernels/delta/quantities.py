"""The tensors of one call of the delta family, as its programs take them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dsf.kernels.shapes import Packing


@dataclass(frozen=True, eq=False)
class Quantities:
    """Checked tensors of one call, contiguous.

    q (B, T, Hq, K); k (B, T n, Hk, K), b (B, T n, Hb, K) and v (B, T n, Hv, V) with n rows per token; β
    (B, T n, H), g (B, T, H) or (B, T, H, K) and a state (N, H, K, V) in float32. Rows act one by one, each
    erase after its token's gate; or `together`, where all see the state before the token.
    """

    q: Tensor
    k: Tensor
    b: Tensor
    v: Tensor
    beta: Tensor
    g: Tensor
    state: Tensor
    scale: float
    together: bool
    packing: Packing

    @classmethod
    def of(cls, q, k, b, v, beta, g, state, scale, together, starts) -> Quantities:  # noqa: ANN001
        """From an operator's inputs."""
        q, k, b, v = (x.contiguous() for x in (q, k, b, v))
        beta, g, state = (x.float().contiguous() for x in (beta, g, state))
        return cls(q, k, b, v, beta, g, state, scale, together, Packing.of(q, starts))

    @property
    def heads(self) -> int:
        return self.beta.shape[2]

    @property
    def rows(self) -> int:
        """n, the rows of a token."""
        return self.k.shape[1] // self.q.shape[1] if self.q.shape[1] else 1

    @property
    def keyed(self) -> bool:
        return self.g.ndim == 4
