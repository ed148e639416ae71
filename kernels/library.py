"""One way to make an operator of torch from a kernel: CUDA and CPU apart, fake tensors, gradients.

The backward is an operator of its own, `<name>_backward`; an operator that changes tensors in place has
none. Where the way back needs more than is returned, `<name>_kept` runs in place of the operator wherever a gradient
is wanted, and gives that too. On a device without an implementation torch says so: nothing falls back.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsf.errors import Refusal, Refused
from dsf.precision import keeps_precision

Function = Callable[..., tuple[Tensor, ...]]
AnyFunction = Callable[..., Tensor | tuple[Tensor, ...]]

_LIBRARY = torch.library.Library("dsf", "FRAGMENT")
_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.complex64)


def triton_missing() -> Refusal | None:
    """Why no kernel can run or compile here; None where Triton is installed."""
    if importlib.util.find_spec("triton") is not None:
        return None
    reason = "Triton is not installed."
    return Refusal("kernels", reason, "Install it on Linux: pip install dsf-dynamics[kernels].")


def require_runnable(x: Tensor) -> None:
    """Raise `Refused` where a tensor is on CUDA and no kernel can run on it."""
    if not x.is_cuda:
        return
    if (missing := triton_missing()) is not None:
        raise Refused(missing)
    if x.dtype not in _TYPES:
        names = ", ".join(str(each).removeprefix("torch.") for each in _TYPES)
        raise Refused(Refusal("kernels", f"{x.dtype} runs on the CPU alone.", f"Use {names}."))


@dataclass(frozen=True)
class Pair:
    """A forward and its backward on one kind of device.

    `forward(*inputs)` gives the outputs; `backward(*cotangents, *kept, *held, *inputs)` a gradient for each of the
    operator's tensors. `keeping(*inputs)` gives the outputs and what is held for the backward; where it is None,
    nothing is, and the backward takes none.
    """

    forward: Function
    backward: Function
    keeping: Function | None = None


@dataclass(frozen=True)
class Signature:
    """An operator `dsf::<name>` of `tensors`, differentiable in each, and of options like "float scale".

    It has `results` outputs with gradients and `hidden` ones without; the backward needs those at the
    places `kept`, and `held` tensors that only `<name>_kept` gives. The tensors named in `mutates` are
    changed in place: `define_in_place`.
    """

    name: str
    tensors: tuple[str, ...]
    options: tuple[str, ...] = ()
    results: int = 2
    hidden: int = 0
    kept: tuple[int, ...] = ()
    held: int = 0
    mutates: tuple[str, ...] = ()

    @property
    def schema(self) -> str:
        return f"({self._inputs}) -> ({_tensors(self.outputs)})"

    @property
    def schema_keeping(self) -> str:
        return f"({self._inputs}) -> ({_tensors(self.outputs + self.held)})"

    @property
    def schema_of_backward(self) -> str:
        before = [f"Tensor d{i}" for i in range(self.results)] + [f"Tensor y{i}" for i in self.kept]
        before += [f"Tensor h{i}" for i in range(self.held)]
        return f"({', '.join([*before, self._inputs])}) -> ({_tensors(len(self.tensors))})"

    @property
    def outputs(self) -> int:
        return self.results + self.hidden

    @property
    def _inputs(self) -> str:
        return ", ".join([*(f"{self._kind(each)} {each}" for each in self.tensors), *self.options])

    def _kind(self, name: str) -> str:
        """The type of an argument; one that is changed in place aliases itself alone."""
        if name not in self.mutates:
            return "Tensor"
        return f"Tensor({chr(ord('a') + self.mutates.index(name))}!)"

    def split(self, given: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The cotangents and the inputs that a backward is given."""
        return given[: self.results], given[self.results + len(self.kept) + self.held :]

    def without_held(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a backward is given, less what is held."""
        first = self.results + len(self.kept)
        return given[:first] + given[first + self.held :]


def _tensors(count: int) -> str:
    return ", ".join(["Tensor"] * count)


def define(
    signature: Signature,
    *,
    cuda: Pair,
    cpu: Pair,
    shapes: Function,
    held: Function | None = None,
) -> Callable[..., Any]:
    """Make the operator; `shapes(*inputs)` gives outputs of the right sizes and types, with any content.

    `held(*inputs)` gives what is held for the way back in the same manner.
    """
    count = len(signature.tensors)

    def like_the_tensors(*given: Any) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(x) for x in signature.split(given)[1][:count])

    name = signature.name
    (keep_on_cuda, back_on_cuda), (keep_on_cpu, back_on_cpu) = (
        _holding(signature, pair) for pair in (cuda, cpu)
    )
    operator = _made(name, signature.schema, cuda.forward, cpu.forward, shapes)
    keeping = operator
    if signature.held:

        def all_shapes(*inputs: Any) -> tuple[Tensor, ...]:
            assert held is not None
            holds = (cuda if inputs[0].is_cuda else cpu).keeping is not None
            kept = held(*inputs) if holds else _nothing(signature, inputs[0])
            return (*shapes(*inputs), *kept)

        keeping = _made(
            f"{name}_kept", signature.schema_keeping, keep_on_cuda, keep_on_cpu, all_shapes
        )
    backward = _made(
        f"{name}_backward",
        signature.schema_of_backward,
        back_on_cuda,
        back_on_cpu,
        like_the_tensors,
    )

    class Node(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, keys: Any, *inputs: Any) -> tuple[Tensor, ...]:
            found = _below_autograd(keeping, keys, inputs)
            output, held = found[: signature.outputs], found[signature.outputs :]
            ctx.places = [i for i, x in enumerate(inputs) if isinstance(x, Tensor)]
            ctx.inputs = [None if isinstance(x, Tensor) else x for x in inputs]
            outputs = [*(output[i] for i in signature.kept), *held]
            ctx.save_for_backward(*outputs, *(inputs[i] for i in ctx.places))
            # No zeros are made for the hidden outputs, which may be large.
            ctx.set_materialize_grads(False)
            ctx.shapes = [(x.shape, x.dtype, x.device) for x in output[: signature.results]]
            return output

        @staticmethod
        def backward(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
            several, saved = len(signature.kept) + signature.held, ctx.saved_tensors
            cotangents = [
                torch.zeros(shape, dtype=dtype, device=device) if x is None else x
                for x, (shape, dtype, device) in zip(given, ctx.shapes, strict=False)
            ]
            inputs = list(ctx.inputs)
            for place, x in zip(ctx.places, saved[several:], strict=True):
                inputs[place] = x
            found = backward(*cotangents, *saved[:several], *inputs)
            return (None, *found, *(None for _ in signature.options))

    _record(operator, Node)
    _record(backward, _last(backward, f"dsf::{name} has no second derivative"))
    if signature.held:
        words = f"dsf::{name}_kept has no gradient: it serves that of dsf::{name}"
        _record(keeping, _last(keeping, words))
    return operator


def _last(operator: Any, words: str) -> Any:
    """A node of autograd that gives no gradients and says so."""

    class Last(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, keys: Any, *given: Any) -> tuple[Tensor, ...]:
            return _below_autograd(operator, keys, given)

        @staticmethod
        def backward(ctx: Any, *given: Tensor) -> Any:
            raise NotImplementedError(words)

    return Last


def _holding(signature: Signature, pair: Pair) -> tuple[Function, Function]:
    """The pair's `keeping` and its backward, where it has none one that holds nothing and one that takes nothing."""
    if not signature.held or pair.keeping is not None:
        return pair.keeping or pair.forward, pair.backward

    def keeping(*inputs: Any) -> tuple[Tensor, ...]:
        return (*pair.forward(*inputs), *_nothing(signature, inputs[0]))

    def backward(*given: Any) -> tuple[Tensor, ...]:
        return pair.backward(*signature.without_held(given))

    return keeping, backward


def _nothing(signature: Signature, like: Tensor) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(0) for _ in range(signature.held))


