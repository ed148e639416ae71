"""Checks of systems, tokens and states, in the caller's words. Every message names a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsf.coupling import Coupling, DenseCoupling, OuterCoupling
from dsf.errors import InvalidInput, require
from dsf.structure import Elementwise, Identity, Scalar, Structure

if TYPE_CHECKING:
    from dsf.state import State
    from dsf.system import System


def check_system(system: System) -> None:
    """Raise `InvalidInput` where the parts of a system do not fit together."""
    require("transition", system.transition, Structure)
    require("write", system.write, Coupling)
    require("read", system.read, Coupling)
    _check_devices(system)
    _check_leading_axes(system)
    _check_keys(system)
    _check_values(system)
    _check_options(system)
    if system.normaliser is not None:
        _check_normaliser(system)
    if system.log_write is not None:
        _check_log_write(system)
    if system.boundaries is not None:
        _check_boundaries(system)


def check_tokens(system: System, tokens: Tensor) -> torch.Size:
    """The sizes (B, T, H) of a run of `system` on `tokens`; raises `InvalidInput`."""
    axes = "(B, T, H, V)" if system.writes is None else "(B, T, H, R, V)"
    ndim = 4 if system.writes is None else 5
    if tokens.ndim != ndim:
        raise InvalidInput(
            f"`tokens` must have axes {axes} for this system; got shape {tuple(tokens.shape)}"
        )
    if not (tokens.is_floating_point() or tokens.is_complex()):
        raise InvalidInput(f"`tokens` must be floating-point or complex; got {tokens.dtype}")
    if tokens.device != system.device:
        raise InvalidInput(
            f"`tokens` is on {tokens.device}, the system on {system.device}; use one device"
        )
    length = system.length
    if length is not None and tokens.shape[1] != length:
        raise InvalidInput(
            f"`tokens` has T = {tokens.shape[1]}, the system has T = {length}; "
            "slice the longer one with [start:stop]"
        )
    if system.writes is not None and tokens.shape[3] != system.writes:
        raise InvalidInput(
            f"`tokens` has R = {tokens.shape[3]}, the system writes R = {system.writes}"
        )
    if system.value_size not in (None, tokens.shape[-1]):
        raise InvalidInput(
            f"`tokens` has V = {tokens.shape[-1]}, the system has V = {system.value_size}"
        )
    if system.real_part and tokens.is_complex():
        raise InvalidInput(
            "`tokens` is complex, but the system takes the real part: pass real values"
        )
    try:
        return torch.broadcast_shapes(tokens.shape[:3], system.lead)
    except RuntimeError:
        raise InvalidInput(
            f"`tokens` has leading sizes (B, T, H) = {tuple(tokens.shape[:3])}, "
            f"the system {tuple(system.lead)}; they must be equal or 1"
        ) from None


def check_state(system: System, state: State, sizes: tuple[int, int], value_size: int) -> None:
    """Raise `InvalidInput` where a state does not belong to the system; sizes are (N or B, H)."""
    wanted = (*sizes, system.key_size) + (() if system.is_vector else (value_size,))
    _same_shape("state.memory", state.memory, wanted)
    if (state.normaliser is None) != (system.normaliser is None):
        raise InvalidInput(
            "`state.normaliser` must be given exactly where the system has a normaliser; "
            f"state: {state.normaliser is not None}, system: {system.normaliser is not None}"
        )
    if state.normaliser is not None:
        _same_shape("state.normaliser", state.normaliser, (*sizes, system.key_size))
    if (state.stabiliser is None) != (system.log_write is None):
        raise InvalidInput(
            "`state.stabiliser` must be given exactly where the system has a `log_write`; "
            f"state: {state.stabiliser is not None}, system: {system.log_write is not None}"
        )
    if state.stabiliser is not None:
        _same_shape("state.stabiliser", state.stabiliser, sizes)


def _same_shape(name: str, tensor: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != wanted:
        raise InvalidInput(f"`{name}` must have shape {wanted}; got {tuple(tensor.shape)}")


def _check_devices(system: System) -> None:
    tensors = (*system.transition.leaves, *system.write.tensors, *system.read.tensors)
    devices = {x.device for x in tensors}
    if len(devices) > 1:
        raise InvalidInput(
            f"a system lies on one device; got {', '.join(sorted(map(str, devices)))}"
        )


def _check_leading_axes(system: System) -> None:
    transition = system.transition
    for leaf, axes in zip(transition.leaves, transition.trailing, strict=True):
        if leaf.ndim - axes != 3:
            raise InvalidInput(
                f"`transition` ({type(transition).__name__}) must have leading axes (B, T, H) before "
                f"its own {axes}; got shape {tuple(leaf.shape)}"
            )
    if system.log_write is not None and system.log_write.ndim != 3:
        raise InvalidInput(
            f"`log_write` must have axes (B, T, H); got shape {tuple(system.log_write.shape)}"
        )
    leads = {
        "transition": transition.lead,
        "write": system.write.lead,
        **({} if system.timing == "end" else {"read": system.read.lead}),
    }
    try:
        torch.broadcast_shapes((1, 1, 1), *leads.values())
    except RuntimeError:
        sizes = ", ".join(f"`{name}` {tuple(shape)}" for name, shape in leads.items())
        raise InvalidInput(f"the leading sizes (B, T, H) must be equal or 1; got {sizes}") from None


def _check_keys(system: System) -> None:
    dense = [isinstance(c, DenseCoupling) for c in (system.write, system.read)]
    if dense[0] != dense[1]:
        raise InvalidInput(
            "`write` and `read` must both be DenseCoupling (a vector state) or neither (a K × V state); "
            f"got {type(system.write).__name__} and {type(system.read).__name__}"
        )
    key_size = system.key_size
    read_size = system.read.weights.shape[-1] if dense[1] else system.read.key_size
    if read_size != key_size:
        raise InvalidInput(
            f"`write` has K = {key_size}, `read` has K = {read_size}; they must be equal"
        )
    if system.transition.key_size not in (None, key_size):
        raise InvalidInput(
            f"`transition` has K = {system.transition.key_size}, `write` has K = {key_size}"
        )
    if dense[0] and isinstance(system.transition, Elementwise):
        raise InvalidInput("a vector state has no value axis: use Diagonal instead of Elementwise")


def _check_values(system: System) -> None:
    if system.is_vector:
        return
    sizes = {
        name: size
        for name, size in {
            "transition": system.transition.value_size,
            "write": system.write.value_size,
            "read": system.read.value_size,
        }.items()
        if size not in (None, 1)
    }
    if len(set(sizes.values())) > 1:
        raise InvalidInput(f"the value sizes V must be equal; got {sizes}")


def _check_options(system: System) -> None:
    if system.timing not in ("after", "before", "end"):
        raise InvalidInput(f"`timing` must be 'after', 'before' or 'end'; got {system.timing!r}")
    if system.timing == "end" and system.feedthrough is not None:
        raise InvalidInput(
            "`feedthrough` needs tokens at the read-out, but with timing 'end' the queries are another "
            "stream; leave it out"
        )
    if system.feedthrough is not None:
        _check_feedthrough(system, system.feedthrough)
    if system.real_part and not system.is_complex:
        raise InvalidInput(
            "`real_part` is for complex systems; Λ, B and C are all real: leave it out"
        )
    if system.real_part and system.normaliser is not None:
        raise InvalidInput("`real_part` and `normaliser` cannot be combined")
    if system.offset is not None and system.offset.ndim not in (4, 5):
        raise InvalidInput(
            f"`offset` must broadcast against (B, T, H, [R,] V) with all axes; "
            f"got shape {tuple(system.offset.shape)}"
        )


def _check_feedthrough(system: System, feedthrough: Structure) -> None:
    if isinstance(feedthrough, Elementwise):
        raise InvalidInput("`feedthrough` acts on the value axis: use Scalar, Diagonal or Dense")
    if system.value_size is not None and feedthrough.key_size not in (None, system.value_size):
        raise InvalidInput(
            f"`feedthrough` acts on {feedthrough.key_size} value channels, the system has V = {system.value_size}"
        )
    for leaf, axes in zip(feedthrough.leaves, feedthrough.trailing, strict=True):
        if leaf.ndim - axes != 3:
            raise InvalidInput(
                f"`feedthrough` must have leading axes (B, T, H); got shape {tuple(leaf.shape)}"
            )


def _check_normaliser(system: System) -> None:
    outer = isinstance(system.write, OuterCoupling) and isinstance(system.read, OuterCoupling)
    if not outer or isinstance(system.transition, Elementwise):
        raise InvalidInput(
            "`normaliser` needs outer couplings and a transition shared by all value channels; got "
            f"{type(system.write).__name__}, {type(system.read).__name__}, {type(system.transition).__name__}"
        )
    if system.normaliser is not None and system.normaliser.floor is not None and system.is_complex:
        raise InvalidInput("a normaliser with a `floor` is for real systems; this one is complex")


def _check_log_write(system: System) -> None:
    gate = system.transition
    logarithmic = isinstance(gate, Identity) or (isinstance(gate, Scalar) and gate.log is not None)
    if not logarithmic or system.is_complex:
        raise InvalidInput(
            "`log_write` needs a real Identity or `Scalar.from_log(...)` transition, so that the running "
            f"maximum can be taken in logarithms; got {type(gate).__name__}"
        )
    if system.normaliser is None:
        raise InvalidInput(
            "`log_write` needs a `normaliser`: only in a quotient does the stabiliser cancel. "
            "For a plain write gate multiply `write` by it"
        )


def _check_boundaries(system: System) -> None:
    marks = system.boundaries
    assert marks is not None
    ascending = all(a <= b for a, b in zip(marks, marks[1:], strict=False))
    if len(marks) < 2 or marks[0] != 0 or not ascending:
        raise InvalidInput(f"`boundaries` must ascend from 0 to T, (0, …, T); got {marks}")
    if system.length is not None and marks[-1] != system.length:
        raise InvalidInput(f"`boundaries` end at {marks[-1]}, the system has T = {system.length}")
    if system.lead[0] != 1:
        raise InvalidInput(
            f"packed sequences stand one after another, B = 1; got B = {system.lead[0]}"
        )
    if system.timing == "end":
        raise InvalidInput(
            "packed sequences and timing 'end' cannot be combined: run them one by one"
        )
