"""Pictures of patterns and searches; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .block_sparsity import block_sparsity
from .bounds import bounds
from .counts import count
from .device import DEVICES, Device
from .export import Blocks, blocks
from .kernel_time import Kernel, Problem, kernel_time
from .pattern import Pattern, Shape, show
from .published import HUNYUAN, HUNYUAN_ROWS
from .search import Sweep, front
from .tiling import Tiling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MASKED, _FULL, _NONE = "#e8963e", "#2f6d8f", "#f4f4f2"


def block_map(pattern: Pattern, tiling: Tiling) -> Figure:
    """Which KV tiles (columns) every query tile (rows) visits: full ones dark, masked ones light."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    found = blocks(pattern, tiling)
    figure, axes = _figure(6, 5.4)
    shade = found.visited.astype(int) + found.full
    axes.imshow(
        shade, cmap=ListedColormap([_NONE, _MASKED, _FULL]), vmin=0, vmax=2, interpolation="nearest"
    )
    axes.set(xlabel="KV tile", ylabel="query tile", title=f"{_named(pattern)}, tiles {tiling}")
    handles = [Patch(color=_FULL, label="full"), Patch(color=_MASKED, label="masked")]
    axes.legend(handles=handles, loc="upper right")
    return figure


def tile_heat(pattern: Pattern, tiling: Tiling) -> Figure:
    """KV tiles that each query tile visits, over the last two axes, at the middle of the others."""
    found: Blocks = blocks(pattern, tiling)
    visits = found.visited.sum(1)[: int(np.prod(found.q.tiles))].reshape(found.q.tiles)
    while visits.ndim > 2:
        visits = visits[visits.shape[0] // 2]
    figure, axes = _figure(6, 4)
    image = axes.imshow(np.atleast_2d(visits), cmap="viridis", interpolation="nearest")
    figure.colorbar(image, label="KV tiles visited")
    axes.set(
        xlabel="query tile, last axis",
        ylabel="query tile, axis before",
    )
    axes.set_title(f"{_named(pattern)}, tiles {tiling}", fontsize=9)
    return figure


def stride_bars(
    pattern: Pattern | None = None,
    tiling: Tiling = HUNYUAN.tiling,
    strides: Sequence[Shape] | None = None,
) -> Figure:
    """Speed-up bounds by stride, as in the paper's figure; the use case of HunyuanVideo by default."""
    base = pattern or Pattern(HUNYUAN.layout, HUNYUAN.window)
    chosen = strides or [row.stride for row in HUNYUAN_ROWS[: len(HUNYUAN_ROWS) // 2]]
    figure, axes = _figure(1.1 * len(chosen) + 2, 4)
    patterns = [Pattern(base.layout, base.window, s, base.dilation, base.causal) for s in chosen]
    found = [bounds(count(one, tiling)) for one in patterns]
    exact = [block_sparsity(one, tiling).exact for one in patterns]
    at = np.arange(len(chosen))
    rows = (("worst_tile", "worst tile", _FULL), ("padding_aware", "padding-aware", _MASKED))
    for shift, (key, label, colour) in zip((-0.2, 0.2), rows, strict=True):
        speeds = [getattr(one, key) for one in found]
        bars = axes.bar(at + shift, speeds, 0.38, label=label, color=colour)
        axes.bar_label(bars, [f"{speed:.1f}" for speed in speeds], fontsize=8)
    axes.axhline(found[0].flop, color="black", linewidth=1, linestyle="--", label="FLOPs")
    labels = [
        show(s) + ("\nno mask" if whole else "") for s, whole in zip(chosen, exact, strict=True)
    ]
    axes.set_xticks(at, labels, fontsize=8)
    title = f"{show(base.layout)}, window {show(base.window)}, tiles {tiling}"
    axes.set(xlabel="stride", ylabel="speed-up over dense", title=title)
    axes.legend(loc="upper left")
    return figure


def pareto(found: Sweep, by: str = "worst_tile") -> Figure:
    """Every stride of a sweep: how many queries share a window against the speed-up; the front marked."""
    figure, axes = _figure(6.5, 4)
    speeds = getattr(found, by).ravel()
    sparse = found.block_sparse.ravel()
    products = found.products.ravel()
    axes.scatter(
        products[~sparse], speeds[~sparse], s=5, color="#bbbbbb", label="masked", rasterized=True
    )
    axes.scatter(products[sparse], speeds[sparse], s=12, color=_FULL, label="no mask")
    best = front([found], by)
    axes.plot(
        [c.stride_product for c in best],
        [getattr(c, by) for c in best],
        "o-",
        color=_MASKED,
        label="worth choosing",
    )
    for candidate in best:
        axes.annotate(
            show(candidate.stride),
            (candidate.stride_product, getattr(candidate, by)),
            fontsize=7,
            textcoords="offset points",
            xytext=(4, -9),
        )
    axes.set(
        xscale="log",
        xlabel="product of the strides",
        ylabel=f"speed-up ({by.replace('_', ' ')})",
        title=f"{show(found.pattern.layout)}, window {show(found.pattern.window)}, tiles {found.tiling}",
    )
    axes.legend()
    return figure


def roofline(
    patterns: Sequence[Pattern],
    tiling: Tiling,
    device: Device = DEVICES["B200"],
    kernel: Kernel | None = None,
) -> Figure:
    """Operations per HBM byte against operations per second that the time model predicts."""
    from .calibration import default_kernel

    constants = kernel or default_kernel(device.name)
    figure, axes = _figure(6.5, 4)
    balance = device.tensor_tflops / device.hbm_tb_s
    reach = np.geomspace(balance / 30, balance * 300, 200)
    axes.plot(reach, np.minimum(reach * device.hbm_tb_s, device.tensor_tflops), color="black")
    for pattern in patterns:
        problem = Problem.of(pattern)
        counts = count(pattern, tiling)
        time = kernel_time(counts, tiling, problem, device, constants)
        operations = 4 * problem.head_dim * counts.visible_pairs * problem.heads * problem.batch
        axes.plot(
            operations / time.hbm_bytes, operations / time.ms / 1e9, "o", label=_named(pattern)
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="operations per byte of HBM",
        ylabel="TFLOP/s",
        title=f"{device.name}, tiles {tiling}",
    )
    axes.legend(fontsize=7)
    return figure


def _named(pattern: Pattern) -> str:
    return f"{show(pattern.layout)}, window {show(pattern.window)}, stride {show(pattern.stride)}"


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
