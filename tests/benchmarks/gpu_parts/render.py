"""The page of a run: docs/gpu-measurements.md from files in the repository, and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .journal import BadUsage, read
from .machine import ROOT
from .verdicts import Rows, best, speed_up

TARGET = ROOT / "docs" / "gpu-measurements.md"


def render(paths: Sequence[Path], target: Path | None = None) -> int:
    """Write the page of a run and of samples of earlier code.

    Raises `BadUsage` for a file that is not of a GPU or not in the repository, or a run of some cases alone.
    """
    whole = [path.resolve() for path in paths]
    for path in whole:
        if not path.is_relative_to(ROOT):
            raise BadUsage(
                f"{path} is outside the repository: commit it first, so that the page can name it"
            )
    documents = {path: read(path) for path in whole}
    for path, document in documents.items():
        if document["identity"]["kind"] != "cuda":
            raise BadUsage(f"{path} is of a dry run, which measures nothing")
    run, *samples = documents.values()
    if run["only"]:
        raise BadUsage(f"{paths[0]} is of some cases alone: run without --only")
    sources = [path.relative_to(ROOT) for path in documents]
    (target or TARGET).write_text(page(run, *sources, samples=samples), encoding="utf-8")
    return 0


def page(document: dict[str, Any], *sources: Path, samples: Sequence[dict[str, Any]] = ()) -> str:
    """The page as text."""
    lines = [
        "# Measurements on a GPU",
        "",
        _preamble(document, sources),
        "",
        "## Aims",
        "",
        *_table(
            ("aim", "status", "worst", "bound", "where, or why"),
            (
                (
                    v["aim"],
                    f"**{v['status']}**",
                    _number(v["worst"]),
                    _number(v["bound"]),
                    "; ".join(filter(None, (v["where"], v["reason"]))),
                )
                for v in document["verdicts"]
            ),
            right=2,
        ),
    ]
    if document["absent"]:
        lines += ["", f"Not in this version: {', '.join(document['absent'])}."]
    lines += ["", "## Errors", "", *_errors(document)]
    for group, title in (
        ("times", "Times"),
        ("long", "Sequences of growing length, a million tokens in all"),
    ):
        lines += ["", f"## {title}", ""]
        for case, rows in _by_case(document, "time", group):
            lines += [f"### {case[0].upper()}{case[1:]}", "", *_times(rows, document), ""]
    for sample in samples:
        code, date = sample["identity"]["code"], sample["date"]
        lines += [f"## A sample of earlier code ({code}, {date})", ""]
        for case, rows in _by_case(sample, "time", "times"):
            lines += [f"{case[0].upper()}{case[1:]}:", "", *_times(rows, sample), ""]
    return "\n".join(lines).rstrip() + "\n"


def _preamble(document: dict[str, Any], sources: Iterable[Path]) -> str:
    of = document["identity"]
    capability = ".".join(map(str, of["capability"]))
    quick = " A quick run: a sample of sizes." if of["quick"] else ""
    copies = [row["copy_tb_s"] for row in document["rows"] if "copy_tb_s" in row]
    copied = f", {statistics.median(copies):.3g} TB/s" if copies else ""
    done, left = len(document["rows"]), len(document.get("left", ()))
    cut = (
        f" The run was cut off: {left} of {done + left} jobs are left, and not on this page."
        * bool(left)
    )
    return (
        f"Written by `tests/benchmarks/gpu.py --render {' '.join(x.as_posix() for x in sources)}` from the rows there. "
        f"{of['device']} (compute capability {capability}), torch {of['torch']}, Triton {of['triton']}, "
        f"CUDA {of['cuda']}, Python {of['python']}, dsf {of['dsf']}, {document['date']}.{quick} Milliseconds, "
        "median; in a CUDA graph, and as Python calls it. The floor is every input and output moved once at the "
        f"bandwidth of a copy in the same run{copied}. What peers tune is measured for 12 ms a configuration."
        f"{cut}"
    )


def _by_case(
    document: dict[str, Any], kind: str, group: str
) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in document["rows"]:
        if row["kind"] == kind and row["group"] == group:
            found.setdefault(row["case"], []).append(row)
    return found.items()


def _errors(document: dict[str, Any]) -> list[str]:
    """Of each case and type, the result that comes nearest to what is allowed, or beyond it."""
    rows = []
    for case, checks in _by_case(document, "check", "checks"):
        for dtype in dict.fromkeys(row["dtype"] for row in checks):
            mine = [row for row in checks if row["dtype"] == dtype]
            bad = sum(not row["passes"] for row in mine)
            worst = _nearest(mine)
            rows.append((case, dtype, f"{len(mine) - bad} of {len(mine)}", *worst))
    return _table(("case", "type", "checks that pass", "error over allowed", "of"), rows, right=1)


def _nearest(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """The largest ratio of an error to what is allowed, and of which result."""
    ratios = [
        (result[kind]["error"] / result[kind]["bound"], f"{result['name']}, {row['sizes']}")
        for row in rows
        for result in row.get("results", ())
        if "fault" not in result
        for kind in ("largest", "rms")
        if all(isinstance(result[kind][x], float) for x in ("error", "bound"))
        and result[kind]["bound"]
    ]
    if not ratios:
        return "", ""
    ratio, name = max(ratios)
    return f"{ratio:.2f}", name


def _times(rows: list[dict[str, Any]], document: dict[str, Any]) -> list[str]:
    parts = [part for part in ("forward", "both") if any(part in row for row in rows)]
    peers = list(dict.fromkeys(name for row in rows for name in row.get("peers", ())))
    titles = {"forward": "forward", "both": "with backward"}
    heads = ["size"]
    for part in parts:
        heads += [f"{titles[part]}, graph", "eager", "of floor"]
        heads += [f"{peer}, {titles[part]}" for peer in peers]
    heads.append("ns per token")
    others = list(dict.fromkeys(row["against"] for row in rows if "against" in row))
    heads += [f"times faster than {other}" for other in others]
    heads += ["simulator's bound"] * any("bound" in row for row in rows)
    timed = [row for row in document["rows"] if row["kind"] == "time"]
    whole = Rows({row["key"]: row for row in timed}, tuple(timed))
    body = []
    for row in rows:
        if "error" in row:
            body.append((row["sizes"], f"failed: {row['error']}", *[""] * (len(heads) - 2)))
            continue
        cells = [row["sizes"]]
        for part in parts:
            mine = row.get(part, {})
            share = mine.get("share")
            cells += [_number(mine.get("graph_ms")), _number(mine.get("eager_ms"))]
            cells.append("" if share is None else f"{share:.0%}")
            cells += [_peer(row.get("peers", {}).get(peer, {}), part) for peer in peers]
        least = best(row, "forward")
        cells.append("" if least is None else _number(1e6 * least / row["tokens"]))
        if "against" in row:
            cells.append(_number(speed_up(whole, row)))
        if "bound" in row:
            cells.append(_number(row["bound"]))
        body.append(tuple(cells))
    return _table(heads, body, right=1)


def _peer(peer: dict[str, Any], part: str) -> str:
    if "absent" in peer:
        return peer["absent"]
    if "absent" in peer.get(part, {}):
        return peer[part]["absent"]
    found = _number(best(peer, part))
    return found if peer.get("agrees") else f"{found} (another result)"


def _number(x: Any) -> str:
    return f"{x:.3g}" if isinstance(x, float) else "" if x is None else str(x)


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]], right: int) -> list[str]:
    """A table in Markdown; columns from `right` on are numbers."""
    heads = list(heads)
    rule = ["---" if place < right else "---:" for place in range(len(heads))]
    lines = [heads, rule, *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]
