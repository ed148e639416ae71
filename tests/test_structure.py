"""The algebra of transitions: products across all kinds, in exact arithmetic on small integers."""

from __future__ import annotations

import itertools

import pytest
import torch

from dsf.errors import InvalidInput, Refused
from dsf.structure import (
    DPLR,
    KINDS,
    Block,
    Dense,
    Diagonal,
    Elementwise,
    Identity,
    Scalar,
    Structure,
    alike,
    compose,
    join,
)

K, V, LEAD = 4, 3, (2, 3)


def integers(seed: int, *shape: int, complex_: bool = False) -> torch.Tensor:
    """Integers of -3 … 3: sums and products of them are exact in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return torch.randint(-3, 4, shape, generator=generator).double()

    return torch.complex(draw(), draw()) if complex_ else draw()


def members(seed: int, complex_: bool) -> list[Structure]:
    def n(*own: int) -> torch.Tensor:
        return integers(seed + len(own), *LEAD, *own, complex_=complex_)

    return [
        Identity(),
        Scalar(n()),
        Diagonal(n(K)),
        Diagonal(integers(seed, 1, 3, K)),
        Elementwise(n(K, V)),
        Block(n(2, 2, 2)),
        Block(n(1, 4, 4)),
        DPLR(Identity(), n(K, 1), n(K, 1)),
        DPLR(Scalar(n()), n(K, 2), n(K, 2)),
        DPLR(Diagonal(n(K)), n(K, 0), n(K, 0)),
        Dense(n(K, K)),
    ]


def dense(structure: Structure) -> torch.Tensor:
    """(…, V, K, K) in complex, the same for every channel unless Elementwise."""
    matrix = structure.dense(K).to(torch.complex128)
    if isinstance(structure, Elementwise):
        return matrix
    return matrix[..., None, :, :].expand(*matrix.shape[:-2], V, K, K)


def check_product(second: Structure, first: Structure) -> None:
    product = compose(second, first)
    expected = dense(second) @ dense(first)
    assert isinstance(product, join(second, first))
    if not torch.equal(dense(product).expand(expected.shape), expected):
        raise AssertionError(f"{type(second).__name__} · {type(first).__name__} is another matrix")


def refused(second: Structure, first: Structure) -> bool:
    kinds = {type(second), type(first)}
    return Elementwise in kinds and bool(kinds & {Block, DPLR, Dense})


PAIRS = list(itertools.product(range(11), range(11)))


@pytest.mark.parametrize("complexes", list(itertools.product((False, True), repeat=2)))
def test_densifying_a_product_is_multiplying_dense_matrices(complexes) -> None:
    seen = set()
    for i, j in PAIRS:
        second, first = members(1, complexes[0])[i], members(50, complexes[1])[j]
        seen.add((type(second), type(first)))
        if refused(second, first):
            with pytest.raises(Refused, match="value channel"):
                compose(second, first)
        else:
            check_product(second, first)
    assert seen == set(itertools.product(KINDS, KINDS)), "every pair of the join table"


def test_a_wrong_product_is_found() -> None:
    class Forgetful(DPLR):
        def compose(self, first):
            good = super().compose(first)
            return DPLR(good.gate, torch.cat([self.left, first.left], -1), good.right)

    p, q = integers(1, *LEAD, K, 1), integers(2, *LEAD, K, 1)
    bad = Forgetful(Identity(), p, q)
    with pytest.raises(AssertionError):
        check_product(bad, Forgetful(Identity(), q, p))


@pytest.mark.parametrize("complex_", (False, True))
def test_products_associate(complex_) -> None:
    for i, j, k in itertools.product(range(11), repeat=3):
        a, b, c = (members(s, complex_)[n] for s, n in ((1, i), (20, j), (40, k)))
        if refused(a, b) or refused(b, c) or refused(a, c):
            continue
        left, right = compose(compose(a, b), c), compose(a, compose(b, c))
        if not torch.equal(*torch.broadcast_tensors(dense(left), dense(right))):
            raise AssertionError(f"{a}, {b}, {c} do not associate")


@pytest.mark.parametrize("complex_", (False, True))
@pytest.mark.parametrize("index", range(11))
def test_apply_transpose_neutral_and_conjugate(index, complex_) -> None:
    structure = members(3, complex_)[index]
    state = integers(9, *LEAD, K, V, complex_=complex_)
    expected = torch.einsum("...vij,...jv->...iv", dense(structure), state.to(torch.complex128))
    assert torch.equal(structure.apply(state).to(torch.complex128), expected)
    assert torch.equal(dense(structure.transpose()), dense(structure).transpose(-1, -2))
    assert torch.equal(dense(structure.conj()), dense(structure).conj())
    if structure.leaves:
        one = structure.rebuild(structure.neutral())
        assert torch.equal(one.apply(state), state.to(one.apply(state).dtype))
        check_product(one, structure) if not isinstance(structure, Elementwise) else None


def test_logarithms_stay_logarithms_and_mean_the_same() -> None:
    log = torch.tensor([[-1.0, -torch.inf, 0.0]], dtype=torch.float64)
    both = compose(Diagonal.from_log(log), Diagonal.from_log(log))
    assert isinstance(both, Diagonal) and both.log is not None
    assert torch.equal(both.log, 2 * log)
    mixed = compose(Diagonal.from_log(log), Scalar(torch.tensor([2.0], dtype=torch.float64)))
    assert isinstance(mixed, Diagonal) and mixed.value is not None
    assert torch.equal(mixed.value, 2 * torch.exp(log))
    (gradient,) = torch.autograd.grad(
        Scalar.from_log(x := torch.tensor(-torch.inf, requires_grad=True)).decay, x
    )
    assert gradient == 0


@pytest.mark.parametrize("index", range(11))
def test_cost_counts_what_apply_does(index) -> None:
    """Multiply-adds of one application to a K × V state, against the entries that are not fixed."""
    structure = members(4, False)[index]
    cost = structure.cost(K, V)
    expected = {
        Identity: (0, 0),
        Scalar: (K * V, 1),
        Diagonal: (K * V, K),
        Elementwise: (K * V, K * V),
        Dense: (K * K * V, K * K),
    }
    if isinstance(structure, Block):
        assert (cost.multiply_adds, cost.numbers) == (K * structure.width * V, K * structure.width)
    elif isinstance(structure, DPLR):
        gate = structure.gate.cost(K, V)
        assert cost.multiply_adds == gate.multiply_adds + 2 * K * structure.rank * V
        assert cost.numbers == gate.numbers + 2 * K * structure.rank
    else:
        assert (cost.multiply_adds, cost.numbers) == expected[type(structure)]


@pytest.mark.parametrize("index", range(11))
@pytest.mark.parametrize("complex_", (False, True))
def test_norm_bounds_the_spectral_norm_and_growth_the_norm(index, complex_) -> None:
    structure = members(5, complex_)[index]
    exact = torch.linalg.matrix_norm(dense(structure), 2).amax(-1)
    margin = 1 + 64 * torch.finfo(torch.float64).eps
    assert bool((exact <= structure.norm() * margin).all())
    assert bool((exact <= structure.growth() * margin).all())


def test_alike_brings_structures_to_one_kind() -> None:
    parts = alike([Scalar(integers(1, *LEAD)), Diagonal(integers(2, *LEAD, K)), Identity()])
    assert {type(s) for s in parts} == {Diagonal}
    ranks = alike(
        [DPLR(Identity(), integers(1, *LEAD, K, 1), integers(2, *LEAD, K, 1)), members(3, False)[8]]
    )
    assert {s.rank for s in ranks if isinstance(s, DPLR)} == {2}
    for before, after in zip(
        [Scalar(integers(1, *LEAD)), Diagonal(integers(2, *LEAD, K))],
        alike([Scalar(integers(1, *LEAD)), Diagonal(integers(2, *LEAD, K))]),
        strict=True,
    ):
        assert torch.equal(dense(before), dense(after))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Scalar(), ["neither", "value", "log"]),
        (lambda: Scalar(torch.ones(2), torch.ones(2)), ["both"]),
        (lambda: Diagonal(torch.tensor(1.0)), ["Diagonal", "K", "()"]),
        (lambda: Diagonal(torch.ones(3, dtype=torch.int64)), ["int64", "floating"]),
        (lambda: Elementwise(torch.ones(3)), ["K, V", "(3,)"]),
        (lambda: Block(torch.ones(2, 3, 2)), ["(…, G, b, b)", "(2, 3, 2)"]),
        (lambda: Dense(torch.ones(3, 2)), ["(…, K, K)", "(3, 2)"]),
        (lambda: DPLR(Identity(), torch.ones(4, 1), torch.ones(4, 2)), ["(4, 1)", "(4, 2)"]),
        (lambda: DPLR(Diagonal(torch.ones(3)), torch.ones(4, 1), torch.ones(4, 1)), ["3", "4"]),
    ],
)
def test_bad_structures_say_what_is_wrong(build, words) -> None:
    with pytest.raises(InvalidInput) as found:
        build()
    for word in words:
        assert word in str(found.value)
