"""One data set of token selection: tokens, queries and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dsf.errors import InvalidInput


@dataclass(frozen=True)
class TokenData:
    r"""n samples of T tokens: X_i (T, d), query z_i (d,), scores γ_it = Y_i vᵀx_it.

    One attention layer with a fixed linear head v predicts f_i = vᵀX_iᵀ softmax(X_i W z_i); the loss
    sees Y_i f_i = Σ_t s_it γ_it, so the scores are all that it knows of v and Y.

    - `tokens`: float64 (n, T, d); samples with fewer tokens are padded, see `lengths`.
    - `queries`: float64 (n, d).
    - `scores`: float64 (n, T).
    - `lengths`: integers (n,), the number of tokens of each sample; T where it is not given.
    - `labels`: float64 (n,) of ±1, and `head`: float64 (d,), where the scores come from them.

    Raises `InvalidInput` where shapes disagree or a number is not finite.

    >>> data = TokenData(np.eye(3)[None], np.ones((1, 3)), np.array([[0.0, 2.0, 1.0]]))
    >>> data.optimal.tolist(), data.shape
    ([1], (1, 3, 3))
    """

    tokens: np.ndarray
    queries: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray | None = None
    labels: np.ndarray | None = None
    head: np.ndarray | None = None

    def __post_init__(self) -> None:
        tokens = self._floats("tokens", 3)
        n, most, d = tokens.shape
        if min(n, most, d) < 1:
            raise InvalidInput(f"`tokens` has shape {tokens.shape}; every size must be at least 1")
        self._floats("queries", 2, (n, d))
        self._floats("scores", 2, (n, most))
        if self.labels is not None:
            self._floats("labels", 1, (n,))
        if self.head is not None:
            self._floats("head", 1, (d,))
        lengths = np.full(n, most) if self.lengths is None else np.asarray(self.lengths)
        if lengths.shape != (n,) or lengths.dtype.kind not in "iu":
            raise InvalidInput(f"`lengths` must be {n} integers; shape {lengths.shape} was given")
        if lengths.min() < 1 or lengths.max() > most:
            raise InvalidInput(f"`lengths` must be between 1 and {most}; {lengths} was given")
        object.__setattr__(self, "lengths", lengths)

    def _floats(self, name: str, axes: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
        value = np.asarray(getattr(self, name), dtype=np.float64)
        if value.ndim != axes or shape not in (None, value.shape):
            wanted = shape or f"{axes} axes"
            raise InvalidInput(f"`{name}` has shape {value.shape}; it must have {wanted}")
        if not np.isfinite(value).all():
            raise InvalidInput(f"`{name}` has numbers that are not finite")
        object.__setattr__(self, name, value)
        return value

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, T, d)."""
        n, most, d = self.tokens.shape
        return n, most, d

    @cached_property
    def mask(self) -> np.ndarray:
        """bool (n, T): True where a token is, False where padding is."""
        return np.arange(self.shape[1]) < np.asarray(self.lengths)[:, None]

    @cached_property
    def optimal(self) -> np.ndarray:
        """Integers (n,): the token of the highest score, opt_i."""
        return np.where(self.mask, self.scores, -np.inf).argmax(1)

    def ragged(self) -> list[np.ndarray]:
        """The tokens without padding: n arrays (T_i, d)."""
        return [x[:k] for x, k in zip(self.tokens, np.asarray(self.lengths), strict=True)]

    def samples(self, keep: Sequence[int] | np.ndarray) -> TokenData:
        """The data set of the samples `keep` (indices or a boolean mask) alone."""
        return TokenData(
            self.tokens[keep],
            self.queries[keep],
            self.scores[keep],
            np.asarray(self.lengths)[keep],
            None if self.labels is None else self.labels[keep],
            self.head,
        )
