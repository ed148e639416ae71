"""What the symbolic claims share: sequences of symbols, their recurrence, and every way to split them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
from sympy import Matrix

from dsf.symbolic import Step, unroll


def compositions(steps: int) -> Iterator[tuple[int, ...]]:
    """Every way to split a sequence into chunks, the lengths in order.

    >>> list(compositions(3))
    [(1, 1, 1), (1, 2), (2, 1), (3,)]
    """
    if steps == 0:
        yield ()
    for first in range(1, steps + 1):
        for rest in compositions(steps - first):
            yield (first, *rest)


def tabulated(rows: int, columns: int, entry: Callable[[int, int], Any]) -> Any:
    """The matrix of entry(i, j), whose indices are Python's own integers."""
    return Matrix([[entry(i, j) for j in range(columns)] for i in range(rows)])


def matrix(name: str, rows: int, columns: int) -> Any:
    """A matrix of real symbols name0_0, name0_1, …"""
    return tabulated(rows, columns, lambda i, j: sympy.Symbol(f"{name}{i}_{j}", real=True))


@dataclass(frozen=True)
class Symbols:
    """q, k (T, K), v (T, V), decays a (T, K), the state before (K, V): all symbols."""

    # sympy's own annotations are too wide for slices of matrices
    q: Any
    k: Any
    v: Any
    a: Any
    state: Any

    @classmethod
    def of(cls, steps: int, keys: int, values: int, *, per_key: bool = False) -> Symbols:
        """Free symbols; one decay a step for all keys unless `per_key`."""
        gates = matrix("a", steps, keys if per_key else 1)
        return cls(
            matrix("q", steps, keys),
            matrix("k", steps, keys),
            matrix("v", steps, values),
            gates if per_key else Matrix.hstack(*[gates] * keys),
            matrix("s", keys, values),
        )

    @property
    def steps(self) -> int:
        return self.q.rows

    def run(self) -> tuple[Any, Any]:
        """Outputs (T, V) and the last state of S_t = diag(a_t) S_{t-1} + k_t v_tᵀ, y_t = S_tᵀ q_t, step by step."""
        steps = [
            Step(sympy.diag(*self.a.row(t)), self.k.row(t).T, self.q.row(t))
            for t in range(self.steps)
        ]
        tokens = [self.v.row(t) for t in range(self.steps)]
        outputs, last = unroll(steps, tokens, self.state)
        return Matrix.vstack(*outputs), last

    def piece(self, rows: slice, state: Any) -> Symbols:
        """The steps of one chunk, from the state before it."""
        return Symbols(self.q[rows, :], self.k[rows, :], self.v[rows, :], self.a[rows, :], state)


def between(a: Any, i: int, j: int, key: int = 0) -> Any:
    """a_i … a_{j+1} for i ≥ j, along one key."""
    return sympy.Mul(*(a[step, key] for step in range(j + 1, i + 1)))


def pieces(lengths: Sequence[int]) -> list[slice]:
    """The rows of chunks of these lengths."""
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def hadamard(x: Any, y: Any) -> Any:
    return x.multiply_elementwise(y)


def pairing(x: Any, y: Any) -> Any:
    """⟨x, y⟩ = Σ x_ij y_ij."""
    return sympy.Add(*hadamard(x, y))


def gradient(value: Any, of: Any) -> Any:
    """∂value/∂of, entry by entry."""
    return of.applyfunc(lambda symbol: sympy.diff(value, symbol))


def named_split(lengths: Sequence[int]) -> str:
    """A name for a split: 1+2."""
    return "+".join(map(str, lengths))
