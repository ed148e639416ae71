"""No operator takes numbers that it would silently change: whole ones, complex ones where it knows none."""

from __future__ import annotations

import pytest
import torch
from lawbook.operators import OPERATORS, copied

from dsf import kernels
from dsf.errors import InvalidInput

COMPLEX = ("gated_scan", "scan_step")
WRONG = {
    "whole": lambda x: x.to(torch.int64),
    "complex": lambda x: x.to(torch.complex64),
}


def test_every_operator_is_here() -> None:
    public = {name for name in dir(kernels) if not name.startswith("_")}
    assert {*OPERATORS, "bytes_of_step"} == public


@pytest.mark.parametrize("name", OPERATORS)
def test_right_numbers_are_taken(name: str) -> None:
    alike, own, more = OPERATORS[name]
    with torch.no_grad():
        getattr(kernels, name)(**alike, **own, **copied(more))


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", OPERATORS)
def test_one_wrong_tensor_is_named(name: str, kind: str) -> None:
    alike, own, more = OPERATORS[name]
    given = alike | own
    for wrong, x in given.items():
        with pytest.raises(InvalidInput, match=f"`{wrong}`"), torch.no_grad():
            getattr(kernels, name)(**given | {wrong: WRONG[kind](x)}, **copied(more))


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", OPERATORS)
def test_all_tensors_of_a_wrong_type_are_refused(name: str, kind: str) -> None:
    alike, own, more = OPERATORS[name]
    wrong = {each: WRONG[kind](x) for each, x in alike.items()}
    if kind == "complex" and name in COMPLEX:
        more = {each: WRONG[kind](x) for each, x in more.items()}
        getattr(kernels, name)(**wrong, **more)
        return
    with pytest.raises(InvalidInput, match="floating-point"), torch.no_grad():
        getattr(kernels, name)(**wrong, **own, **copied(more))
