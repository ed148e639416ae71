"""Writes the table of architectures and a page for each from the code.

python docs/tools/architecture_pages.py           writes docs/architectures.md and docs/architectures/
python docs/tools/architecture_pages.py --check   says which of them the code has left behind
"""

from __future__ import annotations

import sys
from pathlib import Path

from dsf.conversions import CONVERSIONS, Conversion
from dsf.mixers import ARCHITECTURES, Architecture
from dsf.mixers.capabilities import Capabilities, capabilities
from dsf.registry import resolve

DOCS = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- table: docs/tools/architecture_pages.py -->", "<!-- end of the table -->"


def pages() -> dict[Path, str]:
    """Every page that the code decides, with its text."""
    found = [resolve(reference) for reference in ARCHITECTURES]
    known = {one.name: capabilities(one) for one in found}
    front = DOCS / "architectures.md"
    before, _, rest = front.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    texts = {front: f"{before}{BEGIN}\n\n{_table(found, known)}\n\n{END}{after}"}
    for one in found:
        texts[DOCS / "architectures" / f"{one.name}.md"] = _page(one, known[one.name])
    return texts


def _table(found: list[Architecture], known: dict[str, Capabilities]) -> str:
    columns = ("architecture", "source", *known[found[0].name].row())
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in found:
        cells = (f"[{one.title}](architectures/{one.name}.md)", one.citation)
        lines.append(f"| {' | '.join((*cells, *known[one.name].row().values()))} |")
    return "\n".join(lines)


def _page(one: Architecture, can: Capabilities) -> str:
    function = f"{one.build.__module__}.{one.build.__qualname__}"
    facts = "\n".join(f"- {name}: {value}" for name, value in can.row().items())
    return f"""<!-- Written by docs/tools/architecture_pages.py from the code. -->
# {one.title}

{one.equation}

Source: {one.citation}.

## Its System

{facts}

## Written as another, another written as it

{_conversions(one)}

## The function

::: {function}
"""


def _conversions(one: Architecture) -> str:
    lines = [_line(c) for c in CONVERSIONS if one.name in (c.source, c.target)]
    return "\n".join(lines) or "None in the catalogue of `dsf.conversions`."


def _line(c: Conversion) -> str:
    condition = f" ({c.condition})" if c.condition else ""
    says = (c.convert.__doc__ or "").strip().splitlines()[0]
    return f"- {c.source} → {c.target}{condition}: `dsf.conversions.{c.name}`. {says}"


def main() -> int:
    texts = pages()
    behind = [p for p, t in texts.items() if not p.exists() or p.read_text(encoding="utf-8") != t]
    extra = [p for p in (DOCS / "architectures").glob("*.md") if p not in texts]
    if "--check" in sys.argv:
        for path in behind + extra:
            print(f"not what the code says: {path.relative_to(DOCS)}", file=sys.stderr)
        return 1 if behind or extra else 0
    for path in extra:
        path.unlink()
    (DOCS / "architectures").mkdir(exist_ok=True)
    for path in behind:
        path.write_text(texts[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
