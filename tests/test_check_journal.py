"""The journal: whatever a kill leaves behind, finished results are read back, once each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsf.check import Journal
from dsf.errors import InvalidInput

BINDING = {"seed": 1, "budget": "smoke", "versions": {"dsf": "1"}}
RESULTS = [{"id": f"p.c{i}", "measured": i / 7, "text": "ä\n" * i} for i in range(4)]


def written(path: Path) -> bytes:
    with Journal(path, BINDING, resume=False) as journal:
        for result in RESULTS:
            journal.add(result)
    return path.read_bytes()


def read(path: Path) -> dict[str, dict]:
    with Journal(path, BINDING, resume=True) as journal:
        return journal.results


def test_what_was_added_is_read_back(tmp_path):
    path = tmp_path / "j"
    written(path)
    assert read(path) == {result["id"]: result for result in RESULTS}


def test_a_journal_cut_at_any_byte_keeps_the_whole_lines_and_goes_on(tmp_path):
    whole = written(tmp_path / "whole")
    path = tmp_path / "j"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = max(whole[:cut].count(b"\n") - 1, 0)
        with Journal(path, BINDING, resume=True) as journal:
            assert (
                list(map(journal.results.get, (r["id"] for r in RESULTS[:kept]))) == RESULTS[:kept]
            )
            assert len(journal.results) == kept
            for result in RESULTS[kept:]:
                journal.add(result)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 40 + b"\n", b'{"id": NaN}\n', b"[]\n", b'{"no": 1}\n'])
def test_a_last_line_that_says_nothing_is_mended(tmp_path, tail):
    path = tmp_path / "j"
    whole = written(path)
    path.write_bytes(whole + tail)
    assert len(read(path)) == len(RESULTS)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", range(len(RESULTS)))
def test_damage_before_the_last_line_is_refused(tmp_path, line):
    path = tmp_path / "j"
    lines = written(path).splitlines(keepends=True)
    lines[line] = b"?" + lines[line]
    path.write_bytes(b"".join(lines))
    with pytest.raises(InvalidInput, match=f"not a journal .line {line + 1}"):
        Journal(path, BINDING, resume=True)


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"budget": "full"}, {"versions": {"dsf": "2"}}, {"versions": {}}]
)
def test_another_run_is_refused_with_what_differs(tmp_path, other):
    path = tmp_path / "j"
    whole = written(path)
    with pytest.raises(InvalidInput, match=f"belongs to another run .{next(iter(other))} "):
        Journal(path, BINDING | other, resume=True)
    assert path.read_bytes() == whole


def test_without_resume_the_run_begins_anew_and_says_what_is_dropped(tmp_path):
    path = tmp_path / "j"
    written(path)
    with Journal(path, BINDING | {"seed": 2}, resume=False) as journal:
        assert journal.forgotten == len(RESULTS)
        assert journal.results == {}
    assert [json.loads(line)["seed"] for line in path.read_bytes().splitlines()] == [2]


def test_a_journal_has_one_writer(tmp_path):
    path = tmp_path / "j"
    with Journal(path, BINDING, resume=False):
        with pytest.raises(InvalidInput, match="in use by another run"):
            Journal(path, BINDING, resume=True)
    read(path)


def test_a_result_is_added_once(tmp_path):
    with Journal(tmp_path / "j", BINDING, resume=False) as journal:
        journal.add(RESULTS[0])
        with pytest.raises(ValueError, match="in the journal already"):
            journal.add(RESULTS[0])


def test_a_line_written_twice_counts_once_and_the_first_stays(tmp_path):
    path = tmp_path / "j"
    whole = written(path)
    path.write_bytes(whole + json.dumps(RESULTS[0] | {"measured": 9.0}).encode() + b"\n")
    assert read(path)[RESULTS[0]["id"]] == RESULTS[0]


def test_a_removed_journal_is_gone(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, BINDING, resume=False)
    journal.remove()
    assert not path.exists()