def _record(operator: Any, node: Any) -> None:
    """Have autograd record an operator as `node`, where something asks for a gradient."""

    def record(keys: Any, *inputs: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
            return node.apply(keys, *inputs)
        return _below_autograd(operator, keys, inputs)

    _LIBRARY.impl(operator._schema.name, record, "Autograd", with_keyset=True)


def _below_autograd(operator: Any, keys: Any, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    with torch._C._AutoDispatchBelowAutograd():
        return operator.redispatch(keys & torch._C._after_autograd_keyset, *inputs)


def define_in_place(
    signature: Signature, *, cuda: AnyFunction, cpu: AnyFunction, shapes: AnyFunction
) -> Callable[..., Any]:
    """Make an operator that changes `signature.mutates` in place and has no gradient.

    One result is given as a tensor, several as a tuple; none may share memory with an input.
    """
    made = torch.library.custom_op(
        f"dsf::{signature.name}",
        keeps_precision(cuda),
        mutates_args=signature.mutates,
        device_types="cuda",
        schema=signature.schema,
    )
    made.register_kernel("cpu")(keeps_precision(cpu))
    made.register_fake(shapes)
    return made


def require_no_gradient(operator: str, tensors: Mapping[str, Tensor | None], instead: str) -> None:
    """Raise `Refused` where autograd would record an operator that has no gradient."""
    if not torch.is_grad_enabled():
        return
    asking = [name for name, x in tensors.items() if x is not None and x.requires_grad]
    if asking:
        reason = f"it changes its state in place and has no gradient, which {', '.join(asking)} would need."
        remedy = f"Call it under torch.no_grad(), or use {instead}."
        raise Refused(Refusal(operator, reason, remedy))


def _made(
    name: str, schema: str, on_cuda: Function, on_cpu: Function, fake: Function
) -> torch._ops.OpOverload:
    """As `torch.library.custom_op` makes it, without what that does in Python at every call."""
    _LIBRARY.define(f"{name}{schema}", tags=torch.Tag.pt2_compliant_tag)
    _LIBRARY.impl(name, keeps_precision(on_cuda), "CUDA")
    _LIBRARY.impl(name, keeps_precision(on_cpu), "CPU")
    torch.library.register_fake(f"dsf::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.dsf, name).default


def by_autograd(signature: Signature, run: Function) -> Pair:
    """The CPU's pair, from a differentiable `run(*inputs)`; its backward runs it again and keeps nothing."""

    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        with torch.no_grad():
            found = run(*inputs)
        held = {x.untyped_storage().data_ptr() for x in inputs if isinstance(x, Tensor)}

        def own(x: Tensor) -> Tensor:
            """An operator's outputs are contiguous, and views of nothing."""
            view = x.untyped_storage().data_ptr() in held or x.storage_offset()
            return x.clone(memory_format=torch.contiguous_format) if view else x.contiguous()

        return tuple(map(own, found))

    def backward(*given: Any) -> tuple[Tensor, ...]:
        cotangents, inputs = signature.split(given)
        count = len(signature.tensors)
        with above_autograd(), torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in inputs[:count]]
            outputs = run(*leaves, *inputs[count:])
            found = torch.autograd.grad(
                outputs[: signature.results], leaves, cotangents, allow_unused=True
            )
        pairs = zip(found, leaves, strict=True)
        return tuple(torch.zeros_like(x) if one is None else one.contiguous() for one, x in pairs)

    return Pair(forward, backward)


def above_autograd() -> Any:
    """Where autograd records again: inside an operator it does not, since gradients are the operator's own."""
    keys = torch._C
    exclude = keys._dispatch_tls_local_exclude_set()
    for key in (
        keys.DispatchKey.AutogradCPU,
        keys.DispatchKey.AutogradOther,
        keys.DispatchKey.AutogradFunctionality,
        keys.DispatchKey.ADInplaceOrView,
    ):
        exclude = exclude.remove(key)
    return keys._ForceDispatchKeyGuard(keys._dispatch_tls_local_include_set(), exclude)
