"""`dsf simulate`: exact tile counts, speed-up bounds and times of sparse attention patterns."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from dsf.codec import dumps, write_atomically
from dsf.errors import InvalidInput
from dsf.sim import Pattern, Tiling
from dsf.sim.device import DEVICES, Device, device
from dsf.sim.end_to_end import Run
from dsf.sim.kernel_time import Kernel
from dsf.sim.pattern import show
from dsf.sim.report import candidate, simulate
from dsf.sim.search import front, sweep, windows_of_sparsity
from dsf.sim.shipped import kernel_of, shipped
from dsf.sim.tiling import KVTiling, parse_shape

from .output import for_people, table, write

application = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Simulate sparse attention patterns: exact tile counts, speed-up bounds, times, searches.",
)

Layout = Annotated[str, typer.Option(help="Tokens per axis, for example 30x48x80.")]
Tiles = Annotated[
    list[str] | None,
    typer.Option(help="Query tile / KV tile, for example 4x8x8/2x8x8; NATTEN's own otherwise."),
]
Json = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write JSON; '-' is standard output.")
]
Dilation = Annotated[str | None, typer.Option(help="Dilation per axis, or one for all.")]
Causal = Annotated[
    str | None, typer.Option(help="Causal axes: true, or one of 0 and 1 per axis, like 1x0x0.")
]
ExtraKeys = Annotated[int, typer.Option(min=0, help="Keys beside the layout that all see (text).")]
Tiled = Annotated[KVTiling, typer.Option(help="Where KV tiles begin.")]
Plot = Annotated[Path | None, typer.Option(metavar="DIR", help="Write pictures as SVG.")]


@application.command()
def gna(
    layout: Layout,
    window: Annotated[str, typer.Option(help="Window per axis, or one for all.")],
    stride: Annotated[str, typer.Option(help="Stride per axis, or one for all.")] = "1",
    dilation: Dilation = None,
    causal: Causal = None,
    tiles: Tiles = None,
    kv_tiling: Tiled = KVTiling.STATIC,
    extra_keys: ExtraKeys = 0,
    on: Annotated[
        str | None,
        typer.Option("--device", help=f"Time on {', '.join(DEVICES)}, or a JSON file of a device."),
    ] = None,
    heads: Annotated[int, typer.Option(min=1, help="Query heads.")] = 1,
    kv_heads: Annotated[int | None, typer.Option(min=1, help="Key and value heads.")] = None,
    head_dim: Annotated[int, typer.Option(min=1, help="Head dimension.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Batch entries.")] = 1,
    share: Annotated[
        float | None, typer.Option(help="Attention's share of a run, for the end-to-end speed-up.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the run.")] = 1,
    dense_steps: Annotated[int, typer.Option(min=0, help="Steps that stay dense.")] = 0,
    paper_rounding: Annotated[
        bool, typer.Option("--paper-rounding", help="Round speed-ups to one decimal first.")
    ] = False,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Count the tiles of one pattern and say what it can gain."""
    pattern = _pattern(layout, window, stride, dilation, causal, heads, kv_heads, extra_keys)
    row, kernel = _device(on)
    tiling = _one(
        _tilings(tiles, kv_tiling, pattern.rank, row, head_dim)[: 1 if not tiles else None]
    )
    run = None if share is None else Run(share, steps, dense_steps, paper_rounding)
    if run is None and (steps, dense_steps, paper_rounding) != (1, 0, False):
        raise InvalidInput("--steps, --dense-steps and --paper-rounding need --share")
    report = simulate(
        pattern, tiling, run=run, device=row, kernel=kernel, head_dim=head_dim, batch=batch
    )
    found = report.to_json()
    if plot is not None:
        from dsf.sim import plots

        _draw(
            plot,
            {"blocks": plots.block_map(pattern, tiling), "heat": plots.tile_heat(pattern, tiling)},
        )
    if json is not None:
        write(json, dumps(found))
    if json != "-":
        _show(found, tiling)


