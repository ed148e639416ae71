"""Certificates: every outcome, the round trip of evidence, determinism, files."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsf._version import __version__
from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.certify import (
    Certificate,
    certify,
    claim_seed,
    outcome,
    read_certificate,
    versions,
    write_certificate,
)
from dsf.claims.examples import TOY
from dsf.codec import ArrayStore, canonical, digest, dumps
from dsf.verify import MalformedFile
from dsf.verify.judging import OUTCOMES, outcome_of

OUTCOME_OF = {
    "example.softplus-gate": ("holds", "violated", "as-expected"),
    "example.rounding-of-a-sum": ("holds", "violated", "as-expected"),
    "example.float-addition-associates": ("violated", "holds", "as-expected"),
    "example.contraction": ("holds", "violated", "as-expected"),
    "example.contraction-without-convexity": (*["hypothesis-not-met"] * 2, "undecided"),
    "example.contraction-disbelieved": ("holds", "violated", "unexpected"),
    "example.undecided": ("inconclusive", "violated", "undecided"),
    "example.control-passes": ("holds", "holds", "control-passed"),
    "example.failing-witness": ("inconclusive", "violated", "undecided"),
    "example.missing-module": ("not-run", "not-run", "not-run"),
}


def claim(**changes: Any) -> Claim:
    base: dict[str, Any] = {
        "id": "test.claim",
        "title": "a claim of the tests",
        "statement": "$x = 1$",
        "citation": "none",
        "level": Level.MEASURED,
        "expected": Status.HOLDS,
        "bound_rule": "none",
        "instance": lambda task: {"x": 1.0},
        "witness": lambda drawn: {"x": drawn["x"]},
        "control": lambda drawn: {"x": 2.0},
        "judge": lambda e: Verdict(Status.HOLDS if e["x"] == 1.0 else Status.VIOLATED),
    }
    return Claim(**(base | changes))


@pytest.mark.parametrize("budget", Budget)
@pytest.mark.parametrize("name", OUTCOME_OF)
def test_every_example_ends_as_it_should(name: str, budget: Budget) -> None:
    certificate = certify(TOY[name], seed=11, budget=budget)
    found = (certificate.status, certificate.control.status, outcome(certificate))
    assert found == OUTCOME_OF[name]


def test_the_examples_are_all_listed_and_show_every_outcome() -> None:
    assert TOY.keys() == OUTCOME_OF.keys()
    assert {last for *_, last in OUTCOME_OF.values()} == set(OUTCOMES)


@pytest.mark.parametrize("expected", [Status.HOLDS, Status.VIOLATED])
@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("control", Status)
def test_a_claim_is_as_expected_only_with_a_control_that_is_the_opposite(
    expected: Status, status: Status, control: Status
) -> None:
    opposite = Status.VIOLATED if expected is Status.HOLDS else Status.HOLDS
    good = status is expected and control is opposite
    assert (outcome_of(expected, status, control) == "as-expected") is good
    if status is opposite:
        assert outcome_of(expected, status, control) == "unexpected"
    if control is expected and status is not Status.NOT_RUN and status is not opposite:
        assert outcome_of(expected, status, control) == "control-passed"


@pytest.mark.parametrize("name", TOY)
def test_equal_arguments_give_equal_bytes(name: str) -> None:
    first, second = (certify(TOY[name], seed=4) for _ in range(2))
    assert canonical(first.to_json()) == canonical(second.to_json())


def test_the_seed_reaches_the_evidence() -> None:
    drawn = TOY["example.rounding-of-a-sum"]
    assert certify(drawn, seed=1).evidence != certify(drawn, seed=2).evidence


def test_the_judge_sees_only_what_the_codec_gave_back() -> None:
    seen: list[Any] = []

    def judge(evidence: Evidence) -> Verdict:
        seen.append(evidence)
        return Verdict(Status.HOLDS)

    drawn = {"pair": (1, 2), "array": np.arange(3, dtype=">i4"), "plain": np.float32(0.5)}
    certify(claim(witness=lambda _: drawn, judge=judge))
    evidence = seen[0]
    assert evidence["pair"] == [1, 2] and type(evidence["plain"]) is float
    assert evidence["array"].dtype == np.int32 and not evidence["array"].flags.writeable


def test_a_witness_cannot_reach_the_control_through_the_instance() -> None:
    def witness(drawn: Any) -> Evidence:
        drawn["x"] = 5.0
        return {"x": 1.0}

    certificate = certify(claim(witness=witness, control=lambda drawn: {"x": drawn["x"]}))
    assert certificate.control.evidence == {"x": 1.0}


def untyped(name: str, value: Any) -> Hypothesis:
    """A hypothesis whose value no annotation was asked about."""
    made = Hypothesis(name, 0, True)
    object.__setattr__(made, "value", value)
    return made


def fail(*_: Any) -> Any:
    raise RuntimeError("the reason")


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("instance raised RuntimeError: the reason", {"instance": fail}),
        ("witness raised RuntimeError: the reason", {"witness": fail}),
        ("judge raised RuntimeError: the reason", {"judge": fail}),
        ("encoding the evidence of the witness raised TypeError", {"witness": lambda _: [1.0]}),
        (
            "encoding the evidence of the witness raised CodecError: at /x: nan",
            {"witness": lambda _: {"x": math.nan}},
        ),
        ("judge raised TypeError: a judge must return", {"judge": lambda _: True}),
        ("judge raised ValueError", {"judge": lambda _: Verdict(Status.HOLDS, math.nan)}),
        ("judge raised ValueError", {"judge": lambda _: Verdict(Status.HOLDS, bound=math.inf)}),
        ("judge raised ValueError", {"judge": lambda _: Verdict(Status.NOT_RUN)}),
        ("judge raised ValueError", {"judge": lambda _: Verdict(Status.HYPOTHESIS_NOT_MET)}),
        (
            "judge raised ValueError: status holds although",
            {"judge": lambda _: Verdict(Status.HOLDS, hypotheses=(Hypothesis("h", 1, False),))},
        ),
        (
            "judge raised TypeError",
            {"judge": lambda _: Verdict(Status.HOLDS, hypotheses=(untyped("h", []),))},
        ),
    ],
)
def test_an_exception_is_recorded_with_its_stage_and_logged(
    stage: str, changes: dict[str, Callable[..., Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dsf"):
        certificate = certify(claim(**changes))
    assert certificate.status is Status.INCONCLUSIVE
    assert certificate.verdict.remark.startswith(stage)
    assert any(record.exc_info for record in caplog.records)
    certificate.to_json()


def test_a_failing_control_leaves_the_claim_undecided() -> None:
    certificate = certify(claim(control=fail))
    assert certificate.status is Status.HOLDS and outcome(certificate) == "undecided"
    assert certificate.control.remark == "control raised RuntimeError: the reason"


@pytest.mark.parametrize("stage", ["instance", "witness", "control", "judge"])
def test_an_interrupt_is_not_caught(stage: str) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(claim(**{stage: interrupt}))


@pytest.mark.parametrize("module", ["dsf_not_installed", "dsf_not_installed.sub", "math.sub"])
def test_a_missing_module_is_named_and_nothing_runs(module: str) -> None:
    certificate = certify(claim(requires=("math", module), instance=fail))
    assert certificate.status is Status.NOT_RUN and certificate.control.status is Status.NOT_RUN
    assert module in certificate.verdict.remark


def test_the_extra_of_a_known_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    certificate = certify(claim(requires=("cvxpy",)))
    assert "dsf-dynamics[solvers]" in certificate.verdict.remark


def test_strange_text_becomes_text_that_json_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("dsf"), "disabled", True)  # xdist cannot send it

    def judge(evidence: Evidence) -> Verdict:
        raise ValueError("\ud800" + "long" * 10_000)

    remark = certify(claim(judge=judge)).to_json()["remark"]
    assert "\\ud800" in remark and len(remark) < 10_000


def test_numbers_of_numpy_become_plain() -> None:
    found = untyped("n", np.int64(3))
    judge = claim(judge=lambda _: Verdict(Status.HOLDS, np.float64(0.5), hypotheses=(found,)))
    record = certify(judge).to_json()
    assert type(record["measured"]) is float and record["measured"] == 0.5
    assert record["hypotheses"] == [{"name": "n", "value": 3, "holds": True}]


def test_claim_seeds_depend_on_the_run_and_the_id_alone() -> None:
    ids = [f"example.claim-{i}" for i in range(50)]
    seeds = {(run, name): claim_seed(run, name) for run in range(3) for name in ids}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**53 for seed in seeds.values())
    assert seeds == {key: claim_seed(*key) for key in reversed(list(seeds))}
    assert Task(claim_seed(0, "a.b")).rng().random() != Task(claim_seed(1, "a.b")).rng().random()


@pytest.mark.parametrize("name", TOY)
def test_a_certificate_survives_its_json(name: str) -> None:
    certificate = certify(TOY[name], seed=2)
    record = certificate.to_json()
    assert Certificate.from_json(record) == certificate
    assert record["digest"] == digest(record)
    assert json.loads(canonical(record)) == record
    assert not {"time", "seconds", "date"} & record.keys()


def test_a_certificate_survives_its_file_with_arrays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    certificate = certify(TOY["example.rounding-of-a-sum"], budget=Budget.FULL)
    write_certificate(path, certificate)
    assert read_certificate(path) == certificate
    assert path.stat().st_size < 10_000
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"one.json", "one.json.evidence"}
    assert str(tmp_path) not in path.read_text()
    again = dumps(certificate.to_json(ArrayStore.beside(path)))
    assert path.read_bytes() == again


def test_a_small_certificate_needs_no_folder(tmp_path: Path) -> None:
    write_certificate(tmp_path / "one.json", certify(TOY["example.contraction"]))
    assert [file.name for file in tmp_path.iterdir()] == ["one.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:0"},
        {"status": "violated"},
        {"status": "perhaps"},
        {"schema": "dsf.certificate/2"},
        {"measured": "1.0"},
        {"measured": 1},
        {"seed": -1},
        {"seed": True},
        {"unknown": 1},
        {"hypotheses": [{"name": "a", "value": 1}]},
        {"control": {}},
        {"evidence": [1]},
        {"versions": {"numpy": 2}},
    ],
)
def test_what_is_not_a_certificate_is_not_read(change: dict[str, Any], tmp_path: Path) -> None:
    record = certify(TOY["example.contraction"]).to_json() | change
    with pytest.raises(MalformedFile):
        Certificate.from_json(record)
    (tmp_path / "file").write_bytes(dumps(record))
    with pytest.raises(MalformedFile):
        read_certificate(tmp_path / "file")


def test_versions_are_named_without_importing() -> None:
    found = versions()
    assert {"dsf", "python", "numpy", "sympy", "torch"} <= found.keys()
    assert (found["numpy"], found["dsf"]) == (np.__version__, __version__)


def test_title_and_bound_rule_come_from_the_claim() -> None:
    changed = replace(TOY["example.contraction"], title="other", bound_rule="another")
    record = certify(changed).to_json()
    assert (record["title"], record["bound_rule"]) == ("other", "another")
