"""Going on with a long run: its state in one file, replaced as a whole."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from dsf.codec import write_atomically
from dsf.errors import InvalidInput

State = dict[str, np.ndarray]


def fingerprint(*parts: object) -> str:
    """A digest of arrays and plain values: what a stored state belongs to."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.dtype.str, part.shape)).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def save(path: str | os.PathLike[str], owner: str, state: State) -> None:
    """Write a state; the file is the old one or the new one, never half of it."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"owner": np.array(owner), **state}
    np.savez(buffer, **arrays)
    write_atomically(Path(path), buffer.getvalue())


def load(path: str | os.PathLike[str], owner: str) -> State | None:
    """The state, or None where there is no file; raises `InvalidInput` for another run's file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            state = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError) as error:
        raise InvalidInput(f"{os.fspath(path)} is not a checkpoint: {error}") from None
    if str(state.pop("owner", "")) != owner:
        raise InvalidInput(
            f"{os.fspath(path)} is the checkpoint of another run (other data, start or step size); "
            "remove it or give another path"
        )
    return state
