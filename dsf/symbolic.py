r"""The symbolic twin: the recurrence written in sympy and unrolled exactly for a small length.

    h_i = Λ_i h_{i-1} + B_i u_i,   y_i = C_i h_i + D_i u_i

It shares nothing with the numerical forms: plain matrices, one step after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy
from sympy import Matrix


@dataclass(frozen=True)
class Step:
    """One step (Λ, B, C, D) of matrices over any exact field; D may be left out for 0."""

    transition: Matrix
    write: Matrix
    read: Matrix
    feedthrough: Matrix | None = None


def vector(name: str, size: int, **assumptions: bool) -> Matrix:
    """A column of symbols name0, name1, ….

    >>> vector("k1_", 2).T
    Matrix([[k1_0, k1_1]])
    """
    return Matrix([sympy.Symbol(f"{name}{i}", **assumptions) for i in range(size)])


def scalar(value: Any, size: int) -> Matrix:
    """The transition value · I."""
    return sympy.diag(*[value] * size)


def unroll(
    steps: Sequence[Step], tokens: Sequence[Matrix], state: Matrix | None = None
) -> tuple[list[Matrix], Matrix]:
    """Outputs y_1 … y_T and the final state, exactly, from `state` (zero if None).

    >>> a, u = sympy.symbols("a u")
    >>> one = Matrix([[1]])
    >>> step = Step(Matrix([[a]]), one, one)
    >>> unroll([step] * 3, [Matrix([[u]])] * 3)[1].expand()
    Matrix([[a**2*u + a*u + u]])
    """
    if len(steps) != len(tokens):
        raise ValueError(f"{len(steps)} steps need as many tokens; got {len(tokens)}")
    memory = state
    if memory is None:
        memory = sympy.zeros(steps[0].transition.rows, tokens[0].cols) if steps else Matrix([])
    outputs = []
    for step, token in zip(steps, tokens, strict=True):
        memory = step.transition * memory + step.write * token
        output = step.read * memory
        outputs.append(output if step.feedthrough is None else output + step.feedthrough * token)
    return outputs, memory


def mixing_matrix(steps: Sequence[Step]) -> Matrix:
    """Φ as a block matrix: Φ_ij = C_i Λ_i … Λ_{j+1} B_j, with D_i added on the diagonal."""
    width = steps[0].write.cols
    columns = []
    for j in range(len(steps)):
        tokens = [sympy.eye(width) if i == j else sympy.zeros(width) for i in range(len(steps))]
        columns.append(Matrix.vstack(*unroll(steps, tokens)[0]))
    return Matrix.hstack(*columns)
