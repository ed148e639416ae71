"""Whether two architectures compute the same outputs: a certificate, by algebra or by random points."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import sympy

from dsf.certificate import Budget, Claim, Evidence, Level, Status, Task, Verdict
from dsf.certify import Certificate, certify
from dsf.errors import InvalidInput
from dsf.mixers.architecture import Architecture, Sample
from dsf.system import System
from dsf.verify.judges import symbolic_identity

from .field import Generators, Residue, at_point, random_prime, root_of_minus_one
from .recurrence import Recurrence, symbols
from .tensors import mapped
from .twin import Twin, draw, trace

Builder = Architecture | Callable[..., System]
Method = Literal["symbolic", "randomised"]

TRIALS = 2
_MISS = 1e-12  # the largest probability to miss a difference that is let pass
_DIGITS, _CLEAR = (
    50,
    1e-20,
)  # digits at the sample, and a relative gap that no rounding of them makes
SMALL = 8  # steps times keys for which the outputs are written out
LARGEST = 2500  # operations in all outputs together, for which algebra is tried first


def prove_equal(
    a: Architecture,
    b: Builder,
    *,
    length: int = 3,
    keys: int = 2,
    values: int = 1,
    under: Mapping[str, Any] | None = None,
    leave: tuple[str, ...] = (),
    method: Method | None = None,
    seed: int = 0,
    **options: Any,
) -> Certificate:
    r"""A certificate of y^a_i = y^b_i for i = 1 … `length`, for all quantities and values of these sizes.

    `b` takes the quantities of `a` by name: an architecture of the same ones, or any function of them to
    a system. `under` restricts them by a number or by a function of the symbols, `leave` names optional
    ones that both go without; `options` go to `a`. Both are run on symbols.

    Method "symbolic" decides by exact algebra. Method "randomised" evaluates both sides at random points
    of random prime fields of 64 bits, which proves nothing but misses a difference of degree d with
    probability at most 2d/p per point: the certificate's level is `statistical` and `measured` is that
    probability. It needs entries without roots; a difference counts where it also shows in 50 digits at
    the sample. By default algebra is used as long as the expressions are small.

    Raises `dsf.twin.Untraceable` where the code uses a function without an exact rule, `InvalidInput`
    for unknown quantities or methods and for outputs of different shapes.

    >>> from dsf.mixers.deltanet import DELTANET
    >>> from dsf.mixers.gated_deltanet import GATED_DELTANET, gated_deltanet
    >>> proof = prove_equal(DELTANET, lambda q, k, beta: gated_deltanet(q, k, 0 * beta, beta))
    >>> proof.status.value, proof.level.value
    ('holds', 'symbolic')
    >>> long = prove_equal(GATED_DELTANET, gated_deltanet, length=8, keys=4)
    >>> long.status.value, long.level.value, long.verdict.measured < 1e-30
    ('holds', 'statistical', True)
    """
    if method not in (None, "symbolic", "randomised"):
        raise InvalidInput(f"`method` must be 'symbolic' or 'randomised'; got {method!r}")
    twins = _twins(
        a, b, draw(a, length, keys=keys, values=values, seed=seed), under, leave, options
    )
    if method is None:
        small = length * keys <= SMALL and _operations(twins) <= LARGEST
        method = "symbolic" if small else "randomised"
    name = getattr(b, "name", getattr(b, "__name__", "function")).strip("<>")
    claim = (_by_algebra if method == "symbolic" else _at_random)(*twins, f"{a.name}-{name}")
    return certify(claim, seed=seed, budget=Budget.DEFAULT)


def _twins(
    a: Architecture,
    b: Builder,
    sample: Sample,
    under: Mapping[str, Any] | None,
    leave: tuple[str, ...],
    options: Mapping[str, Any],
) -> tuple[Twin, Twin]:
    given = {name: x for name, x in sample.quantities.items() if name not in leave}
    sample = Sample(given, sample.tokens)
    made = {name: symbols(name, x) for name, x in given.items()}
    other = b.build if isinstance(b, Architecture) else b
    left = trace(a.name, lambda **q: a.build(**q, **options), sample, made, under)
    right = trace("b", other, sample, made, under)
    shapes = [_shape(left.recurrence), _shape(right.recurrence)]
    if shapes[0] != shapes[1]:
        raise InvalidInput(f"the outputs of a step have axes {shapes[0]} and {shapes[1]}")
    return left, right


def _operations(twins: tuple[Twin, Twin]) -> int:
    return sum(int(sympy.count_ops(y)) for t in twins for y in t.outputs.ravel())


def _shape(recurrence: Recurrence) -> tuple[bool, int]:
    """Whether the state is a vector, and the read-outs per step."""
    return recurrence.vector, recurrence.steps[0].read.shape[1]


def _claim(name: str, level: Level, rule: str, parts: Any) -> Claim:
    safe = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return Claim(
        id=f"equal.{safe}",
        title=f"{name}: equal outputs",
        statement=r"$y^a_i = y^b_i$",
        citation="own wording",
        level=level,
        expected=Status.HOLDS,
        bound_rule=rule,
        instance=parts.instance,
        witness=parts.witness,
        control=parts.control,
        judge=parts.judge,
    )


def _by_algebra(left: Twin, right: Twin, name: str) -> Claim:
    """The control doubles one side, which is false unless both are 0."""

    def identities(factor: int) -> dict[str, tuple[Any, Any]]:
        pairs = zip(left.outputs.ravel(), right.outputs.ravel(), strict=True)
        return {f"y{i}": (x, factor * y) for i, (x, y) in enumerate(pairs)}

    parts = symbolic_identity(lambda: identities(1), lambda: identities(2))
    return _claim(name, Level.SYMBOLIC, "exact algebra over free symbols", parts)


def _at_random(left: Twin, right: Twin, name: str) -> Claim:
    rule = "Schwartz and Zippel: at most (2d/p) per random point; measured is the product over the points"
    return _claim(name, Level.STATISTICAL, rule, RandomPoints(left, right))


class RandomPoints:
    """The four functions of a claim that compares two recurrences at random points of prime fields."""

    def __init__(self, left: Twin, right: Twin) -> None:
        self.left, self.right = left, right
        self.generators = Generators()

    def instance(self, task: Task) -> Evidence:
        return {"seed": task.seed}

    def witness(self, instance: Evidence) -> Evidence:
        return self._compared(int(instance["seed"]), double=1)

    def control(self, instance: Evidence) -> Evidence:
        return self._compared(int(instance["seed"]), double=2)

    def _compared(self, seed: int, double: int) -> Evidence:
        lowered = [t.recurrence.map(self.generators.lower) for t in (self.left, self.right)]
        tokens = mapped(self.generators.lower, self.left.tokens)
        degree = sum(self._degree(t.recurrence) for t in (self.left, self.right))
        source, trials = random.Random(seed), []
        while len(trials) < TRIALS:
            prime = random_prime(source)
            try:
                sides = [self._outputs(r, tokens, prime, random.Random(seed)) for r in lowered]
            except ZeroDivisionError:
                continue
            seed += 1
            trials.append(
                {
                    "prime": prime,
                    "left": sides[0],
                    "right": [double * y % prime for y in sides[1]],
                }
            )
        left, right = (self._at_sample(t) for t in (self.left, self.right))
        gap = max(abs(x - double * y) / (1 + abs(x)) for x, y in zip(left, right, strict=True))
        return {"degree": degree, "gap": float(gap), "trials": trials}

    def _at_sample(self, twin: Twin) -> list[Any]:
        """All outputs in 50 digits, at the numbers of the left side's sample."""
        values = self.left.values()
        numbers = twin.recurrence.map(lambda e: sympy.N(e, _DIGITS, subs=values))
        tokens = mapped(lambda e: sympy.N(e, _DIGITS, subs=values), self.left.tokens)
        return list(numbers.run(tokens, sympy.Integer(0), sympy.Integer(1)).outputs.ravel())

    def _outputs(
        self, recurrence: Recurrence, tokens: np.ndarray, prime: int, source: random.Random
    ) -> list[int]:
        """All outputs at one random point; the point is the same for both sides, symbol by symbol."""
        base = source.randrange(prime)
        root = root_of_minus_one(prime)

        def at(i: int) -> np.ndarray:
            point = _Point(prime, base, {g: i for g in self.generators.imaginary})
            field = replace(recurrence, real_part=False).map(lambda e: at_point(e, point, prime))
            values = mapped(lambda e: at_point(e, point, prime), tokens)
            return field.run(values, Residue(0, prime), Residue(1, prime)).outputs.ravel()

        found = at(root)
        if recurrence.real_part:  # the conjugate is the value at -i
            found = (found + at(-root % prime)) / Residue(2, prime)
        return [y.value for y in found]

    def _degree(self, recurrence: Recurrence) -> int:
        """A bound of the degree of an output's numerator: a path takes one entry of every Λ, B and C."""
        total = 1
        for step in recurrence.steps:
            below: dict[Any, int] = {}
            for part in (step.transition, step.write, step.read, step.direct):
                if part is None:
                    continue
                degrees = [self.generators.degree(e) for e in part.ravel()]
                total += max(above for above, _, _ in degrees)
                below |= {denominator: size for _, denominator, size in degrees}
            total += 4 * sum(below.values())
        return total * (1 + recurrence.normalised) * (1 + recurrence.real_part)

    @staticmethod
    def judge(evidence: Evidence) -> Verdict:
        probability, equal = 1.0, True
        for trial in evidence["trials"]:
            prime, degree = int(trial["prime"]), int(evidence["degree"])
            if not sympy.isprime(prime) or 2 * degree >= prime or len(trial["left"]) == 0:
                return Verdict(Status.INCONCLUSIVE, remark="no large prime, or no outputs")
            equal = equal and list(trial["left"]) == list(trial["right"])
            probability *= 2 * degree / prime
        if equal and probability <= _MISS:
            remark = "randomised identity test; measured is the probability to miss a difference"
            return Verdict(Status.HOLDS, probability, 0.0, _MISS, remark=remark)
        if float(evidence["gap"]) > _CLEAR:
            remark = "differs at a random point, and in 50 digits at the sample"
            return Verdict(Status.VIOLATED, 1.0, 0.0, _MISS, remark=remark)
        remark = "differs with its exponentials taken as independent: neither proved nor refuted"
        return Verdict(Status.INCONCLUSIVE, remark=remark)


class _Point(dict):
    """A random value for every symbol that is asked for, the same for the same name; i is given."""

    def __init__(self, prime: int, base: int, given: Mapping[Any, int]) -> None:
        super().__init__({symbol: Residue(value, prime) for symbol, value in given.items()})
        self.prime, self.base = prime, base

    def __missing__(self, symbol: Any) -> Residue:
        named = random.Random(f"{self.base} {type(symbol).__name__} {symbol.name}")
        self[symbol] = Residue(named.randrange(self.prime), self.prime)
        return self[symbol]
