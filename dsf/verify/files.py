"""Verifying files: one certificate, or the envelope of a check with many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dsf.certificate import Budget, Claim, Status
from dsf.codec import ArrayStore, CodecError, digest, internalise, loads, read_bytes

from .envelope import Entry, entries, summary_disagreements
from .record import MalformedFile
from .verification import Verification, verify


def verify_file(
    path: str | os.PathLike[str],
    *,
    claims: Mapping[str, Claim] | None = None,
    recompute: bool = False,
) -> tuple[Verification, ...]:
    """Verify every certificate of a file, a single one or a check's envelope, in the file's order.

    `claims` are the package's (`dsf.registry.claims()`) unless given. With `recompute` each claim
    is also run again from its recorded seed and budget, and status and evidence must come out the
    same. A check's summary that does not fit its rows is refused under the name `summary`. Raises
    `MalformedFile` where the file is neither, and `OSError` where it cannot be read.
    """
    if claims is None:
        from dsf import registry

        claims = registry.claims()
    try:
        content = loads(read_bytes(path))
        found = entries(content)
    except (CodecError, MalformedFile) as error:
        raise MalformedFile(f"{os.fspath(path)}: {error}") from None
    store = ArrayStore.beside(path)
    results = [_verified(entry, claims, store, recompute) for entry in found]
    if reasons := summary_disagreements(content):
        results.append(Verification("summary", False, "refused", tuple(reasons), None, None))
    return tuple(results)


def _verified(
    entry: Entry, claims: Mapping[str, Claim], store: ArrayStore, recompute: bool
) -> Verification:
    result = verify(entry.record, claims=claims, store=store)
    reasons = [*entry.reasons]
    if result.accepted and entry.outcome not in (None, result.outcome):
        reasons.append(f"the row's outcome is {entry.outcome!r}, but it is {result.outcome!r}")
    if recompute and result.accepted and result.status is not Status.NOT_RUN:
        reasons += _recomputed(entry.record, claims[result.claim], store)
    return _refused_for(result, reasons)


def _refused_for(result: Verification, reasons: Iterable[str]) -> Verification:
    if not (added := tuple(reasons)):
        return result
    kept = () if result.accepted else result.reasons
    return replace(
        result,
        accepted=False,
        conclusion="refused",
        reasons=(*kept, *added),
        status=None,
        outcome=None,
    )


def _recomputed(record: Mapping[str, Any], claim: Claim, store: ArrayStore) -> list[str]:
    """Where a run from the recorded seed and budget differs from the record."""
    from dsf.certify import certify

    again = certify(claim, record["seed"], Budget(record["budget"])).to_json()
    pairs = (("", record, again), ("control: ", record["control"], again["control"]))
    reasons = []
    for label, old, new in pairs:
        if old["status"] != new["status"]:
            reasons.append(f"{label}run again, the status is {new['status']}, not {old['status']}")
        elif _evidence_digest(old, store) != _evidence_digest(new, store):
            reasons.append(
                f"{label}run again from the seed, the evidence differs "
                f"(versions recorded: {dict(record['versions'])}, here: {again['versions']})"
            )
    return reasons


def _evidence_digest(part: Mapping[str, Any], store: ArrayStore) -> str:
    """Of the evidence alone, and the same whether arrays lie inline or in the store."""
    return digest({"evidence": internalise(part["evidence"], store)})
