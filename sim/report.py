"""What `dsf simulate` says of a pattern: plain data with fixed names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .block_sparsity import block_sparsity
from .bounds import Bounds, bounds
from .calibration import default_kernel, masked_overhead, permutation_share
from .counts import Counts, count
from .device import Device
from .end_to_end import Run, bounds_end_to_end, end_to_end
from .kernel_time import Kernel, Problem, dense_time, kernel_time, permute_ms
from .pattern import Pattern
from .search import Candidate, Sweep, better, sweep
from .suggestion import suggest
from .tiling import Tiling


@dataclass(frozen=True)
class Report:
    """A pattern under a tiling: its counts, bounds and verdicts, and what else was asked for."""

    pattern: Pattern
    tiling: Tiling
    counts: Counts
    bounds: Bounds
    run: Run | None = None
    device: Device | None = None
    kernel: Kernel | None = None
    problem: Problem | None = None

    def to_json(self) -> dict[str, Any]:
        """The contract of `dsf simulate gna`: keys are only ever added."""
        counts, sparse = self.counts, block_sparsity(self.pattern, self.tiling)
        found: dict[str, Any] = {
            "pattern": _pattern(self.pattern),
            "tiling": {
                "q": list(self.tiling.q),
                "kv": list(self.tiling.kv),
                "kv_tiling": self.tiling.kv_tiling.value,
            },
            "speedup": speeds(self.bounds),
            "tiles": {
                "q": counts.q_tiles,
                "kv": counts.kv_tiles,
                "visited_max": counts.most,
                "visited_mean": counts.mean,
                "visited_total": counts.visited,
                "full": counts.full,
                "partial": counts.partial,
                "histogram": [list(row) for row in counts.histogram().items()],
            },
            "padding": {
                "ragged": counts.ragged,
                "q_tiles_launched": counts.padded_q_tiles,
                "visited_launched": counts.padded_visited,
                "q_tiles_dense": counts.dense_q_tiles,
                "kv_tiles_dense": counts.dense_kv_tiles,
            },
            "pairs": {
                "visible": counts.visible_pairs,
                "dense": counts.dense_pairs,
                "sparsity": self.pattern.sparsity,
            },
            "block_sparse": {
                "exact": sparse.exact,
                "natten": sparse.natten,
                "reasons": list(sparse.reasons),
            },
            "runs_dense": self.pattern.runs_dense,
            "notes": self.notes(),
        }
        if self.run is not None:
            found["end_to_end"] = bounds_end_to_end(self.run, self.bounds)
        if self.device is not None:
            found |= self._times()
        return found

    def notes(self) -> list[str]:
        """What a reader must know before comparing the bounds, and what to do instead."""
        notes = []
        if self.counts.ragged:
            notes.append(
                "some tiles are not filled with tokens: no order among the bounds is promised, and "
                "padding_aware is the one that counts the padding"
            )
        if self.pattern.runs_dense:
            notes.append("NATTEN runs dense attention for this pattern")
        if self.counts.partial and not self.pattern.runs_dense:
            notes += _advice(self.pattern, self.tiling)
        return notes

    def _times(self) -> dict[str, Any]:
        device, problem = self.device, self.problem
        assert device is not None and problem is not None
        kernel = self.kernel or default_kernel(device.name)
        time = kernel_time(self.counts, self.tiling, problem, device, kernel)
        dense = dense_time(self.counts, self.tiling, problem, device, kernel)
        share = kernel.permute_share or permutation_share(device.name)
        permute = permute_ms(self.pattern, self.tiling, problem, device, share)
        found: dict[str, Any] = {
            "time_ms": {
                "kernel": time.ms,
                "permute": permute,
                "dense": dense.ms,
                "floor": time.floor_ms,
                "speedup": dense.ms / time.ms,
                "speedup_with_permute": dense.ms / (time.ms + permute),
                "limit": time.limit,
                "waves": time.waves,
                "device": device.name,
                "constants": kernel.source,
            }
        }
        if self.run is not None:
            found["time_ms"]["end_to_end"] = end_to_end(self.run, dense.ms / time.ms)
        return found


def simulate(
    pattern: Pattern,
    tiling: Tiling,
    *,
    run: Run | None = None,
    device: Device | None = None,
    kernel: Kernel | None = None,
    head_dim: int = 128,
    batch: int = 1,
) -> Report:
    """Simulate a pattern: exact counts, bounds, verdicts; end to end and time where asked for.

    >>> pattern = Pattern((30, 48, 80), window=(18, 24, 24), stride=(16, 8, 8))
    >>> report = simulate(pattern, Tiling((4, 8, 8), (2, 8, 8))).to_json()
    >>> round(report["speedup"]["worst_tile"], 2), report["block_sparse"]["exact"]
    (11.11, True)
    """
    counts = count(pattern, tiling)
    overhead = masked_overhead(pattern.rank) if counts.partial else 0.0
    return Report(
        pattern,
        tiling,
        counts,
        bounds(counts, overhead),
        run,
        device,
        kernel,
        Problem.of(pattern, head_dim, batch),
    )


def speeds(found: Bounds) -> dict[str, float]:
    """The bounds by name."""
    return {
        "flop": found.flop,
        "worst_tile": found.worst_tile,
        "mean_tile": found.mean_tile,
        "padding_aware": found.padding_aware,
        "masked_tile": found.masked_tile,
    }


def candidate(found: Candidate) -> dict[str, Any]:
    """One configuration of a search, with the names of `dsf simulate gna`."""
    return {
        "window": list(found.window),
        "stride": list(found.stride),
        "tiling": {
            "q": list(found.tiling.q),
            "kv": list(found.tiling.kv),
            "kv_tiling": found.tiling.kv_tiling.value,
        },
        "stride_product": found.stride_product,
        "speedup": {
            "flop": found.flop,
            "worst_tile": found.worst_tile,
            "mean_tile": found.mean_tile,
            "padding_aware": found.padding_aware,
        },
        "pairs": {"sparsity": found.sparsity},
        "block_sparse": {"exact": found.block_sparse},
    }


_MOST_STRIDES = 1_000_000


def _advice(pattern: Pattern, tiling: Tiling) -> list[str]:
    """A stride that is no worse and no larger, and the nearest pattern without a mask."""
    notes = []
    several = 1
    for window in pattern.window:
        several *= window
    if several <= _MOST_STRIDES and max(pattern.stride) > 1:
        found: Sweep = sweep(pattern, tiling)
        if (other := better(found, pattern.stride)) is not None:
            notes.append(
                f"stride {_x(pattern.stride)} is dominated: {_x(other.stride)} has a worst-tile bound "
                f"of {other.worst_tile:.2f} and no larger a product"
            )
    nearest = suggest(pattern, tiling)
    if nearest.pattern is None:
        notes += nearest.reasons
    else:
        notes.append(
            f"the nearest pattern without a mask has window {_x(nearest.pattern.window)} and stride "
            f"{_x(nearest.pattern.stride)}"
        )
    return notes


def _pattern(pattern: Pattern) -> dict[str, Any]:
    return {
        "layout": list(pattern.layout),
        "window": list(pattern.window),
        "stride": list(pattern.stride),
        "dilation": list(pattern.dilation),
        "causal": list(pattern.causal),
        "heads": pattern.heads,
        "kv_heads": pattern.kv_heads,
        "extra_keys": pattern.extra_keys,
    }


def _x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
