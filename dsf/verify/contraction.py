r"""Error of a computed recurrence from its residuals: sharp where balls blow up.

Given any states h̃_0 … h̃_T of h_i = Λ_i h_{i-1} + B_i u_i, the exact states from h_0 = h̃_0 obey

    ‖h̃_i - h_i‖_F <= e_i,   e_i = L_i e_{i-1} + r_i,   L_i >= ‖Λ_i‖₂,   r_i >= ‖h̃_i - Λ_i h̃_{i-1} - B_i u_i‖_F.

Both are bounds, not estimates: residuals are evaluated in the widest type that numpy has (80-bit
where the processor does, else float64) with a bound of their own roundings, and norms are proved by
Cholesky factorisations. Balls lose a constant number of bits per step of a transition that mixes keys
(wrapping); here a contraction loses nothing. numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .positive import UNIT

_UP = 1 + 2.0**-49  # makes up for the few roundings of one line of non-negative numbers
_TINY = 2.0**-1000
_WIDE = np.longdouble
_WIDE_UNIT = float(np.finfo(_WIDE).eps) / 2
_WIDENINGS = 24


@dataclass(frozen=True)
class Steps:
    r"""Λ_i = diag(d_i) + P_i Q_iᵀ and B_i u_i, as exact float64 or complex128 numbers.

    `diagonal` (T, K); `left`, `right` (T, K, r); `write` (T, K, R) and `tokens` (T, R, V). A dense
    Λ has d = 0, P = Λ and Q = I. `gate_error` is a relative error of the diagonal (of an exponential).
    """

    diagonal: np.ndarray
    left: np.ndarray
    right: np.ndarray
    write: np.ndarray
    tokens: np.ndarray
    gate_error: float = 0.0

    def __post_init__(self) -> None:
        (length, keys), rank = self.diagonal.shape, self.left.shape[-1]
        writes = self.write.shape[-1]
        wanted = {
            "left": (length, keys, rank),
            "right": (length, keys, rank),
            "write": (length, keys, writes),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"`{name}` must be {shape}; got {getattr(self, name).shape}")
        if self.tokens.shape[:2] != (length, writes):
            raise ValueError(f"`tokens` must be ({length}, {writes}, V); got {self.tokens.shape}")

    @property
    def kind(self) -> np.dtype:
        parts = (self.diagonal, self.left, self.right, self.write, self.tokens)
        return np.result_type(np.float64, *parts)


@dataclass(frozen=True)
class Contraction:
    """`norms` (T,) and `residuals` (T,) bound L_i and r_i, `errors` (T + 1,) the states, in ‖·‖_F."""

    norms: np.ndarray
    residuals: np.ndarray
    errors: np.ndarray


def contraction(steps: Steps, states: np.ndarray) -> Contraction:
    """Bounds of ‖h̃_i - h_i‖_F for states (T + 1, K, V), the first of which is taken as exact.

    >>> one = np.ones((3, 1, 1))
    >>> half = Steps(0.5 * np.ones((3, 1)), one[..., :0], one[..., :0], one, one)
    >>> found = contraction(half, np.array([0.0, 1.0, 1.5, 1.76]).reshape(4, 1, 1))  # 1.75 is exact
    >>> bool(np.abs(found.errors - [0, 0, 0, 0.01]).max() < 1e-14)
    True
    """
    if states.shape[0] != steps.diagonal.shape[0] + 1 or states.shape[1] != steps.diagonal.shape[1]:
        raise ValueError(f"`states` must be (T + 1, K, V); got {states.shape}")
    norms, residuals = transition_norms(steps), residual_norms(steps, states)
    errors = np.zeros(len(residuals) + 1)
    for i, (norm, residual) in enumerate(zip(norms, residuals, strict=True)):
        errors[i + 1] = (norm * errors[i] + residual) * _UP
    return Contraction(norms, residuals, errors)


def residual_norms(steps: Steps, states: np.ndarray) -> np.ndarray:
    """Upper bounds of ‖h̃_i - Λ_i h̃_{i-1} - B_i u_i‖_F, (T,)."""
    wide = np.result_type(_WIDE, steps.kind, states)
    given = (
        steps.diagonal[..., None],
        steps.left,
        steps.right.swapaxes(-1, -2),
        steps.write,
        steps.tokens,
    )
    d, p, q, b, u = (x.astype(wide) for x in given)
    before, after = states[:-1].astype(wide), states[1:].astype(wide)
    with np.errstate(all="ignore"):
        residual = after - d * before - p @ (q @ before) - b @ u
        size = np.abs(after) + np.abs(d) * np.abs(before) + np.abs(b) @ np.abs(u)
        size = size + np.abs(p) @ (np.abs(q) @ np.abs(before))
        slack = _gamma(steps, _WIDE_UNIT) * size + steps.gate_error * np.abs(d) * np.abs(before)
        entries = ((np.abs(residual) + slack) * _UP).astype(np.float64) * _UP
        found = np.sqrt((entries**2).sum((1, 2))) * (1 + states[0].size * UNIT)
    return found * _UP + _TINY


def transition_norms(steps: Steps) -> np.ndarray:
    """Upper bounds of ‖Λ_i‖₂, (T,), proved by factorisations of s_i² I - Λ_iᵀ Λ_i."""
    if not steps.left.shape[-1]:
        largest = np.abs(steps.diagonal).max(-1, initial=0.0)
        return largest * (1 + steps.gate_error) * _UP + _TINY
    keys = steps.diagonal.shape[-1]
    low_rank = steps.left @ steps.right.swapaxes(-1, -2)
    dense = low_rank + steps.diagonal[..., None] * np.eye(keys)
    size = np.abs(steps.left) @ np.abs(steps.right).swapaxes(-1, -2)
    size = size + np.abs(steps.diagonal)[..., None] * np.eye(keys)
    formed = np.sqrt((size**2).sum((1, 2))) * (_gamma(steps) + steps.gate_error)
    return (_dense_norms(_real_form(dense)) + formed * _UP) * _UP + _TINY


def _dense_norms(matrices: np.ndarray) -> np.ndarray:
    """Upper bounds of ‖M_i‖₂ for real (T, n, n): s_i from an SVD, proved, widened where the proof fails."""
    count, n = matrices.shape[:2]
    size = np.sqrt((matrices**2).sum((1, 2)))
    bounds = np.linalg.svd(matrices, compute_uv=False)[:, 0] if count else np.zeros(0)
    gram, eye = matrices.swapaxes(-1, -2) @ matrices, np.eye(n)
    gamma = (n + 8) * UNIT / (1 - (n + 8) * UNIT)
    slack, open_ = 8 * n * UNIT, np.arange(count)
    bounds = np.maximum(bounds, size / n) + _TINY
    for _ in range(_WIDENINGS):
        tried = bounds[open_] * (1 + slack)
        # |s² I - MᵀM - computed| <= γ (s² + ‖M‖_F²), and Cholesky's own error γ tr <= γ n s².
        shift = 4 * gamma * (tried**2 * (n + 1) + size[open_] ** 2) + _TINY
        moved = (tried**2 - shift)[:, None, None] * eye - gram[open_]
        proved = np.array([_factorises(x) for x in moved], dtype=bool)
        bounds[open_[proved]] = tried[proved]
        open_ = open_[~proved]
        if not len(open_):
            return bounds
        slack *= 4
    bounds[open_] = np.where(np.isfinite(size[open_]), size[open_] * (1 + n * n * UNIT), np.inf)
    return bounds


def _factorises(matrix: np.ndarray) -> bool:
    try:
        return bool(np.isfinite(np.linalg.cholesky(matrix)).all())
    except np.linalg.LinAlgError:
        return False


def _gamma(steps: Steps, unit: float = UNIT) -> float:
    """γ_n of the longest path of a residual; a complex product has up to four roundings of a real one."""
    keys, rank, writes = *steps.left.shape[1:], steps.write.shape[-1]
    roundings = (keys + rank + writes + 8) * (4 if steps.kind.kind == "c" else 1)
    return roundings * unit / (1 - roundings * unit) * _UP


def _real_form(matrices: np.ndarray) -> np.ndarray:
    if not np.iscomplexobj(matrices):
        return matrices
    wide = matrices.astype(np.complex128)
    return np.block([[wide.real, -wide.imag], [wide.imag, wide.real]])
