"""`dsf kernels`: the Triton kernels, and what they use when compiled, on any machine with Triton."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import rich.progress
import typer

from dsf.errors import InvalidInput, Refused
from dsf.forms import native
from dsf.kernels.contract import DTYPES
from dsf.kernels.library import triton_missing
from dsf.kernels.limits import LIMITS
from dsf.kernels.report import Cell, cells, kernels

from .output import console, envelope, for_people, table, write

application = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Triton kernels: what they compute and what they use when compiled, without a GPU.",
)

_COLUMNS = (
    *("program", "type", "K", "sm", "tile", "registers", "stack", "spills", "shared", "products"),
    "faults",
)


@application.command("list")
def listed() -> None:
    """List the kernels: what each admits, and the form it computes; and what is compiled on this CPU."""
    rows = [(one.name, one.title, one.admits, one.form, one.source) for one in kernels()]
    out = for_people([])
    out.print(table(("name", "title", "admits", "form", "source"), rows))
    for library, what in (("chunks", "chunks"), ("scan", "scans")):
        out.print(f"{what} on the CPU: {_how(library)}")


def _how(library: str) -> str:
    if (refusal := native.uncompilable(library)) is not None:
        return f"torch, {refusal}"
    return "compiled" if native.is_compiled(library) else "C++, compiled on first use"


@application.command()
def report(
    architecture: Annotated[
        list[int] | None,
        typer.Option(help=f"Compute capability: {', '.join(map(str, LIMITS))}. All by default."),
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help=f"Type: {', '.join(DTYPES)}. All by default.")
    ] = None,
    size: Annotated[list[int] | None, typer.Option(help="Head size. All by default.")] = None,
    unaligned: Annotated[
        bool, typer.Option("--unaligned", help="Heads whose strides do not divide by 16, too.")
    ] = False,
    json: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write JSON; '-' is standard output.")
    ] = None,
) -> None:
    """Compile every kernel and print registers, stack, spills, shared memory and matrix instructions.

    Needs Triton, no GPU. Leaves with 1 where a program exceeds a limit of its architecture or spills.
    """
    for given, allowed, name in (
        (architecture, tuple(LIMITS), "--architecture"),
        (dtype, DTYPES, "--dtype"),
    ):
        wrong = set(given or ()) - set(allowed)
        if wrong:
            raise InvalidInput(f"{name} {sorted(wrong)[0]}: one of {', '.join(map(str, allowed))}")
    known = {size for kernel in kernels() for size in kernel.sizes}
    if set(size or ()) - known:
        raise InvalidInput(f"--size: one of {', '.join(map(str, sorted(known)))}")
    if (missing := triton_missing()) is not None:
        raise Refused(missing)
    chosen = list(
        cells(
            architecture or tuple(LIMITS),
            dtype or None,
            size or None,
            (True, False) if unaligned else (True,),
        )
    )
    aside = console(stderr=True)
    watched = rich.progress.track(
        chosen, "compiling", console=aside, transient=True, disable=not aside.is_terminal
    )
    rows = [_row(cell) for cell in watched]
    if json:
        write(json, envelope("kernels", rows))
    shown = [[_shown(row[column]) for column in _COLUMNS] for row in rows]
    right = ("K", "registers", "stack", "spills", "shared", "products")
    for_people([json]).print(table(_COLUMNS, shown, right))
    if any(row["faults"] for row in rows):
        raise typer.Exit(1)


def _row(cell: Cell) -> dict[str, Any]:
    found = cell.compiled()
    tile = cell.tile
    return {
        "kernel": cell.kernel.name,
        "program": f"{cell.kernel.name} {cell.program.name}",
        "type": cell.dtype,
        "K": cell.size,
        "sm": cell.architecture,
        "aligned": cell.aligned,
        "tile": " ".join(f"{name}={value}" for name, value in tile.constants.items())
        + f" warps={tile.warps}",
        **asdict(found),
        "faults": list(cell.faults(found)),
    }


def _shown(value: Any) -> str:
    return "; ".join(value) if isinstance(value, list) else str(value)
