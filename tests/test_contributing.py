"""CONTRIBUTING.md's recipes, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- (file|line): (\S+) -->\n```python\n(.*?)```\n", re.DOTALL)


def follow(project: Path, text: str) -> list[str]:
    """Write each file, add each line at the end of the tuple in its file; return the paths touched."""
    touched = []
    for kind, name, body in BLOCK.findall(text):
        path = project / name
        if kind == "file":
            assert not path.exists(), (
                f"{name} is there already: the recipe would not be one new file"
            )
            path.write_text(body, encoding="utf-8")
        else:
            source = path.read_text(encoding="utf-8")
            head, bracket, tail = source.rpartition("\n)")
            assert bracket and body.count("\n") == 1, (
                f"{name}: one line goes at the end of its tuple"
            )
            path.write_text(f"{head}\n{body.rstrip()}{bracket}{tail}", encoding="utf-8")
        touched.append(name)
    return touched


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("contributing") / "project"
    copy.mkdir()
    skip = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in ("dsf", "theory", "sim", "kernels", "papers", "tests"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=skip)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    follow(copy, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    return copy


def run(project: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project)}
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)
    result = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_recipes_are_one_file_one_line_one_test() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = [(kind, name) for kind, name, _ in BLOCK.findall(text)]
    assert [kind for kind, _ in names].count("line") == 2
    assert sum(name.startswith("tests/") for _, name in names) == 2
    assert len(names) == 7


def test_new_files_pass_their_tests_and_the_suites(project: Path) -> None:
    tests = ["tests/test_moving_average.py", "tests/test_averages.py", "tests/test_house.py"]
    tests += sorted(str(p.relative_to(project)) for p in (project / "tests").glob("test_forms*.py"))
    only = "moving or average or weights or listed or table"
    options = ("-o", "addopts=--import-mode=importlib", "-q", "-k", only)
    assert " passed" in run(project, "-m", "pytest", *options, *tests)


def test_new_claim_is_checked(project: Path) -> None:
    command = ("-m", "dsf", "check", "--paper", "hunter1986", "--budget", "smoke", "--json", "-")
    (claim,) = json.loads(run(project, *command))["claims"]
    assert (claim["id"], claim["outcome"]) == ("hunter1986.weights", "as-expected")


def test_new_architecture_is_listed(project: Path) -> None:
    listed = json.loads(run(project, "-m", "dsf", "architectures", "--json"))
    assert "moving-average" in [row["name"] for row in listed["result"]]
