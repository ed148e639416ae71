"""What a run is of: the device, versions, and a digest of the code that is measured."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def identity(device: str, quick: bool) -> dict[str, Any]:
    """Everything that must agree for two sittings to be one run."""
    import torch

    import dsf

    where = torch.device(device)
    found: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "capability": None,
        "kind": where.type,
        "quick": quick,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": version("triton"),
        "fla": version("fla-core") or version("flash-linear-attention"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "dsf": dsf.__version__,
        "code": digest(),
    }
    if where.type == "cuda":
        found["device"] = torch.cuda.get_device_name(where)
        found["capability"] = list(torch.cuda.get_device_capability(where))
    return found


def version(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def digest() -> str:
    """Of the kernels that are imported, wherever they are installed, and of what measures them."""
    total = hashlib.sha256()
    for folder in (measured(), Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            total.update(str(path.relative_to(folder)).encode())
            total.update(path.read_bytes())
    return total.hexdigest()[:16]


def measured() -> Path:
    """The folder of the kernels that are imported."""
    import dsf.kernels

    return Path(dsf.kernels.__file__).resolve().parent
