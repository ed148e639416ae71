r"""When the FLOP bound is attained, and what else holds of tiles: by exhaustion over one axis.

A pattern is a product over axes, so what one axis lacks the pattern lacks (`product-structure`).
Each claim enumerates every axis up to a length. The evidence is the number of cases and the first
that contradicts; the judge enumerates again by the definition, pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Level, Status, Task, Verdict

from ..axis import Axis
from ..axis_counts import count_axis
from ..block_sparsity import natten_axis
from .definition import axis_mask, axis_tiles


class Case(NamedTuple):
    """One axis and its tiles."""

    length: int
    window: int
    stride: int
    causal: bool
    q: int
    kv: int
    dynamic: bool

    @property
    def axis(self) -> Axis:
        return Axis(self.length, self.window, self.stride, 1, self.causal)


class Truth(NamedTuple):
    """What a case is, by the simulator or by the definition."""

    visited: int
    most: int
    full: int
    pairs: int

    @property
    def exact(self) -> bool:
        return self.visited == self.full


Statement = Callable[[Case, Truth], bool]
_LONGEST = {Budget.SMOKE: 9, Budget.DEFAULT: 14, Budget.FULL: 24}
_TILES = (1, 2, 3, 4, 8)
_SHIPPED = (2, 4, 8)  # what NATTEN's forward kernels have per axis, up to a length of 24


def _cases(longest: int, dynamic: bool, causal: tuple[bool, ...], tiles: tuple) -> Iterator[Case]:
    for length in range(2, longest + 1):
        for window in range(2, length + 1):
            for stride in range(1, window + 1):
                for flag, q, kv in product(causal, tiles, tiles):
                    if q <= length and kv <= length:
                        yield Case(length, window, stride, flag, q, kv, dynamic)


def _simulated(case: Case) -> Truth:
    counts = count_axis(case.axis, case.q, case.kv, case.dynamic)
    return Truth(counts.visited, counts.most, counts.full, case.axis.pairs)


def _defined(case: Case) -> Truth:
    mask = axis_mask(case.length, case.window, case.stride, case.causal)
    visited, full = axis_tiles(mask, case.q, case.kv, case.dynamic)
    return Truth(int(visited.sum()), int(visited.max()), int(full.sum()), int(mask.sum()))


def _sweep(cases: Iterator[Case], truth: Callable[[Case], Truth], statement: Statement) -> Evidence:
    """How many cases there are, how many contradict, and the first of them."""
    total = contrary = 0
    first: list[int] = []
    for case in cases:
        total += 1
        if not statement(case, truth(case)):
            contrary += 1
            first = first or list(map(int, case))
    return {"cases": total, "contrary": contrary, "first": first}


def _fits(case: Case) -> bool:
    return case.stride % case.q == 0 and case.window % case.kv == 0


def _dynamic_suffices(case: Case, truth: Truth) -> bool:
    return truth.exact or not _fits(case)


def _aligned(case: Case) -> bool:
    """Every query tile has one window that starts on a KV tile and ends on one or at the end."""
    axis, kv = case.axis, case.kv
    for first in range(0, case.length, case.q):
        start, end = axis.interval(first, case.length)
        last = min(first + case.q, case.length) - 1
        if axis.interval(last, case.length) != (start, end) or start % kv:
            return False
        if end % kv and end != case.length:
            return False
    return True


def _aligned_exactly(case: Case, truth: Truth) -> bool:
    return truth.exact == _aligned(case)


def _divides(case: Case) -> bool:
    return case.length % case.q == 0 and case.length % case.kv == 0


def _ordered(case: Case, truth: Truth) -> bool:
    """flop >= mean >= worst in integers, and all equal exactly where no mask is needed."""
    if not _divides(case):
        return True
    q_tiles, kv_tiles = case.length // case.q, case.length // case.kv
    dense, covered = case.length**2, truth.visited * case.q * case.kv
    order = truth.pairs <= covered and truth.visited <= q_tiles * truth.most
    equal = truth.pairs == covered and truth.visited == q_tiles * truth.most
    return order and equal == truth.exact and dense == q_tiles * case.q * kv_tiles * case.kv


def _never_causal(case: Case, truth: Truth) -> bool:
    return truth.exact == (case.q == case.kv == 1)


def _sound(case: Case, truth: Truth) -> bool:
    return truth.exact or not natten_axis(case.axis, case.q, case.kv)


def _complete(case: Case, truth: Truth) -> bool:
    return not truth.exact or natten_axis(case.axis, case.q, case.kv)


def _not_of_fit(case: Case, truth: Truth) -> bool:
    """False somewhere: that tiles that do not fit never do without a mask, or fitting ones need one."""
    return truth.exact == _fits(case)


def _claim(
    name: str,
    title: str,
    formula: str,
    statement: Statement,
    falsehood: Statement,
    *,
    dynamic: bool = False,
    causal: tuple[bool, ...] = (False,),
    tiles: tuple[int, ...] = _TILES,
    holds: bool = True,
) -> Claim:
    """A claim over all cases; `falsehood` is a statement with the opposite verdict, the control."""
    by_name = {"statement": statement, "falsehood": falsehood}

    def instance(task: Task) -> Evidence:
        return {"longest": _LONGEST[task.budget]}

    def found(which: str) -> Callable[[Evidence], Evidence]:
        def witness(drawn: Evidence) -> Evidence:
            cases = _cases(drawn["longest"], dynamic, causal, tiles)
            return {**drawn, "which": which, **_sweep(cases, _simulated, by_name[which])}

        return witness

    def judge(evidence: Evidence) -> Verdict:
        longest, which = evidence["longest"], evidence["which"]
        if which not in by_name or longest not in _LONGEST.values():
            return Verdict(Status.INCONCLUSIVE, remark="the evidence is of another claim")
        again = _sweep(_cases(longest, dynamic, causal, tiles), _defined, by_name[which])
        if any(evidence[key] != again[key] for key in again):
            return Verdict(Status.INCONCLUSIVE, remark="counts differ from those by the definition")
        contrary = again["contrary"]
        status = Status.VIOLATED if contrary else Status.HOLDS
        remark = f"{again['cases']} cases to length {longest}"
        if contrary:
            shown = ", ".join(f"{k} {v}" for k, v in zip(Case._fields, again["first"], strict=True))
            remark += f"; the first of {contrary} contrary: {shown}"
        return Verdict(status, float(contrary), 0.0, 0.0, remark=remark)

    return Claim(
        id=f"hassani2025.{name}",
        title=title,
        statement=formula,
        citation="Hassani et al. 2025, arXiv 2504.16922, section 4.2; exact form and proof: own",
        level=Level.ENCLOSED,
        expected=Status.HOLDS if holds else Status.VIOLATED,
        bound_rule="every axis up to the length, in integers",
        instance=instance,
        witness=found("statement"),
        control=found("falsehood"),
        judge=judge,
    )


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "dynamic-suffices",
        "With dynamic KV tiles it is enough that tiles divide stride and window",
        r"$T_Q \mid s,\; T_{KV} \mid w$ $\Rightarrow$ every visited tile is full",
        _dynamic_suffices,
        _not_of_fit,
        dynamic=True,
    ),
    _claim(
        "static-suffices",
        "With static KV tiles the same is not enough, even where tiles divide the layout",
        r"$T_Q \mid s,\; T_{KV} \mid w$ $\Rightarrow$ every visited tile is full (static tiles)",
        lambda case, truth: _dynamic_suffices(case, truth) or not _divides(case),
        _aligned_exactly,
        holds=False,
    ),
    _claim(
        "static-exactly",
        "With static KV tiles: one window per query tile, on KV tiles at both ends, and only so",
        r"full $\Leftrightarrow$ $\mathrm{start}(a) = \mathrm{start}(b)$, "
        r"$T_{KV} \mid \mathrm{start}$, and $T_{KV} \mid \mathrm{end}$ or $\mathrm{end} = n$",
        _aligned_exactly,
        _not_of_fit,
    ),
    _claim(
        "order-of-bounds",
        "The FLOP bound is over the mean, the mean over the worst tile, equal where no mask is needed",
        r"$\mathrm{flop} \geq \mathrm{mean} \geq \mathrm{worst}$, all equal $\Leftrightarrow$ block-sparse",
        _ordered,
        lambda case, truth: _ordered(case, truth._replace(full=0)),
    ),
    _claim(
        "causal-never",
        "A causal axis is block-sparse only with tiles of one query and one key",
        r"causal: full $\Leftrightarrow$ $T_Q = T_{KV} = 1$",
        _never_causal,
        lambda case, truth: not truth.exact,
        causal=(True,),
    ),
    _claim(
        "predicate-sound",
        "NATTEN's predicate never skips a mask that is needed, for tiles of 2, 4 and 8",
        r"predicate $\Rightarrow$ every visited tile is full",
        _sound,
        _complete,
        tiles=_SHIPPED,
    ),
    _claim(
        "predicate-sound-for-all-tiles",
        "NATTEN's predicate skips a mask that is needed where a query tile has one token on an axis",
        r"predicate $\Rightarrow$ every visited tile is full ($T_Q = 1$ and tiles of 3 included)",
        _sound,
        lambda case, truth: _sound(case, truth) or case.q == 1 or 3 in (case.q, case.kv),
        holds=False,
    ),
    _claim(
        "predicate-complete",
        "NATTEN's predicate does not find every axis that needs no mask",
        r"every visited tile is full $\Rightarrow$ predicate",
        _complete,
        _sound,
        tiles=_SHIPPED,
        holds=False,
    ),
)


def _products(longest: int) -> Iterator[tuple[Case, Case]]:
    """Pairs of axes, one bidirectional and one causal, tiles of 2 and 3."""
    shapes = [(n, w, s) for n in range(2, longest + 1) for w in range(2, n + 1) for s in (1, w)]
    for (n, w, s), (m, v, r) in product(shapes, shapes):
        yield Case(n, w, s, False, 2, 3, False), Case(m, v, r, True, 3, 2, False)


_PLANE = {Budget.SMOKE: 4, Budget.DEFAULT: 6, Budget.FULL: 8}


def _product_counts(drawn: Evidence, axes: int) -> Evidence:
    rows = []
    for pair in _products(drawn["longest"]):
        totals = [_simulated(case) for case in pair[:axes]]
        rows.append([int(np.prod([getattr(t, key) for t in totals])) for key in Truth._fields])
    return {**drawn, "rows": np.array(rows)}


def _judge_products(evidence: Evidence) -> Verdict:
    if evidence["longest"] not in _PLANE.values():
        return Verdict(Status.INCONCLUSIVE, remark="the evidence is of another claim")
    differ = cases = 0
    for (first, second), row in zip(
        _products(evidence["longest"]), evidence["rows"].tolist(), strict=True
    ):
        masks = [axis_mask(c.length, c.window, c.stride, c.causal) for c in (first, second)]
        plane = masks[0][:, None, :, None] & masks[1][None, :, None, :]
        visits, full = [], 0
        for at in product(range(0, first.length, 2), range(0, second.length, 3)):
            rows = plane[at[0] : at[0] + 2, at[1] : at[1] + 3]
            tiles = [
                rows[:, :, i : i + 3, j : j + 2]
                for i in range(0, first.length, 3)
                for j in range(0, second.length, 2)
            ]
            visits.append(sum(bool(tile.any()) for tile in tiles))
            full += sum(bool(tile.all()) for tile in tiles)
        cases += 1
        differ += row != [sum(visits), max(visits), full, int(plane.sum())]
    status = Status.VIOLATED if differ else Status.HOLDS
    return Verdict(status, float(differ), 0.0, 0.0, remark=f"{cases} patterns of two axes")


PRODUCT_STRUCTURE = Claim(
    id="hassani2025.product-structure",
    title="Totals, maxima, full tiles and pairs of two axes are the products of each one's",
    statement=r"$N(A \times B) = N(A) \, N(B)$ for visited, worst, full tiles and pairs",
    citation="Own; stands behind the simulator of Hassani et al. 2025, arXiv 2504.16922, section 4.2",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="every pattern up to the length, in integers, against the mask of the plane",
    instance=lambda task: {"longest": _PLANE[task.budget]},
    witness=lambda drawn: _product_counts(drawn, 2),
    control=lambda drawn: _product_counts(drawn, 1),
    judge=_judge_products,
)

CLAIMS = (*CLAIMS, PRODUCT_STRUCTURE)
