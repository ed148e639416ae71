"""What is to be separated: tokens, queries and the token each query is to select."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dsf.errors import InvalidInput

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Instance:
    r"""Samples i with tokens x_it (T_i, d), a query z_i (d) and a selection α_i.

    The rows of the program are the margins (x_{iα_i} - x_it)ᵀ W z_i ≥ 1 for t ≠ α_i.

    - `tokens`: float64 (n, T, d), or n arrays (T_i, d); `queries`: float64 (n, d); `selection`: integers (n,).
    - `equal`: for each sample tokens t whose row is an equality instead, (x_{iα_i} - x_it)ᵀ W z_i = v:
      tokens that share the selection (nonlinear heads, strongly connected tokens of a next-token graph).
    - `values`: the right-hand sides v, nested as `equal`; 0 where they are not given.
    - `least`: float64 (n,), the margins asked of each sample, ≥ 0; 1 where they are not given.

    Raises `InvalidInput` where shapes disagree, a token does not exist or a number is not finite.

    >>> instance = Instance([np.eye(2)], np.array([[1.0, 0.0]]), np.array([0]))
    >>> instance.margins(np.array([[3.0, 0.0], [1.0, 0.0]]))
    array([2.])
    """

    tokens: Sequence[Any] | Array
    queries: Array
    selection: Array
    equal: Sequence[Sequence[int]] = field(default=())
    values: Sequence[Sequence[float]] = field(default=())
    least: Sequence[float] | Array | None = None

    def __post_init__(self) -> None:
        tokens = tuple(np.asarray(x, dtype=np.float64) for x in self.tokens)
        queries = np.asarray(self.queries, dtype=np.float64)
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
        selection = self._selected([len(x) for x in tokens])
        equal = self._shared([len(x) for x in tokens], selection)
        values = tuple(tuple(float(v) for v in own) for own in self.values)
        values = values or tuple((0.0,) * len(own) for own in equal)
        if [len(own) for own in values] != [len(own) for own in equal]:
            raise InvalidInput(
                "`values` must be nested as `equal`: one number for each token there"
            )
        least = np.ones(len(tokens)) if self.least is None else np.asarray(self.least, dtype=float)
        if least.shape != (len(tokens),) or not (np.isfinite(least) & (least >= 0)).all():
            raise InvalidInput(f"`least` must be {len(tokens)} margins ≥ 0; got {self.least!r}")
        if not np.isfinite([v for own in values for v in own]).all():
            raise InvalidInput("`values` must be finite numbers")
        for name, value in (
            ("tokens", tokens),
            ("queries", queries),
            ("selection", selection),
            ("equal", equal),
            ("values", values),
            ("least", least),
        ):
            object.__setattr__(self, name, value)

    def _selected(self, sizes: list[int]) -> Array:
        selection = np.asarray(self.selection)
        if selection.shape != (len(sizes),) or selection.dtype.kind not in "iu":
            raise InvalidInput(
                f"selection must be {len(sizes)} integers, one per sample; got {selection!r}"
            )
        wrong = np.flatnonzero((selection < 0) | (selection >= sizes))
        if len(wrong):
            i = int(wrong[0])
            raise InvalidInput(
                f"selection of sample {i} is {selection[i]}; it must be 0 … {sizes[i] - 1}"
            )
        return selection.astype(np.int64)

    def _shared(self, sizes: list[int], selection: Array) -> tuple[tuple[int, ...], ...]:
        equal = tuple(tuple(int(t) for t in own) for own in self.equal) or ((),) * len(sizes)
        if len(equal) != len(sizes):
            raise InvalidInput(
                f"`equal` needs one list per sample ({len(sizes)}); got {len(equal)}"
            )
        for i, own in enumerate(equal):
            if len({*own, int(selection[i])}) != len(own) + 1 or not all(
                0 <= t < sizes[i] for t in own
            ):
                raise InvalidInput(
                    f"`equal` of sample {i} is {own}: it must name tokens 0 … {sizes[i] - 1} once, "
                    f"without the selected {selection[i]}"
                )
        return equal

    @property
    def d(self) -> int:
        """The number of channels."""
        return self.queries.shape[1]

    @cached_property
    def row_tokens(self) -> list[tuple[int, int]]:
        """(i, t) of each inequality row, M pairs, in the order of every array of rows."""
        found = []
        for i, x in enumerate(self.tokens):
            held = {int(self.selection[i]), *self.equal[i]}
            found += [(i, t) for t in range(len(x)) if t not in held]
        return found

    @cached_property
    def equal_tokens(self) -> list[tuple[int, int]]:
        """(i, t) of each equality row, E pairs."""
        return [(i, t) for i, own in enumerate(self.equal) for t in own]

    @cached_property
    def owner(self) -> Array:
        """The sample of each row (M,)."""
        return np.array([i for i, _ in self.row_tokens], dtype=np.int64)

    @cached_property
    def equal_owner(self) -> Array:
        """The sample of each equality (E,)."""
        return np.array([i for i, _ in self.equal_tokens], dtype=np.int64)

    @cached_property
    def differences(self) -> Array:
        """x_{iα_i} - x_it of each row, (M, d)."""
        return self._differences(self.row_tokens)

    @cached_property
    def equal_differences(self) -> Array:
        """x_{iα_i} - x_it of each equality, (E, d)."""
        return self._differences(self.equal_tokens)

    def _differences(self, pairs: list[tuple[int, int]]) -> Array:
        if not pairs:
            return np.zeros((0, self.d))
        starts = np.cumsum([0, *(len(x) for x in self.tokens)])
        i, t = np.array(pairs).T
        flat = np.concatenate(self.tokens)
        return flat[starts[i] + self.selection[i]] - flat[starts[i] + t]

    @cached_property
    def bounds(self) -> Array:
        """The margin asked of each row (M,): `least` of its sample."""
        return np.asarray(self.least)[self.owner]

    @cached_property
    def equal_values(self) -> Array:
        """The right-hand side of each equality (E,)."""
        return np.array([v for own in self.values for v in own], dtype=np.float64)

    def margins(self, W: Array) -> Array:
        """(x_{iα_i} - x_it)ᵀ W z_i of each row (M,)."""
        return np.einsum("kd,kd->k", self.differences, (self.queries @ W.T)[self.owner])

    def equal_margins(self, W: Array) -> Array:
        """The same of each equality (E,)."""
        return np.einsum("kd,kd->k", self.equal_differences, (self.queries @ W.T)[self.equal_owner])

    def adjoint(self, dual: Array, equal_dual: Array | None = None) -> Array:
        """A*λ + E*μ = Σ_k λ_k d_k z_kᵀ + Σ_e μ_e d_e z_eᵀ, (d, d)."""
        found = (self.differences * dual[:, None]).T @ self.queries[self.owner]
        if equal_dual is not None and len(equal_dual):
            rows = self.equal_differences * equal_dual[:, None]
            found += rows.T @ self.queries[self.equal_owner]
        return found

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Instance:
        """The instance that `to_json` wrote; raises as the constructor does."""
        numbers = {name: np.asarray(record[name]) for name in ("queries", "selection")}
        return cls(**{**record, **numbers})

    def to_json(self) -> dict[str, Any]:
        """Plain lists, enough to build the instance again.

        >>> one = Instance([np.eye(2)], np.array([[1.0, 0.0]]), np.array([0]))
        >>> Instance.from_json(one.to_json()).digest == one.digest
        True
        """
        return {
            "tokens": [x.tolist() for x in self.tokens],
            "queries": self.queries.tolist(),
            "selection": self.selection.tolist(),
            "equal": [list(own) for own in self.equal],
            "values": [list(own) for own in self.values],
            "least": np.asarray(self.least).tolist(),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that the instance says, bit for bit."""
        found = hashlib.sha256()
        sizes = [len(x) for x in self.tokens]
        counts = [len(own) for own in self.equal]
        tokens = [t for own in self.equal for t in own]
        for part in (sizes, self.selection, counts, tokens):
            found.update(len(part).to_bytes(8, "little") + np.asarray(part, "<i8").tobytes())
        for part in (*self.tokens, self.queries, self.equal_values, np.asarray(self.least)):
            found.update(np.ascontiguousarray(part, "<f8").tobytes())
        return found.hexdigest()
