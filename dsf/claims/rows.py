"""Claims of exact algebra as rows: a statement, a variant that is judged the other way, and which holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dsf.certificate import Claim, Level, Status
from dsf.verify.judges import symbolic_identity

Identities = Mapping[str, tuple[Any, Any]]


def identity(
    id: str,
    title: str,
    statement: str,
    citation: str,
    build: Callable[[bool], Identities],
    *,
    rule: str = "exact algebra over free symbols, two keys and two or three steps",
) -> Claim:
    """`build(True)` states identities that hold, `build(False)` the control, false somewhere."""
    return _row(id, title, statement, citation, build, Status.HOLDS, rule)


def difference(
    id: str,
    title: str,
    statement: str,
    citation: str,
    build: Callable[[bool], Identities],
    *,
    rule: str = "exact algebra, and an enclosure of the difference at a rational point",
) -> Claim:
    """`build(False)` states an equality that is refuted, `build(True)` the control, where it holds."""
    return _row(id, title, statement, citation, lambda true: build(not true), Status.VIOLATED, rule)


def _row(
    id: str,
    title: str,
    statement: str,
    citation: str,
    build: Callable[[bool], Identities],
    expected: Status,
    rule: str,
) -> Claim:
    parts = symbolic_identity(lambda: build(True), lambda: build(False))
    return Claim(
        id=id,
        title=title,
        statement=statement,
        citation=citation,
        level=Level.SYMBOLIC,
        expected=expected,
        bound_rule=rule,
        instance=parts.instance,
        witness=parts.witness,
        control=parts.control,
        judge=parts.judge,
    )
