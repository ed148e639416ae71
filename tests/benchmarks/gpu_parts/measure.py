"""Times of one case at one size, beside the floor of memory and beside what one would use instead."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import clocks
from .case import Case, Function, Inputs, Peer, Sizes
from .peers import missing
from .verdicts import best


def times(
    case: Case, sizes: Sizes, dtype: str, device: str, seed: str, copy_tb_s: float, budget_ms: float
) -> dict[str, Any]:
    """Forward, and forward with backward, in milliseconds; peers likewise on the same inputs."""
    operator, pure = case.function(), case.pure()
    if operator is None or pure is None:
        raise LookupError(f"{case.operator} is not there")
    where = torch.device(device)
    first = case.inputs(device, dtype, sizes, seed)
    several = clocks.sets_of_inputs(first.bytes, where)
    sets = [first] + [case.inputs(device, dtype, sizes, f"{seed} {n}") for n in range(1, several)]
    row: dict[str, Any] = {"tokens": sizes.tokens, "copy_tb_s": copy_tb_s}
    ours = _run(pure, first)
    row |= _timed(case, operator, sets, where, budget_ms)
    for part, moved in _bytes(first, ours, case.backward).items():
        floor = moved / (1e9 * copy_tb_s)
        row[part] |= {"bytes": moved, "floor_ms": floor}
        if ms := best(row, part):
            row[part]["share"] = floor / ms
            if case.flops is not None and part == "forward":
                row[part]["tflop_s"] = case.flops(sizes) / (1e9 * ms)
    row["peers"] = {}
    if case.against is not None:
        row["against"] = case.against
    if case.bound is not None:
        row["bound"] = case.bound(sizes, dtype, where)
    for peer in case.peers:
        if peer.sizes is not None and (sizes.name not in peer.sizes or where.type != "cuda"):
            row["peers"][peer.name] = {"absent": "not called at this size"}
            continue
        row["peers"][peer.name] = _peer(peer, case, sets, ours[0], where, budget_ms)
        if where.type == "cuda":  # a peer's graph must not keep its memory
            gc.collect()
    return row


def _run(function: Function, inputs: Inputs) -> tuple[Tensor, ...]:
    with torch.no_grad():
        found = function(**inputs.tensors, **inputs.options)
    return (found,) if isinstance(found, Tensor) else tuple(found)


def _bytes(inputs: Inputs, outputs: tuple[Tensor, ...], backward: bool) -> dict[str, int]:
    """What is read and written once: inputs and outputs; backward inputs, gradients of both, and again."""
    out = sum(x.numel() * x.element_size() for x in outputs)
    found = {"forward": inputs.bytes + out}
    if backward:
        found["both"] = 3 * inputs.bytes + 2 * out
    return found


def _timed(
    case: Case, function: Function, sets: list[Inputs], device: torch.device, budget_ms: float
) -> dict[str, dict[str, Any]]:
    found = {"forward": _clocked([_forward(function, x) for x in sets], device, budget_ms)}
    if case.backward:
        calls = [_both(function, x) for x in sets]
        found["both"] = _clocked(calls, device, budget_ms)
    return found


def _forward(function: Function, inputs: Inputs) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return function(**inputs.tensors, **inputs.options)

    return call


def _both(function: Function, inputs: Inputs) -> Callable[[], object]:
    """The gradient of the first result in every tensor that it has one in."""
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.tensors.items()}
    up: list[Tensor] = []

    def call() -> object:
        found = function(**leaves, **inputs.options)
        output = found if isinstance(found, Tensor) else found[0]
        if not up:
            up.append(torch.randn_like(output))
        return torch.autograd.grad(output, list(leaves.values()), up[0], allow_unused=True)

    return call


def _clocked(
    calls: list[Callable[[], object]], device: torch.device, budget_ms: float
) -> dict[str, Any]:
    found: dict[str, Any] = {"eager_ms": clocks.eager_ms(calls, device, budget_ms)}
    if device.type != "cuda":
        return found | {"graph_ms": None}
    try:
        found["graph_ms"] = clocks.graph_ms(calls, device, budget_ms)
    except RuntimeError as error:  # some peers cannot be captured; that is a result
        found |= {"graph_ms": None, "graph_fault": str(error).split("\n")[0][:200]}
    return found


def _peer(
    peer: Peer, case: Case, sets: list[Inputs], ours: Tensor, device: torch.device, budget_ms: float
) -> dict[str, Any]:
    """A peer's times, once its result is ours."""
    if (reason := missing(peer)) is not None:
        return {"absent": reason}
    try:
        given = [peer.prepare(inputs) for inputs in sets]
        apart = _relative(_run(peer.call, given[0])[0], ours)
        found = {"forward": _clocked([_forward(peer.call, x) for x in given], device, budget_ms)}
    except Exception as error:  # a peer that fails is a result too, and must not end the run
        return {"absent": _failed(error)}
    if case.backward:
        try:
            calls = [_both(peer.call, x) for x in given]
            found["both"] = _clocked(calls, device, budget_ms)
        except Exception as error:  # some have a forward alone on some device
            found["both"] = {"absent": _failed(error)}
    allowed = 8 * torch.finfo(ours.dtype).eps
    return found | {"difference": apart, "agrees": apart <= allowed}


def _failed(error: Exception) -> str:
    words = str(error).split("\n")[0][:200]
    return f"failed: {type(error).__name__}: {words}"


def _relative(theirs: Tensor, ours: Tensor) -> float:
    size = ours.double().square().mean().sqrt()
    return float((theirs.double() - ours.double()).square().mean().sqrt() / size)
