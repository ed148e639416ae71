"""What an architecture's transitions allow, read off the System it builds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.structure import DPLR, Structure

from .architecture import Architecture, Draw

_DRAWS, _LENGTH = 8, 12


@dataclass(frozen=True)
class Capabilities:
    """Columns of the table of architectures.

    `time_invariant` says that Λ is the same at every step, `closed` that a product of transitions is
    again of the kind and size (the rank of a DPLR grows). `eigenvalues` says what a transition of a sample
    has beside numbers in [0, ∞): "negative", "complex", both, or neither. A sample of the architecture's
    own domain can show that such eigenvalues occur; that none was met is said of the drawn ones only.
    """

    structure: str
    time_invariant: bool
    scannable: bool
    chunkable: bool
    closed: bool
    normaliser: bool
    eigenvalues: tuple[str, ...]

    def row(self) -> dict[str, str]:
        """The columns as words, for a table."""
        return {
            "Λ": self.structure,
            "time-invariant": _yes(self.time_invariant),
            "scan": _yes(self.scannable),
            "chunks": _yes(self.chunkable),
            "closed": _yes(self.closed),
            "normaliser": _yes(self.normaliser),
            "eigenvalues": " and ".join(self.eigenvalues) or "none negative, none complex",
        }


def capabilities(architecture: Architecture) -> Capabilities:
    """Draw samples of an architecture, build its System and look at it.

    >>> from dsf.mixers.retnet import RETNET
    >>> found = capabilities(RETNET)
    >>> found.structure, found.time_invariant, found.closed, found.eigenvalues
    ('Scalar', True, True, ())
    """
    from dsf.forms.selection import named

    systems = []
    for seed in range(_DRAWS):
        draw = Draw(torch.Generator().manual_seed(seed), 1, _LENGTH, 2, 4, 3)
        systems.append(architecture.build(**architecture.sample(draw).quantities))
    system = systems[0]
    return Capabilities(
        structure=_named(system.transition),
        time_invariant=all(leaf.shape[1] == 1 for leaf in system.transition.leaves),
        scannable=bool(named("scan").admits(system)),
        chunkable=bool(named("chunkwise").admits(system)),
        closed=not isinstance(system.transition, DPLR),
        normaliser=system.normaliser is not None,
        eigenvalues=_kinds([_eigenvalues(each.transition, each.key_size) for each in systems]),
    )


def _named(transition: Structure) -> str:
    kind = type(transition.whole()).__name__
    complex_kind = "complex " if transition.is_complex else ""
    if isinstance(transition, DPLR):
        return f"{type(transition.gate).__name__} + rank {transition.rank}"
    return f"{complex_kind}{kind}"


def _eigenvalues(transition: Structure, key_size: int) -> Tensor:
    dense = transition.linear().dense(key_size)
    return torch.linalg.eigvals(dense.to(torch.complex128)).flatten()


def _kinds(found: list[Tensor]) -> tuple[str, ...]:
    values = torch.cat(found)
    # eigenvalues of a defective matrix are known to the n-th root of the precision only
    small = 1e-3 * values.abs().amax()
    negative = bool(((values.imag.abs() <= small) & (values.real < -small)).any())
    turning = bool((values.imag.abs() > small).any())
    return tuple(n for n, met in (("negative", negative), ("complex", turning)) if met)


def _yes(x: bool) -> str:
    return "yes" if x else "no"
