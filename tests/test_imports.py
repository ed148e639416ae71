"""Who imports whom: read from the sources with `ast`, links not followed, `dsf/cli` excepted."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
ROOMS = ("theory", "sim", "kernels", "papers")
# The arrows of docs/design.md, closed: what the files of each room may import from the others.
# A paper redraws figures, so it may use everything upstream of it.
MAY_USE = {
    "core": {"core"},
    "sim": {"sim", "dsf.certificate", "dsf.errors", "dsf.verify"},
    "theory": {"theory", "core"},
    "kernels": {"kernels", "core", "sim"},
    "papers": {"papers", "core", "theory", "kernels", "sim"},
}
HEAVY = {"triton", "cvxpy", "transformers", "safetensors", "fla"}
# What verification stands on; a file must be checked without the library that made it.
WITHOUT_TORCH = (
    "dsf/codec",
    "dsf/certificate.py",
    "dsf/certify.py",
    "dsf/verify",
    "dsf/registry.py",
)


def sources(*folders: str) -> list[Path]:
    """The Python files under the folders, or the files themselves; links are not followed."""
    found: list[Path] = []
    for folder in map(ROOT.joinpath, folders):
        found += [folder] if folder.is_file() else []
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                found += sources(str(path.relative_to(ROOT)))
            elif path.suffix == ".py":
                found.append(path)
    return sorted(found)


def module_of(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in ("dsf", *parts[parts[0] == "dsf" :]) if part != "__init__")


def imports(source: str, module: str, package: bool) -> set[str]:
    """Every module that a source names in an import: `package.module`, or one level more."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + package]
                base = ".".join([*above, *filter(None, [node.module])])
            # `from dsf import theory` names a module only in its second half.
            found |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(
            node.func, "attr", getattr(node.func, "id", "")
        ) in ("import_module", "__import__"):
            found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return found


def room_of(module: str) -> str:
    head = module.split(".")[1] if "." in module else ""
    return "cli" if head == "__main__" else head if head in (*ROOMS, "cli") else "core"


FILES = [path for path in sources("dsf", *ROOMS) if room_of(module_of(path)) != "cli"]


def faults(source: str, module: str, package: bool = False) -> list[str]:
    """The imports that a module must not have."""
    room, found = room_of(module), []
    for name in sorted(imports(source, module, package)):
        top, target = name.split(".")[0], room_of(name)
        if top == "dsf":
            allowed = target in MAY_USE[room] or any(
                f"{name}.".startswith(f"{prefix}.") for prefix in MAY_USE[room]
            )
            found += [] if allowed else [f"{module} imports {name}"]
        elif top in ROOMS:
            found.append(f"{module} imports {name}: write dsf.{name}")
        elif room == "core" and top in HEAVY and module != "dsf.interop":
            found.append(f"{module} imports {name}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_directions(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert faults(text, module_of(path), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("source", "module", "package"),
    [
        ("from dsf.theory import gramian", "dsf.system", False),
        ("from dsf import sim", "dsf.forms.scan", False),
        ("from .. import kernels", "dsf.forms.scan", False),
        ("from . import papers", "dsf", True),
        ("import triton", "dsf.forms.scan", False),
        ("def f():\n    import cvxpy.atoms", "dsf.structure", True),
        ("import importlib\nimportlib.import_module('dsf.theory')", "dsf.system", False),
        ("from dsf.system import System", "dsf.sim.cost", False),
        ("from dsf.codec import encode", "dsf.sim.claims", False),
        ("from dsf.papers import PAPERS", "dsf.theory.gramian", False),
        ("from ..papers import PAPERS", "dsf.kernels.retention", False),
        ("import dsf.cli", "dsf.papers.sieber2024", False),
        ("import kernels", "dsf.papers.sieber2024", False),
    ],
)
def test_a_wrong_direction_is_found(source: str, module: str, package: bool) -> None:
    assert len(faults(source, module, package)) == 1


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from dsf.certificate import Claim", "dsf.sim.claims"),
        ("from .geometry import Tile", "dsf.sim.claims"),
        ("from dsf.sim.cost import Cost", "dsf.kernels.claims"),
        ("from ..theory import gramian", "dsf.papers.sieber2024"),
        ("import triton", "dsf.kernels.retention"),
        ("from dsf.structure import Scalar", "dsf.theory.gramian"),
    ],
)
def test_a_right_direction_is_not(source: str, module: str) -> None:
    assert faults(source, module) == []


# What the package imports is installed with it: a fresh environment has nothing else.

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# `dsf.shapes` falls back where jaxtyping is missing: it is for tests alone.
OPTIONAL = {("dsf.shapes", "jaxtyping")}


@cache
def declared(*extras: str) -> set[str]:
    """The distributions that the package asks for, and those that these in turn cannot do without."""
    texts = list(PROJECT["dependencies"])
    direct = {Requirement(text).name for text in texts}
    for name in direct:
        wanted = map(Requirement, requires(name) or [])
        texts += [str(one) for one in wanted if one.marker is None or one.marker.evaluate()]
    texts += [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(text).name) for text in texts}


brought_by = cache(packages_distributions)


def undeclared(names: set[str], module: str) -> set[str]:
    """The top-level modules among `names` that no declared distribution brings."""
    known = declared("solvers", "kernels", "exact", "hf")
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"dsf"}
    return {
        top
        for top in tops
        if (module, top) not in OPTIONAL
        and known.isdisjoint(map(canonicalize_name, brought_by().get(top, [top])))
    }


@pytest.mark.parametrize(
    "path", sources("dsf", *ROOMS), ids=lambda path: str(path.relative_to(ROOT))
)
def test_what_is_imported_is_declared(path: Path) -> None:
    module = module_of(path)
    named = imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    assert undeclared(named, module) == set()


def test_what_is_not_declared_is_found() -> None:
    named = imports("import hypothesis, mpmath, jaxtyping\nfrom numpy import array", "dsf.a", False)
    assert undeclared(named, "dsf.a") == {"hypothesis", "jaxtyping"}


@pytest.mark.parametrize(
    "path", sources(*WITHOUT_TORCH), ids=lambda path: str(path.relative_to(ROOT))
)
def test_verification_does_not_name_torch(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = imports(text, module_of(path), path.name == "__init__.py")
    assert not {name for name in named if name.split(".")[0] == "torch"}


def loaded_by(statement: str, *modules: str) -> set[str]:
    """Which of the modules are loaded after a statement in a fresh interpreter."""
    script = f"import sys\n{statement}\nprint(*set({modules!r}) & set(sys.modules))"
    run = [sys.executable, "-c", script]
    return set(subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())


def test_verification_does_not_load_torch() -> None:
    statement = "import dsf.codec, dsf.certificate, dsf.certify, dsf.verify, dsf.registry"
    assert loaded_by(statement, "torch", "dsf.verify") == {"dsf.verify"}


def test_import_dsf_is_light() -> None:
    heavy = ("torch", "sympy", "scipy", "matplotlib", "cvxpy", "numpy")
    assert loaded_by("import dsf", "dsf", *heavy) == {"dsf"}
    assert loaded_by("import dsf; dsf.System", *heavy) >= {"torch"}
