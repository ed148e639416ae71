"""Checks of one operator: its error against that of the naive computation, and that it repeats bit for bit.

The rule is that of FlashAttention's tests: against the recurrence in float64, an error may be twice that of the
same computation written in torch in the same type, and eight roundings of float32 more: in float32 a short run may
be right to a bit or two by luck, and another order of sums is no error. For narrower types that is nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .case import Case, Draw, Function, Inputs, Sizes, Tensors

TIMES = 2.0
"""How many times the naive error is allowed."""
ACCUMULATOR = 8 * torch.finfo(torch.float32).eps / 2
"""What is allowed beyond it, of the size of the result: eight roundings of a float32 accumulator."""


def check(case: Case, sizes: Sizes, dtype: str, device: str, seed: str) -> dict[str, Any]:
    """Every result and gradient against float64, in memory that held NaN before."""
    operator = _present(case)
    inputs = case.inputs(device, dtype, sizes, seed)
    shapes = _forward(case, case.naive, inputs)
    up = _cotangents(case, shapes, dtype, device, seed)
    exact = results(case, case.exact, _exactly(inputs), up)
    naive = results(case, case.naive, inputs, up)
    with poisoned(device) as poison:
        found = results(case, operator, inputs, up)
    rows = [_compared(name, found.get(name), naive[name], truth) for name, truth in exact.items()]
    return {
        "results": rows,
        "poisoned": poison,
        "passes": poison and all(row["passes"] for row in rows),
    }


def repeat(
    case: Case, sizes: Sizes, dtype: str, device: str, seed: str, times: int
) -> dict[str, Any]:
    """The same call again and again: every result must have the same bits."""
    operator = _present(case)
    inputs = case.inputs(device, dtype, sizes, seed)
    shapes = _forward(case, operator, inputs)
    up = _cotangents(case, shapes, dtype, device, seed)
    first = results(case, operator, inputs, up)
    differing: set[str] = set()
    for _ in range(times - 1):
        again = results(case, operator, inputs, up)
        differing |= {name for name, x in first.items() if not _same_bits(x, again[name])}
    finite = all(bool(torch.isfinite(x).all()) for x in first.values())
    return {"times": times, "differing": sorted(differing), "passes": not differing and finite}


TAIL, WARM = 100, 600
"""The steps that are compared where there are many, and those before them that still count."""


def far(case: Case, sizes: Sizes, dtype: str, device: str, seed: str) -> dict[str, Any]:
    """The last steps of the last head (or channel) of a run so large that an index of 32 bits would not reach them.

    Decays and windows are such that steps before the last seven hundred count for nothing.
    """
    inputs = case.inputs(device, dtype, sizes, seed)
    found = _forward(case, _present(case), inputs)
    tail = _tail(inputs, sizes)
    exact, naive = (
        _forward(case, case.exact, _exactly(tail)),
        _forward(case, case.naive, tail),
    )
    rows = []
    for name, truth in exact.items():
        last = slice(None) if truth.shape[1] == 1 else slice(-TAIL, None)  # a state has no steps
        ours = found[name][:, -1:] if truth.shape[1] == 1 else found[name][:, last, -1:]
        rows.append(_compared(name, ours, naive[name][:, last], truth[:, last]))
    return {"results": rows, "passes": all(row["passes"] for row in rows)}


def _tail(inputs: Inputs, sizes: Sizes) -> Inputs:
    """The last steps of the last head, from a state that does not matter."""
    steps = min(TAIL + WARM, sizes.length)
    tensors = {}
    for name, x in inputs.tensors.items():
        if name == "initial_state":
            tensors[name] = x[:, -1:] if steps == sizes.length else torch.zeros_like(x[:, -1:])
        else:
            tensors[name] = x[:, -steps:, -1:]
    return Inputs({name: x.contiguous() for name, x in tensors.items()}, inputs.options)


def _forward(case: Case, function: Function, inputs: Inputs) -> Tensors:
    with torch.no_grad():
        found = _tuple(function(**inputs.tensors, **inputs.options))
    return dict(zip(case.results, found, strict=True))


def results(case: Case, function: Function, inputs: Inputs, up: Sequence[Tensor] | None) -> Tensors:
    """What a function returns, by name, and with cotangents the gradient of every tensor."""
    if up is None or not case.backward:
        return _forward(case, function, inputs)
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.tensors.items()}
    outputs = _tuple(function(**leaves, **inputs.options))
    given = [x.to(y) for x, y in zip(up, outputs, strict=True)]
    # An output that reads nothing (no step at all) has no graph; its share of every gradient is zero.
    pairs = [(y, x) for y, x in zip(outputs, given, strict=True) if y.requires_grad]
    outs, cotangents = zip(*pairs, strict=True) if pairs else ((), ())
    grads = torch.autograd.grad(outs, list(leaves.values()), cotangents, allow_unused=True)
    named = dict(zip(case.results, (x.detach() for x in outputs), strict=True))
    for (name, leaf), gradient in zip(leaves.items(), grads, strict=True):
        named[f"gradient of {name}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return named


@contextmanager
def poisoned(device: str) -> Iterator[bool]:
    """Memory that torch hands out is full of NaN; gives whether that is so on this device."""
    before = torch.are_deterministic_algorithms_enabled()
    quiet = torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            like = torch.zeros(3, device=device)
            made = (torch.empty(1 << 12, device=device), like.new_empty(5), torch.empty_like(like))
            yield all(bool(x.isnan().all()) for x in made)
        finally:
            torch.use_deterministic_algorithms(before, warn_only=quiet)


def _present(case: Case) -> Function:
    operator = case.pure()
    if operator is None:
        raise LookupError(f"{case.operator} is not there")
    return operator


def _exactly(inputs: Inputs) -> Inputs:
    """The same in float64, on the CPU: what judges a device must not stand on it."""
    return Inputs(
        {
            name: x.to("cpu", torch.complex128 if x.is_complex() else torch.float64)
            for name, x in inputs.tensors.items()
        },
        {name: x.cpu() if isinstance(x, Tensor) else x for name, x in inputs.options.items()},
    )


def _cotangents(case: Case, found: Tensors, dtype: str, device: str, seed: str) -> list[Tensor]:
    """Drawn and rounded to the type of the data, so that every way is given the same ones."""
    draw = Draw(device, dtype, f"{seed}, cotangents")
    narrow = draw.dtype if draw.dtype.is_floating_point else torch.float32
    made = []
    for name in case.results:
        x = draw.normal(*found[name].shape).to(narrow).float()
        whole = found[name].is_complex()
        made.append(torch.complex(x, draw.normal(*x.shape)) if whole else x)
    return made


def _tuple(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return torch.equal(one.contiguous().view(kind), other.contiguous().view(kind))


def _compared(name: str, found: Tensor | None, naive: Tensor, truth: Tensor) -> dict[str, Any]:
    """One result: largest and root mean square error, beside those that are allowed."""
    if found is None or found.shape != truth.shape:
        shape = None if found is None else tuple(found.shape)
        return {"name": name, "passes": False, "fault": f"{shape}, not {tuple(truth.shape)}"}
    found, naive = found.cpu(), naive.cpu()
    row: dict[str, Any] = {"name": name, "type": str(found.dtype).removeprefix("torch.")}
    passes = True
    for kind, norm in (("largest", _largest), ("rms", _rms)):
        error, own, size = norm(found - truth), norm(naive.to(truth.dtype) - truth), norm(truth)
        bound = TIMES * own + ACCUMULATOR * size
        row[kind] = {"error": error, "naive": own, "bound": bound, "size": size}
        passes &= error <= bound  # false for NaN
    return row | {"passes": passes}


def _largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def _rms(x: Tensor) -> float:
    return float(x.abs().square().mean().sqrt()) if x.numel() else 0.0
