"""House facts: the tables agree with the disk, and the library keeps its manners."""

from __future__ import annotations

import ast
import importlib
import inspect
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxtyping
import pytest
import torch

import dsf
from dsf.certificate import Claim
from dsf.forms import FORMS, Form
from dsf.mixers import ARCHITECTURES, Architecture
from dsf.papers import PAPERS
from dsf.papers.paper import Paper
from dsf.registry import claims, resolve

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = CONFIG["tool"]["setuptools"]
FOLDERS = {
    name: ROOT / SETUPTOOLS["package-dir"].get(name, name.replace(".", "/"))
    for name in SETUPTOOLS["packages"]
}
LIBRARY = sorted(path for folder in FOLDERS.values() for path in folder.glob("*.py"))


def packages_on_disk(folder: Path, name: str) -> set[str]:
    """Every folder with Python files, links followed, by its import name."""
    found = {name} if any(folder.glob("*.py")) else set()
    for child in folder.iterdir():
        if child.is_dir() and child.name.isidentifier() and child.name != "__pycache__":
            found |= packages_on_disk(child, f"{name}.{child.name}")
    return found


def test_every_package_on_disk_is_listed() -> None:
    assert set(SETUPTOOLS["packages"]) == packages_on_disk(ROOT / "dsf", "dsf")
    assert len(set(SETUPTOOLS["packages"])) == len(SETUPTOOLS["packages"])


def test_a_package_that_is_not_listed_is_found(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "__init__.py").touch()
    assert packages_on_disk(tmp_path, "dsf") == {"dsf.new"}


def test_types_are_shipped() -> None:
    assert (ROOT / "dsf/py.typed").is_file()
    assert "py.typed" in SETUPTOOLS["package-data"]["dsf"]


