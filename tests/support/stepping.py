"""Steps of decoding under one law: T of them, in place, are the whole run, and touch no other row of the cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from step_families import FAMILIES, Draw, Family, Quantities, Row
from torch import Tensor

import dsf
from dsf.forms.base import Sizes
from dsf.forms.bounds import error_bound
from dsf.forms.recurrent import Recurrent
from dsf.kernels import delta_step
from dsf.numerics import Roundings, require_within, smallest, unit_roundoff
from dsf.state import State
from dsf.system import System


@dataclass(frozen=True)
class Steps(Recurrent):
    """The recurrence, with `turns` inner steps, and exponentials whose exponents are rounded (none beyond e^-104)."""

    turns: int = 1
    deepest: float = 0.0

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        found = super().roundings(system, sizes)
        step = self.turns * found.step + 2 * min(self.deepest, 104.0)
        return Roundings(step, found.path + 4 * self.turns * system.key_size)


@dataclass(frozen=True, eq=False)
class Case:
    """A row's quantities over all steps, the cache before, and the slots."""

    row: Row
    family: Family
    x: Quantities
    cache: tuple[Tensor, ...]
    slots: Tensor | None

    @property
    def places(self) -> Tensor:
        """The rows of the active sequences."""
        row = self.row
        return torch.tensor([n if row.slots is None else row.slots[n] for n in row.active]).long()

    def at(self, t: int) -> Quantities:
        constant = self.family.constant
        return {name: v if name in constant else v[:, t] for name, v in self.x.items()}

    def told(self, dtype: torch.dtype) -> Quantities:
        """The quantities of the active sequences in a wider type, for every head."""
        found = {}
        for name, value in self.x.items():
            value = value.to(dtype.to_complex() if value.is_complex() else dtype)
            if name not in self.family.constant:
                value = value[self.row.active]
                if name in self.family.shared:
                    value = value.repeat_interleave(self.row.heads[0] // value.shape[2], 2)
            found[name] = self.row.scale * value if name == "q" else value
        return found

    def problem(self, dtype: torch.dtype) -> tuple[System, Tensor, State]:
        """The system, its tokens and initial state."""
        x, kind = self.told(dtype), self.family.kind
        memory, *others = (each[self.places] for each in self.cache)
        memory = memory.to(dtype.to_complex() if memory.is_complex() else dtype)
        if kind == "vector":
            return self.family.system(x), x["b"][..., None], State(memory[..., None, None])
        if kind == "channels":
            return self.family.system(x), x["x"][:, :, None], State(memory.mT[:, None])
        state = State(memory, *(each.to(dtype) for each in others))
        return self.family.system(x), x["v"], state


def drawn(row: Row) -> Case:
    family, draw = FAMILIES[row.family], Draw(row)
    x = family.draw(draw)
    rows = row.rows if row.rows is not None else row.batch
    H, K, V = row.heads[0], row.keys, row.values
    shapes = {
        "matrix": [(H, K, V)],
        "mlstm": [(H, K, V), (H, K), (H,)],
        "vector": [(V,)],
        "channels": [(V, K)],
    }[family.kind]
    cache = [draw.normal(rows, *shape) for shape in shapes]
    if family.kind == "vector":
        cache = [each.to(torch.promote_types(each.dtype, row.dtype)) for each in cache]
    if row.family == "mlstm":
        cache[2][::2] = -torch.inf  # half of the rows are new
        cache[0][::2], cache[1][::2] = 0.0, 0.0
    slots = None if row.slots is None else torch.tensor(row.slots, dtype=torch.int64)
    return Case(row, family, x, tuple(cache), slots)


def stepped(case: Case) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Outputs of all steps (B, T, …) and the cache after them."""
    cache = tuple(each.clone() for each in case.cache)
    outputs = [
        case.family.step(cache, case.at(t), case.row.scale, case.slots)
        for t in range(case.row.length)
    ]
    return torch.stack(outputs, 1), cache


def law_steps_are_the_run(row: Row) -> None:
    """Outputs and states within their bounds of the recurrence in float64; other rows bit for bit as they were."""
    case = drawn(row)
    outputs, cache = stepped(case)
    resting = [n for n in range(row.batch) if n not in row.active]
    assert not outputs[resting].any(), "a sequence at rest has an output"
    others = [n for n in range(len(cache[0])) if n not in case.places.tolist()]
    for before, after in zip(case.cache, cache, strict=True):
        assert torch.equal(before[others], after[others]), "a row without a sequence changed"
    wide = torch.promote_types(row.dtype, torch.float32).to_real()
    system, tokens, start = case.problem(torch.float64)
    expected, end = dsf.run(system, tokens, start, form="recurrent")
    deepest = max((_largest(case.x[name]) for name in case.x if name in "gfA"), default=0.0)
    form = Steps(turns=case.family.turns, deepest=deepest)
    told, told_tokens, told_start = case.problem(wide)
    limits = error_bound(told, told_tokens, told_start, form=form)
    u = unit_roundoff(row.dtype.to_real())
    found, exact = outputs[row.active], _like_outputs(case, expected)
    rounded = 2 * u * exact.abs() + smallest(row.dtype.to_real())
    require_within(found, exact, _like_outputs(case, limits.outputs) + rounded, "outputs")
    memory, limit = (_like_cache(case, each) for each in (end.memory, limits.memory))
    require_within(cache[0][case.places], memory, limit, "states")
    if case.family.kind == "mlstm":
        assert end.normaliser is not None and end.stabiliser is not None
        assert limits.normaliser is not None
        require_within(cache[1][case.places], end.normaliser, limits.normaliser, "normalisers")
        size = sum(_largest(x) for x in (end.stabiliser, case.x["f"], case.x["i"]))
        bound = torch.tensor(2 * row.length * unit_roundoff(wide) * size)
        require_within(cache[2][case.places], end.stabiliser, bound, "stabilisers")


def _largest(x: Tensor) -> float:
    """The largest finite |x|, 0 where there is none."""
    finite = x[x.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0


def law_micro_steps_are_steps() -> None:
    """A token of several micro-steps is as many tokens, of which the first decays; bit for bit."""
    draw = Draw(Row("micro-steps", "delta product", length=1, heads=(2, 1, 2, 1)))
    x = {name: value[:, 0] for name, value in draw.tokens(unit=True, turns=(3,)).items()}
    beta, g = draw.uniform(2, 2, 3), -draw.uniform(2, 2, 5)
    one = draw.normal(2, 2, 5, 6)
    other = one.clone()
    y = delta_step(one, x["q"], x["k"], x["v"], beta, g)
    for turn in range(3):
        key, value = x["k"][:, :, turn], x["v"][:, :, turn]
        last = delta_step(other, x["q"], key, value, beta[..., turn], None if turn else g)
    assert torch.equal(one, other) and torch.equal(y, last)


def _like_outputs(case: Case, x: Tensor) -> Tensor:
    return (
        x[..., 0]
        if case.family.kind == "vector"
        else x[:, :, 0]
        if case.family.kind == "channels"
        else x
    )


def _like_cache(case: Case, x: Tensor) -> Tensor:
    if case.family.kind == "vector":
        return x[..., 0, 0]
    return x[:, 0].mT if case.family.kind == "channels" else x
