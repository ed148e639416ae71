"""What is to be separated: tokens, queries and the token each query is to select."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dsf.errors import InvalidInput

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Instance:
    r"""Samples i with tokens x_it (T_i, d), a query z_i (d) and a selection α_i.

    The rows of the program are the margins (x_{iα_i} - x_it)ᵀ W z_i ≥ 1 for t ≠ α_i. `equal` names
    further tokens t of a sample that share the selection: their rows are = 0 (nonlinear heads, strongly
    connected tokens of a next-token graph), and every other token is held apart from α_i alone.

    >>> instance = Instance([np.eye(2)], np.array([[1.0, 0.0]]), np.array([0]))
    >>> instance.margins(np.array([[3.0, 0.0], [1.0, 0.0]]))
    array([2.])
    """

    tokens: Sequence[Array] | Array
    queries: Array
    selection: Array
    equal: Sequence[Sequence[int]] = field(default=())

    def __post_init__(self) -> None:
        tokens = [np.asarray(x, dtype=np.float64) for x in self.tokens]
        queries = np.asarray(self.queries, dtype=np.float64)
        selection = np.asarray(self.selection)
        if not tokens or queries.ndim != 2 or len(queries) != len(tokens):
            raise InvalidInput(
                "an instance needs one (T_i, d) array of tokens and one query (d) per sample; got "
                f"{len(tokens)} arrays of tokens and queries of shape {queries.shape}"
            )
        d = queries.shape[1]
        for i, x in enumerate(tokens):
            if x.ndim != 2 or x.shape[1] != d or not len(x):
                raise InvalidInput(f"tokens of sample {i} must be (T, {d}), T ≥ 1; got {x.shape}")
        if not all(np.isfinite(x).all() for x in (*tokens, queries)):
            raise InvalidInput("tokens and queries must be finite numbers")
        sizes = np.array([len(x) for x in tokens])
        if selection.shape != (len(tokens),) or selection.dtype.kind not in "iu":
            raise InvalidInput(
                f"selection must be {len(tokens)} integers, one per sample; got {selection!r}"
            )
        if (selection < 0).any() or (selection >= sizes).any():
            i = int(np.nonzero((selection < 0) | (selection >= sizes))[0][0])
            raise InvalidInput(
                f"selection of sample {i} is {selection[i]}; it must be 0 … {sizes[i] - 1}"
            )
        equal = tuple(tuple(int(t) for t in own) for own in self.equal) or ((),) * len(tokens)
        if len(equal) != len(tokens):
            raise InvalidInput(
                f"`equal` needs one list per sample ({len(tokens)}); got {len(equal)}"
            )
        for i, own in enumerate(equal):
            if len(set(own) | {int(selection[i])}) != len(own) + 1 or any(
                not 0 <= t < sizes[i] for t in own
            ):
                raise InvalidInput(
                    f"`equal` of sample {i} is {own}: it must name tokens 0 … {sizes[i] - 1} once, "
                    f"without the selected {selection[i]}"
                )
        for name, value in (
            ("tokens", tuple(tokens)),
            ("queries", queries),
            ("selection", selection.astype(np.int64)),
            ("equal", equal),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def of_self_attention(cls, tokens: Sequence[Array] | Array, selection: Array) -> Instance:
        """The query of each sample is its first token: z_i = x_i1."""
        return cls(tokens, np.stack([np.asarray(x)[0] for x in tokens]), selection)

    @classmethod
    def causal(cls, tokens: Array, selection: Array) -> Instance:
        """One sequence (T, d), a sample per position t ≥ 1: tokens x_{≤t}, query x_t, selection (T - 1)."""
        x = np.asarray(tokens)
        return cls([x[: t + 1] for t in range(1, len(x))], x[1:], selection)

    @property
    def d(self) -> int:
        return self.queries.shape[1]

    @cached_property
    def owner(self) -> Array:
        """The sample of each row (M,)."""
        return np.repeat(np.arange(len(self.tokens)), [len(rows) for rows in self._others])

    @cached_property
    def differences(self) -> Array:
        """x_{iα_i} - x_it of each row, (M, d)."""
        return self._stacked(self._others)

    @cached_property
    def equal_owner(self) -> Array:
        """The sample of each equality (E,)."""
        return np.repeat(np.arange(len(self.tokens)), [len(own) for own in self.equal])

    @cached_property
    def equal_differences(self) -> Array:
        """x_{iα_i} - x_it of each equality, (E, d)."""
        return self._stacked([np.array(own, dtype=int) for own in self.equal])

    @cached_property
    def _others(self) -> list[Array]:
        found = []
        for i, x in enumerate(self.tokens):
            held = np.zeros(len(x), dtype=bool)
            held[[int(self.selection[i]), *self.equal[i]]] = True
            found.append(np.nonzero(~held)[0])
        return found

    def _stacked(self, rows: Sequence[Array]) -> Array:
        parts = [x[a] - x[own] for x, a, own in zip(self.tokens, self.selection, rows, strict=True)]
        return np.concatenate(parts) if parts else np.zeros((0, self.d))

    @property
    def row_tokens(self) -> list[tuple[int, int]]:
        """(i, t) of each row."""
        return [(i, int(t)) for i, own in enumerate(self._others) for t in own]

    def margins(self, W: Array) -> Array:
        """(x_{iα_i} - x_it)ᵀ W z_i of each row (M,)."""
        return np.einsum("kd,kd->k", self.differences, (self.queries @ W.T)[self.owner])

    def to_json(self) -> dict[str, Any]:
        """Plain lists, enough to build the instance again."""
        return {
            "tokens": [x.tolist() for x in self.tokens],
            "queries": self.queries.tolist(),
            "selection": self.selection.tolist(),
            "equal": [list(own) for own in self.equal],
        }
