"""Smaller recurrences: a system of given size, or of given error, for any causal map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from dsf.errors import InvalidInput, Refusal
from dsf.numerics import rank_tolerance
from dsf.system import System

from .compression import compress
from .norms import operator_norm
from .realization import Heads, Realization, heads_of, system_of
from .sweeps import observability_roots, reachability_roots
from .truncation import Truncated, balanced, sequential

Method = Literal["sequential", "balanced"]

_SHARE = 0.1  # of an allowed error that the compression of a mixing matrix may use up

_THEOREMS = {
    "sequential": "the root of the sum over cuts of the squares of the largest singular value dropped",
    "balanced": "the smaller of the sum over cuts of the largest Hankel singular value dropped, and "
    "twice the sum over dropped states and their monotone runs in time of the largest one of the run",
}


@dataclass(frozen=True, eq=False)
class Reduction:
    """A smaller system with its error, heads in the order of the original's.

    | field    | meaning                                                                             |
    |----------|-------------------------------------------------------------------------------------|
    | `system` | the recurrence, one Block per step, states filled up with zeros to the largest      |
    | `orders` | (…, T + 1), the size of the state that is used at each cut                          |
    | `error`  | (…), ‖Φ - Φ̂‖₂ as measured, an estimate from float64                                |
    | `bound`  | (…), what ‖Φ - Φ̂‖₂ cannot exceed by the theorem of the method                       |
    | `floor`  | (…), max_i σ_{n_i+1}(i): no recurrence with states of these sizes is closer         |
    | `norm`   | (…), ‖Φ‖₂                                                                            |
    | `method` | "sequential" or "balanced"                                                          |
    | `rule`   | the theorem in words; its derivation stands in `dsf.analysis.truncation`            |
    """

    system: System
    orders: np.ndarray
    error: np.ndarray
    bound: np.ndarray
    floor: np.ndarray
    norm: np.ndarray
    method: Method
    rule: str

    @property
    def order(self) -> int:
        """The largest state of any head at any cut: the K of `system`."""
        return int(self.orders.max(initial=0))

    @property
    def relative_error(self) -> np.ndarray:
        """‖Φ - Φ̂‖₂ / ‖Φ‖₂ (…), 0 for Φ = 0."""
        return np.asarray(
            np.divide(self.error, self.norm, out=np.zeros_like(self.error), where=self.norm > 0)
        )


@dataclass(frozen=True, eq=False)
class _Head:
    """One head before its reduction."""

    phi: np.ndarray
    realization: Realization
    lost: float  # by the compression of Φ
    norm: float
    noise: float  # singular values up to here may be rounding alone
    values: list[np.ndarray]
    roots: list[np.ndarray]


def reduce(
    of: System | Tensor | np.ndarray,
    *,
    order: int | None = None,
    tolerance: float | None = None,
    method: Method = "sequential",
    length: int | None = None,
) -> Reduction:
    r"""A recurrence of at most `order` states, or with ‖Φ - Φ̂‖₂ <= `tolerance` · ‖Φ‖₂ by its theorem.

    `of` is a `System` or mixing matrices Φ (…, T, T). With a tolerance each head gets the fewest
    states for which the bound of the method keeps it; `smallest_recurrence` goes by the measured
    error, which is less. Work T n³ for a system with n states, once per order tried.
    Raises `InvalidInput` unless exactly one of `order` and `tolerance` is given.

    >>> phi = np.tril(np.ones((6, 6)))
    >>> small = reduce(phi, order=1)
    >>> small.order, bool(small.error < 1e-12)
    (1, True)
    """
    if (order is None) == (tolerance is None):
        raise InvalidInput("give exactly one of `order` and `tolerance`")
    _check(method, tolerance)
    if order is not None and order < 0:
        raise InvalidInput(f"`order` must not be negative; got {order}")
    most = None if order is None else 4 * order + 32
    heads, members = _prepare(of, length, _SHARE * (tolerance or 0.0), most)
    if order is not None:
        small = [_capped(head, order, method) for head in members]
    elif tolerance:
        found = [_smallest(head, tolerance, method, _bounded) for head in members]
        pairs = zip(members, found, strict=True)  # None: all states, whose bound is rounding alone
        small = [one or _capped(head, None, method) for head, one in pairs]
    else:
        small = [_capped(head, None, method) for head in members]
    return _result(heads, members, small, method)


def minimal_realization(of: System | Tensor | np.ndarray, length: int | None = None) -> Reduction:
    r"""The smallest recurrence of a causal map: n_i = rank Φ[i:, :i] states at cut i, no error but rounding.

    No realization has fewer states at any cut, since Φ[i:, :i] factors through its state. Ranks are
    decided at the rounding of their computation (`dsf.numerics.rank_tolerance`); for exact ranks of
    rational maps see `dsf.analysis.exact`. Source: Dewilde and van der Veen, "Time-varying systems
    and computations" (1998), chapter 3 (realization from the Hankel operators' ranks).

    >>> q = np.arange(1.0, 7.0)
    >>> phi = np.tril(np.outer(q, 1 / q))
    >>> minimal_realization(phi).orders.tolist()
    [0, 1, 1, 1, 1, 1, 0]
    """
    return reduce(of, tolerance=0.0, length=length)


def smallest_recurrence(
    of: System | Tensor | np.ndarray,
    tolerance: float = 0.01,
    *,
    method: Method = "sequential",
    largest: int = 64,
    length: int | None = None,
) -> Reduction | Refusal:
    r"""How small a recurrence reproduces these heads to `tolerance`, and the recurrence itself.

    The answer is `order` of the result: the fewest states for which the measured ‖Φ - Φ̂‖₂ of every
    head is at most `tolerance` · ‖Φ‖₂, found by bisection. `hankel(of).needed(tolerance)` is what no
    recurrence can undercut. A `Refusal` where `largest` states do not reach it.

    >>> from dsf.analysis import hankel
    >>> t = np.arange(64)
    >>> phi = np.tril(1.0 / (1 + t[:, None] - t[None, :]).clip(1))  # no finite recurrence is exact
    >>> found = smallest_recurrence(phi, 0.01)
    >>> found.order, int(hankel(phi).needed(0.01))
    (3, 3)
    """
    _check(method, tolerance)
    if not tolerance:
        raise InvalidInput("`tolerance` must be positive; use `minimal_realization` for none")
    least = _needed_at_sampled_cuts(of, tolerance)
    if least > largest:
        return _too_large(least, largest)
    most = largest + largest // 2  # enough to choose `largest` well from
    heads, members = _prepare(of, length, _SHARE * tolerance, most)
    small = []
    for head in members:
        found = _smallest(head, tolerance, method, _measured, largest)
        if found is None:
            return _too_large(_needed(head, tolerance), largest)
        small.append(found)
    return _result(heads, members, small, method)


def _check(method: str, tolerance: float | None) -> None:
    if method not in _THEOREMS:
        raise InvalidInput(f"`method` must be 'sequential' or 'balanced'; got {method!r}")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise InvalidInput(f"`tolerance` must be in [0, 1); got {tolerance}")


def _too_large(least: int, largest: int) -> Refusal:
    return Refusal(
        "smallest recurrence",
        f"`largest` = {largest} states do not reach this accuracy; no recurrence has it with fewer than "
        f"{least}.",
        "Allow a larger error, or raise `largest`; a cache of keys and values may be smaller.",
    )


def _prepare(
    of: System | Tensor | np.ndarray, length: int | None, share: float, most: int | None
) -> tuple[Heads, list[_Head]]:
    """Each head with its Φ, a realization within `share` · ‖Φ‖₂ of it, and what all sweeps need."""
    given = heads_of(of, length)
    if isinstance(given, Heads):
        pairs = [(r.matrix(), r) for r in given.members]
        return given, [_head(phi, r, 0.0, operator_norm(phi)) for phi, r in pairs]
    found = []
    for phi in given.reshape(-1, *given.shape[-2:]):
        norm = operator_norm(phi)
        found.append(_head(phi, *compress(phi, share * norm, most), norm))
    return Heads(given.shape[:-2], tuple(head.realization for head in found)), found


def _head(phi: np.ndarray, r: Realization, lost: float, norm: float) -> _Head:
    future, past = observability_roots(r), reachability_roots(r)
    pairs = list(zip(future, past, strict=True))
    reach = max(float(np.linalg.norm(u) * np.linalg.norm(root)) for u, root in pairs)
    noise = rank_tolerance(max(r.orders), max(r.orders), reach)
    noise = max(noise, rank_tolerance(r.length, r.length, norm))
    values = [np.linalg.svd(u @ root, compute_uv=False) for u, root in pairs]
    return _Head(phi, r, lost, norm, noise, values, future)


def _capped(head: _Head, order: int | None, method: Method) -> Truncated:
    """At most `order` states at every cut, and none for what is rounding alone."""

    def keep(_: int, sizes: np.ndarray) -> int:
        kept = int((sizes > head.noise).sum())
        return kept if order is None else min(order, kept)

    if method == "balanced":
        return balanced(head.realization, keep)
    return sequential(head.realization, keep, head.roots)


def _bounded(head: _Head, small: Truncated) -> float:
    return small.bound + head.lost


def _measured(head: _Head, small: Truncated) -> float:
    return operator_norm(head.phi - small.realization.matrix())


def _smallest(
    head: _Head,
    tolerance: float,
    method: Method,
    error: Callable[[_Head, Truncated], float],
    most: int | None = None,
) -> Truncated | None:
    """The fewest states, up to `most`, whose error is allowed: steps that double, then bisection."""
    allowed, cap = tolerance * head.norm, max(head.realization.orders)
    cap = cap if most is None else min(cap, most)
    low = order = min(_needed(head, tolerance), cap)
    best, step = None, 1
    while best is None or low < best[0]:
        small = _capped(head, order, method)
        if error(head, small) <= allowed:
            best = order, small
        elif order == cap:
            return None
        else:
            low = order + 1
        order = min(low + step - 1, cap) if best is None else (low + best[0]) // 2
        step *= 2
    return best[1]


def _needed(head: _Head, tolerance: float) -> int:
    """Singular values above the tolerance that the compression cannot have made (Weyl)."""
    limit = tolerance * head.norm + head.lost
    return max((int((x > limit).sum()) for x in head.values), default=0)


def _needed_at_sampled_cuts(of: System | Tensor | np.ndarray, tolerance: float) -> int:
    """A lower bound of the states needed, from three cuts of Φ; 0 for systems, whose n is known."""
    if isinstance(of, System):
        return 0
    array = heads_of(of)
    assert isinstance(array, np.ndarray)
    steps, needed = array.shape[-1], 0
    for phi in array.reshape(-1, steps, steps):
        limit = tolerance * operator_norm(phi)
        for cut in {steps // 4, steps // 2, 3 * steps // 4} - {0}:
            sizes = np.linalg.svd(phi[cut:, :cut], compute_uv=False)
            needed = max(needed, int((sizes > limit).sum()))
    return needed


def _floor(head: _Head, small: Truncated) -> float:
    pairs = zip(head.values, small.realization.orders, strict=True)
    found = max((float(x[n]) for x, n in pairs if n < len(x)), default=0.0)
    return max(found - head.lost, 0.0)


def _result(
    heads: Heads, members: list[_Head], small: list[Truncated], method: Method
) -> Reduction:
    pairs = list(zip(members, small, strict=True))
    lead = heads.lead

    def per_head(values: list[float]) -> np.ndarray:
        return np.array(values, dtype=float).reshape(lead)

    reduced = replace(heads, members=tuple(one.realization for one in small))
    return Reduction(
        system_of(reduced),
        heads.stack([np.array(one.realization.orders) for one in small]),
        per_head([_measured(*pair) for pair in pairs]),
        per_head([_bounded(*pair) for pair in pairs]),
        per_head([_floor(*pair) for pair in pairs]),
        per_head([head.norm for head in members]),
        method,
        _THEOREMS[method],
    )
