"""The visible tables, resolved: names like `"dsf.papers.sieber2024:PAPER"` become objects when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from typing import Any

from dsf.certificate import Claim


def resolve(reference: str) -> Any:
    """Import the module of `"module:NAME"` and return the object called NAME.

    >>> resolve("dsf.certificate:Level").SYMBOLIC.value
    'symbolic'
    """
    module, separator, name = reference.partition(":")
    if not (module and separator and name):
        raise ValueError(f"reference {reference!r} must read 'module:NAME'")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError:
        raise ValueError(f"reference {reference!r}: module {module!r} has no {name!r}") from None


@cache
def papers() -> tuple[Any, ...]:
    """Every paper entry, in the order of `dsf.papers.PAPERS`."""
    return tuple(resolve(reference) for reference in resolve("dsf.papers:PAPERS"))


@cache
def claims() -> dict[str, Claim]:
    """Every claim of every paper by id; a repeated id is an error."""
    found: dict[str, Claim] = {}
    for paper in papers():
        for claim in _claims_of(paper.claims):
            if claim.id in found:
                raise ValueError(f"claim id {claim.id!r} is listed twice")
            if claim.paper != paper.slug:
                raise ValueError(f"claim {claim.id!r} is listed by paper {paper.slug!r}")
            found[claim.id] = claim
    return found


def _claims_of(references: Iterable[str]) -> Iterable[Claim]:
    """The claims named; a reference to a tuple of claims (one claim a row of a table) gives them all."""
    for reference in references:
        found = resolve(reference)
        yield from found if isinstance(found, tuple) else (found,)
