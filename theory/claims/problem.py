r"""What a judge knows of token selection: rows, margins, gradients and certificates, in numpy alone.

Nothing here is shared with the dynamics or the solvers: the gradient is the O(T²) sum over pairs,
e_t = |ℓ'| Σ_τ s_t s_τ (γ_t - γ_τ) with every product formed as a sum of logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsf.certificate import Evidence

U = 2.0**-53

_LOG_SLOPES = {
    "logistic": lambda x: -np.logaddexp(0.0, x),
    "exponential": lambda x: -x,
    "linear": np.zeros_like,
}


class Unusable(ValueError):
    """The evidence is not of the form that the claim asks for, so nothing is concluded from it."""


def need(condition: Any, what: str) -> None:
    """Raise `Unusable` unless the condition holds."""
    if not condition:
        raise Unusable(what)


def array(evidence: Evidence, name: str, *shape: int | None) -> np.ndarray:
    """A finite float64 array of the evidence of this shape; None is any size."""
    value = np.asarray(evidence[name], dtype=np.float64)
    fits = value.ndim == len(shape) and all(
        s in (None, v) for s, v in zip(shape, value.shape, strict=True)
    )
    need(fits and value.size, f"`{name}` has shape {value.shape}, not {shape}")
    need(np.isfinite(value).all(), f"`{name}` has numbers that are not finite")
    return value


@dataclass(frozen=True)
class Problem:
    """Tokens (n, T, d), queries (n, d), scores (n, T), mask (n, T), selection (n,), and its rows.

    `equal` (n, T) marks tokens that share the selection: their rows are equalities.
    """

    tokens: np.ndarray
    queries: np.ndarray
    scores: np.ndarray
    mask: np.ndarray
    selection: np.ndarray
    equal: np.ndarray | None = None

    @classmethod
    def of(cls, evidence: Evidence) -> Problem:
        tokens = array(evidence, "tokens", None, None, None)
        n, most, d = tokens.shape
        lengths = np.asarray(evidence["lengths"])
        selection = np.asarray(evidence["selection"])
        for each in (lengths, selection):
            need(each.shape == (n,) and each.dtype.kind in "iu", "n integers are needed")
        need((lengths >= 1).all() and (lengths <= most).all(), "lengths are out of range")
        need((selection >= 0).all() and (selection < lengths).all(), "selection is out of range")
        equal = None
        if "equal" in evidence:
            equal = np.asarray(evidence["equal"])
            need(equal.shape == (n, most) and equal.dtype == bool, "`equal` is not a mask")
            need(not equal[np.arange(n), selection].any(), "a selected token is its own equal")
        return cls(
            tokens,
            array(evidence, "queries", n, d),
            array(evidence, "scores", n, most),
            np.arange(most) < lengths[:, None],
            selection,
            equal,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.tokens.shape  # type: ignore[return-value]

    def others(self) -> np.ndarray:
        """bool (n, T): the tokens that are there and not selected; the rows in this order."""
        found = self.mask.copy()
        found[np.arange(len(found)), self.selection] = False
        return found if self.equal is None else found & ~self.equal

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """d_k = x_iα - x_it and z_k, each (M, d)."""
        return self._gaps(self.others())

    def equalities(self) -> np.ndarray:
        """(x_iα - x_it) z_iᵀ of the tokens that share the selection, flat, (E, d²)."""
        d, z = self._gaps(np.zeros_like(self.mask) if self.equal is None else self.equal)
        return (d[:, :, None] * z[:, None, :]).reshape(len(d), self.shape[2] ** 2)

    def _gaps(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gaps = self.tokens[np.arange(len(which)), self.selection][:, None] - self.tokens
        i, t = np.nonzero(which)
        return gaps[i, t], self.queries[i]

    def margins(self, w: np.ndarray) -> np.ndarray:
        """d_kᵀ W z_k, (M,)."""
        d, z = self.rows()
        return np.einsum("kd,de,ke->k", d, w, z, optimize=True)

    def score_gaps(self) -> np.ndarray:
        """γ_iα - γ_it for each row, (M,)."""
        n = len(self.mask)
        return (self.scores[np.arange(n), self.selection][:, None] - self.scores)[self.others()]

    def optimal(self) -> bool:
        """Whether the selection has the highest score of each sample, strictly."""
        return bool((self.score_gaps() > 0).all())

    def log_weights(self, w: np.ndarray) -> np.ndarray:
        """log softmax of the logits, (n, T); -inf at padding."""
        a = np.where(self.mask, np.einsum("itd,de,ie->it", self.tokens, w, self.queries), -np.inf)
        return a - np.logaddexp.reduce(a, axis=1)[:, None]

    def descent_direction(self, w: np.ndarray, loss: str = "logistic") -> tuple[float, np.ndarray]:
        """log of a scale, and -∇L over that scale, (d, d)."""
        logs = self.log_weights(w)
        if loss == "log":  # in logarithms, since the probability itself may underflow
            with np.errstate(divide="ignore"):
                slope = -np.logaddexp.reduce(logs + np.log(self.scores), axis=1)
        else:
            margin = np.where(self.mask, np.exp(logs) * self.scores, 0.0).sum(1)
            slope = _LOG_SLOPES[loss](margin)
        pairs = slope[:, None, None] + logs[:, :, None] + logs[:, None, :]
        gaps = self.scores[:, :, None] - self.scores[:, None, :]
        pairs = np.where(gaps != 0, pairs, -np.inf)
        shift = float(pairs.max())
        need(np.isfinite(shift), "the gradient is zero")
        table = (np.exp(pairs - shift) * gaps).sum(2)
        pulled = np.einsum("it,itd->id", table, self.tokens)
        return shift - float(np.log(len(logs))), pulled.T @ self.queries

    def log_excess(self, w: np.ndarray) -> float:
        """log of the logistic risk above that of attending to the optimal selection alone."""
        need(self.optimal(), "the selection is not optimal")
        logs = self.log_weights(w)[self.others()]
        i = np.nonzero(self.others())[0]
        drop = logs + np.log(self.score_gaps())
        at = self.scores[np.arange(len(self.mask)), self.selection]
        total = np.full(len(at), -np.inf)
        np.logaddexp.at(total, i, drop)
        slope = -np.logaddexp(0.0, at)
        delta = np.exp(np.maximum(total, -300.0))
        ratio = np.log1p(np.exp(slope) * np.expm1(delta)) / (np.exp(slope) * delta)
        return float(np.logaddexp.reduce(slope + total + np.log(ratio)) - np.log(len(at)))

    def gap(
        self,
        primal: np.ndarray,
        dual: np.ndarray,
        norm: float | str,
        free: np.ndarray | None = None,
    ) -> tuple[float, float]:
        """(lowest known, highest known) optimal norm of the SVM, by weak duality.

        W over its smallest margin is feasible; λ >= 0 gives Σλ / ‖Σ λ_k d_k z_kᵀ‖ in the dual norm,
        to which equalities add `free` multipliers (E,). `norm` is "nuc" or p. Both are widened by
        their roundings; equalities may be missed by 1e-9 of the largest entry.
        """
        d, z = self.rows()
        need(dual.shape == (len(d),) and (dual >= 0).all(), "the dual point is not one")
        least = float(self.margins(primal).min())
        need(least > 0, "the primal point has no positive margin")
        pulled = (dual[:, None] * d).T @ z
        equalities = self.equalities()
        if len(equalities):
            need(free is not None and free.shape == (len(equalities),), "multipliers are missing")
            pulled = pulled + (free @ equalities).reshape(pulled.shape)  # type: ignore[operator]
            missed = np.abs(equalities @ primal.ravel()).max()
            need(missed <= 1e-9 * np.abs(primal).max(), "the primal point misses an equality")
        if norm == "nuc":
            size, dual_size = np.linalg.norm(primal, "nuc"), np.linalg.norm(pulled, 2)
        else:
            p = float(norm)
            size = (np.abs(primal) ** p).sum() ** (1 / p)
            dual_size = (np.abs(pulled) ** (p / (p - 1))).sum() ** (1 - 1 / p)
        need(dual_size > 0, "the dual point is zero")
        rounding = 16 * (len(d) + d.shape[1]) * U
        size = float(size) * (1 + rounding) + rounding * float(np.linalg.norm(primal))
        return float(dual.sum() / dual_size) * (1 - rounding), size / least * (1 + rounding)
