"""A call of every operator: its tensors of one type, those with a type of their own, and what else it needs."""

from __future__ import annotations

from typing import Any

import torch

from dsf.sim import Pattern

B, T, H, K, V, N = 2, 5, 2, 4, 3, 3


def _of(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


_token = {"q": _of(B, H, K), "k": _of(B, H, K), "v": _of(B, H, V)}
_vectors = {"q": _of(B, T, H, K), "k": _of(B, T, H, K), "v": _of(B, T, H, V)}
_gate, _gates, _memory = -_of(B, T, H), -_of(B, T, H, K), _of(B, H, K, V)
_low = {"a": _of(B, T, H, K), "b": _of(B, T, H, K)}
_scans = {"x": _of(B, T, V), "delta": _of(B, T, V), "b": _of(B, T, 1, N), "c": _of(B, T, 1, N)}
OPERATORS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
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


def copied(more: dict[str, Any]) -> dict[str, Any]:
    """With states of its own, since steps change them."""
    return {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in more.items()}
