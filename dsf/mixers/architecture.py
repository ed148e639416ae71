"""What the list of architectures says of each: its formula, where it comes from, and how to draw one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.system import System


@dataclass(frozen=True)
class Draw:
    """Sizes and randomness of a sample: batch B, length T, heads H, keys K, values V."""

    generator: torch.Generator
    batch: int
    length: int
    heads: int
    keys: int
    values: int
    dtype: torch.dtype = torch.float64

    @property
    def lead(self) -> tuple[int, int, int]:
        """(B, T, H)."""
        return self.batch, self.length, self.heads

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=self.dtype)

    def unit(self, *shape: int) -> Tensor:
        """Vectors of length 1 along the last axis."""
        return torch.nn.functional.normalize(self.normal(*shape), dim=-1)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=self.dtype)


@dataclass(frozen=True)
class Sample:
    """The quantities of one architecture by name, and the values to run it on."""

    quantities: dict[str, Tensor]
    tokens: Tensor


@dataclass(frozen=True)
class Architecture:
    """One paper formula as a function from its own quantities to a `System`.

    `build(**sample.quantities)` gives the system; every law of the test-suite runs over `sample`.
    """

    name: str
    title: str
    equation: str
    citation: str
    build: Callable[..., System]
    sample: Callable[[Draw], Sample]


def queries_and_keys(draw: Draw) -> Sample:
    """A sample of architectures that take q and k alone."""
    quantities = {name: draw.normal(*draw.lead, draw.keys) for name in ("q", "k")}
    return Sample(quantities, draw.normal(*draw.lead, draw.values))


def delta_rule(draw: Draw, **more: Tensor) -> Sample:
    """A sample of the delta family: q, keys of unit length, strengths β in [0, 2], and `more`."""
    quantities = {
        "q": draw.normal(*draw.lead, draw.keys),
        "k": draw.unit(*draw.lead, draw.keys),
        "beta": 2 * draw.uniform(*draw.lead),
    }
    return Sample(quantities | more, draw.normal(*draw.lead, draw.values))
