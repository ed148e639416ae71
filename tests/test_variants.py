"""Options of architectures: what the paper says, what its code does, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from lawbook import formulas, laws

import dsf
from dsf.errors import InvalidInput
from dsf.mixers import ARCHITECTURES, Architecture, Draw, Sample
from dsf.mixers.lightning import slopes
from dsf.mixers.taylor_attention import symmetric_features, taylor_attention
from dsf.numerics import require_within
from dsf.registry import resolve
from dsf.structure import Dense

ALL: dict[str, Architecture] = {a.name: a for a in map(resolve, ARCHITECTURES)}


def draw(name: str, length: int = 19, heads: int = 4) -> Sample:
    generator = torch.Generator().manual_seed(1)
    return ALL[name].sample(Draw(generator, 2, length, heads, 4, 5))


def lightning(q, k, v):
    """Layer 3 of 12: ALiBi's slopes for 4 heads, scaled."""
    return formulas.decayed(
        q, k, v, np.exp(-np.array([1 / 4, 1 / 16, 1 / 64, 1 / 256]) * (1 - 3 / 11 + 1e-5))
    )


def rg_lru(recurrence, enter, rate, v):
    a = np.exp(-8 * np.log1p(np.exp(rate)) * formulas.sigmoid(recurrence))
    gain = np.sqrt(1 - a**2)
    gain[:, 0] = 1
    return formulas.gated(a, gain * formulas.sigmoid(enter), v)


def mamba3(v, **quantities):
    return formulas.mamba3(**quantities, v=v, squash=True)


def held(step, A, p, b, c, skip, v):
    """S4 by zero-order hold."""
    y = np.empty_like(v)
    for h in range(A.shape[0]):
        matrix = np.diag(A[h]) - np.outer(p[h], p[h].conj())
        moved = scipy.linalg.expm(step[h] * matrix)
        written = np.linalg.solve(matrix, moved @ b[h] - b[h])[:, None]
        y[:, :, h] = formulas.filtered(moved, written, 2 * c[h][None], v[:, :, h])
    return y + skip[:, None] * v


def bilinear(step, A, b, c, skip, v):
    """S4D by the bilinear rule is S4 without its low rank."""
    return formulas.s4(step, A, 0 * b, b, c, skip, v)


def bilinear_s5(step, A, b, c, skip, v):
    pole = (1 + step * A / 2) / (1 - step * A / 2)
    entered = (step / (1 - step * A / 2))[:, None] * b
    y = formulas.filtered(np.diag(pole), entered, 2 * c, v[:, :, 0])
    return y[:, :, None] + skip * v


def softplus_norm(q, k, n, v):
    return formulas.normalised_attention(q, k, np.log(np.log1p(np.exp(n))), v)


def sigmoid_norm(q, k, n, v):
    return formulas.normalised_attention(q, k, -np.log1p(np.exp(-n)), v)


def fourth_degree(q, k, v):
    s = np.einsum("bihk,bjhk->bhij", q, k) / np.sqrt(k.shape[-1])
    return formulas.softmax_like(1 + s + s**2 / 2 + s**3 / 6 + s**4 / 24, v)


VARIANTS: list[tuple[str, dict[str, Any], Any]] = [
    ("lightning", {"variant": "code", "layer": 3}, lightning),
    ("rg-lru", {"variant": "code"}, rg_lru),
    ("mamba3", {"variant": "code"}, mamba3),
    ("s4", {"discretisation": "zoh"}, held),
    ("s4d", {"discretisation": "bilinear"}, bilinear),
    ("s5", {"discretisation": "bilinear"}, bilinear_s5),
    ("normalised-attention", {"norm": "softplus"}, softplus_norm),
    ("normalised-attention", {"norm": "sigmoid"}, sigmoid_norm),
    ("taylor-attention", {"degree": 4}, fourth_degree),
]


@pytest.mark.parametrize(
    ("name", "options", "formula"), VARIANTS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_option_is_its_formula(name, options, formula) -> None:
    sample = draw(name)
    system = ALL[name].build(**sample.quantities, **options)
    for form in dsf.forms.forms():
        if form.admits(system):
            laws.is_formula(formula, system, sample, form.name)


WORDS = {
    "lightning(x, x, variant='draft')": "'paper' or 'code'; got 'draft'",
    "rg_lru(x[0], x[0], x[0, 0, 0], variant='draft')": "'paper' or 'code'; got 'draft'",
    "mamba3(x, x, x[0], x[0], x[0], x, variant='draft')": "'paper' or 'code'; got 'draft'",
    "s4(x[0, 0, 0], a, a, a, a, discretisation='euler')": "'zoh' or 'bilinear'; got 'euler'",
    "s4d(x[0, 0, 0], a, a, a, discretisation='euler')": "'zoh' or 'bilinear'; got 'euler'",
    "normalised_attention(x, x, x[0], norm='relu')": "exp, softplus, sigmoid; got 'relu'",
}


def test_wrong_words_are_refused() -> None:
    """In a process of its own: here the annotations would speak first."""
    script = "import torch\nfrom dsf.mixers import *\nfrom dsf import InvalidInput\n"
    script += "x, a = torch.ones(1, 1, 1, 1), torch.ones(1, 1) + 0j\n"
    script += "".join(f"try: {call}\nexcept InvalidInput as e: print(e)\n" for call in WORDS)
    run = [sys.executable, "-c", script]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    for line, words in zip(said, WORDS.values(), strict=True):
        assert words in line


def test_numbers_that_cannot_be_are_refused() -> None:
    for name, options, words in (
        ("lightning", {"layer": 12}, "`layer`"),
        ("taylor-attention", {"degree": 3}, "even"),
        ("taylor-attention", {"degree": -2}, "even"),
    ):
        with pytest.raises(InvalidInput, match=words):
            ALL[name].build(**draw(name).quantities, **options)


def test_sizes_that_cannot_be_are_refused() -> None:
    quantities = draw("mamba3").quantities
    with pytest.raises(InvalidInput, match="K/2"):
        ALL["mamba3"].build(**quantities | {"angle": quantities["angle"][..., :1]})
    quantities = draw("log-linear").quantities
    with pytest.raises(InvalidInput, match="16 tokens; got T = 19"):
        ALL["log-linear"].build(**quantities | {"scales": quantities["scales"][..., :5]})
    with pytest.raises(InvalidInput, match="power of two"):
        slopes(6, 0, 12, "code")


def test_held_s4_has_a_dense_transition() -> None:
    system = ALL["s4"].build(**draw("s4").quantities, discretisation="zoh")
    assert isinstance(system.transition, Dense)


def test_symmetric_features_are_the_truncated_exponential() -> None:
    """Exact in integers: powers of (x·y) times P! / p!."""
    x, y = torch.tensor([[1.0, -2.0, 3.0], [2.0, 1.0, -1.0]], dtype=torch.float64)
    for degree, count in ((0, 1), (1, 4), (2, 10), (4, 35)):
        found = (symmetric_features(x, degree) * symmetric_features(y, degree)).sum(-1)
        s = torch.dot(x, y)
        terms = [s**p / float(np.prod(range(1, p + 1))) for p in range(degree + 1)]
        exact, size = sum(terms, 0 * s), sum((t.abs() for t in terms), 0 * s)
        assert symmetric_features(x, degree).shape[-1] == count
        require_within(found, exact, 1000 * torch.finfo(s.dtype).eps * 27**degree + size * 0, "φᵀφ")
    q = torch.zeros(1, 2, 1, 3)
    assert taylor_attention(q, q, degree=0).key_size == 1
