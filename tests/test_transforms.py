"""`torch.func`, forward mode and second derivatives go through every form, as through the recurrence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lawbook.rows import ROWS, Row
from torch import Tensor, func
from torch.autograd import forward_ad

from dsf.forms import forms, run
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.scan import Scan
from dsf.kernels.form import KernelForm
from dsf.mixers import ARCHITECTURES, Architecture, Draw
from dsf.numerics import EPSILON, require_within
from dsf.registry import resolve
from dsf.state import State
from dsf.system import System

# torch's own table of forward-mode rules is scripted when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

Results = tuple[Tensor, ...]
Function = Callable[..., Results]

FORMS = [*forms(), Chunkwise(4), Scan(segment=4)]
STEP = 2.0**-16


def over_leaves(system: System, form: object) -> Function:
    """Outputs and final memory as functions of the leaves of Λ, B and C, the tokens and the memory."""
    gates, writes = len(system.transition.leaves), len(system.write.tensors)

    def function(*leaves: Tensor) -> Results:
        *inner, tokens, memory = leaves
        given = system.replace(
            transition=system.transition.rebuild(tuple(inner[:gates])),
            write=system.write.rebuild(tuple(inner[gates : gates + writes])),
            read=system.read.rebuild(tuple(inner[gates + writes :])),
        )
        outputs, state = run(given, tokens, State(memory), form=form)  # type: ignore[arg-type]
        return outputs, state.memory

    return function


def drawn(like: Results, seed: int) -> Results:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in like)


def loss(function: Function) -> Callable[..., Tensor]:
    def number(*leaves: Tensor) -> Tensor:
        return sum((x.abs().square().sum() for x in function(*leaves)), torch.zeros(()))

    return number


def slope(function: Callable[..., Results | Tensor], leaves: Results, along: Results) -> Results:
    """The derivative along a direction, by a difference."""
    after, before = (
        function(*(x + sign * STEP * d for x, d in zip(leaves, along, strict=True)))
        for sign in (1, -1)
    )
    pairs = zip(after, before, strict=True) if isinstance(after, tuple) else [(after, before)]
    return tuple((a - b) / (2 * STEP) for a, b in pairs)


def gradients(function: Callable[..., Tensor], *leaves: Tensor, again: bool = False) -> Results:
    inputs = leaves if again else tuple(x.detach().requires_grad_() for x in leaves)
    return torch.autograd.grad(function(*inputs), inputs, create_graph=again)


def everywhere(leaves: Results) -> tuple[int, ...]:
    return tuple(range(len(leaves)))


def grad(function: Function, leaves: Results, along: Results) -> Results:
    return func.grad(loss(function), everywhere(leaves))(*leaves)


def vjp(function: Function, leaves: Results, along: Results) -> Results:
    results, back = func.vjp(function, *leaves)
    return back(results)


def jvp(function: Function, leaves: Results, along: Results) -> Results:
    return func.jvp(function, leaves, along)[1]


def dual(function: Function, leaves: Results, along: Results) -> Results:
    with forward_ad.dual_level():
        results = function(*map(forward_ad.make_dual, leaves, along))
        return tuple(forward_ad.unpack_dual(x).tangent for x in results)


def vmap(function: Function, leaves: Results, along: Results) -> Results:
    return func.vmap(function)(*(torch.stack(pair) for pair in zip(leaves, along, strict=True)))


def gradients_of_each(function: Function, leaves: Results, along: Results) -> Results:
    pairs = (torch.stack(pair) for pair in zip(leaves, along, strict=True))
    return func.vmap(func.grad(loss(function), everywhere(leaves)))(*pairs)


def forward_over_reverse(function: Function, leaves: Results, along: Results) -> Results:
    return func.jvp(func.grad(loss(function), everywhere(leaves)), leaves, along)[1]


def twice(function: Function, leaves: Results, along: Results) -> Results:
    """(Hessian) · direction by two backward passes."""
    inputs = tuple(x.detach().requires_grad_() for x in leaves)
    first = gradients(loss(function), *inputs, again=True)
    product = sum((a.conj() * b).real.sum() for a, b in zip(first, along, strict=True))
    return torch.autograd.grad(product, inputs)  # type: ignore[arg-type]


def expected(transform: object, function: Function, leaves: Results, along: Results) -> Results:
    """The same without transforms."""
    ordinary, number = (lambda *x: gradients(number, *x)), loss(function)
    if transform is grad:
        return ordinary(*leaves)
    if transform is vjp:  # of outputs along themselves: half of the loss's
        return tuple(x / 2 for x in ordinary(*leaves))
    if transform in (jvp, dual):
        return slope(function, leaves, along)
    if transform is vmap:
        return tuple(map(torch.stack, zip(function(*leaves), function(*along), strict=True)))
    if transform is gradients_of_each:
        return tuple(map(torch.stack, zip(ordinary(*leaves), ordinary(*along), strict=True)))
    return slope(ordinary, leaves, along)


TRANSFORMS = (grad, vjp, jvp, dual, vmap, gradients_of_each, forward_over_reverse, twice)


def require_same(found: Results, wanted: Results, what: str) -> None:
    """Half of the digits: a difference, or another order of operations, has no more in common."""
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        limit = EPSILON * b.abs().max() if b.numel() else torch.zeros(())
        require_within(a, b, limit + EPSILON**2, f"{what} {i}")


@pytest.mark.parametrize("form", FORMS, ids=lambda f: repr(f).lower())
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_transforms_go_through(row: Row, form) -> None:
    system, tokens, state = row.draw(9)
    if not form.admits(system):
        pytest.skip(str(form.admits(system)))
    leaves = (
        *system.transition.leaves,
        *system.write.tensors,
        *system.read.tensors,
        tokens,
        state.memory,
    )
    along = tuple(x / 4 for x in drawn(leaves, seed=1))
    for transform in TRANSFORMS:
        found = transform(over_leaves(system, form), leaves, along)
        wanted = expected(transform, over_leaves(system, "recurrent"), leaves, along)
        require_same(found, wanted, f"{transform.__name__} through {form.name}")


ARCHITECTURE = {a.name: a for a in map(resolve, ARCHITECTURES)}


@pytest.mark.parametrize("name", ARCHITECTURE)
def test_transforms_go_through_architectures(name: str) -> None:
    """Normalisers, stabilisers and the sums of RWKV-4 among them."""
    architecture: Architecture = ARCHITECTURE[name]
    sample = architecture.sample(Draw(torch.Generator().manual_seed(0), 2, 9, 3, 4, 5))
    names = [k for k, x in sample.quantities.items() if x.is_floating_point()]

    def function(*given: Tensor) -> Results:
        system = architecture.build(**sample.quantities | dict(zip(names, given[:-1], strict=True)))
        return (run(system, given[-1])[0],)

    leaves = (*(sample.quantities[k] for k in names), sample.tokens)
    along = tuple(x + x.abs().clamp_max(0.01) for x in leaves)
    for transform in (vmap, gradients_of_each):
        found = transform(function, leaves, along)
        require_same(found, expected(transform, function, leaves, along), f"{name}")


def test_kernels_refuse_transforms() -> None:
    system, tokens, _ = Row("log scalar", "outer").draw(5)
    kernels = [form for form in forms() if isinstance(form, KernelForm)]
    answers = []

    def number(keys: Tensor) -> Tensor:
        given = system.replace(write=system.write.rebuild((keys,)))
        answers.extend(form.admits(given) for form in kernels)
        return run(given, tokens)[0].sum()

    func.grad(number)(system.write.tensors[0])
    assert not any(answers) and "transforms of torch.func" in " ".join(map(str, answers))


def test_a_module_under_functional_call() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decay = torch.nn.Parameter(torch.linspace(0.1, 0.9, 4).double())

        def forward(self, tokens: Tensor) -> Tensor:
            system, _, _ = Row("diagonal", "outer").draw(tokens.shape[1])
            transition = system.transition.rebuild((self.decay.expand(1, 1, 1, 4),))
            return run(system.replace(transition=transition), tokens, form="chunkwise")[0]

    layer, tokens = Layer(), Row("diagonal", "outer").draw(12)[1]

    def number(parameters: dict[str, Tensor]) -> Tensor:
        return func.functional_call(layer, parameters, (tokens,)).square().sum()

    parameters = dict(layer.named_parameters())
    found = func.grad(number)({k: x.detach() for k, x in parameters.items()})
    wanted = torch.autograd.grad(number(parameters), list(parameters.values()))
    require_same(tuple(found.values()), wanted, "functional_call")
