"""Running a claim: instance, witness, evidence, verdict, control, and the certificate of it all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dsf._version import __version__
from dsf.certificate import Budget, Claim, Hypothesis, Level, Status, Task, Verdict
from dsf.codec import (
    ArrayStore,
    CodecError,
    decode,
    digest,
    dumps,
    encode,
    externalise,
    internalise,
    loads,
    read_bytes,
    write_atomically,
)
from dsf.verify.judging import failure, judged, outcome_of
from dsf.verify.record import SCHEMA, MalformedFile, complaints

_EXTRAS = {
    "cvxpy": "solvers",
    "triton": "kernels",
    "flint": "exact",
    "transformers": "hf",
    "safetensors": "hf",
}
_VERSIONED = ("numpy", "sympy", "torch")


@dataclass(frozen=True)
class Control:
    """The negative control's verdict and its encoded evidence (None where it failed before)."""

    status: Status
    measured: float | None
    bound: float | None
    remark: str
    evidence: Any


@dataclass(frozen=True)
class Certificate:
    """The record of one claim, one seed and one budget; evidence is encoded JSON, arrays inline."""

    claim: str
    title: str
    level: Level
    expected: Status
    bound_rule: str
    verdict: Verdict
    evidence: Any
    control: Control
    seed: int
    budget: Budget
    versions: Mapping[str, str]

    @property
    def paper(self) -> str:
        return self.claim.split(".", 1)[0]

    @property
    def status(self) -> Status:
        return self.verdict.status

    def to_json(self, store: ArrayStore | None = None) -> dict[str, Any]:
        """The certificate as a JSON value with its digest; large arrays go to `store` if given."""
        verdict, control = self.verdict, self.control
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "claim": self.claim,
            "paper": self.paper,
            "title": self.title,
            "level": self.level.value,
            "expected": self.expected.value,
            "status": verdict.status.value,
            "measured": verdict.measured,
            "predicted": verdict.predicted,
            "bound": verdict.bound,
            "bound_rule": self.bound_rule,
            "hypotheses": [asdict(h) for h in verdict.hypotheses],
            "remark": verdict.remark,
            "evidence": _stored(self.evidence, store),
            "control": {
                "status": control.status.value,
                "measured": control.measured,
                "bound": control.bound,
                "remark": control.remark,
                "evidence": _stored(control.evidence, store),
            },
            "seed": self.seed,
            "budget": self.budget.value,
            "versions": dict(self.versions),
        }
        return record | {"digest": digest(record)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], store: ArrayStore | None = None) -> Certificate:
        """The certificate of a JSON value; raises `MalformedFile`, also where the digest differs.

        The verdict is read, not judged again: that is `dsf.verify`'s work.
        """
        if found := complaints(record):
            raise MalformedFile("not a certificate: " + "; ".join(found))
        if record["digest"] != digest(record):
            raise MalformedFile("the certificate's digest does not match its content")
        verdict = Verdict(
            Status(record["status"]),
            measured=record["measured"],
            predicted=record["predicted"],
            bound=record["bound"],
            hypotheses=tuple(Hypothesis(**h) for h in record["hypotheses"]),
            remark=record["remark"],
        )
        given = record["control"]
        control = Control(
            Status(given["status"]),
            measured=given["measured"],
            bound=given["bound"],
            remark=given["remark"],
            evidence=_inline(given["evidence"], store),
        )
        return cls(
            claim=record["claim"],
            title=record["title"],
            level=Level(record["level"]),
            expected=Status(record["expected"]),
            bound_rule=record["bound_rule"],
            verdict=verdict,
            evidence=_inline(record["evidence"], store),
            control=control,
            seed=record["seed"],
            budget=Budget(record["budget"]),
            versions=dict(record["versions"]),
        )


