"""No operator takes numbers that it would silently change: whole ones, complex ones where it knows none."""

from __future__ import annotations

import pytest
import torch

from dsf import kernels
from dsf.errors import InvalidInput
from dsf.sim import Pattern

B, T, H, K, V, N = 2, 5, 2, 4, 3, 3


def _of(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


_token = {"q": _of(B, H, K), "k": _of(B, H, K), "v": _of(B, H, V)}
_vectors = {"q": _of(B, T, H, K), "k": _of(B, T, H, K), "v": _of(B, T, H, V)}
_gate, _gates, _memory = -_of(B, T, H), -_of(B, T, H, K), _of(B, H, K, V)
_low = {"a": _of(B, T, H, K), "b": _of(B, T, H, K)}
_scans = {"x": _of(B, T, V), "delta": _of(B, T, V), "b": _of(B, T, 1, N), "c": _of(B, T, 1, N)}
# Per operator: tensors of one type; those with a type of their own; what else a call needs.
OPERATORS = {
    "scalar_decay": (_vectors, {"g": _gate, "initial_state": _memory}, {}),
    "diagonal_decay": (
        _vectors,
        {"g": _gates, "initial_state": _memory, "bonus": _of(H, K)},
        {},
    ),
    "delta_rule": (_vectors, {"beta": -_gate, "g": _gate, "initial_state": _memory}, {}),
    "dplr_rule": (_vectors | _low, {"g": _gates, "initial_state": _memory}, {}),
    "gated_scan": ({"a": _of(B, T, V), "b": _of(B, T, V)}, {}, {}),
    "elementwise_scan": (
        {"x": _of(B, T, H, V), "a": _of(B, T, H, K, V), "w": _of(B, T, H, K, V)}
        | {"c": _of(B, T, H, K)},
        {"initial_state": _memory},
        {},
    ),
    "selective_scan": (
        _scans,
        {"A": -_of(V, N), "initial_state": _of(B, V, N), "skip": _of(V)},
        {},
    ),
    "flash_attention": (_vectors, {}, {}),
    "neighborhood_attention": (_vectors, {}, {"pattern": Pattern((T,), (3,))}),
    "decay_step": (
        _token,
        {"g": -_of(B, H), "beta": _of(B, H), "bonus": _of(H, K)},
        {"state": _memory, "timing": "before"},
    ),
    "delta_step": (_token, {"beta": _of(B, H), "g": -_of(B, H)}, {"state": _memory}),
    "dplr_step": (
        _token,
        {"a": _of(B, H, K), "b": _of(B, H, K), "g": -_of(B, H)},
        {"state": _memory},
    ),
    "mlstm_step": (
        _token,
        {"input_gate": _of(B, H), "log_forget": -_of(B, H)},
        {"state": _memory, "normaliser": _of(B, H, K), "stabiliser": _of(B, H)},
    ),
    "scan_step": ({"a": _of(B, V), "b": _of(B, V)}, {}, {"state": _of(B, V)}),
    "selective_step": (
        {"x": _of(B, V), "delta": _of(B, V), "b": _of(B, 1, N), "c": _of(B, 1, N)},
        {"A": -_of(V, N), "skip": _of(V)},
        {"state": _of(B, V, N)},
    ),
}
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
        getattr(kernels, name)(**alike, **own, **_copied(more))


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", OPERATORS)
def test_one_wrong_tensor_is_named(name: str, kind: str) -> None:
    alike, own, more = OPERATORS[name]
    given = alike | own
    for wrong, x in given.items():
        with pytest.raises(InvalidInput, match=f"`{wrong}`"), torch.no_grad():
            getattr(kernels, name)(**given | {wrong: WRONG[kind](x)}, **_copied(more))


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
        getattr(kernels, name)(**wrong, **own, **_copied(more))


def _copied(more: dict[str, object]) -> dict[str, object]:
    return {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in more.items()}