@application.command()
def search(
    layout: Layout,
    window: Annotated[str | None, typer.Option(help="Window per axis, or one for all.")] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Search windows of this sparsity instead of one window.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="How far the sparsity may be off.")] = 0.01,
    step: Annotated[str, typer.Option(help="Windows are multiples of this, per axis.")] = "8",
    dilation: Dilation = None,
    causal: Causal = None,
    tiles: Tiles = None,
    kv_tiling: Tiled = KVTiling.STATIC,
    extra_keys: ExtraKeys = 0,
    on: Annotated[
        str, typer.Option("--device", help="Search the tiles that NATTEN ships for this device.")
    ] = "B200",
    head_dim: Annotated[int, typer.Option(min=1, help="Head dimension.")] = 128,
    by: Annotated[
        str, typer.Option(help="Bound to compare by: worst_tile, mean_tile or padding_aware.")
    ] = "worst_tile",
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Search all strides, tiles and windows for those worth choosing."""
    if (window is None) == (sparsity is None):
        raise InvalidInput("give one of --window and --sparsity")
    shape = parse_shape("layout", layout)
    row, _ = _device(on)
    tilings = _tilings(tiles, kv_tiling, len(shape), row, head_dim)
    windows = (
        [_per_axis("window", window)]
        if window is not None
        else list(windows_of_sparsity(shape, sparsity or 0.0, tolerance, _per_axis("step", step)))
    )
    if not windows:
        raise InvalidInput(
            f"no window of layout {layout} has a sparsity of {sparsity} within {tolerance}: "
            "raise --tolerance or lower --step"
        )
    patterns = [
        Pattern(
            shape,
            wide,
            None,
            _optional("dilation", dilation),
            _causal(causal),
            extra_keys=extra_keys,
        )
        for wide in windows
    ]
    sweeps = [sweep(pattern, tiling) for pattern in patterns for tiling in tilings]
    found = [candidate(one) for one in front(sweeps, by)]
    if plot is not None:
        from dsf.sim import plots

        _draw(plot, {"pareto": plots.pareto(sweeps[0], by)})
    if json is not None:
        searched = {
            "windows": len(windows),
            "tilings": len(tilings),
            "configurations": sum(one.worst_tile.size for one in sweeps),
        }
        write(json, dumps({"front": found, "by": by, "searched": searched}))
    if json != "-":
        columns = (
            "window",
            "stride",
            "tiles",
            "sparsity",
            "flop",
            "worst",
            "mean",
            "padded",
            "mask",
        )
        rows = [
            (
                show(one["window"]),
                show(one["stride"]),
                f"{show(one['tiling']['q'])}/{show(one['tiling']['kv'])}",
                f"{one['pairs']['sparsity']:.1%}",
                *(f"{speed:.2f}" for speed in one["speedup"].values()),
                "none" if one["block_sparse"]["exact"] else "needed",
            )
            for one in found
        ]
        for_people([json]).print(table(columns, rows, right=columns[3:8]))


def _pattern(
    layout: str,
    window: str,
    stride: str,
    dilation: str | None,
    causal: str | None,
    heads: int,
    kv_heads: int | None,
    extra_keys: int,
) -> Pattern:
    return Pattern(
        parse_shape("layout", layout),
        _per_axis("window", window),
        _per_axis("stride", stride),
        _optional("dilation", dilation),
        _causal(causal),
        heads,
        kv_heads,
        extra_keys,
    )


def _per_axis(key: str, text: str) -> Any:
    """One integer for all axes, or one per axis."""
    shape = parse_shape(key, text)
    return shape[0] if len(shape) == 1 else shape


def _optional(key: str, text: str | None) -> Any:
    return None if text is None else _per_axis(key, text)


_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _causal(text: str | None) -> Any:
    if text is None:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if any(part not in _FLAGS for part in parts):
        raise InvalidInput(
            f"causal {text!r} was given; write true, or one of 0 and 1 per axis: 1x0x0"
        )
    flags = tuple(_FLAGS[part] for part in parts)
    return flags[0] if len(flags) == 1 else flags


def _tilings(
    tiles: list[str] | None, kv_tiling: KVTiling, rank: int, row: Device | None, head_dim: int
) -> list[Tiling]:
    if tiles:
        return [Tiling.parse(text, kv_tiling) for text in tiles]
    kernel = kernel_of(row.name if row is not None else "B200")
    return [Tiling(one.q, one.kv, kv_tiling) for one in shipped(kernel, rank, head_dim)]


def _one(tilings: list[Tiling]) -> Tiling:
    if len(tilings) != 1:
        raise InvalidInput("give --tiles once; `dsf simulate search` compares several")
    return tilings[0]


def _device(given: str | None) -> tuple[Device | None, Kernel | None]:
    """A row of the table, or of a JSON file: the fields of `Device`, and of `Kernel` under "kernel"."""
    if given is None:
        return None, None
    if not given.endswith(".json"):
        return device(given), None
    try:
        row = json_module.loads(Path(given).read_text(encoding="utf-8"))
        constants = row.pop("kernel")
        return Device(**row), Kernel(**constants)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(
            f"{given}: not a device: {error}; it needs the fields of dsf.sim.device.Device, and "
            'those of dsf.sim.kernel_time.Kernel under "kernel"'
        ) from None


def _draw(folder: Path, figures: dict[str, Any]) -> None:
    import io

    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        text = io.BytesIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        write_atomically(folder / f"{name}.svg", text.getvalue())


def _show(found: dict[str, Any], tiling: Tiling) -> None:
    """The report as a table for people."""
    tiles, pairs, sparse = found["tiles"], found["pairs"], found["block_sparse"]
    rows = [
        ("sparsity", f"{pairs['sparsity']:.2%} ({pairs['visible']} of {pairs['dense']} pairs)"),
        (
            "tiles",
            f"{tiling}, KV {tiling.kv_tiling}: {tiles['q']} query tiles, {tiles['kv']} KV tiles",
        ),
        (
            "visited",
            f"most {tiles['visited_max']}, mean {tiles['visited_mean']:.2f} per query tile",
        ),
        ("full, masked", f"{tiles['full']}, {tiles['partial']}"),
        ("block-sparse", "yes" if sparse["exact"] else "no"),
        ("NATTEN's verdict", {True: "yes", False: "no", None: "no kernel"}[sparse["natten"]]),
    ]
    names = {
        "flop": "speed-up by FLOPs",
        "worst_tile": "by the worst tile",
        "mean_tile": "by the mean tile",
        "padding_aware": "with padding",
        "masked_tile": "with padding and masks",
    }
    ends = found.get("end_to_end", {})
    rows += [
        (label, f"{found['speedup'][key]:.2f}" + (f" (end to end {ends[key]:.2f})" if ends else ""))
        for key, label in names.items()
    ]
    if time := found.get("time_ms"):
        rows += [
            (f"time on {time['device']}", f"{time['kernel']:.4g} ms, dense {time['dense']:.4g} ms"),
            (
                "speed-up in time",
                f"{time['speedup']:.2f} ({time['speedup_with_permute']:.2f} permuted)",
            ),
            ("limit", f"{time['limit']}, {time['waves']:.1f} waves; {time['constants']}"),
        ]
    rows += [("why", reason) for reason in sparse["reasons"]]
    rows += [("note", note) for note in found["notes"]]
    for_people([]).print(table(("", show(found["pattern"]["layout"])), rows))
