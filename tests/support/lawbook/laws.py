"""The laws, as functions that raise. Tests call them on rows; planted bugs must make them raise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsf.forms import Form, run
from dsf.forms.bounds import error_bound
from dsf.mixers import Sample
from dsf.numerics import require_within
from dsf.state import State
from dsf.system import System

from .rows import cast, wide

EXACT = "recurrent"  # the oracle's form, in float64; naive formulas judge it in test_architectures


@dataclass(frozen=True)
class Leaves:
    """A system's tensors as leaves of a graph: gradients in the order of `Bounds.gradients`."""

    system: System
    tokens: Tensor
    state: State
    tensors: list[Tensor]


def as_leaves(system: System, tokens: Tensor, state: State) -> Leaves:
    def leaf(x: Tensor) -> Tensor:
        return x.detach().clone().requires_grad_()

    gates, write, read = (
        tuple(leaf(x) for x in tensors)
        for tensors in (system.transition.leaves, system.write.tensors, system.read.tensors)
    )
    entering, memory = leaf(tokens), leaf(state.memory)
    grown = system.replace(
        transition=system.transition.rebuild(gates),
        write=system.write.rebuild(write),
        read=system.read.rebuild(read),
    )
    tensors = [*gates, *write, *read, entering, memory]
    return Leaves(grown, entering, State(memory, state.normaliser, state.stabiliser), tensors)


def forms_agree(
    form: Form | str, system: System, tokens: Tensor, state: State | None, dtype: torch.dtype
) -> float:
    """Outputs and final state of `form` in `dtype` against the oracle; the largest share of the bound."""
    system, tokens = system.map(lambda x: cast(x, dtype)), cast(tokens, dtype)
    start = None if state is None else state.map(lambda x: cast(x, dtype))
    exact_system, exact_tokens = system.map(wide), wide(tokens)
    exact_start = None if start is None else start.map(wide)
    expected, expected_state = run(exact_system, exact_tokens, exact_start, form=EXACT)
    outputs, final = run(system, tokens, start, form=form)
    assert outputs.dtype in (dtype, cast(expected, dtype).dtype)
    assert final.memory.dtype.to_real() in (torch.float32, torch.float64)
    bound = error_bound(system, tokens, start, form=form)
    own = error_bound(exact_system, exact_tokens, exact_start, form=EXACT)
    shares = [require_within(outputs, expected, bound.outputs + own.outputs, f"{form} outputs")]
    gauge = _gauge(final, expected_state)
    shares.append(
        require_within(
            wide(final.memory) * gauge[..., None] if final.memory.ndim == 4 else final.memory,
            expected_state.memory,
            bound.memory + own.memory,
            f"{form} memory",
        )
    )
    return max(shares)


def _gauge(final: State, expected: State) -> Tensor:
    """What brings the memory to the oracle's stabiliser: 1 where there is none."""
    if final.stabiliser is None or expected.stabiliser is None:
        return torch.ones((1, 1, 1), dtype=torch.float64)
    return torch.exp(wide(final.stabiliser) - expected.stabiliser).nan_to_num(1.0)[..., None]


