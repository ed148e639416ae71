r"""Error bounds: where every tolerance comes from.

Whatever the order in which a form multiplies and adds, an output is a sum over paths
C_i Λ_i … Λ_{j+1} B_j u_j, and each computed path carries a factor Π(1 + δ) with |δ| <= u per
rounding. So with F the same recurrence on absolute values, and F_ε the same again with every factor
inflated by (1 + ε · its roundings),

    |computed - exact| <= F_u - F_0 <= (u/ε) (F_ε - F_0),   u <= ε,

for outputs, final states and gradients alike (a gradient is a sum over the same paths). This is the
running error bound: an error made at one step fades with the memory of the system. Where a
transition mixes keys, absolute values would forget that it contracts, and norms take their place.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 2.0**-20  # the inflation at which F_ε - F_0 is formed in float64


@dataclass(frozen=True)
class Roundings:
    """How a form rounds, in units of u: `step` per transition on a path, `path` once per path.

    `spread` counts roundings relative to the largest entries of the whole sequence (FFT).
    """

    step: float
    path: float
    spread: float = 0.0


class BoundExceeded(AssertionError):
    """Raised where an observed error is larger than its bound."""


class RoundingWarning(UserWarning):
    """Warned where an error is within its bound, but larger than roundings typically make it."""


@dataclass(frozen=True)
class Comparison:
    """An observed error beside the two numbers that judge it.

    `share` is the largest error / bound: at most 1, or the comparison would have raised. `deviations`
    is the largest error in standard deviations, where one was given, and `above` the fraction of
    entries beyond `ALARM` of them.
    """

    what: str
    error: float
    bound: float
    share: float
    deviation: float | None = None
    deviations: float | None = None
    above: float | None = None

    def __str__(self) -> str:
        proof = (
            f"{self.what}: error {self.error:.2e}, bound {self.bound:.2e} ({self.share:.2g} used)"
        )
        if self.deviation is None:
            return proof
        return (
            f"{proof}; typical {self.deviation:.2e}, at most {self.deviations:.2g} times, "
            f"{self.above:.1e} beyond {ALARM:g} times"
        )


ALARM = 3.0  # standard deviations
FEW = 3e-3  # the fraction of entries that may lie beyond: a normal distribution has 2.7e-3


def unit_roundoff(dtype: torch.dtype) -> float:
    """u = 2^-p of a type: half the distance from 1 to the next number.

    >>> unit_roundoff(torch.float32) == 2.0**-24
    True
    """
    return torch.finfo(dtype).eps / 2


def smallest(dtype: torch.dtype) -> float:
    """The smallest normal number: what an underflow may cost."""
    return torch.finfo(dtype).tiny


def require_within(computed: Tensor, exact: Tensor, bound: Tensor, what: str) -> float:
    """Raise `BoundExceeded` unless |computed - exact| <= bound everywhere; return the largest share used.

    `bound` broadcasts. Non-finite numbers must agree exactly in kind.
    """
    wide = torch.complex128 if computed.is_complex() or exact.is_complex() else torch.float64
    computed, exact = computed.detach().to(wide), exact.detach().to(wide)
    if computed.shape != exact.shape:
        raise BoundExceeded(
            f"{what}: shapes {tuple(computed.shape)} and {tuple(exact.shape)} differ"
        )
    if computed.numel() == 0:
        return 0.0
    finite = torch.isfinite(computed) & torch.isfinite(exact)
    if not bool((finite | _same_kind(computed, exact)).all()):
        raise BoundExceeded(f"{what}: not finite where the reference is, or the other way round")
    error = torch.where(finite, (computed - exact).abs(), 0.0)
    limit = bound.detach().to(error.dtype).expand(error.shape)
    share = torch.where(error == 0, torch.zeros_like(error), error / limit)
    worst = share.nan_to_num(nan=torch.inf).flatten().argmax()
    found = share.flatten()[worst]
    if not bool(found <= 1):
        place = [int(i) for i in torch.unravel_index(worst, error.shape)]
        raise BoundExceeded(
            f"{what}: error {error.flatten()[worst]:.3e} at {place} exceeds its bound "
            f"{limit.flatten()[worst]:.3e} ({found:.3g} times)"
        )
    return float(found)


def compare(
    computed: Tensor, exact: Tensor, bound: Tensor, what: str, deviation: Tensor | None = None
) -> Comparison:
    r"""Judge an error by its bound, and warn where it is larger than `deviation` makes plausible.

    Raises `BoundExceeded` as `require_within` does: that is the proof, and the only failure. Warns
    with `RoundingWarning` where more than a fraction `FEW` of the entries is off by more than
    `ALARM` standard deviations: no proof, but far sharper for long memory. All numbers are
    root mean squares over the entries, but for the largest shares.

    >>> exact, bound = torch.zeros(1000), torch.full((1000,), 1e-3)
    >>> print(compare(exact + 1e-6, exact, bound, "sum", torch.full((1000,), 1e-6)))
    sum: error 1.00e-06, bound 1.00e-03 (0.001 used); typical 1.00e-06, at most 1 times, 0.0e+00 beyond 3 times
    """
    share = require_within(computed, exact, bound, what)
    wide = torch.complex128 if computed.is_complex() or exact.is_complex() else torch.float64
    error = (computed.detach().to(wide) - exact.detach().to(wide)).abs()
    error = error[torch.isfinite(error)]
    sizes = _mean_square(error), _mean_square(bound)
    if deviation is None or not error.numel():
        return Comparison(what, *sizes, share)
    full = (computed.detach().to(wide) - exact.detach().to(wide)).abs().nan_to_num(0.0, 0.0, 0.0)
    ratio = full / deviation.detach().to(full.dtype)
    ratio = torch.where(full == 0, torch.zeros_like(full), ratio)
    above = float((ratio > ALARM).double().mean())
    found = Comparison(what, *sizes, share, _mean_square(deviation), float(ratio.max()), above)
    if above > FEW:
        warnings.warn(str(found), RoundingWarning, stacklevel=2)
    return found


def _mean_square(x: Tensor) -> float:
    return float((x.detach().double() ** 2).mean().sqrt()) if x.numel() else 0.0


def require_close(found: float, expected: float, roundings: int, what: str = "number") -> None:
    """Raise `BoundExceeded` unless two float64 values agree to 2 n u |expected|, n roundings each.

    >>> require_close(0.1 + 0.2, 0.3, 2)
    """
    limit = 2 * roundings * unit_roundoff(torch.float64) * abs(expected)
    if not abs(found - expected) <= limit:
        raise BoundExceeded(f"{what}: {found!r} and {expected!r} differ by more than {limit:.3e}")


def _same_kind(computed: Tensor, exact: Tensor) -> Tensor:
    both_nan = torch.isnan(computed) & torch.isnan(exact)
    return both_nan | (computed == exact)


def orthogonal_error(
    steps: int, size: int, norm: float, dtype: torch.dtype = torch.float64
) -> float:
    """8 (steps + 1) size u ‖A‖: what `steps` QR or SVD steps of this size move a singular value by.

    Each step is backward stable (Higham 2002, theorem 19.4; Golub and Van Loan, section 8.6), with a
    small constant that LAPACK does not state: 8 is a wide margin, not a proof.
    """
    return 8 * (steps + 1) * max(1, size) * unit_roundoff(dtype) * norm


def rank_tolerance(
    rows: int, columns: int, norm: float, dtype: torch.dtype = torch.float64
) -> float:
    """max(rows, columns) · 2u · ‖A‖: singular values up to here may be rounding alone.

    The rule of `numpy.linalg.matrix_rank` (Golub and Van Loan, Matrix Computations, section 5.5.8);
    a heuristic for which entries of A are rounded, not a bound of the SVD's own error.
    """
    return max(rows, columns) * 2 * unit_roundoff(dtype) * norm
