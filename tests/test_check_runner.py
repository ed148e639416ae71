"""The runner in one process: resuming, what binds a journal, and settings that cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl
import torch

from dsf.certificate import Budget
from dsf.check import Settings, Watcher, check
from dsf.check import runner as runner_module
from dsf.check.threads import one_thread
from dsf.claims.examples import TOY
from dsf.errors import InvalidInput

TOYS = "dsf.claims.examples:TOY"


def settings(**given: Any) -> Settings:
    return Settings(**{"reference": TOYS, "budget": Budget.SMOKE} | given)


def steady(document: dict[str, Any]) -> dict[str, Any]:
    claims = [{k: v for k, v in claim.items() if k != "seconds"} for claim in document["claims"]]
    return document | {"claims": claims}


class Stop(Watcher):
    """Interrupts a run after some results, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.began: tuple[int, int, int] | None = None
        self.seen: list[str] = []

    def begins(self, total: int, done: int, forgotten: int) -> None:
        self.began = (total, done, forgotten)
        if not self.left:
            raise KeyboardInterrupt

    def finished(self, result: Any) -> None:
        self.seen.append(result["id"])
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def stopped(after: int, given: Settings) -> None:
    with pytest.raises(KeyboardInterrupt):
        check(given, Stop(after))


def test_the_document_has_every_claim_in_order_with_its_certificate():
    document = check(settings(seed=5))
    assert document["schema"] == "dsf.check/1"
    assert (document["command"], document["seed"], document["budget"]) == ("check", 5, "smoke")
    assert [claim["id"] for claim in document["claims"]] == sorted(TOY)
    for claim in document["claims"]:
        record = claim["certificate"]
        assert claim["id"] == record["claim"]
        for key in ("paper", "title", "level", "expected", "status", "measured", "bound"):
            assert claim[key] == record[key]
        assert claim["control"]["status"] == record["control"]["status"]
    assert document["summary"]["outcomes"] == {
        "as-expected": 4,
        "unexpected": 1,
        "control-passed": 1,
        "undecided": 3,
        "not-run": 1,
    }


def test_the_file_is_the_document_and_the_journal_is_gone(tmp_path):
    path = tmp_path / "o.json"
    document = check(settings(json=path))
    assert json.loads(path.read_bytes()) == document
    assert [p.name for p in tmp_path.iterdir()] == ["o.json"]


@pytest.mark.parametrize("after", range(len(TOY) + 1))
def test_stopped_anywhere_and_resumed_it_is_as_if_it_had_not_been(tmp_path, after):
    path = tmp_path / "o.json"
    stopped(after, settings(json=path))
    assert not path.exists()
    rest = Stop(-1)
    document = check(settings(json=path, resume=True), rest)
    assert rest.began == (len(TOY), after, 0)
    assert len(rest.seen) == len(TOY) - after
    assert steady(document) == steady(check(settings()))
    assert not path.with_name("o.json.journal").exists()


@pytest.mark.parametrize("other", [{"seed": 1}, {"budget": Budget.DEFAULT}])
def test_another_seed_or_budget_does_not_resume(tmp_path, other):
    path = tmp_path / "o.json"
    stopped(3, settings(json=path))
    with pytest.raises(InvalidInput, match="belongs to another run"):
        check(settings(json=path, resume=True, **other))


def test_another_version_does_not_resume(tmp_path, monkeypatch):
    path = tmp_path / "o.json"
    stopped(3, settings(json=path))
    monkeypatch.setattr(runner_module, "versions", lambda: {"dsf": "another"})
    with pytest.raises(InvalidInput, match="versions"):
        check(settings(json=path, resume=True))


def test_a_resumed_selection_uses_what_is_there_and_keeps_the_rest(tmp_path):
    path = tmp_path / "o.json"
    stopped(3, settings(json=path))
    ids = sorted(TOY)
    rest = Stop(-1)
    document = check(settings(ids=(ids[0], ids[8]), json=path, resume=True), rest)
    assert rest.seen == [ids[8]]
    assert [claim["id"] for claim in document["claims"]] == [ids[0], ids[8]]
    rest = Stop(-1)
    check(settings(json=path, resume=True), rest)
    assert set(rest.seen) == set(ids) - {*ids[:3], ids[8]}
    assert not path.with_name("o.json.journal").exists()


def test_without_resume_it_begins_anew_and_tells(tmp_path):
    path = tmp_path / "o.json"
    stopped(3, settings(json=path))
    fresh = Stop(-1)
    check(settings(json=path), fresh)
    assert fresh.began == (len(TOY), 0, 3)
    assert len(fresh.seen) == len(TOY)


def test_a_file_that_cannot_be_replaced_keeps_the_journal(tmp_path):
    path = tmp_path / "o.json"
    path.mkdir()
    (path / "in the way").touch()
    with pytest.raises(OSError):
        check(settings(json=path))
    path.joinpath("in the way").unlink()
    path.rmdir()
    rest = Stop(-1)
    check(settings(json=path, resume=True), rest)
    assert rest.seen == []


def test_a_folder_that_is_not_there_is_an_os_error_before_any_work(tmp_path):
    watcher = Stop(-1)
    with pytest.raises(OSError):
        check(settings(json=tmp_path / "none" / "o.json"), watcher)
    assert watcher.began is None


def test_a_claim_s_result_does_not_depend_on_the_selection():
    whole = {claim["id"]: claim for claim in steady(check(settings()))["claims"]}
    for name in ("example.rounding-of-a-sum", "example.contraction"):
        assert steady(check(settings(ids=(name,))))["claims"] == [whole[name]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jobs": 0}, "at least 1"),
        ({"seed": -1}, "at least 0 and below 2"),
        ({"seed": 2**53}, "at least 0 and below 2"),
        ({"resume": True}, "give `--json FILE`"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, message):
    with pytest.raises(InvalidInput, match=message):
        settings(**given)


@pytest.mark.parametrize("reference", ["dsf.claims.examples", "dsf.claims.examples:NOTHING"])
def test_a_table_that_is_not_there_is_an_error(reference):
    with pytest.raises(ValueError, match="reference"):
        check(settings(reference=reference))


def threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}


def test_one_thread_inside_and_as_before_outside(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with threadpoolctl.threadpool_limits(2):
            assert threads() == {2}
            with one_thread():
                assert threads() == {1} and torch.get_num_threads() == 1
            assert threads() == {2} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ


def test_the_journal_lies_beside_the_file():
    assert settings(json=Path("a/b.json")).journal == Path("a/b.json.journal")
