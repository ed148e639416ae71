"""The compiled libraries: each made once for a kind of processor, kept in the user's cache, and how it is called."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from dsf.errors import Refusal

_SOURCES = Path(__file__).parent
# Bytes of a vector and what lets the compiler use it, by what torch calls the processor.
_WIDTHS = {
    "AVX512": (64, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
    "AVX2": (32, "-mavx2", "-mfma"),
}

# The streams of each library, in the order of `Slot` in `problem.h` and of `Line` in `scan.h`.
SLOTS = {
    "chunks": (
        *("read", "write", "value", "decay", "late", "inner write", "output"),
        *("of read", "of write", "of value", "of decay", "of late", "of inner write"),
        *("memory", "final", "starts", "inner", "of memory"),
    ),
    "scan": (
        *("read", "write", "gain", "value", "decay", "step", "rate", "output"),
        *("of read", "of write", "of gain", "of value", "of decay", "of step", "of rate"),
        *("memory", "final", "starts", "of memory"),
    ),
}


@cache
def missing(library: str) -> Refusal | None:
    """Why `library` is not compiled here, or None where it is there, compiled now if it was not."""
    if (refusal := uncompilable(library)) is not None:
        return refusal
    if _library(library) is None:
        return Refusal(f"native {library}", "it did not compile.", "See the warning.")
    return None


def uncompilable(library: str) -> Refusal | None:
    """Why `library` cannot be compiled here: it takes Linux and g++."""
    kind = f"native {library}"
    if not sys.platform.startswith("linux"):
        return Refusal(kind, "it is compiled on Linux alone.")
    if shutil.which("g++") is None:
        return Refusal(kind, "there is no g++ to compile it.", "Install GCC.")
    return None


def is_compiled(library: str) -> bool:
    """Whether `library` lies in the user's cache; nothing is compiled."""
    try:
        return _place(library, _flags()).exists()
    except RuntimeError:  # there is no home
        return False


@cache
def _library(name: str) -> ctypes.CDLL | None:
    """The library, compiled where that was not done before for these sources and this kind of processor."""
    try:
        return ctypes.CDLL(str(_compiled(name)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # or there is no home
        said = getattr(error, "stderr", None) or error
        warnings.warn(f"native {name} did not compile, torch runs instead: {said}", stacklevel=3)
        return None


def _flags() -> tuple[str, ...]:
    width, *own = _WIDTHS.get(torch.backends.cpu.get_cpu_capability(), (16,))
    return ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", f"-DDSF_BYTES={width}", *own)


def _place(name: str, flags: Sequence[str]) -> Path:
    """Where the library made of these sources with these flags is kept."""
    sources = sorted(path for path in _SOURCES.iterdir() if path.suffix in (".h", ".cpp"))
    digest = sha256(b"".join([*(path.read_bytes() for path in sources), repr(flags).encode()]))
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home, "dsf", f"{name}-{digest.hexdigest()[:16]}.so")


def _compiled(name: str) -> Path:
    flags = _flags()
    if (found := _place(name, flags)).exists():
        return found
    found.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=found.parent) as room:
        made = Path(room, found.name)
        command = ["g++", *flags, str(_SOURCES / f"{name}.cpp"), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return made.replace(found)  # whole or not at all, whoever else compiles it


def call(library: str, name: str, sizes: Sequence[int], streams: Mapping[str, Tensor]) -> bool:
    """Run `name` on streams (B, T, H, ·) of one type, each with contiguous channels; one may be missing.

    Says whether all results are finite.
    """
    given, dtype = [], streams["read"].dtype
    for slot in SLOTS[library]:
        x = streams.get(slot)
        if x is None:
            given += [0, 0, 0, 0]
            continue
        assert x.dtype == dtype and not x.is_neg()
        assert x.shape[-1] <= 1 or x.stride(-1) == 1 or not x.numel()
        given += [x.data_ptr(), *x.stride()[:3]]
    function = getattr(_library(library), f"dsf_{name}_{str(dtype).removeprefix('torch.')}")
    return bool(function(_integers(sizes), _integers(given)))


def _integers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)
