r"""The empirical risk of one attention layer, with its gradient in the log domain.

With a_t = x_tᵀWz, s = softmax(a) and scores γ, the gradient of a sample's loss in a_t is
ℓ' s_t (γ_t - γᵀs). Let δ be the token of the largest logit, and g_t = γ_t - γ_δ. Then
γ_t - γᵀs = g_t - Σ_τ s_τ g_τ, in which δ does not occur: nothing cancels when s_δ is almost 1, where
1 - s_δ would. The row of δ is minus the sum of the others, so it is never formed. Every entry is kept
as sign and logarithm, also the mean Σ s_τ g_τ (all that is left for a token that ties with δ), and one
shift by the largest makes the table; so nothing underflows at any norm of W, and the direction is
right to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsf.errors import InvalidInput

from ..instances.data import TokenData
from .arrays import Values
from .heads import Head
from .losses import Loss, loss_named


@dataclass(frozen=True)
class LogGradient:
    """-∇L = exp(log_scale) · direction, with direction (..., d, d) of order one; log_scale (...)."""

    log_scale: Values
    direction: np.ndarray

    def unit(self) -> np.ndarray:
        """-∇L / ‖∇L‖_F, zero where the gradient is exactly zero."""
        return _unit(self.direction)

    def log_norm(self) -> Values:
        """log ‖∇L‖_F, (...)."""
        with np.errstate(divide="ignore"):
            return self.log_scale + np.log(np.linalg.norm(self.direction, axis=(-2, -1)))


def _unit(matrix: np.ndarray) -> np.ndarray:
    size = np.sqrt((matrix**2).sum((-2, -1), keepdims=True))
    return matrix / np.where(size == 0, 1.0, size)


@dataclass(frozen=True)
class Attention:
    """Softmax at one W: the token δ of the largest logit (..., n, 1), and log s of all others.

    `log_others` (..., n, T) is -inf at δ and at padding.
    """

    largest: np.ndarray
    log_others: np.ndarray

    def log_weights(self) -> np.ndarray:
        """log s, (..., n, T); -inf at padding."""
        found = self.log_others.copy()
        top = np.log1p(-np.exp(found).sum(-1, keepdims=True))
        np.put_along_axis(found, self.largest, top, -1)
        return found

    def weights(self) -> np.ndarray:
        """s, (..., n, T)."""
        found = np.exp(self.log_others)
        np.put_along_axis(found, self.largest, 1 - found.sum(-1, keepdims=True), -1)
        return found


@dataclass(frozen=True)
class Objective:
    """L(W) = (1/n) Σ_i ℓ(Y_i h(X_iᵀ softmax(X_i W z_i))), for one data set or a batch of them.

    Arrays may have one leading axis B, for B data sets of equal shape that are treated at once; W is
    then (B, d, d). `head` is None for the linear head that the scores stand for. Built by `of`.

    >>> from dsf.theory.instances import sphere
    >>> objective = Objective.of(sphere(3, 4, 5, seed=0))
    >>> objective.gradient(1e4 * np.eye(5)).direction.shape
    (5, 5)
    """

    tokens: np.ndarray
    queries: np.ndarray
    scores: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    loss: Loss
    head: Head | None = None

    @classmethod
    def of(
        cls,
        data: TokenData | Sequence[TokenData],
        loss: str = "logistic",
        head: Head | None = None,
    ) -> Objective:
        """The risk of a data set, or of a batch of data sets of one shape.

        `loss` is "logistic", "exponential", "linear" (-x) or "log" (-log x, for scores that are
        probabilities). Raises `InvalidInput` for an unknown loss or shapes that differ.
        """
        if isinstance(data, TokenData):
            sets, one = [data], True
        else:
            sets, one = list(data), False
        if not sets or len({each.shape for each in sets}) != 1:
            raise InvalidInput(
                "a batch must have at least one data set, all of one shape (n, T, d)"
            )
        if head is not None and any(each.labels is None for each in sets):
            raise InvalidInput("a head that is not linear needs `labels` in the data")

        def stacked(name: str) -> np.ndarray:
            arrays = [getattr(each, name) for each in sets]
            return arrays[0] if one else np.stack(arrays)

        n = sets[0].shape[0]
        labels = [np.ones(n) if each.labels is None else each.labels for each in sets]
        return cls(
            stacked("tokens"),
            stacked("queries"),
            stacked("scores"),
            stacked("mask"),
            labels[0] if one else np.stack(labels),
            loss_named(loss),
            head,
        )

    def logits(self, w: np.ndarray) -> np.ndarray:
        """a_it = x_itᵀ W z_i, (..., n, T); -inf at padding."""
        keys = self.queries @ np.swapaxes(w, -1, -2)
        return np.where(self.mask, (self.tokens @ keys[..., None])[..., 0], -np.inf)

    def attention(self, w: np.ndarray) -> Attention:
        """The softmax of the logits, stable and relative to the largest."""
        a = self.logits(w)
        largest = a.argmax(-1)[..., None]
        b = a - np.take_along_axis(a, largest, -1)
        np.put_along_axis(b, largest, -np.inf, -1)
        return Attention(largest, b - np.log1p(np.exp(b).sum(-1, keepdims=True)))

    def outputs(self, w: np.ndarray) -> np.ndarray:
        """o_i = X_iᵀ s_i, (..., n, d)."""
        return (self.attention(w).weights()[..., None, :] @ self.tokens)[..., 0, :]

    def margins(self, w: np.ndarray) -> np.ndarray:
        """Y_i f_i, (..., n)."""
        return self._margins(self.attention(w))[0]

    def value(self, w: np.ndarray) -> Values:
        """L(W), (...)."""
        return self.loss.value(self.margins(w)).mean(-1)

    def _margins(self, s: Attention) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Y f (..., n); g = γ - γ_δ (..., n, T) of the head at its present output; log|gᵀs| and sign."""
        scores = self.scores
        if self.head is not None:
            outputs = (s.weights()[..., None, :] @ self.tokens)[..., 0, :]
            slope = self.labels[..., None] * self.head.gradient(outputs)
            scores = (self.tokens @ slope[..., None])[..., 0]
        top = np.take_along_axis(scores, s.largest, -1)
        g = scores - top
        with np.errstate(divide="ignore"):
            log_mean, sign = _signed_sum(s.log_others + np.log(np.abs(g)), np.sign(g))
        if self.head is not None:
            margin = self.labels * self.head.value(outputs)  # pyright: ignore[reportPossiblyUnbound]
        else:
            margin = top[..., 0] + sign * np.exp(log_mean)
        return margin, g, np.asarray(log_mean), np.asarray(sign)

    def gradient(self, w: np.ndarray) -> LogGradient:
        """-∇L(W) as a logarithm of its scale and a matrix of order one."""
        s = self.attention(w)
        margin, g, log_mean, sign = self._margins(s)
        mean = (sign * np.exp(log_mean))[..., None]
        tied = g == 0
        rows = np.where(tied, -sign[..., None], g - mean)
        with np.errstate(divide="ignore"):
            logs = s.log_others + np.where(tied, log_mean[..., None], np.log(np.abs(rows)))
        logs = logs + self.loss.log_slope(margin)[..., None]
        shift = logs.max((-2, -1))
        dead = np.isneginf(shift)
        table = np.sign(rows) * np.exp(logs - np.where(dead, 0.0, shift)[..., None, None])
        np.put_along_axis(table, s.largest, -table.sum(-1, keepdims=True), -1)
        pulled = (table[..., None, :] @ self.tokens)[..., 0, :]
        direction = np.swapaxes(pulled, -1, -2) @ self.queries
        return LogGradient(shift - np.log(margin.shape[-1]), direction)

    def log_excess(self, w: np.ndarray, selection: np.ndarray) -> tuple[Values, Values]:
        """log|E| and sign of E = L(W) - L_α, the risk above that of attending to α alone.

        Linear heads only. `selection` is (..., n). Where a token scores above α the sign may be -1.
        """
        chosen = np.asarray(selection)[..., None]
        a = self.logits(w)
        b = a - np.take_along_axis(a, chosen, -1)
        g = self.scores - np.take_along_axis(self.scores, chosen, -1)
        with np.errstate(divide="ignore"):
            terms = b - np.logaddexp.reduce(b, axis=-1)[..., None] + np.log(np.abs(g))
        log_drop, falls = _signed_sum(terms, -np.sign(g))
        at = np.take_along_axis(self.scores, chosen, -1)[..., 0]
        live = np.isfinite(log_drop)
        each = self.loss.log_excess(at, np.where(live, log_drop, 0.0), falls + (falls == 0))
        total, sign = _signed_sum(np.where(live, each, -np.inf), np.asarray(falls))
        return total - np.log(a.shape[-2]), sign


def _signed_sum(logs: np.ndarray, signs: np.ndarray) -> tuple[Values, Values]:
    """log|x| and sign of x = Σ sign · exp(log) over the last axis."""
    top = logs.max(-1)
    top = np.where(np.isneginf(top), 0.0, top)
    total = (signs * np.exp(logs - top[..., None])).sum(-1)
    with np.errstate(divide="ignore"):
        return top + np.log(np.abs(total)), np.sign(total)
