"""Triton kernels, each a form of a system, validated against the symbolic twin."""

if __name__ != "dsf.kernels":
    raise ImportError(f"this package is dsf.kernels: import it by that name, not as {__name__}")

from .decay.diagonal_operator import diagonal_decay as diagonal_decay
from .decay.scalar_operator import scalar_decay as scalar_decay
from .scans.channel_operator import gated_scan as gated_scan
from .scans.selective_operator import selective_scan as selective_scan
