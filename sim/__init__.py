"""Generalized neighborhood attention, simulated: geometry, exact counts, cost, search."""

if __name__ != "dsf.sim":
    raise ImportError(f"this package is dsf.sim: import it by that name, not as {__name__}")

from .backward import BackwardCounts as BackwardCounts
from .backward import count_backward as count_backward
from .block_sparsity import BlockSparsity as BlockSparsity
from .block_sparsity import block_sparsity as block_sparsity
from .bounds import Bounds as Bounds
from .bounds import bounds as bounds
from .counts import Counts as Counts
from .counts import count as count
from .mask_counts import count_mask as count_mask
from .mask_counts import count_visits as count_visits
from .mask_counts import documents as documents
from .mask_counts import routing as routing
from .pattern import Pattern as Pattern
from .tiling import KVTiling as KVTiling
from .tiling import Tiling as Tiling
