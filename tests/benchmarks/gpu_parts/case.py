"""A case: one operator, how its inputs are drawn, what it must equal, and where it is measured."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Function = Callable[..., tuple[Tensor, ...]]
"""Tensors by name and options by keyword in, results out."""

HALVES = ("bfloat16", "float16")
ALL = (*HALVES, "float32")


@dataclass(frozen=True)
class Sizes:
    """Sizes of one run. `share` heads read one head of q, k and v; `starts` packs sequences into one row.

    With `hard`, some log-decays are huge and some are -inf. `extra` is what one case alone needs. `quick`
    sizes belong to a quick run too; `dtypes`, where it is given, are the only types they are checked in.
    """

    name: str
    batch: int = 1
    length: int = 1
    heads: int = 1
    keys: int = 64
    values: int = 64
    share: int = 1
    starts: tuple[int, ...] | None = None
    hard: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    dtypes: tuple[str, ...] | None = None

    @property
    def sequences(self) -> int:
        return self.batch if self.starts is None else len(self.starts) - 1

    @property
    def tokens(self) -> int:
        return self.batch * self.length


@dataclass(frozen=True)
class Inputs:
    """What an operator is given: tensors by argument, all differentiable, and its other arguments."""

    tensors: Tensors
    options: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in self.tensors.values())


class Draw:
    """Random tensors on a device, from a seed: data in a narrow type, gates and states in float32."""

    def __init__(self, device: str, dtype: str, seed: str) -> None:
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6]))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator, device=self.device)

    def data(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)

    def starts(self, sizes: Sizes) -> Tensor | None:
        return None if sizes.starts is None else torch.tensor(sizes.starts, device=self.device)


@dataclass(frozen=True)
class Peer:
    """What one would use instead: `call` takes what `prepare` makes of our inputs; `module` must be importable.

    It is compared by its first result alone, and timed without `prepare`. One that is slow to compile is called at
    the sizes named in `sizes` alone, and not in a dry run.
    """

    name: str
    module: str
    call: Function
    prepare: Callable[[Inputs], Inputs] = lambda inputs: inputs
    sizes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Case:
    """One operator of `dsf.kernels` (`"module:NAME"`) for one kernel of its table.

    `draw(draw, sizes)` makes inputs; `exact` is the recurrence, run in float64; `naive` the same computation
    as one would write it in torch, in the type of the data. `results` names what the operator returns.
    `checks` are validated, in a dry run `small` ones; `times` and `long` are timed; `repeated` is run again and
    again; `far` has more elements than 32 bits can number.
    """

    name: str
    kernel: str
    operator: str
    draw: Callable[[Draw, Sizes], Inputs]
    exact: Function
    naive: Function
    results: tuple[str, ...]
    checks: tuple[Sizes, ...]
    small: tuple[Sizes, ...]
    repeated: Sizes
    times: tuple[Sizes, ...] = ()
    long: tuple[Sizes, ...] = ()
    far: tuple[Sizes, ...] = ()
    dtypes: tuple[str, ...] = ALL
    timed: str = "bfloat16"
    peers: tuple[Peer, ...] = ()
    backward: bool = True
    in_place: tuple[str, ...] = ()
    """Tensors that the operator changes; they are results too, after those that it returns."""
    options: Mapping[str, Any] = field(default_factory=dict)
    flops: Callable[[Sizes], float] | None = None
    against: str | None = None
    """Another case that it is to be faster than, at the same sizes."""
    bound: Callable[[Sizes, str, torch.device], float] | None = None
    """How many times faster, as the simulator has it."""

    def function(self) -> Function | None:
        """The operator as it stands now, or None where this version has none."""
        module, _, name = self.operator.partition(":")
        return getattr(importlib.import_module(module), name, None)

    def pure(self) -> Function | None:
        """The same without a change in place: copies are changed, and returned as results."""
        function = self.function()
        if function is None or not self.in_place:
            return function

        def call(**given: Any) -> tuple[Tensor, ...]:
            copies = {name: given[name].clone() for name in self.in_place}
            found = function(**{**given, **copies})
            return (*((found,) if isinstance(found, Tensor) else found), *copies.values())

        return call

    def inputs(self, device: str, dtype: str, sizes: Sizes, seed: str) -> Inputs:
        """Fresh inputs, with the options that belong to the case."""
        drawn = self.draw(Draw(device, dtype, seed), sizes)
        return Inputs(drawn.tensors, {**self.options, **drawn.options})
