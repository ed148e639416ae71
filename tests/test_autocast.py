"""No result changes under `torch.autocast`, which lowers the precision of products around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any

import pytest
import torch
from lawbook import mixers
from lawbook.bits import same
from lawbook.operators import OPERATORS, copied
from torch import Tensor

import dsf
from dsf import kernels
from dsf.forms import explain
from dsf.mixers import ARCHITECTURES, Draw, gated_deltanet, retnet
from dsf.registry import resolve
from dsf.structure import Dense


def unchanged(compute: Callable[[], Any]) -> None:
    """Raise unless `compute` gives the very same numbers inside and outside of autocast."""
    outside = compute()
    with torch.autocast("cpu", torch.bfloat16):
        inside = compute()
    for a, b in zip(_tensors(outside), _tensors(inside), strict=True):
        same(b, a, "under autocast")


def _tensors(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    if is_dataclass(x):
        x = [getattr(x, name) for name in x.__dataclass_fields__]
    return [y for each in x for y in _tensors(each)] if isinstance(x, list | tuple) else []


@pytest.mark.parametrize("reference", ARCHITECTURES)
def test_runs(reference: str) -> None:
    architecture = resolve(reference)
    draw = Draw(torch.Generator().manual_seed(0), 2, 20, 2, 4, 3)
    sample = architecture.sample(replace(draw, dtype=torch.float32))
    system = architecture.build(**sample.quantities)
    for row in explain(system, sample.tokens):
        if row.refusal is None and not row.form.startswith("triton"):
            unchanged(lambda form=row.form: dsf.run(system, sample.tokens, form=form))
    if system.boundaries is None:
        unchanged(lambda: dsf.mixing_matrix(system, 20))


@pytest.mark.parametrize("row", mixers.ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_mixers(row: mixers.Row) -> None:
    quantities, values = row.sample()
    narrow = {name: x.float() if x.is_floating_point() else x for name, x in quantities.items()}
    unchanged(lambda: row.build(**narrow)(values.float()))
    unchanged(lambda: row.build(**narrow).matrix())


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    alike, own, more = OPERATORS[name]
    with torch.no_grad():
        unchanged(lambda: getattr(kernels, name)(**alike, **own, **copied(more)))


@pytest.mark.parametrize("form", ("scan", "chunkwise"))
def test_gradients(form: str) -> None:
    """Also where the way back is called inside, which torch advises against."""
    q, k, v = torch.randn(3, 2, 70, 2, 8, generator=torch.Generator().manual_seed(0)).unbind()

    def gradient() -> Tensor:
        leaf = q.clone().requires_grad_()
        gate = torch.tensor([0.9, 0.5])
        system = retnet(leaf, k, decay=gate) if form == "scan" else _delta(leaf, k)
        return torch.autograd.grad(dsf.run(system, v, form=form)[0].sum(), leaf)[0]

    unchanged(gradient)


def _delta(q: Tensor, k: Tensor) -> dsf.System:
    g = torch.full(q.shape[:3], 0.5)
    return gated_deltanet(q, torch.nn.functional.normalize(k, dim=-1), -g, g)


def test_products_of_structures() -> None:
    first, second = torch.randn(
        2, 1, 1, 1, 5, 5, generator=torch.Generator().manual_seed(0)
    ).unbind()
    unchanged(lambda: dsf.compose(Dense(first), Dense(second)).leaves)


def test_the_law_sees_a_product_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    q, k, v = torch.randn(3, 2, 70, 2, 8, generator=torch.Generator().manual_seed(0)).unbind()
    with pytest.raises(AssertionError):
        unchanged(lambda: dsf.run(_delta(q, k), v, form="recurrent"))
