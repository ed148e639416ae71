"""Compiling without a GPU: registers, stack, spills, shared memory and matrix instructions of a program."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsf.errors import InvalidInput
from dsf.registry import resolve

from .contract import Program, Tile
from .limits import LIMITS

_SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_PRODUCTS = re.compile(r"\b(?:HMMA|HGMMA|QGMMA|UTCHMMA|UTCQMMA|DMMA)")
_SPILLS = re.compile(r"\b(?:STL|LDL)")


@dataclass(frozen=True)
class Resources:
    """What one compiled program uses: per thread registers and bytes of stack; per block the rest."""

    registers: int
    stack: int
    spills: int
    shared: int
    columns: int
    products: int
    threads: int

    def faults(self, architecture: int, products: bool = True) -> tuple[str, ...]:
        """Which limits of the architecture it exceeds, and the signs of a stub or of spilling."""
        limits = LIMITS[architecture]
        found = []
        if self.shared > limits.shared:
            found.append(f"{self.shared} bytes of shared memory; {limits.shared} are there")
        if self.registers * self.threads > limits.registers:
            found.append(f"{self.registers * self.threads} registers; {limits.registers} are there")
        if self.columns > limits.columns:
            found.append(f"{self.columns} columns of tensor memory; {limits.columns} are there")
        if self.stack or self.spills:
            found.append(f"{self.stack} bytes of stack and {self.spills} spills")
        if products and not self.products:
            found.append("no matrix instruction: the program is a stub, or lost its products")
        return tuple(found)


def compiled(program: Program, tile: Tile, dtype: str, architecture: int) -> Resources:
    """Compile a program for an architecture (80, 90, 100) and read the machine code's resources.

    Needs Triton, no GPU. Pointers divide by 16, as torch's do; strides where the tile's sizes do. Raises
    `InvalidInput` where Triton interprets programs in this process, or the architecture is unknown.
    """
    if architecture not in LIMITS:
        raise InvalidInput(
            f"architecture {architecture} is not known; one of {', '.join(map(str, LIMITS))}"
        )
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise InvalidInput("TRITON_INTERPRET is set: unset it in a process that compiles")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function: Any = resolve(program.function)
    signature, constants, attributes = {}, {}, {}
    for place, name in enumerate(function.arg_names):
        kind = _kind(program, name, dtype)
        if kind == "constexpr":
            constants[name] = _constant(program, tile, name)
        signature[name] = kind
        if kind.startswith("*"):
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    binary: Any = triton.compile(
        source, target=GPUTarget("cuda", architecture, 32), options=options
    )
    return _read(binary, tile)


def _kind(program: Program, name: str, dtype: str) -> str:
    """The Triton type of an argument."""
    if name in program.pointers:
        kind = program.pointers[name]
        if kind == "none":
            return "constexpr"
        return f"*{_SHORT[dtype] if kind == 'data' else kind}"
    if name in program.integers:
        return "i32"
    return "fp32" if name in program.floats else "constexpr"


def _constant(program: Program, tile: Tile, name: str) -> int | float | str | None:
    if name in program.pointers:
        return None
    values = {**program.flags, **tile.constants}
    if name not in values:
        raise InvalidInput(f"{program.function}: no value for the constant {name}")
    return values[name]


def _read(binary: Any, tile: Tile) -> Resources:
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "program.cubin")
        path.write_bytes(binary.asm["cubin"])
        usage = _output(knobs.nvidia.cuobjdump.path, "-res-usage", path)
        code = _output(knobs.nvidia.nvdisasm.path, path)
    return Resources(
        _number(r"REG:(\d+)", usage),
        _number(r"STACK:(\d+)", usage),
        len(_SPILLS.findall(code)),
        int(binary.metadata.shared),
        int(getattr(binary.metadata, "tmem_size", 0) or 0),
        len(_PRODUCTS.findall(code)),
        32 * tile.warps,
    )


def _output(*command: object) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True).stdout


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no {pattern}: {text[:200]!r}")
    return int(found[1])
