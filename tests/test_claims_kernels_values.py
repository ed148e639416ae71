"""Known values of the claims about kernels, the programs that they count, and the figures."""

from __future__ import annotations

import ast
import inspect
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import torch

import dsf
from dsf.certificate import Budget, Claim, Task
from dsf.coupling import OuterCoupling
from dsf.kernels.claims import (
    aaren,
    crossover,
    decay_rates,
    figures,
    operations,
    published,
    row_statistics,
    slopes,
    traffic,
)
from dsf.kernels.claims.symbols import Symbols, compositions
from dsf.mixers.lightning import slopes as rates
from dsf.numerics import require_close, require_within, unit_roundoff
from dsf.registry import resolve
from dsf.structure import Scalar
from dsf.system import System

U = unit_roundoff(torch.float64)


def evidence_of(claim: Claim, seed: int = 0) -> dict:
    return dict(claim.witness(claim.instance(Task(seed, Budget.SMOKE))))


def test_splits() -> None:
    assert len(list(compositions(4))) == 8 and list(compositions(0)) == [()]
    assert all(sum(lengths) == 5 for lengths in compositions(5))


def test_symbols_are_the_recurrence_of_the_package() -> None:
    """One draw of numbers put in for the symbols, against the forms of `dsf.run`."""
    rng = np.random.default_rng(0)
    x = Symbols.of(3, 2, 2)
    numbers = {s: Fraction(int(rng.integers(1, 9)), 8) for s in _symbols(x)}
    outputs, last = (part.subs(numbers) for part in x.run())
    q, k, v, a, start = (_tensor(part.subs(numbers)) for part in (x.q, x.k, x.v, x.a, x.state))
    system = System(
        Scalar(a[None, :, None, 0]),
        OuterCoupling(k[None, :, None]),
        OuterCoupling(q[None, :, None]),
    )
    found, state = dsf.run(system, v[None, :, None], dsf.State(start[None, None]), form="chunkwise")
    bound = torch.tensor(64 * U) * _tensor(outputs).abs().max()
    require_within(found[0, :, 0], _tensor(outputs), bound, "outputs")
    require_within(state.memory[0, 0], _tensor(last), bound + 64 * U, "state")


def _symbols(x: Symbols) -> set[Any]:
    return set().union(*(part.free_symbols for part in (x.q, x.k, x.v, x.a, x.state)))


def _tensor(exact: Any) -> torch.Tensor:
    return torch.tensor(np.array(exact.tolist(), dtype=np.float64))


def test_rates_are_the_package_s() -> None:
    h, heads, layer, layers, paper, code = decay_rates._rates()
    for name, rule, found in (
        ("paper", paper, rates(8, 3, 12, "paper")),
        ("code", code, rates(8, 3, 12, "code")),
    ):
        for n in range(8):
            exact = rule.subs({h: n + 1, heads: 8, layer: 3, layers: 12})
            require_close(float(found[n]), float(exact), 8, name)


def test_counts_by_hand() -> None:
    assert operations.forward(64, 128, 128) == 98304
    assert operations.backward(64, 128, 128) == 294912
    assert crossover.crossing(64, 128, 128) == 383
    assert crossover.softmax(3, 1, 1) == 2 * 2 * 6
    assert 383 * operations.forward(64, 128, 128) == crossover.softmax(383, 128, 128)
    units = traffic.one_pass(64, 128).bytes / (2 * 64 * 4 * 128), traffic.two_passes(64).bytes
    assert units == (4, 10 * 2 * 64 * 4 * 128)  # four tensors, and ten where states travel
    assert traffic.one_pass(64, 64).bytes == 6 * 2 * 64 * 4 * 128


def test_published_rows_by_hand() -> None:
    assert published._crosses("forward") == (2048, 4096)
    assert published._crosses("backward") == (4096, 8192)
    assert float(published.per_token("lightning2", "forward")[0]) * 1024 * 128 / 1e6 == 0.585876


def test_bounds_of_the_exponential() -> None:
    for x in (Fraction(-3), Fraction(-1, 2), Fraction(0), Fraction(7, 3), Fraction(20)):
        low, high = aaren.power_of_e(x)
        assert low <= Fraction(float(np.exp(float(x)))) <= high


def test_two_keys_by_hand() -> None:
    judged = slopes.SMALLER_EVERYWHERE.judge({"exponentials": np.array([1, 1])})
    assert judged.measured == 2 / 9 and judged.bound == 0.25  # σ(-log 2) = 1/3, p = 1/2


def test_counted_softmax_by_hand() -> None:
    found = row_statistics.softmax(5, 2, 3)
    assert found == {"exp": 8, "max": 5, "add": 13, "mul": 12, "div": 3, "log": 1}


# -- the programs that are counted --------------------------------------------------------------------


def test_programs_multiply_as_counted() -> None:
    """As many `tl.dot` in the programs of scalar decay as products in the algebra that is counted."""
    x, forward, both = operations.draws(3, 2, 2, 1), operations.Counting(), operations.Counting()
    operations.in_chunks(x, 3, forward)
    operations.three_walks(x, 3, both)
    found = _dots("dsf.kernels.triton_code.chunk_decay")
    assert found["walk"] == forward.products == 4 and both.products == 3 * found["walk"]


def _dots(module: str) -> dict[str, int]:
    source = inspect.getsource(resolve(f"{module}:triton") and sys.modules[module])
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return {
        function.name: sum(
            ast.unparse(node.func) == "tl.dot"
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
        )
        for function in functions
    }


def test_the_forward_program_moves_the_tensors_that_are_counted() -> None:
    kernel = resolve("dsf.kernels.decay.scalar:KERNEL")
    (forward,) = (program for program in kernel.programs if program.label == "forward")
    data = {name for name, kind in forward.pointers.items() if kind == "data"}
    assert (
        data == {"reads", "writes", "values", "out"} and len(traffic.one_pass(64, 128).counts) == 5
    )
    assert not traffic.one_pass(64, 128).counts["states"].any()


# -- figures ------------------------------------------------------------------------------------------


def test_the_figure_of_counts_says_that_it_counts() -> None:
    made = figures.operations_per_token()
    (place,) = made.axes
    flat, growing, equal = (np.asarray(line.get_ydata(), dtype=float) for line in place.lines)
    assert set(flat) == {98304.0} and (np.diff(growing) > 0).all() and len(equal) == 2
    assert "counted, not timed" in place.get_title()
    assert float(np.asarray(place.lines[2].get_xdata())[0]) == 383


def test_the_figure_of_times_shows_the_published_rows() -> None:
    made = figures.published_times()
    assert [place.get_title() for place in made.axes] == ["forward", "backward"]
    shown = np.asarray(made.axes[0].lines[0].get_ydata(), dtype=float)
    for point, ms, n in zip(
        shown, published.MILLISECONDS["lightning2", "forward"], published.LENGTHS, strict=True
    ):
        require_close(point, ms * 1e3 / n, 4)
