"""One import package from five folders: one test for each way in which that is known to break."""

from __future__ import annotations

import copy
import operator
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import joblib
import pytest
from packaging.requirements import Requirement

import dsf
from dsf.papers.paper import Paper

ROOT = Path(__file__).parents[1]
ROOMS = ("theory", "sim", "kernels", "papers")
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def call(*command: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would: without the settings of this test run, output captured."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))
    }
    return subprocess.run(
        command, cwd=cwd, env={**clean, **env}, capture_output=True, text=True, check=False
    )


def on_disk(folder: Path) -> set[str]:
    """Every file of the package, links followed; caches and compiled files are not part of it."""
    found = set()
    for child in folder.iterdir():
        if child.is_dir() and not child.name.startswith((".", "__pycache__")):
            found |= {f"{folder.name}/{name}" for name in on_disk(child)}
        elif child.is_file() and child.suffix != ".pyc":
            found.add(f"{folder.name}/{child.name}")
    return found


def in_wheel(wheel: Path) -> tuple[set[str], set[str]]:
    """The files of a wheel, and the names at its top, its metadata left out of both."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    return names, {name.split("/")[0] for name in names}


def build(source: Path, *options: str) -> list[Path]:
    """Build with the installed setuptools: nothing is downloaded."""
    built = call(sys.executable, "-m", "build", "--no-isolation", *options, cwd=source)
    assert built.returncode == 0, built.stdout + built.stderr
    return sorted((source / "dist").iterdir())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a build reads, links kept: a build leaves folders behind."""
    copied = tmp_path / "tree"
    skip = shutil.ignore_patterns("__pycache__", ".*_cache", "*.pyc")
    for name in ("dsf", *ROOMS):
        shutil.copytree(ROOT / name, copied / name, symlinks=True, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copied)
    return copied


def test_wheel_holds_what_is_on_disk(tree: Path) -> None:
    (wheel,) = build(tree, "--wheel")
    names, top = in_wheel(wheel)
    assert names == on_disk(ROOT / "dsf")
    assert top == {"dsf"}
    assert {"dsf/py.typed", "dsf/papers/paper.py", "dsf/check/templates/report.css"} <= names


def test_a_package_missing_from_the_list_is_found(tree: Path) -> None:
    config = tree / "pyproject.toml"
    listed = config.read_text(encoding="utf-8")
    config.write_text(listed.replace('    "dsf.theory",\n', ""), encoding="utf-8")
    (wheel,) = build(tree, "--wheel")
    assert "dsf/theory/__init__.py" in on_disk(ROOT / "dsf") - in_wheel(wheel)[0]


def test_sdist_makes_the_same_wheel(tree: Path) -> None:
    wheel, sdist = sorted(build(tree), key=lambda path: path.suffix, reverse=True)
    assert in_wheel(wheel)[0] == on_disk(ROOT / "dsf")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "theory/__init__.py"} <= held


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_imported_through_dsf_alone(room: str) -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import dsf.{room}; import {room}"
    ran = call(sys.executable, "-c", script)
    assert ran.returncode == 1
    assert f"ImportError: this package is dsf.{room}" in ran.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_links_are_relative(room: str) -> None:
    assert (ROOT / "dsf" / room).readlink() == Path("..", room)


def test_tools_name_what_they_read() -> None:
    tools = CONFIG["tool"]
    assert tools["pyright"]["include"] == ["dsf", *ROOMS]
    assert tools["mypy"]["packages"] == ["dsf"]
    assert tools["coverage"]["run"]["source_pkgs"] == ["dsf"]


COLLECT = """
import os, sys, pytest

class Look:
    def pytest_collection_finish(self, session):
        import dsf.registry
        files = [os.path.realpath(module.__file__) for module in list(sys.modules.values())
                 if str(getattr(module, "__file__", "")).startswith(os.getcwd() + os.sep)
                 and "site-packages" not in module.__file__]
        ids = [item.nodeid for item in session.items]
        print("@", len(ids), len(ids) - len(set(ids)), len(files) - len(set(files)),
              sum(name in sys.modules for name in ("theory", "sim", "kernels", "papers")),
              type(dsf.registry.__loader__).__module__)

sys.exit(pytest.main(["-n0", "--collect-only", *sys.argv[1:]], plugins=[Look()]))
"""


