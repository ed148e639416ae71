"""How numbers lie in memory changes no result: strides, an offset, one number many times, a sign yet to be taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lawbook.bits import same
from lawbook.operators import OPERATORS, copied
from torch import Tensor

import dsf
from dsf import kernels
from dsf.forms import explain
from dsf.forms.bounds import error_bound
from dsf.mixers import Draw
from dsf.numerics import require_within
from dsf.registry import resolve


def _turned(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.ndim > 1 else x


def _apart(x: Tensor) -> Tensor:
    wide = torch.full((*x.shape, 2), torch.nan, dtype=x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def _beside(x: Tensor) -> Tensor:
    room = torch.empty(x.numel() + 1, dtype=x.dtype)
    room[1:] = x.flatten()
    return room[1:].view(x.shape)


def _negated(x: Tensor) -> Tensor:
    """A view with the sign of each number yet to be taken, as the imaginary part of a conjugate is."""
    return torch._neg_view(-x)


LAYOUTS = {"turned": _turned, "apart": _apart, "beside": _beside, "negated": _negated}
SYSTEMS = ("retnet", "gla", "gated-deltanet", "s6", "mlstm", "s5")


def test_a_negated_view_is_one() -> None:
    x = torch.tensor([1.0, -2.0])
    assert _negated(x).is_neg() and torch.equal(_negated(x), x)
    assert torch.complex(x, x).conj().imag.is_neg()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SYSTEMS)
def test_runs_and_gradients(name: str, layout: str) -> None:
    lay = LAYOUTS[layout]
    architecture = next(a for a in map(resolve, dsf.mixers.ARCHITECTURES) if a.name == name)
    sample = architecture.sample(Draw(torch.Generator().manual_seed(0), 2, 40, 2, 8, 8))
    quantities, tokens = sample.quantities, sample.tokens
    system = architecture.build(**quantities)
    for row in explain(system, tokens):
        if row.refusal is not None or row.form.startswith("triton"):
            continue
        bound = error_bound(system, tokens, form=row.form).outputs
        expected, wanted = _both(architecture.build, quantities, tokens, row.form)
        laid = {n: lay(x) if not x.is_complex() else x for n, x in quantities.items()}
        found, got = _both(architecture.build, laid, lay(tokens), row.form)
        require_within(found, expected, 2 * bound, f"{row.form} outputs")
        scale = wanted.abs().amax()  # of the same operations, on numbers in other places
        require_within(
            got, wanted, 1e3 * torch.finfo(wanted.dtype).eps * scale, f"{row.form} way back"
        )


def _both(build: Callable, quantities: dict[str, Tensor], tokens: Tensor, form: str):
    """Outputs, and the gradient of the tokens for a cotangent that lies as they do."""
    leaf = tokens.detach().requires_grad_()
    outputs = dsf.run(build(**quantities), leaf, form=form)[0]
    above = tokens.detach() if tokens.shape == outputs.shape else outputs.detach()
    return outputs.detach(), torch.autograd.grad(outputs, leaf, above)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str, layout: str) -> None:
    alike, own, more = OPERATORS[name]
    with torch.no_grad():
        expected = getattr(kernels, name)(**alike, **own, **copied(more))
        laid = {n: LAYOUTS[layout](x) for n, x in (alike | own).items()}
        found = getattr(kernels, name)(**laid, **copied(more))
    for a, b in zip(_list(found), _list(expected), strict=True):
        same(a, b, layout)


def _list(x: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [x] if isinstance(x, Tensor) else list(x)
