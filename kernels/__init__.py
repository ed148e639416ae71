"""Triton kernels, each a form of a system, validated against the symbolic twin."""

if __name__ != "dsf.kernels":
    raise ImportError(f"this package is dsf.kernels: import it by that name, not as {__name__}")

from .attention.operator import flash_attention as flash_attention
from .attention.operator import neighborhood_attention as neighborhood_attention
from .decay.scalar_operator import scalar_decay as scalar_decay
from .delta.operator import delta_rule as delta_rule
from .delta.operator import dplr_rule as dplr_rule
from .scans.channel_operator import gated_scan as gated_scan
from .scans.selective_operator import selective_scan as selective_scan
from .steps.cache import bytes_of_step as bytes_of_step
from .steps.matrix_operator import decay_step as decay_step
from .steps.matrix_operator import delta_step as delta_step
from .steps.matrix_operator import dplr_step as dplr_step
from .steps.mlstm_operator import mlstm_step as mlstm_step
from .steps.vector_operator import scan_step as scan_step
from .steps.vector_operator import selective_step as selective_step
