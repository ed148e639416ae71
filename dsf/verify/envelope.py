"""The file around certificates: what a check writes, and where it disagrees with its content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .record import SCHEMA, MalformedFile

ENVELOPE = "dsf.check/1"

_SAME = ("paper", "title", "level", "expected", "status", "measured", "predicted", "bound")
_OPTIONAL = ("title",)


@dataclass(frozen=True)
class Entry:
    """A certificate, what the file around it says against it, and the outcome stated there."""

    record: Mapping[str, Any]
    reasons: tuple[str, ...] = ()
    outcome: str | None = None


def entries(content: Any) -> list[Entry]:
    """The certificates of a file's content, in its order; raises `MalformedFile`."""
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema == SCHEMA:
        return [Entry(content)]
    if schema != ENVELOPE:
        raise MalformedFile(f"`schema` is neither {SCHEMA!r} nor {ENVELOPE!r}")
    if missing := [key for key in ("versions", "seed", "claims") if key not in content]:
        raise MalformedFile(f"the envelope lacks {', '.join(missing)}")
    seed, rows = content["seed"], content["claims"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise MalformedFile("the envelope's `seed` is not an integer that is at least 0")
    if not isinstance(rows, list):
        raise MalformedFile("the envelope's `claims` is not a list")
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("certificate"), dict):
            raise MalformedFile(f"/claims/{index} is not an object with a certificate")
    times = Counter(str(row.get("id")) for row in rows)
    found = []
    for row in rows:
        reasons = _disagreements(row, seed, content.get("budget"))
        if times[str(row.get("id"))] > 1:
            reasons.append("the id stands twice in the file")
        found.append(Entry(row["certificate"], tuple(reasons), row.get("outcome")))
    return found


def summary_disagreements(content: Mapping[str, Any]) -> list[str]:
    """Where the counts that a check wrote beside its rows, if any, are not those of the rows."""
    summary, rows = content.get("summary"), content.get("claims")
    if summary is None or not isinstance(rows, list):
        return []
    if not isinstance(summary, dict) or summary.get("claims") != len(rows):
        return ["the summary counts other claims than the file holds"]
    wrong = [
        name
        for name, field in (("outcomes", "outcome"), ("statuses", "status"))
        if name in summary and _nonzero(summary[name]) != _nonzero(_counts(rows, field))
    ]
    by_level = {
        level: _nonzero(_counts([row for row in rows if row.get("level") == level], "status"))
        for level in {str(row.get("level")) for row in rows}
    }
    stated = summary.get("levels", by_level)
    if not isinstance(stated, dict) or {k: _nonzero(v) for k, v in stated.items()} != by_level:
        wrong.append("levels")
    return [f"the summary's {name} differ from those of the rows" for name in wrong]


def _counts(rows: list[Any], field: str) -> dict[str, int]:
    return Counter(str(row.get(field)) for row in rows)


def _nonzero(counts: Any) -> Any:
    if not isinstance(counts, dict):
        return None
    return {name: number for name, number in counts.items() if number != 0}


def _disagreements(row: Mapping[str, Any], seed: int, budget: Any) -> list[str]:
    """Where a row differs from the certificate it carries, or that from the run it is part of."""
    from dsf.certify import claim_seed

    certificate = row["certificate"]
    reasons = [
        f"the row's {key} differs from its certificate's"
        for key in _SAME
        if not (key in _OPTIONAL and key not in row) and not _agree(row, certificate, key)
    ]
    name = row.get("id")
    if not isinstance(name, str) or name != certificate.get("claim"):
        reasons.append("the row's id differs from its certificate's claim")
    elif certificate.get("seed") != claim_seed(seed, name):
        reasons.append("the certificate's seed is not the child of the file's seed")
    if budget is not None and certificate.get("budget") != budget:
        reasons.append("the certificate's budget differs from the file's")
    if not _control_agrees(row.get("control"), certificate.get("control")):
        reasons.append("the row's control differs from its certificate's")
    return reasons


def _control_agrees(given: Any, control: Any) -> bool:
    """A row repeats the status of the control, and may repeat other fields of it."""
    if not (isinstance(given, dict) and isinstance(control, dict) and "status" in given):
        return False
    return all(_agree(given, control, key) for key in given)


def _agree(left: Mapping[str, Any], right: Mapping[str, Any], key: str) -> bool:
    if key not in left or key not in right:
        return False
    return type(left[key]) is type(right[key]) and left[key] == right[key]
