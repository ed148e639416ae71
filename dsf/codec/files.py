"""Whole files in, whole files out."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from .errors import CodecError
from .limits import MAX_BYTES


def read_bytes(path: str | os.PathLike[str], limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; raises `OSError` or `CodecError`."""
    # Without blocking, so that a pipe in the place of a file is refused instead of waited for.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CodecError((), f"{Path(path).name!r} is not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CodecError((), f"{Path(path).name!r} is longer than {limit} bytes")
    return data


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Put `data` at `path` so that a reader, or a crash, sees the old file or the new one whole."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows has no handle of a folder
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
