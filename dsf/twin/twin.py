"""The symbolic twin of an architecture: its own code, run on symbols and unrolled exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.mixers.architecture import Architecture, Draw, Sample
from dsf.system import System

from .recurrence import Entries, Recurrence, Unrolled, recurrence_of, symbols
from .tensors import Exact, expressions, mapped


@dataclass(frozen=True, eq=False)
class Twin:
    """Exact expressions of one run from the empty state: one batch element, one head.

    `quantities` are the symbols by name, `tokens` (T, R, V) or (T, W) the symbols of the values,
    `outputs` y, `states` h_0 … h_T as (V, K); all arrays of sympy expressions. `system` holds the
    exact tensors that the architecture's code produced.
    """

    name: str
    quantities: Mapping[str, np.ndarray]
    tokens: np.ndarray
    system: System
    recurrence: Recurrence
    sample: Sample

    @cached_property
    def unrolled(self) -> Unrolled:
        """The run on symbols; its size grows with the number of paths, so it is made when asked for."""
        return self.recurrence.run(self.tokens, sympy.Integer(0), sympy.Integer(1))

    @property
    def outputs(self) -> np.ndarray:
        return self.unrolled.outputs

    @property
    def final_state(self) -> np.ndarray:
        """h_T as (V, K)."""
        return self.unrolled.states[-1]

    def matrix(self, channel: int = 0) -> sympy.Matrix:
        """Φ of one value channel: ∂y_i/∂u_j, exact since y is linear in the values x.

        For several writes per step the columns are (step, write); for a vector state `channel` is
        both the input's and the output's.
        """
        outputs = self.outputs[..., channel].reshape(-1)
        tokens = self.tokens[..., channel].reshape(-1)
        return sympy.Matrix([[sympy.diff(y, u) for u in tokens] for y in outputs])

    def step(self, i: int) -> Entries:
        """(Λ_i, B_i, C_i, D_i) as arrays of expressions."""
        return self.recurrence.steps[i]

    def latex(self, i: int = 0) -> str:
        r"""(Λ, B, C, D) of step i in LaTeX, one equation per line; D where there is one.

        >>> from dsf.mixers.gla import GLA
        >>> print(unroll(GLA, 1, keys=1).latex())
        \Lambda = \left[\begin{matrix}e^{g}\end{matrix}\right]
        B = \left[\begin{matrix}k\end{matrix}\right]
        C = \left[\begin{matrix}q\end{matrix}\right]
        """
        step = self.step(i)
        write = step.write[0] if self.recurrence.vector else step.write[0].T
        parts = {r"\Lambda": step.transition[0], "B": write, "C": step.read[0]}
        if step.direct is not None:
            parts["D"] = step.direct
        return "\n".join(f"{name} = {sympy.latex(sympy.Matrix(x))}" for name, x in parts.items())

    def matrix_latex(self) -> str:
        """Φ of the first value channel in LaTeX."""
        return rf"\Phi = {sympy.latex(self.matrix())}"

    def symbols(self) -> list[sympy.Symbol]:
        """Every symbol of the quantities, then of the tokens, in a fixed order."""
        entries = [e for x in (*self.quantities.values(), self.tokens) for e in x.ravel()]
        found: dict[sympy.Symbol, None] = {}
        for entry in entries:
            for symbol in sorted(entry.free_symbols, key=lambda s: s.name.endswith("_im")):
                found.setdefault(symbol)
        return list(found)

    def values(self) -> dict[sympy.Symbol, float]:
        """The numbers of the sample behind each symbol, in the order of `symbols`."""
        values: dict[sympy.Symbol, float] = {}
        given = {**self.sample.quantities, "": self.sample.tokens[0, :, 0]}
        arrays = {**self.quantities, "": self.tokens.reshape(given[""].shape)}
        for name, array in arrays.items():
            for place in np.ndindex(array.shape):
                number = complex(given[name][place].item())
                for symbol in array[place].free_symbols:
                    values[symbol] = number.imag if symbol.name.endswith("_im") else number.real
        return {symbol: values[symbol] for symbol in self.symbols()}

    def lambdify(self, modules: str = "numpy") -> Callable[..., Any]:
        """The outputs as a function of `symbols()`: `modules` is "numpy" (float64) or "mpmath".

        >>> import mpmath
        >>> from dsf.mixers.retnet import RETNET
        >>> twin = unroll(RETNET, 2, keys=1)
        >>> [str(s) for s in twin.symbols()]
        ['q_0', 'q_1', 'k_0', 'k_1', 'x_0', 'x_1']
        >>> [float(y) for y in twin.lambdify("mpmath")(*map(mpmath.mpf, (1, 1, 1, 1, 1, 1)))]
        [1.0, 1.96875]
        """
        if modules not in ("numpy", "mpmath"):
            raise InvalidInput(f"`modules` must be 'numpy' or 'mpmath'; got {modules!r}")
        return sympy.lambdify(self.symbols(), list(self.outputs.ravel()), modules, cse=True)


def unroll(
    architecture: Architecture,
    length: int,
    *,
    keys: int = 2,
    values: int = 1,
    seed: int = 0,
    under: Mapping[str, Any] | None = None,
    **options: Any,
) -> Twin:
    """Run the code of an architecture on symbols and unroll `length` steps exactly.

    The quantities have the shapes that the architecture draws for batch 1 and one head. `under`
    replaces quantities by numbers, or by a function of their symbols; `options` go to the
    architecture. Where a function has branches, the one taken at the sample of `seed` is written.
    Sizes that end in seconds are about T ≤ 4, K ≤ 2; beyond, give numbers (`evaluate`).

    Raises `dsf.twin.Untraceable` where the code uses a function without an exact rule.

    >>> from dsf.mixers.deltanet import DELTANET
    >>> twin = unroll(DELTANET, 2, keys=1)
    >>> twin.matrix()[1, 0].factor()
    -beta_0*k_0*q_1*(beta_1*k_1**2 - 1)
    """
    sample = draw(architecture, length, keys=keys, values=values, seed=seed)
    made = {name: symbols(name, x) for name, x in sample.quantities.items()}
    return trace(
        architecture.name, lambda **q: architecture.build(**q, **options), sample, made, under
    )


def evaluate(
    architecture: Architecture,
    quantities: Mapping[str, np.ndarray],
    tokens: np.ndarray,
    **options: Any,
) -> np.ndarray:
    """The outputs for given exact numbers (sympy numbers, fractions or integers), exactly, at any length.

    `quantities` have the architecture's axes for batch 1 and one head, `tokens` are (T, R, V) or
    (T, W). A logarithm of a rational keeps gates rational: g = log(1/2) gives α = 1/2.

    >>> import sympy
    >>> from dsf.mixers.ssd import SSD
    >>> one = np.full((1, 3, 1, 1), sympy.Integer(1))
    >>> given = {"delta": one[..., 0], "A": np.array([-sympy.log(3)]), "b": one, "c": one}
    >>> [str(y) for y in evaluate(SSD, given, one[0]).ravel()]
    ['1', '4/3', '13/9']
    """
    made = {}
    for name, x in quantities.items():
        entries = mapped(sympy.sympify, x)
        numbers = torch.from_numpy(mapped(complex, entries).astype(complex))
        real = not bool(numbers.imag.any())
        made[name] = Exact.of(numbers.real.clone() if real else numbers, entries)
    system = architecture.build(**made, **options)
    entries = mapped(sympy.sympify, tokens)
    return recurrence_of(system, len(tokens), tokens.shape[-1]).run(entries).outputs


def draw(
    architecture: Architecture, length: int, *, keys: int = 2, values: int = 1, seed: int = 0
) -> Sample:
    """A sample of an architecture for batch 1 and one head."""
    generator = torch.Generator().manual_seed(seed)
    return architecture.sample(Draw(generator, 1, length, 1, keys, values))


def trace(
    name: str,
    build: Callable[..., System],
    sample: Sample,
    quantities: Mapping[str, Exact],
    under: Mapping[str, Any] | None = None,
) -> Twin:
    """The twin of any function from named quantities to a system."""
    given = restricted(quantities, under or {})
    system = build(**given)
    length, width = sample.tokens.shape[1], sample.tokens.shape[-1]
    tokens = symbols("x", sample.tokens).expressions[0, :, 0]
    if tokens.ndim == 2 and not system.is_vector:
        tokens = tokens[:, None, :]
    recurrence = recurrence_of(system, length, width)
    return Twin(
        name,
        {key: x.expressions for key, x in quantities.items()},
        tokens,
        system,
        recurrence,
        sample,
    )


def restricted(quantities: Mapping[str, Exact], under: Mapping[str, Any]) -> dict[str, Any]:
    """The quantities with those of `under` replaced by a number, a tensor or a function of the symbols."""
    unknown = sorted(set(under) - set(quantities))
    if unknown:
        raise InvalidInput(
            f"`under` names {', '.join(unknown)}; the quantities are {', '.join(quantities)}"
        )
    made: dict[str, Any] = dict(quantities)
    for name, rule in under.items():
        given = quantities[name]
        if callable(rule) and not isinstance(rule, Tensor):
            made[name] = rule(given)
            continue
        value = rule if isinstance(rule, Tensor) else torch.full_like(given, rule)
        made[name] = Exact.of(
            value.expand(given.shape).clone(), expressions(value.expand(given.shape))
        )
    return made