def prints(source: str) -> list[int]:
    """The lines that call `print`."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if getattr(call.func, "id", "") == "print"]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_files_are_short_and_do_not_print(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    if path.parent != ROOT / "dsf/cli":
        assert prints(text) == []


def test_a_print_is_found() -> None:
    assert prints("def f():\n    '''print(1)'''\n    print(2)") == [3]


# The tables. A row is a "module:NAME" string; everything of its kind in the folder has a row.


def is_form(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Form) and not inspect.isabstract(value)


def is_architecture(value: Any) -> bool:
    return isinstance(value, Architecture)


def is_paper(value: Any) -> bool:
    return isinstance(value, Paper)


TABLES = {
    "forms": (FORMS, ("dsf.forms", "dsf.kernels"), is_form),
    "architectures": (ARCHITECTURES, ("dsf.mixers",), is_architecture),
    "papers": (PAPERS, ("dsf.papers",), is_paper),
}


def modules_of(packages: Iterable[str]) -> list[ModuleType]:
    """Every module of the packages, and the packages themselves."""
    names = [
        package if path.stem == "__init__" else f"{package}.{path.stem}"
        for package in packages
        for path in sorted(FOLDERS[package].glob("*.py"))
    ]
    return [importlib.import_module(name) for name in names]


def unlisted(table: tuple[str, ...], modules: list[ModuleType], kind: Callable[[Any], bool]) -> set:
    """What is of the kind, stands in one of the modules, and is not in the table."""
    listed = {id(resolve(reference)) for reference in table}
    return {
        f"{module.__name__}:{name}"
        for module in modules
        for name, value in vars(module).items()
        if kind(value) and id(value) not in listed
    }


@pytest.mark.parametrize("name", TABLES)
def test_table_and_disk_agree(name: str) -> None:
    table, packages, kind = TABLES[name]
    assert isinstance(table, tuple) and len(set(table)) == len(table) > 0
    for reference in table:
        assert kind(resolve(reference)), f"{reference} is not one of the {name}"
    assert unlisted(table, modules_of(packages), kind) == set()


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_row_is_found(name: str) -> None:
    table, packages, kind = TABLES[name]
    assert table[0] in unlisted(table[1:], modules_of(packages), kind)


def test_every_claim_and_figure_of_a_paper_resolves() -> None:
    for paper in map(resolve, PAPERS):
        for reference in (*paper.claims, *paper.figures):
            resolve(reference)


CLAIM_ROOMS = ("dsf.claims", "dsf.theory", "dsf.sim", "dsf.kernels")


def unclaimed(listed: Iterable[Claim]) -> set[str]:
    """The claims on disk, alone or in a tuple, that no paper lists; the examples belong to none."""
    known = set(map(id, listed))
    packages = [name for name in FOLDERS if name.startswith(CLAIM_ROOMS)]
    found = {}
    for module in modules_of(packages):
        if module.__name__ == "dsf.claims.examples":
            continue
        for value in vars(module).values():
            rows = value if isinstance(value, tuple) else (value,)
            found |= {id(row): row.id for row in rows if isinstance(row, Claim)}
    return {name for row, name in found.items() if row not in known}


def test_every_claim_on_disk_is_listed_by_a_paper() -> None:
    assert unclaimed(claims().values()) == set()


def test_a_claim_that_no_paper_lists_is_found() -> None:
    first, *others = claims().values()
    assert unclaimed(others) == {first.id}


# The public names of `dsf`.


def promised(package: str = "dsf") -> dict[str, str]:
    """What a type checker sees: the imports under `if TYPE_CHECKING:` in a package's __init__.py."""
    tree = ast.parse((FOLDERS[package] / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names:
            assert alias.asname == alias.name, f"write `{alias.name} as {alias.name}`"
            found[alias.name] = f"{package}.{node.module}" if node.level else node.module
    return found


def test_lazy_names_and_promised_names_agree() -> None:
    assert dsf._LAZY == promised()


@pytest.mark.parametrize("name", dsf._LAZY)
def test_lazy_names_resolve(name: str) -> None:
    module = importlib.import_module(dsf._LAZY[name])
    assert getattr(dsf, name) is getattr(module, name)
    assert name in dir(dsf)


def test_names_of_the_kernels_are_lazy_too() -> None:
    import dsf.kernels

    assert dsf.kernels._LAZY == promised("dsf.kernels")
    for name, module in dsf.kernels._LAZY.items():
        assert getattr(dsf.kernels, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'scaler_decay'"):
        dsf.kernels.scaler_decay  # noqa: B018


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sytem'"):
        dsf.sytem  # noqa: B018


# Tolerances come from `dsf.numerics`.

_GUESSED = {"allclose", "assert_allclose", "isclose", "approx", "assert_close"}


def guessed_tolerances(source: str) -> list[str]:
    """Comparisons with a tolerance of their own: calls that have one, and bounds that are literals."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        named = {keyword.arg for keyword in node.keywords} & {"rtol", "atol"}
        bound = node.args[2:3] if name == "require_within" else []
        literal = bound and not _names(bound[0])
        if name in _GUESSED or named or literal:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def _names(bound: ast.expr) -> set[str]:
    """The variables that a bound is made of."""
    return {x.id for x in ast.walk(bound) if isinstance(x, ast.Name)} - {"torch", "np"}


TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "benchmarks" not in path.parts)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_tolerances_are_not_guessed(path: Path) -> None:
    assert guessed_tolerances(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.allclose(a, b)",
        "assert x == pytest.approx(y)",
        "compare(a, b, rtol=1e-5)",
        "require_within(a, b, torch.tensor(2.0**-40), 'rows')",
    ],
)
def test_a_guessed_tolerance_is_found(source: str) -> None:
    assert guessed_tolerances(source)


def test_a_bound_is_no_guess() -> None:
    assert not guessed_tolerances("require_within(a, b, 2 * error_bound(s, u).outputs, 'x')")


# The set-up of the tests themselves.


def test_annotations_are_checked_at_run_time() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        resolve(3)  # type: ignore[arg-type]


def test_one_thread() -> None:
    assert torch.get_num_threads() == 1
