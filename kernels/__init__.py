"""Triton kernels, each a form of a system, validated against the symbolic twin."""

if __name__ != "dsf.kernels":
    raise ImportError(f"this package is dsf.kernels: import it by that name, not as {__name__}")

from typing import TYPE_CHECKING

from dsf._lazy import lazy

if TYPE_CHECKING:
    from .attention.operator import flash_attention as flash_attention
    from .attention.operator import neighborhood_attention as neighborhood_attention
    from .decay.diagonal_operator import diagonal_decay as diagonal_decay
    from .decay.scalar_operator import scalar_decay as scalar_decay
    from .delta.operator import delta_rule as delta_rule
    from .delta.operator import dplr_rule as dplr_rule
    from .scans.channel_operator import gated_scan as gated_scan
    from .scans.elementwise_operator import elementwise_scan as elementwise_scan
    from .scans.selective_operator import selective_scan as selective_scan
    from .steps.cache import bytes_of_step as bytes_of_step
    from .steps.matrix_operator import decay_step as decay_step
    from .steps.matrix_operator import delta_step as delta_step
    from .steps.matrix_operator import dplr_step as dplr_step
    from .steps.mlstm_operator import mlstm_step as mlstm_step
    from .steps.vector_operator import scan_step as scan_step
    from .steps.vector_operator import selective_step as selective_step

# Imported when first used: the claims about kernels are judged without torch.
_LAZY = {
    "flash_attention": "dsf.kernels.attention.operator",
    "neighborhood_attention": "dsf.kernels.attention.operator",
    "diagonal_decay": "dsf.kernels.decay.diagonal_operator",
    "scalar_decay": "dsf.kernels.decay.scalar_operator",
    "delta_rule": "dsf.kernels.delta.operator",
    "dplr_rule": "dsf.kernels.delta.operator",
    "gated_scan": "dsf.kernels.scans.channel_operator",
    "elementwise_scan": "dsf.kernels.scans.elementwise_operator",
    "selective_scan": "dsf.kernels.scans.selective_operator",
    "bytes_of_step": "dsf.kernels.steps.cache",
    "decay_step": "dsf.kernels.steps.matrix_operator",
    "delta_step": "dsf.kernels.steps.matrix_operator",
    "dplr_step": "dsf.kernels.steps.matrix_operator",
    "mlstm_step": "dsf.kernels.steps.mlstm_operator",
    "scan_step": "dsf.kernels.steps.vector_operator",
    "selective_step": "dsf.kernels.steps.vector_operator",
}


__getattr__, __dir__ = lazy(__name__, _LAZY)
