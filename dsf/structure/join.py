"""Products across kinds: lift both factors to the kind of their join, then compose within it.

    Identity ─ Scalar ─ Diagonal ─┬─ Block ──┬─ Dense
                                  ├─ DPLR ───┘
                                  └─ Elementwise

Elementwise maps act per value channel, so with Block, DPLR or Dense they have no common kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dsf.errors import Refusal, Refused

from .base import Structure
from .dplr import DPLR
from .gates import Diagonal, Elementwise, Gate, Identity, Scalar
from .matrices import Block, Dense

KINDS: tuple[type[Structure], ...] = (Identity, Scalar, Diagonal, Elementwise, Block, DPLR, Dense)

_MIXING = (Block, DPLR, Dense)


def join(second: Structure, first: Structure) -> type[Structure]:
    """The kind of the product Λ₂ Λ₁; raises `Refused` where there is none.

    >>> join(Scalar(torch.tensor(0.5)), Diagonal(torch.ones(3))).__name__
    'Diagonal'
    """
    kinds = {_kind(second), _kind(first)}
    for kind in (Identity, Scalar, Diagonal):
        if len(kinds) > 1:
            kinds.discard(kind)
    if len(kinds) == 1:
        (kind,) = kinds
        same_width = kind is not Block or _same_width(second, first)
        return kind if same_width else Dense
    if Elementwise in kinds:
        raise Refused(
            Refusal(
                f"{type(second).__name__} · {type(first).__name__}",
                "Elementwise gates differ per value channel, so their product with a map that mixes "
                "keys is no single K × K map.",
                "Put each value channel in a head of its own (V = 1) and use Diagonal.",
            )
        )
    return Dense


def compose(second: Structure, first: Structure) -> Structure:
    """Λ₂ Λ₁: apply `first`, then `second`.

    >>> product = compose(Diagonal(torch.tensor([2.0, 3.0])), Scalar(torch.tensor(0.5)))
    >>> product.dense(2)
    tensor([[1.0000, 0.0000],
            [0.0000, 1.5000]])
    """
    second, first = second.whole(), first.whole()
    kind = join(second, first)
    size = second.key_size or first.key_size
    like = second if isinstance(second, kind) else first
    return _lift(second, kind, size, like).compose(_lift(first, kind, size, like))


def _kind(structure: Structure) -> type[Structure]:
    return Elementwise if isinstance(structure, Elementwise) else type(structure)


def _same_width(second: Structure, first: Structure) -> bool:
    widths = {s.width for s in (second, first) if isinstance(s, Block)}
    return len(widths) == 1


def _lift(
    structure: Structure, kind: type[Structure], size: int | None, like: Structure
) -> Structure:
    """`structure` as a member of `kind`; `like` is a member whose sizes and dtype are copied."""
    if isinstance(structure, kind):
        return structure
    if issubclass(kind, Gate):
        return _lift_gate(structure, kind, like)
    assert size is not None
    if kind is DPLR:
        assert isinstance(structure, Identity | Scalar | Diagonal) and isinstance(like, DPLR)
        empty = like.left.new_zeros((*like.left.shape[:-1], 0))
        return DPLR(structure, empty, empty)
    matrix = structure.dense(size)
    if isinstance(structure, Identity):
        matrix = matrix.expand(*(1,) * len(like.lead), size, size)
    example = like.leaves[0]
    matrix = matrix.to(example.device, torch.promote_types(matrix.dtype, example.dtype))
    if kind is Dense:
        return Dense(matrix)
    assert isinstance(like, Block)
    return Block(_diagonal_blocks(matrix, like.width))


def _lift_gate(structure: Structure, kind: type[Gate], like: Structure) -> Gate:
    assert isinstance(like, Gate)
    if isinstance(structure, Identity):
        return kind(*_split(like, like.neutral()[0]))
    assert isinstance(structure, Gate)
    leaf = structure.leaves[0]
    own = like.leaves[0].shape[like.leaves[0].ndim - kind.own_axes :]
    for _ in range(kind.own_axes - structure.own_axes):
        leaf = leaf[..., None]
    return kind(*_split(structure, leaf.expand(*leaf.shape[: leaf.ndim - kind.own_axes], *own)))


def _split(like: Gate, leaf: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    return (leaf, None) if like.value is not None else (None, leaf)


def _diagonal_blocks(matrix: torch.Tensor, width: int) -> torch.Tensor:
    groups = matrix.shape[-1] // width
    tiled = matrix.reshape(*matrix.shape[:-2], groups, width, groups, width)
    return torch.diagonal(tiled, dim1=-4, dim2=-2).movedim(-1, -3)


def alike(structures: Sequence[Structure]) -> list[Structure]:
    """All structures as members of one kind, with leaves of one meaning, so that they can be joined.

    Gates become linear where some are; DPLR ranks are filled up with zero columns.
    """
    structures = [s.whole() for s in structures]
    size = next((s.key_size for s in structures if s.key_size), None)
    common = structures[0]
    for structure in structures[1:]:
        kind = join(common, structure)
        if not isinstance(common, kind) or (kind is Dense):
            like = structure if isinstance(structure, kind) else common
            common = _lift(common, kind, size, like)
    lifted = [_lift(s, type(common), size, common) for s in structures]
    if len({_logarithmic(s) for s in lifted}) > 1:
        lifted = [s.linear() for s in lifted]
    if isinstance(common, DPLR):
        return _equal_gates_and_ranks([s for s in lifted if isinstance(s, DPLR)])
    return lifted


def _logarithmic(structure: Structure) -> bool:
    gate = structure.gate if isinstance(structure, DPLR) else structure
    return isinstance(gate, Gate) and gate.log is not None


def _equal_gates_and_ranks(parts: list[DPLR]) -> list[Structure]:
    gates = alike([s.gate for s in parts])
    rank = max(s.rank for s in parts)

    def fill(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, rank - x.shape[-1]))

    filled = zip(parts, gates, strict=True)
    return [DPLR(gate, fill(s.left), fill(s.right)) for s, gate in filled]  # type: ignore[arg-type]