def gradients_agree(
    form: Form | str, system: System, tokens: Tensor, state: State, dtype: torch.dtype
) -> float:
    """Gradients of every leaf against the oracle's, for cotangents of outputs and final memory."""
    system, tokens = system.map(lambda x: cast(x, dtype)), cast(tokens, dtype)
    state = state.map(lambda x: cast(x, dtype))
    exact = as_leaves(system.map(wide), wide(tokens), state.map(wide))
    expected, final = run(exact.system, exact.tokens, exact.state, form=EXACT)
    generator = torch.Generator().manual_seed(1)

    def cotangent(like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        return wide(cast(drawn + 0j if like.is_complex() else drawn, dtype))

    seeds = cotangent(expected), cotangent(final.memory)
    reference = torch.autograd.grad(
        (expected, final.memory), exact.tensors, seeds, allow_unused=True
    )
    ours = as_leaves(system, tokens, state)
    outputs, memory = run(ours.system, ours.tokens, ours.state, form=form)
    entering = (
        cast(seeds[0], outputs.dtype.to_real()),
        cast(seeds[1], memory.memory.dtype.to_real()),
    )
    found = torch.autograd.grad((outputs, memory.memory), ours.tensors, entering, allow_unused=True)
    padded = seeds[0], seeds[1][..., None] if system.is_vector else seeds[1]
    bounds = error_bound(system, tokens, state, form=form, cotangents=padded).gradients
    own = error_bound(
        system.map(wide), wide(tokens), state.map(wide), form=EXACT, cotangents=padded
    ).gradients
    shares = [0.0]
    for i, (a, b) in enumerate(zip(found, reference, strict=True)):
        assert (a is None) == (b is None)
        if a is None or b is None:
            continue
        bound = bounds[i] + own[i]
        if bound.ndim > b.ndim:
            bound = bound[..., 0]
        bound = bound.reshape(*bound.shape, *(1,) * (b.ndim - bound.ndim))
        shares.append(require_within(a, b, _per_leaf(bound, b), f"{form} gradient {i}"))
    return max(shares)


def _per_leaf(bound: Tensor, like: Tensor) -> Tensor:
    """A broadcast leaf gathers the gradients, and the bounds, of all that it was broadcast to."""
    for axis, (have, want) in enumerate(zip(bound.shape, like.shape, strict=True)):
        if want == 1 and have != 1:
            bound = bound.sum(axis, keepdim=True)
    return bound


def is_formula(
    formula: Callable[..., np.ndarray],
    system: System,
    sample: Sample,
    form: str = EXACT,
    **options: object,
) -> None:
    """The run of a form against a naive formula, within twice the bound of the form."""
    arrays = {name: x.numpy() for name, x in sample.quantities.items()}
    expected = torch.from_numpy(formula(**arrays, v=sample.tokens.numpy(), **options))
    bound = 2 * error_bound(system, sample.tokens, form=form).outputs
    require_within(run(system, sample.tokens, form=form)[0], expected, bound, form)


def split_is_whole(
    form: Form | str, system: System, tokens: Tensor, state: State | None, cuts: list[int]
) -> float:
    """Outputs and final state of pieces, each started from the state before, against one run."""
    whole, final = run(system, tokens, state, form=form)
    held, pieces = state, []
    for start, stop in zip([0, *cuts], [*cuts, tokens.shape[1]], strict=True):
        piece, held = run(system[start:stop], tokens[:, start:stop], held, form=form)
        pieces.append(piece)
    assert held is not None
    bound = error_bound(system, tokens, state, form=form)
    scale = torch.exp(final.stabiliser)[..., None, None] if final.stabiliser is not None else 1.0
    return max(
        require_within(torch.cat(pieces, 1), whole, 2 * bound.outputs, f"{form} pieces"),
        require_within(
            held.true_memory(), final.true_memory(), 2 * bound.memory * scale, f"{form} last state"
        ),
    )


def past_is_untouched(
    form: Form | str, system: System, tokens: Tensor, where: str, at: int, bad: float
) -> None:
    """A bad number in token, write, read or gate of sequence (0, 0) at step `at`: nothing before moves."""

    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, at, 0] = bad
        return x

    def changed(with_bad: bool) -> tuple[System, Tensor]:
        touch = spoil if with_bad else (lambda x: x)
        if where == "tokens":
            return system, touch(tokens)
        if where == "transition":
            leaves = tuple(touch(x) for x in system.transition.leaves)
            return system.replace(transition=system.transition.rebuild(leaves)), tokens
        coupling = getattr(system, where)
        return system.replace(**{where: coupling.map(touch)}), tokens

    clean, _ = run(*changed(False), form=form)
    dirty, _ = run(*changed(True), form=form)
    if not torch.equal(dirty[0, :at], clean[0, :at]):
        raise AssertionError(f"{form}: a bad {where} at step {at} changed an earlier output")
    if not (torch.equal(dirty[1:], clean[1:]) and torch.equal(dirty[0, :, 1:], clean[0, :, 1:])):
        raise AssertionError(f"{form}: a bad {where} changed another sequence or head")
    if bool(torch.isfinite(dirty[0, at, 0]).all()):
        raise AssertionError(f"{form}: a bad {where} at step {at} left no trace")


def packed_is_apart(form: Form | str, systems: list[System], tokens: list[Tensor]) -> float:
    """Packed sequences against each run alone: outputs and states."""
    from dsf.packing import pack

    together, states = run(pack(systems), torch.cat(tokens, 1), form=form)
    start, worst = 0, 0.0
    for i, (system, own) in enumerate(zip(systems, tokens, strict=True)):
        alone, final = run(system, own, form=form)
        bound = error_bound(system, own, form=form)
        stop = start + own.shape[1]
        share = require_within(together[:, start:stop], alone, 2 * bound.outputs, f"{form} packed")
        scale = (
            1.0
            if final.stabiliser is None
            else torch.exp(final.stabiliser)[..., None, None].nan_to_num(1.0)
        )
        share = max(
            share,
            require_within(
                states.map(lambda x, i=i: x[i : i + 1]).true_memory(),
                final.true_memory(),
                2 * bound.memory * scale,
                f"{form} packed state",
            ),
        )
        start, worst = stop, max(worst, share)
    return worst
