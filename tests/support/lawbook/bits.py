"""Laws on systems of small integers: numbers are equal, not close.

The recurrent form is judged by numpy (`lawbook.naive`); all others, split runs and packed runs are
judged by the recurrent form. The FFT of a convolution rounds even integers, so that form is not here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from dsf.forms import Form, forms, run
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.core import accumulator
from dsf.forms.lowering import lower
from dsf.forms.recurrent import Recurrent
from dsf.forms.scan import Scan
from dsf.packing import mask_padding, pack
from dsf.state import State
from dsf.system import System

from . import naive
from .exact import FACTORS, Problem, possible

FORMS = [
    *(form for form in forms() if form.name != "convolution"),
    Recurrent(block=3),
    Scan(segment=3),
    Chunkwise(4),
]
ORACLE = Recurrent()


def same(found: Tensor, expected: Tensor, what: str) -> None:
    """Raise unless two tensors agree in type, shape and every bit (but for the sign of zero)."""
    if found.dtype != expected.dtype or not torch.equal(found, expected):
        raise AssertionError(f"{what}: not the same numbers")


def admitting(system: System) -> Iterator[Form]:
    return (form for form in FORMS if form.admits(system))


def integers(like: Tensor, seed: int) -> Tensor:
    drawn = torch.randint(-1, 2, like.shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(like.dtype)


# -- the laws -----------------------------------------------------------------------------------------


def law_loop_is_numpy(given: Problem, form: Form = ORACLE) -> None:
    """Outputs and final state of the oracle are those of the loop in numpy."""
    system, tokens, state = given.laid_out()
    outputs, final = run(system, tokens, state, form=form)
    expected, memory = naive.run(system, tokens, state)
    wide = accumulator(tokens.dtype if not outputs.is_complex() else outputs.dtype)
    same(outputs, torch.from_numpy(expected).to(wide).to(outputs.dtype), f"{given.name} outputs")
    moved = torch.from_numpy(memory)
    moved = moved[:, :, 0] if system.is_vector else moved.transpose(-1, -2)
    same(final.true_memory(), moved.to(final.memory.dtype), f"{given.name} memory")


def results(form: Form, given: Problem, cuts: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """Outputs, final state and, without a normaliser, all gradients, run in pieces at `cuts`."""
    leaves: dict[str, Tensor] = {}

    def leaf(x: Tensor) -> Tensor:
        fresh = x.detach().clone().requires_grad_()
        leaves[f"leaf {len(leaves)}"] = fresh
        return given.layout(fresh)

    system, tokens = given.system.map(leaf), leaf(given.tokens)
    held = None
    if given.state is not None:
        memory = given.state.memory.detach().clone().requires_grad_()
        held, leaves["start"] = replace(given.state, memory=memory), memory
    pieces = []
    for start, stop in zip((0, *cuts), (*cuts, given.length), strict=True):
        piece = system[start:stop] if cuts else system
        output, held = run(piece, tokens[:, start:stop] if cuts else tokens, held, form=form)
        pieces.append(output)
    assert held is not None
    outputs = pieces[-1] if system.timing == "end" else torch.cat(pieces, 1)
    found = {"outputs": outputs.detach(), "memory": held.true_memory().detach()}
    for name in ("normaliser", "stabiliser"):
        if getattr(held, name) is not None:
            found[name] = getattr(held, name).detach()
    if system.normaliser is None:
        found |= gradients([outputs, held.memory], leaves)
    return found


def gradients(outputs: list[Tensor], leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """By integer cotangents; a leaf that is not reached has the gradient zero."""
    roots = [(x, integers(x, i)) for i, x in enumerate(outputs) if x.requires_grad]
    if not roots:
        return {}
    outputs, seeds = zip(*roots, strict=True)
    found = torch.autograd.grad(outputs, list(leaves.values()), seeds, allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    return {n: torch.zeros_like(x) if g is None else g for (n, x), g in pairs}


def law_same_bits(form: Form, given: Problem, expected: dict[str, Tensor]) -> None:
    found = results(form, given)
    for name in expected.keys() | found.keys():
        zero = torch.zeros_like(found.get(name, expected.get(name)))
        same(found.get(name, zero), expected.get(name, zero), f"{given.name} {form} {name}")


def law_pieces_are_whole(form: Form, given: Problem, cuts: tuple[int, ...]) -> None:
    whole, parts = results(form, given), results(form, given, cuts)
    for name in whole:
        same(parts[name], whole[name], f"{given.name} {form} cut at {cuts}: {name}")


def law_core_gradients(form: Form, given: Problem) -> None:
    """What a normaliser divides is a recurrence too: its gradients before the division."""
    system, tokens, state = given.laid_out()
    core = lower(system, tokens, state).core
    found = []
    for one in (form, ORACLE):
        leaves = {str(i): x.detach().clone().requires_grad_() for i, x in enumerate(core.tensors)}
        memory = leaves["memory"] = core.memory.detach().clone().requires_grad_()
        tensors = tuple(x for name, x in leaves.items() if name != "memory")
        found.append(gradients(list(one.evaluate(core.rebuild(tensors, memory))), leaves))
    for name in found[0].keys() & found[1].keys():
        same(found[0][name], found[1][name], f"{given.name} {form} core gradient {name}")


def law_packed_is_apart(form: Form, given: list[Problem], states: State | None) -> None:
    """Outputs, states and token gradients of packed sequences are those of each run alone."""
    tokens = torch.cat([p.tokens for p in given], 1).requires_grad_()
    outputs, final = run(pack([p.system for p in given]), tokens, states, form=form)
    seeds = integers(outputs, 1), integers(final.memory, 2)
    plain = given[0].system.normaliser is None
    gradient = torch.autograd.grad((outputs, final.memory), tokens, seeds)[0] if plain else None
    start = 0
    for i, one in enumerate(given):
        here, stop = slice(i, i + 1), start + one.length
        own = one.tokens.detach().clone().requires_grad_()
        begin = None if states is None else states.map(lambda x, here=here: x[here])
        alone, end = run(one.system, own, begin, form=form)
        same(outputs[:, start:stop], alone, f"{form} outputs of sequence {i}")
        same(final.map(lambda x, here=here: x[here]).memory, end.memory, f"{form} state {i}")
        if gradient is not None and one.length:
            cotangents = seeds[0][:, start:stop], seeds[1][here]
            (expected,) = torch.autograd.grad((alone, end.memory), own, cotangents)
            same(gradient[:, start:stop], expected, f"{form} gradient {i}")
        start = stop


def law_padding_is_silent(form: Form, given: Problem, lengths: Tensor) -> None:
    """Steps from `lengths` on, whatever stands there, leave the state of each sequence alone."""
    spoiled = given.tokens.clone()
    for i, length in enumerate(lengths.tolist()):
        spoiled[i, length:] = 3
    masked = mask_padding(given.system, lengths)
    outputs, final = run(masked, spoiled, given.state, form=form)
    for i, length in enumerate(lengths.tolist()):
        alone = given.system.map(lambda x, i=i: x[i : i + 1])
        alone = alone[:length] if alone.length is not None else alone
        begin = None if given.state is None else given.state.map(lambda x, i=i: x[i : i + 1])
        expected, end = run(alone, given.tokens[i : i + 1, :length], begin, form=form)
        same(outputs[i : i + 1, :length], expected, f"{given.name} {form} outputs {i}")
        same(final.memory[i : i + 1], end.memory, f"{given.name} {form} memory {i}")


def everything(**fixed: str | int) -> list[dict]:
    """One row per kind, the other factors in turn."""
    turns = itertools.count()
    rows = []
    for kind in FACTORS["kind"]:
        for coupling in FACTORS["coupling"]:
            turn = next(turns)
            row = {
                "kind": kind,
                "coupling": coupling,
                "timing": ("after", "before")[turn % 2],
                "start": ("started", "empty")[turn // 2 % 2],
                "length": 7,
                **fixed,
            }
            full = {name: row.get(name, FACTORS[name][0]) for name in FACTORS}
            if possible(full):
                rows.append(row)
    return rows
