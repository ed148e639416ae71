"""The command line: start-up, exit codes, standard output, and the main job from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dsf import registry
from dsf.certificate import Budget
from dsf.check import Settings
from dsf.claims.examples import TOY
from dsf.cli import COMMANDS
from dsf.cli.check import Outputs
from dsf.cli.check import execute as run_check
from dsf.cli.verify import execute as run_verify
from dsf.codec import digest, dumps
from dsf.errors import InvalidInput

HEAVY = ("torch", "numpy", "scipy", "sympy", "matplotlib", "cvxpy", "joblib", "jinja2")


def dsf(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dsf", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_help_lists_every_command_and_starts_within_its_bound():
    seconds = []
    for _ in range(5):
        before = os.times()
        shown = dsf("--help")
        after = os.times()
        user = after.children_user - before.children_user
        seconds.append(user + after.children_system - before.children_system)
        assert shown.returncode == 0
        for name, entry in COMMANDS.items():
            assert name in shown.stdout and entry.help in shown.stdout
    # The bound of `dsf --help`, in processor seconds: it waits for nothing, and others compute beside it.
    assert min(seconds) < 0.4


def test_help_imports_no_command_and_nothing_heavy():
    script = (
        "import sys\n"
        "from dsf.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    loaded = set(found.stderr.split())
    assert "dsf.cli.application" in loaded
    assert not loaded & {*HEAVY, "dsf.registry", *(f"dsf.cli.{name}" for name in COMMANDS)}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_has_help(name):
    function = registry.resolve(COMMANDS[name].reference)
    assert function.__doc__
    shown = dsf(name, "--help")
    assert shown.returncode == 0
    assert function.__doc__.splitlines()[0].rstrip(".") in shown.stdout


def test_the_version_is_the_package_s():
    from dsf import __version__

    assert dsf("--version").stdout == f"dsf {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["chek"], 2, "No such command"),
        (["check", "--budget", "huge"], 2, "--budget"),
        (["check", "--jobs", "-1"], 2, "--jobs"),
        (["check", "--level", "proved"], 2, "--level"),
        (["check", "no-such-claim"], 2, "no claim matches 'no-such-claim'"),
        (["check", "--paper", "sieber2042"], 2, "did you mean 'sieber2024'"),
        (["check", "--resume"], 2, "give `--json FILE`"),
        (["check", "--resume", "--json", "-"], 2, "give `--json FILE`"),
        (["check", "--json", "-", "--junit", "-"], 2, "only one output can be '-'"),
        (["check", "--seed", str(2**53)], 2, "below 2^53"),
        (["check", "*t5*", "--budget", "smoke", "--json", "none/o.json"], 3, "none/o.json"),
        (["check", "*t5*", "--budget", "smoke", "--junit", "none/o.xml"], 3, "No such file"),
        (["verify", "none.json"], 3, "none.json"),
        (["verify", "."], 3, ""),
    ],
)
def test_what_cannot_be_done_ends_with_its_code_and_one_message(tmp_path, arguments, code, message):
    found = dsf(*arguments, cwd=tmp_path)
    assert found.returncode == code, found.stderr
    assert message in found.stderr and "Traceback" not in found.stderr
    assert len(found.stderr.splitlines()) <= 8


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": "other"}', b'{"schema": "dsf.check/1"}', b"\xff"]
)
def test_a_malformed_file_ends_with_2(tmp_path, content):
    path = tmp_path / "o.json"
    path.write_bytes(content)
    found = dsf("verify", path)
    assert found.returncode == 2
    assert "o.json" in found.stderr and "Traceback" not in found.stderr


def test_the_main_job_from_end_to_end(tmp_path):
    """Check at smoke with every output, then verify the file, with and without running it again."""
    outputs = ["--json", "o.json", "--junit", "o.xml", "--report", "report"]
    found = dsf("check", "--budget", "smoke", "--jobs", "2", *outputs, cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    document = json.loads((tmp_path / "o.json").read_bytes())
    ids = [claim["id"] for claim in document["claims"]]
    assert ids == sorted(registry.claims())
    assert all(name in found.stdout for name in ids)
    assert found.stderr == "" and "\x1b" not in found.stdout
    cases = ElementTree.parse(tmp_path / "o.xml").getroot().iter("testcase")
    assert [case.attrib["name"] for case in cases] == ids
    page = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert all(f'id="{name}"' in page for name in ids)
    assert not list(tmp_path.glob("*.journal"))
    levels = Counter(claim["level"] for claim in document["claims"])
    for extra in ([], ["--recompute"]):
        verified = dsf("verify", "o.json", "--json", "-", *extra, cwd=tmp_path)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        envelope = json.loads(verified.stdout)
        assert envelope.keys() == {"schema", "command", "versions", "seed", "result"}
        assert [one["claim"] for one in envelope["result"]] == ids
        assert all(one["accepted"] for one in envelope["result"])
        proved = sum(one["conclusion"] == "proved" for one in envelope["result"])
        assert proved == sum(levels[level] for level in ("symbolic", "enclosed", "certified"))


def test_a_terminal_without_utf_8_is_written_to_as_well():
    command = [sys.executable, "-m", "dsf", "check", "*t5*", "--budget", "smoke"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, capture_output=True, text=True, env=ascii_only)
    assert shown.returncode == 0 and "\\u2013" in shown.stdout  # a dash where there is no bound


def test_papers_lists_every_paper_and_its_claims():
    shown = dsf("papers")
    assert shown.returncode == 0
    several = Counter(claim.paper for claim in registry.claims().values())
    for paper in registry.papers():
        row = next(line for line in shown.stdout.splitlines() if line.startswith(paper.slug))
        assert f" {several[paper.slug]} " in row and paper.title in row
    envelope = json.loads(dsf("papers", "--json").stdout)
    assert (envelope["schema"], envelope["command"]) == ("dsf.papers/1", "papers")
    assert sorted(name for row in envelope["result"] for name in row["claims"]) == sorted(
        registry.claims()
    )


def test_architectures_lists_every_architecture():
    from dsf.mixers import ARCHITECTURES

    found = [registry.resolve(reference) for reference in ARCHITECTURES]
    shown = dsf("architectures").stdout
    assert all(one.title in shown and one.citation in shown for one in found)
    envelope = json.loads(dsf("architectures", "--json").stdout)
    assert [row["equation"] for row in envelope["result"]] == [one.equation for one in found]


def test_a_reader_that_leaves_early_ends_with_3_and_no_traceback():
    command = [sys.executable, "-m", "dsf", "papers", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait() == 3
    assert "Traceback" not in told and "Exception ignored" not in told


# In this process, on the examples, whose outcomes are of every kind.


def settings(**given: Any) -> Settings:
    return Settings(
        **{"reference": "dsf.claims.examples:TOY", "budget": Budget.SMOKE, "jobs": 1} | given
    )


def check(outputs: Outputs | None = None, **given: Any) -> int:
    return run_check(settings(**given), outputs or Outputs())


@pytest.mark.parametrize(
    ("ids", "code"),
    [
        (["example.contraction", "example.softplus-gate"], 0),
        (["example.float-addition-associates"], 0),
        (["example.contraction-disbelieved"], 1),
        (["example.control-passes"], 1),
        (["example.undecided"], 3),
        (["example.failing-witness"], 3),
        (["example.contraction-without-convexity"], 3),
        (["example.missing-module"], 3),
        (["example.missing-*"], 0),
        (["example.missing-module", "example.contraction"], 3),
        (["example.undecided", "example.control-passes"], 1),
        ([], 1),
    ],
)
def test_the_exit_code_of_check_and_of_verify(tmp_path, capsys, ids, code):
    path = tmp_path / "o.json"
    assert check(ids=tuple(ids), json=path) == code
    asked_by_name = ids and "example.missing-module" in ids
    assert run_verify(path, claims=TOY) == (0 if asked_by_name else code)


def test_the_table_has_the_columns_and_the_notes_say_why(capsys):
    check()
    out = capsys.readouterr().out
    lines = out.splitlines()
    columns = ["claim", "paper", "level", "status", "measured", "bound", "time"]
    assert lines[0].split() == columns
    assert [line.split()[0] for line in lines[1:11]] == sorted(TOY)
    notes = "\n".join(lines[11:])
    assert "contraction-disbelieved: unexpected: holds where violated is expected" in notes
    assert "witness raised ArithmeticError: this witness always fails" in notes
    assert "control-passes: control passed: the negative control is judged holds" in notes
    assert "not met: mu" in notes
    assert lines[-1].startswith("10 claims: 4 as expected, 1 unexpected, 1 control passed, 3 undec")


def test_quiet_shows_only_what_is_not_as_expected(capsys):
    check(Outputs(quiet=True), ids=("example.contraction",))
    assert capsys.readouterr() == ("", "")
    check(Outputs(quiet=True), ids=("example.contraction", "example.undecided"))
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("example.undecided: undecided")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("target", ["json", "junit"])
def test_a_file_on_standard_output_has_it_alone(capsysbinary, target):
    given: dict[str, Any] = {target: "-"}
    check(Outputs(**given), ids=("example.contraction",))
    out, err = capsysbinary.readouterr()
    if target == "json":
        assert [claim["id"] for claim in json.loads(out)["claims"]] == ["example.contraction"]
    else:
        assert len(list(ElementTree.fromstring(out).iter("testcase"))) == 1
    assert b"1 claim: 1 as expected" in err


def tampered(path: Path, change: Any, *, redigest: bool) -> None:
    """Change the first claim's certificate and row alike."""
    document = json.loads(path.read_bytes())
    row = document["claims"][0]
    for part in (row, row["certificate"]):
        part.update(change)
    if redigest:
        row["certificate"]["digest"] = digest(row["certificate"])
    path.write_bytes(dumps(document))