def certify(claim: Claim, seed: int = 0, budget: Budget = Budget.DEFAULT) -> Certificate:
    """Run a claim and its negative control; `seed` is the claim's own (see `claim_seed`).

    The judge sees the evidence only after it went through the codec. A missing module gives
    `not-run`, an exception gives `inconclusive`, both with a remark. Equal arguments give equal
    certificates on one machine.

    >>> from dsf.claims.examples import TOY
    >>> certify(TOY["example.rounding-of-a-sum"], seed=1, budget=Budget.SMOKE).status.value
    'holds'
    """
    task = Task(seed, Budget(budget))
    if missing := [name for name in claim.requires if not _importable(name)]:
        verdict, evidence = Verdict(Status.NOT_RUN, remark=_needs(missing)), None
        control, control_evidence = verdict, None
    else:
        verdict, evidence = _run(claim, "witness", task)
        control, control_evidence = _run(claim, "control", task)
    return Certificate(
        claim=claim.id,
        title=claim.title,
        level=claim.level,
        expected=claim.expected,
        bound_rule=claim.bound_rule,
        verdict=verdict,
        evidence=evidence,
        control=Control(
            control.status, control.measured, control.bound, control.remark, control_evidence
        ),
        seed=seed,
        budget=Budget(budget),
        versions=versions(),
    )


def _run(claim: Claim, producer: str, task: Task) -> tuple[Verdict, Any]:
    """Verdict and encoded evidence of the witness or the control, from an instance of its own."""
    stage = "instance"
    try:
        instance = claim.instance(task)
        stage = producer
        value = getattr(claim, producer)(instance)
        stage = f"encoding the evidence of the {producer}"
        if not isinstance(value, Mapping):
            raise TypeError(f"evidence must be a mapping, not {type(value).__name__}")
        evidence = encode(value)
        decoded = decode(evidence)
    except Exception as error:
        return Verdict(Status.INCONCLUSIVE, remark=failure(claim, stage, error)), None
    return judged(claim, decoded), evidence


def claim_seed(run_seed: int, claim_id: str) -> int:
    """The seed, below 2^53, of one claim in a run: a child of the run's seed by the claim's id.

    It depends on nothing else, so that any order, subset or number of workers gives the same.

    >>> claim_seed(0, "example.a") != claim_seed(0, "example.b")
    True
    """
    key = np.frombuffer(hashlib.sha256(claim_id.encode("utf-8")).digest(), "<u4")
    child = np.random.SeedSequence(run_seed, spawn_key=tuple(int(word) for word in key))
    return int(child.generate_state(1, np.uint64)[0]) >> 11


def outcome(certificate: Certificate) -> str:
    """`as-expected`, `unexpected`, `control-passed`, `undecided` or `not-run`.

    A definite status other than the expected one is `unexpected`; a control that is judged as the
    claim is expected to be has passed, which is a fault; anything not definite is `undecided`.
    """
    return outcome_of(certificate.expected, certificate.status, certificate.control.status)


@cache
def _all_versions() -> tuple[tuple[str, str], ...]:
    found = {"dsf": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return tuple(sorted(found.items()))


def versions() -> dict[str, str]:
    """Versions of dsf, Python, numpy, sympy and torch, read without importing them."""
    return dict(_all_versions())


def write_certificate(path: str | os.PathLike[str], certificate: Certificate) -> None:
    """Write a certificate atomically, arrays over 64 KiB into `<path>.evidence/` first."""
    write_atomically(Path(path), dumps(certificate.to_json(ArrayStore.beside(path))))


def read_certificate(path: str | os.PathLike[str]) -> Certificate:
    """Read what `write_certificate` wrote; raises `MalformedFile` or `OSError`."""
    try:
        record = loads(read_bytes(path))
        return Certificate.from_json(record, ArrayStore.beside(path))
    except CodecError as error:
        raise MalformedFile(f"{os.fspath(path)}: {error}") from None


def _stored(evidence: Any, store: ArrayStore | None) -> Any:
    return evidence if store is None else externalise(evidence, store)


def _inline(evidence: Any, store: ArrayStore | None) -> Any:
    return evidence if store is None else internalise(evidence, store)


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False


def _needs(missing: list[str]) -> str:
    extras = sorted({_EXTRAS[name] for name in missing if name in _EXTRAS})
    hint = f" (pip install 'dsf-dynamics[{','.join(extras)}]')" if extras else ""
    return f"needs the missing module {', '.join(missing)}{hint}"