def collect(*arguments: str) -> tuple[list[int], str]:
    """Doctests and tests; node ids twice; files loaded twice; rooms at the top; who loads `dsf`."""
    ran = call(sys.executable, "-P", "-c", COLLECT, *arguments)
    assert ran.returncode == 0, ran.stdout
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("@ ")]
    *counts, loader = line.split()[1:]
    return list(map(int, counts)), loader


def test_no_module_is_collected_twice() -> None:
    (items, *repeated), loader = collect("tests/test_imports.py", "dsf", "README.md")
    assert items > 0 and repeated == [0, 0, 0]
    assert loader.startswith("jaxtyping")


def test_a_room_is_not_collected_from_its_folder() -> None:
    ran = call(sys.executable, "-P", "-c", COLLECT, "papers")
    assert ran.returncode != 0 and "this package is dsf.papers" in ran.stdout


def test_annotations_are_not_checked_in_benchmarks() -> None:
    assert not collect("--benchmark-only", "tests/test_imports.py")[1].startswith("jaxtyping")


def test_pytest_reads_the_package_and_the_pages() -> None:
    options = CONFIG["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests", "dsf", "README.md", "docs"]
    assert {"--doctest-modules", "--import-mode=importlib"} <= set(options["addopts"])
    assert not [path for path in ("conftest.py", "tests/__init__.py") if (ROOT / path).exists()]


def test_module_and_script_are_one_command(tmp_path: Path) -> None:
    script = call(Path(sys.executable).with_name("dsf"), "--help", cwd=tmp_path)
    module = call(sys.executable, "-m", "dsf", "--help", cwd=tmp_path)
    assert script.returncode == module.returncode == 0
    assert script.stdout == module.stdout
    assert "check" in script.stdout


def test_a_paper_keeps_its_module_in_a_worker() -> None:
    paper = Paper("a", "A", ("B",), 2024, "2405.15731", "https://arxiv.org/abs/2405.15731", ())
    where = operator.attrgetter("__class__.__module__")
    parallel = joblib.Parallel(n_jobs=2, backend="loky")
    name, back = parallel(joblib.delayed(work)(paper) for work in (where, copy.copy))
    assert name == "dsf.papers.paper"
    assert type(back) is Paper and back == paper


def test_ci_keeps_the_root_off_the_path() -> None:
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    assert code[1] == "export PYTHONSAFEPATH=1"  # right after `set -euo pipefail`
    assert not [line for line in code if "-m pytest" in line]
    script = "import importlib.util as u; print(u.find_spec('kernels') is None)"
    assert call(sys.executable, "-c", script).stdout == "False\n"
    assert call(sys.executable, "-c", script, PYTHONSAFEPATH="1").stdout == "True\n"


@pytest.mark.parametrize("name", ["check", "test"])
def test_ci_runs_the_commands_of_the_readme(name: str) -> None:
    command = call(sys.executable, ".ci/readme_command.py", name, "README.md").stdout.strip()
    assert command.startswith(
        "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e "
    )
    assert f"```bash\n{command}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\nreadme {name}\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert call(sys.executable, ".ci/readme_command.py", "other", "README.md").returncode == 1


def test_one_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert version("dsf-dynamics") == dsf.__version__
    assert f"\nversion: {dsf.__version__}\n" in citation


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {re.sub(r"[-_.]+", "-", name).lower(): pin for name, pin in pins.items()}
    extras = CONFIG["project"]["optional-dependencies"]
    for text in sum(extras.values(), CONFIG["project"]["dependencies"]):
        wanted = Requirement(text)
        if wanted.name != CONFIG["project"]["name"]:
            assert pins[wanted.name] in wanted.specifier, text
    assert (pins["torch"], pins["triton"]) == ("2.13.0", "3.7.1")
