r"""Two ways to take states away at every cut, each with the bound that holds for it.

**Sequential SVD.** Walk forward; at cut i project the Hankel matrix that is left, M_i, on its leading
right singular vectors. What is dropped, E_i, lives in rows >= i and columns < i, and reaches every
later output exactly once, so Φ - Φ̂ = Σ_i E_i. The row space of E_j for j > i lies in the span of
what was kept at i and of later tokens, so E_i E_jᴴ = 0 and

    ‖Φ - Φ̂‖_F² = Σ_i ‖E_i‖_F²,    ‖Φ - Φ̂‖₂² = ‖Σ_i E_i E_iᴴ‖₂ <= Σ_i σ_{n_i+1}(M_i)².

No hypothesis is needed; σ_k(M_i) <= σ_k(Φ[i:, :i]) since M_i is Φ[i:, :i] times a projection.

**Balanced truncation.** In coordinates in which both Gramians of every cut are diag(σ_k(i)), drop
states. For states k dropped over a run of neighbouring cuts on which σ_k(i) is monotone in i, one
after another, the error grows by at most twice the largest σ_k of the run:

    ‖Φ - Φ̂‖₂ <= 2 Σ_k Σ_{runs of k} max_{i in run} σ_k(i).

Derivation, for one state with weights σ_i that do not increase: with v what the dropped equation
receives, z = x - x̂ and s = x + x̂, the two Lyapunov inequalities give
|e_i|² <= |z_i|² - |z_{i+1}|² + 2σ_{i+1} v x₂ - σ_{i+1} |v|² and
2 v x₂ <= σ_{i+1} (|s_i|² - |s_{i+1}|² + 4|u_i|²) - |v|²/σ_{i+1} in the norms of the Gramians; insert
one in the other and sum by parts: Σ|e|² <= 4 Σ σ_{i+1}² |u_i|² + Σ |s_i|² (σ_{i+1}² - σ_i²). The last
sum is not positive; outside the run any weight may be chosen, so that only the run has to be
monotone. Increasing runs are those of the adjoint in reversed time, and what is left after one
truncation satisfies the inequalities again. The rule "twice the sum of what was dropped" without
runs is proved for values that do not change in time, which no finite horizon has; it is not used.
Compare Sandberg and Rantzer, IEEE Trans. Automatic Control 49 (2004) 217-229.

A second bound serves short sequences: truncate cut after cut, in time. What has been truncated keeps
its reachability Gramian below diag(σ_k(i)), so what one more cut changes, O_i R_i restricted to the
dropped states, has a norm of at most √σ √σ for the largest σ dropped there: Σ_i σ_{n_i+1}(i) in all.
The smaller of the two is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dsf.numerics import rank_tolerance

from .realization import Realization
from .sweeps import observability_roots, reachability_roots

Keep = Callable[[int, np.ndarray], int]
"""How many states to keep at a cut (1 … T - 1), given the singular values there."""


@dataclass(frozen=True, eq=False)
class Truncated:
    """One head after truncation: the singular values dropped at every cut, and the error's bound."""

    realization: Realization
    dropped: tuple[np.ndarray, ...]
    bound: float


def sequential(r: Realization, keep: Keep, roots: list[np.ndarray] | None = None) -> Truncated:
    """Sequential SVD truncation; `roots` are `observability_roots(r)` where they are at hand."""
    future = observability_roots(r) if roots is None else roots
    A, B, C = [], [], []
    dropped = [np.zeros(0)]
    spread = np.zeros((r.orders[0], 0), dtype=future[0].dtype)
    for i in range(r.length):
        reached = np.concatenate([r.A[i] @ spread, r.B[i]], 1)
        _, sizes, rows = _svd(future[i + 1] @ reached)
        kept = keep(i + 1, sizes) if i + 1 < r.length else 0
        A.append(rows[:kept, : spread.shape[1]])
        B.append(rows[:kept, spread.shape[1] :])
        C.append(r.C[i] @ spread)
        dropped.append(sizes[kept:])
        spread = reached @ rows[:kept].conj().T
    bound = float(np.sqrt(sum(x[0] ** 2 for x in dropped if x.size)))
    small = Realization(tuple(A), tuple(B), tuple(C), r.D)
    return Truncated(small, tuple(dropped), bound)


def balanced(r: Realization, keep: Keep) -> Truncated:
    """Balanced truncation by the square-root method; states whose σ is rounding alone are always dropped."""
    past, future = reachability_roots(r), observability_roots(r)
    into, back, dropped = [], [], []
    for i, (u, root) in enumerate(zip(future, past, strict=True)):
        left, sizes, right = _svd(u @ root)
        kept = keep(i, sizes) if 0 < i < r.length else 0
        noise = rank_tolerance(
            len(root), len(root), float(np.linalg.norm(u) * np.linalg.norm(root))
        )
        kept = min(kept, int((sizes > noise).sum()))
        scale = 1 / np.sqrt(sizes[:kept])
        into.append((root @ right[:kept].conj().T) * scale)
        back.append((left[:, :kept] * scale).conj().T @ u)
        dropped.append(sizes[kept:])
    steps = range(r.length)
    small = Realization(
        tuple(back[i + 1] @ r.A[i] @ into[i] for i in steps),
        tuple(back[i + 1] @ r.B[i] for i in steps),
        tuple(r.C[i] @ into[i] for i in steps),
        r.D,
    )
    orders = [len(b) for b in back]
    cut_by_cut = sum(float(x[0]) for x in dropped if x.size)
    return Truncated(small, tuple(dropped), min(cut_by_cut, run_bound(dropped, orders)))


def run_bound(dropped: list[np.ndarray], orders: list[int]) -> float:
    r"""2 Σ_k Σ_runs max σ_k over the monotone runs of dropped values; `dropped[i]` starts at σ_{n_i+1}.

    >>> rising_and_falling = [np.array([s]) for s in (1.0, 3.0, 2.0)]
    >>> run_bound(rising_and_falling, [0, 0, 0])  # 2 · 3, and 2 · 2 for the way down
    10.0
    """
    largest = max((n + len(x) for n, x in zip(orders, dropped, strict=True)), default=0)
    total = 0.0
    for k in range(largest):
        run = _Run()
        for n, values in zip(orders, dropped, strict=True):
            if n <= k:
                total += run.extend(float(values[k - n]) if k < n + len(values) else 0.0)
        total += run.highest
    return 2 * total


class _Run:
    """A monotone run of values: its last one, its direction (0 while undecided), its highest."""

    def __init__(self) -> None:
        self.last, self.direction, self.highest = 0.0, 1, 0.0

    def extend(self, value: float) -> float:
        """Go on with `value`; where it turns, begin anew and return the highest of the old run."""
        step = (value > self.last) - (value < self.last)
        closed = 0.0
        if step * self.direction < 0:
            closed, self.highest, self.direction = self.highest, value, 0
        elif step:
            self.direction = step
        self.last, self.highest = value, max(self.highest, value)
        return closed


def _svd(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not matrix.size:
        rows, columns = matrix.shape
        kind = matrix.dtype
        return np.zeros((rows, 0), kind), np.zeros(0), np.zeros((0, columns), kind)
    return np.linalg.svd(matrix, full_matrices=False)