@pytest.mark.parametrize("redigest", [False, True])
@pytest.mark.parametrize("change", [{"measured": 0.0}, {"status": "violated"}, {"bound": 1e9}])
def test_a_file_that_was_tampered_with_ends_with_1_and_says_why(tmp_path, capsys, change, redigest):
    path = tmp_path / "o.json"
    assert check(ids=("example.contraction",), json=path) == 0
    tampered(path, change, redigest=redigest)
    capsys.readouterr()
    assert run_verify(path, claims=TOY) == 1
    out = capsys.readouterr().out
    assert "refused" in out and ("the judge finds" if redigest else "digest") in out


def test_a_file_without_certificates_proves_nothing(tmp_path, capsys):
    path = tmp_path / "o.json"
    path.write_bytes(dumps({"schema": "dsf.check/1", "versions": {}, "seed": 0, "claims": []}))
    assert run_verify(path, claims=TOY) == 3
    assert "holds no certificate" in capsys.readouterr().err


def test_two_outputs_on_standard_output_are_refused_before_any_work():
    with pytest.raises(InvalidInput, match="only one output"):
        check(Outputs(json="-", junit="-"))


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_progress_and_colours_are_for_terminals():
    import pty

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "dsf", "check", "*t5*", "--budget", "smoke"]
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        command,
        stdout=follower,
        stderr=follower,
        env=plain | {"TERM": "xterm-256color"},
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait() == 0
    os.close(leader)
    assert b"\x1b[32m" in shown  # green: as expected
    assert "\u2501".encode() in shown  # the bar
