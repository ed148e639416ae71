"""Verifying one certificate: what it says against what the package's judge says of its evidence."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dsf.certificate import Claim, Level, Status, Verdict
from dsf.codec import ArrayStore, CodecError, decode, digest

from .judging import judged, outcome_of
from .record import complaints

AGREEMENT = 1e-12
"""Relative difference allowed between a recorded number and the same number judged here.

Judges compute in float64 with numpy, whose sums and products may end in other bits on another
machine: n additions move a sum by at most n·1.1e-16 of its terms' sum, so 1e-12 covers thousands.
Claims proved by exact arithmetic (symbolic, enclosed) are compared exactly.
"""

_log = logging.getLogger("dsf")


@dataclass(frozen=True)
class Verification:
    """What is known about a certificate after judging its evidence again.

    `conclusion` is `proved`, `consistent with recorded data`, `undecided` or `refused`; `outcome`
    is what `dsf.certify.outcome` says of the judged statuses, and None where refused.
    """

    claim: str
    accepted: bool
    conclusion: str
    reasons: tuple[str, ...]
    status: Status | None
    outcome: str | None


def verify(
    record: Mapping[str, Any],
    *,
    claims: Mapping[str, Claim],
    store: ArrayStore | None = None,
) -> Verification:
    """Judge a certificate's evidence again and compare every field; nothing is taken on trust.

    `record` is the JSON value of a certificate, `claims` the package's claims by id, `store` holds
    its large arrays. A certificate is refused where its digest, its claim's data, or any number
    differs from what the package finds; the reasons say which.

    >>> from dsf.certify import certify
    >>> from dsf.claims.examples import TOY
    >>> record = certify(TOY["example.rounding-of-a-sum"]).to_json()
    >>> verify(record, claims=TOY).conclusion
    'consistent with recorded data'
    >>> verify(record | {"status": "violated"}, claims=TOY).conclusion
    'refused'
    """
    name = record.get("claim")
    name = name if isinstance(name, str) else "?"
    if found := complaints(record):
        return _refused(name, found)
    claim = claims.get(name)
    if claim is None:
        return _refused(name, [f"the claim {name[:80]!r} is not known to this package"])
    reasons = [*_wrong_digest(record), *_foreign_statement(record, claim)]
    for part, label in ((record, ""), (record["control"], "control: ")):
        reasons += [label + reason for reason in _disagreements(part, claim, store)]
    status, control = Status(record["status"]), Status(record["control"]["status"])
    if (status is Status.NOT_RUN) != (control is Status.NOT_RUN):
        reasons.append("only one of claim and control is recorded as not-run")
    if reasons:
        return _refused(name, reasons)
    outcome = outcome_of(claim.expected, status, control)
    if outcome not in ("as-expected", "unexpected"):
        return Verification(name, True, "undecided", (f"outcome: {outcome}",), status, outcome)
    conclusion = "proved" if claim.level.proves else "consistent with recorded data"
    return Verification(name, True, conclusion, (), status, outcome)


def _refused(name: str, reasons: Iterable[str]) -> Verification:
    return Verification(name, False, "refused", tuple(reasons), None, None)


def _wrong_digest(record: Mapping[str, Any]) -> list[str]:
    try:
        found = digest(record)
    except CodecError as error:
        return [f"no canonical form: {error}"]
    return [] if found == record["digest"] else ["the digest does not match the content"]


def _foreign_statement(record: Mapping[str, Any], claim: Claim) -> list[str]:
    own = {
        "paper": claim.paper,
        "title": claim.title,
        "level": claim.level.value,
        "expected": claim.expected.value,
        "bound_rule": claim.bound_rule,
    }
    foreign = [key for key, value in own.items() if record[key] != value]
    return [f"{key} differs from the package's" for key in foreign]


def _disagreements(part: Mapping[str, Any], claim: Claim, store: ArrayStore | None) -> list[str]:
    """Where a recorded verdict (the claim's, or its control's) differs from the judge's."""
    if part["evidence"] is None:
        return _unfounded(part)
    try:
        evidence = decode(part["evidence"], store)
    except CodecError as error:
        return [f"the evidence cannot be read: {error}"]
    verdict = judged(claim, evidence)
    found = asdict(verdict) | {"status": verdict.status.value}
    found["hypotheses"] = [asdict(h) for h in verdict.hypotheses]
    exact = claim.level in (Level.SYMBOLIC, Level.ENCLOSED)
    return [
        f"{key} is recorded as {_shown(part[key])}, but the judge finds {_shown(value)}"
        for key, value in found.items()
        if key in part and not _agree(part[key], value, exact)
    ]


def _unfounded(part: Mapping[str, Any]) -> list[str]:
    """Without evidence nothing may be recorded except that there is no verdict, and why."""
    empty = Verdict(Status(part["status"]), remark=part["remark"])
    if empty.status not in (Status.NOT_RUN, Status.INCONCLUSIVE):
        return [f"status {empty.status.value} without evidence"]
    numbers = [key for key in ("measured", "predicted", "bound") if part.get(key) is not None]
    if numbers or part.get("hypotheses"):
        return ["numbers or hypotheses without evidence"]
    return [] if empty.remark else [f"status {empty.status.value} without a remark that says why"]


def _agree(recorded: Any, found: Any, exact: bool) -> bool:
    if isinstance(recorded, list):
        return len(recorded) == len(found) and all(
            a.keys() == b.keys() and all(_agree(a[key], b[key], exact) for key in a)
            for a, b in zip(recorded, found, strict=True)
        )
    if type(recorded) is not type(found):
        return False
    if exact or not isinstance(found, float):
        return recorded == found
    return abs(recorded - found) <= AGREEMENT * max(abs(recorded), abs(found))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
