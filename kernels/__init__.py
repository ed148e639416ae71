"""Triton kernels, each a form of a system, validated against the symbolic twin."""

if __name__ != "dsf.kernels":
    raise ImportError(f"this package is dsf.kernels: import it by that name, not as {__name__}")

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decay.scalar_operator import scalar_decay as scalar_decay
    from .scans.channel_operator import gated_scan as gated_scan
    from .scans.selective_operator import selective_scan as selective_scan

# Imported when first used: the claims about kernels are judged without torch.
_LAZY = {
    "scalar_decay": "dsf.kernels.decay.scalar_operator",
    "gated_scan": "dsf.kernels.scans.channel_operator",
    "selective_scan": "dsf.kernels.scans.selective_operator",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*_LAZY, *(name for name in globals() if name[:2] == "__")})
