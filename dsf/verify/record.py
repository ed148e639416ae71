"""The shape of a certificate as JSON: which keys there are and what may stand under each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from dsf.certificate import Budget, Level, Status

SCHEMA = "dsf.certificate/1"


class MalformedFile(ValueError):
    """A file that is not a certificate, nor a check's envelope: nothing can be said about it."""


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isfinite(value))


def _one_of(kind: type[StrEnum]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in {str(member) for member in kind}


def _seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53


def _evidence(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _versions(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, [*value, *value.values()]))


def _hypotheses(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(h, dict)
        and h.keys() == {"name", "value", "holds"}
        and isinstance(h["name"], str)
        and isinstance(h["value"], (bool, int, float, str))
        and isinstance(h["holds"], bool)
        for h in value
    )


_CONTROL: dict[str, Callable[[Any], bool]] = {
    "status": _one_of(Status),
    "measured": _number,
    "bound": _number,
    "remark": _text,
    "evidence": _evidence,
}

_CERTIFICATE: dict[str, Callable[[Any], bool]] = {
    "schema": lambda value: value == SCHEMA,
    "claim": _text,
    "paper": _text,
    "title": _text,
    "level": _one_of(Level),
    "expected": _one_of(Status),
    "status": _one_of(Status),
    "measured": _number,
    "predicted": _number,
    "bound": _number,
    "bound_rule": _text,
    "hypotheses": _hypotheses,
    "remark": _text,
    "evidence": _evidence,
    "control": lambda value: not _misfits(value, _CONTROL),
    "seed": _seed,
    "budget": _one_of(Budget),
    "versions": _versions,
    "digest": _text,
}


def complaints(record: Any) -> list[str]:
    """Every way in which a JSON value is not a certificate; empty where it is one."""
    found = _misfits(record, _CERTIFICATE)
    if isinstance(record, Mapping) and isinstance(record.get("control"), Mapping):
        found += [f"control: {text}" for text in _misfits(record["control"], _CONTROL)]
    return found


def _misfits(value: Any, fields: Mapping[str, Callable[[Any], bool]]) -> list[str]:
    if not isinstance(value, Mapping):
        return ["it is not an object"]
    missing = [f"the key {key!r} is missing" for key in fields if key not in value]
    unknown = [f"the key {str(key)[:64]!r} is unknown" for key in value if key not in fields]
    wrong = [
        f"{key!r} holds a value that it cannot have"
        for key, allowed in fields.items()
        if key in value and not allowed(value[key])
    ]
    return missing + unknown + wrong
