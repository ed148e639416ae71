"""Pictures of what a head remembers; matplotlib is imported when one is drawn.

Every function takes the result of the analysis of the same name and the index of one head in its
leading axes, `()` where there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .eigenvalues import Spectrum
from .hankel_blocks import Gramians, Hankel
from .lyapunov import Lyapunov
from .reach import Memory
from .realization import causal_matrix
from .reduction import Reduction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Head = tuple[int, ...]
_BLUE, _ORANGE, _GREY = "#2f6d8f", "#e8963e", "#999999"
_COLOURS = (_BLUE, _ORANGE, "#5b8c5a", "#a04b6b", _GREY)


def hankel_values(found: Hankel, head: Head = (), floor: float = 1e-6) -> Figure:
    """log₁₀ σ_k / ‖Φ‖₂ over cuts (right) and k (up), with the states needed for 10, 1 and 0.1 %."""
    figure, axes = _figure(7, 4)
    share = found.values[head] / (found.norm[head] or 1.0)
    shown = np.log10(np.maximum(share, floor)).T
    extent = (-0.5, shown.shape[1] - 0.5, 0.0, float(shown.shape[0]))
    image = axes.imshow(
        shown, aspect="auto", origin="lower", extent=extent, cmap="viridis", interpolation="nearest"
    )
    figure.colorbar(image, label=r"$\log_{10}\, \sigma_k / \|\Phi\|$")
    cuts = np.arange(share.shape[0])
    for tolerance, style in ((0.1, ":"), (0.01, "-"), (0.001, "--")):
        rank = found.rank(tolerance)[head]
        axes.step(cuts, rank, style, where="mid", color="white", label=f"{100 * tolerance:g} %")
    axes.set(xlabel="cut", ylabel="singular value", title="Hankel singular values")
    legend = axes.legend(title="states for", fontsize=8)
    legend.get_frame().set_facecolor("#555555")
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_color("white")
    return figure


def states_needed(
    rows: Mapping[str, Hankel], head: Head = (), tolerances: Sequence[float] | None = None
) -> Figure:
    """The states that no recurrence can undercut, against the relative error allowed; a line a name."""
    figure, axes = _figure(6.5, 4)
    allowed = np.array(tolerances if tolerances is not None else np.logspace(-0.3, -4, 60))
    for (name, found), colour in zip(rows.items(), _cycle(len(rows)), strict=True):
        needed = [found.needed(float(one))[head] for one in allowed]
        axes.step(allowed, needed, where="post", color=colour, label=name)
    axes.set(xscale="log", xlabel=r"error allowed, relative to $\|\Phi\|$", ylabel="states needed")
    axes.invert_xaxis()
    axes.legend()
    return figure


def gramian_profile(found: Gramians, head: Head = (0, 0)) -> Figure:
    """What each cut's state has received and can still show: traces of the two Gramians."""
    figure, axes = _figure(6.5, 4)
    for values, label, colour in (
        (found.reachability[head], "reached: tr W_c", _BLUE),
        (found.observability[head], "seen: tr W_o", _ORANGE),
    ):
        size = np.real(np.trace(values, axis1=-2, axis2=-1))
        size = np.where(size > 0, size, np.nan)  # nothing yet, or nothing any more
        axes.plot(size, color=colour, label=label)
    axes.set(yscale="log", xlabel="cut", ylabel="trace", title="Gramians")
    axes.legend()
    return figure


def reach(rows: Mapping[str, Memory], head: Head = (), level: float = 0.01) -> Figure:
    """The largest strength by lag, relative to lag 0 … T's largest; the horizon at `level` marked."""
    figure, axes = _figure(6.5, 4)
    for (name, found), colour in zip(rows.items(), _cycle(len(rows)), strict=True):
        size = found.largest[head]
        size = size / (size.max(initial=0.0) or 1.0)
        axes.plot(np.where(size > 0, size, np.nan), color=colour, label=name)
        horizon = int(found.horizon(level)[head])
        if horizon >= 0:
            axes.plot([horizon], [size[horizon]], "o", color=colour)
    axes.axhline(level, color="black", linewidth=0.8, linestyle="--")
    axes.set(yscale="log", xlabel="lag", ylabel=r"$\max_i \|\Phi_{i,\,i-lag}\|$, relative")
    axes.set_ylim(bottom=level / 100)
    axes.legend()
    return figure


def spectrum_plane(found: Spectrum, head: Head = (0, 0)) -> Figure:
    """The eigenvalues of all steps in the complex plane, early steps light; the gauge in the title."""
    figure, axes = _figure(5, 5)
    values = found.eigenvalues[head]
    steps = np.repeat(np.arange(values.shape[0]), values.shape[1])
    shown = axes.scatter(
        values.real.ravel(), values.imag.ravel(), c=steps, s=8, cmap="viridis_r", rasterized=True
    )
    figure.colorbar(shown, label="step", shrink=0.8)
    angle = 2 * np.pi * np.linspace(0, 1, 200)
    axes.plot(np.cos(angle), np.sin(angle), color="black", linewidth=0.8)
    axes.set(xlabel="Re λ", ylabel="Im λ", title=f"gauge: {found.gauge}", aspect="equal")
    return figure


def exponents(found: Lyapunov, head: Head = (0, 0)) -> Figure:
    """Lyapunov exponents, largest first; what is lost at once (-inf) is left out and counted."""
    figure, axes = _figure(6.5, 4)
    values = found.exponents[head]
    finite = values[np.isfinite(values)]
    axes.bar(np.arange(1, len(finite) + 1), finite, color=_BLUE)
    axes.axhline(0, color="black", linewidth=0.8)
    lost = len(values) - len(finite)
    title = f"{found.length} steps" + (f", {lost} directions lost at once" if lost else "")
    axes.set(xlabel="direction", ylabel="exponent per step", title=title)
    return figure


def comparison(phi: Tensor | np.ndarray, small: Reduction, head: Head = ()) -> Figure:
    """Φ, its reduction, and their difference on one scale of colours; the largest 1 % are beyond it."""
    from dsf.forms import mixing_matrix

    original = causal_matrix(phi)[head]
    batch, *rest = (0, 0, *head)[-max(2, len(head)) :]
    flat = mixing_matrix(small.system).numpy()
    shape = small.error.shape[1:] if small.error.ndim > 2 else flat.shape[1:2]
    reduced = flat[batch].reshape(*shape, *flat.shape[-2:])[tuple(rest)]
    figure, panels = _panels(3, 10, 3.4)
    sizes = np.abs(original[np.nonzero(original)])
    top = float(np.quantile(sizes, 0.99)) if sizes.size else 1.0
    titles = ("Φ", f"{small.order} states", f"difference, {100 * small.relative_error[head]:.2g} %")
    for axes, shown, title in zip(
        panels, (original, reduced, original - reduced), titles, strict=True
    ):
        image = axes.imshow(shown.real, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest")
        axes.set(title=title, xlabel="token")
    panels[0].set_ylabel("output")
    figure.colorbar(image, ax=panels, shrink=0.8)
    return figure


def orders(small: Reduction, head: Head = ()) -> Figure:
    """The states that a reduction uses at each cut."""
    figure, axes = _figure(6.5, 3.5)
    axes.step(np.arange(small.orders.shape[-1]), small.orders[head], where="mid", color=_BLUE)
    title = f"{small.method}: error {small.error[head]:.3g}, at most {small.bound[head]:.3g}"
    axes.set(xlabel="cut", ylabel="states", title=title)
    return figure


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, panels = _panels(1, width, height)
    return figure, panels[0]


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure that no window manager knows of: nothing global, nothing to close."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]
