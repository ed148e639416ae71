"""Formulas as inline SVG: outlines of glyphs, so that no font and no script is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from markupsafe import Markup, escape

from .text import legal

_LETTER = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}  # matplotlib.path.Path codes
_POINTS = {1: 1, 2: 1, 3: 2, 4: 3, 79: 1}
_EM = 100.0  # TextToPath lays glyphs out at this size
_LONGEST = 1000  # characters; mathtext takes about a millisecond for each glyph
_DOLLAR = re.compile(r"(?<!\\)\$")


class Formulas:
    """Draws the formulas of one page; a glyph is defined once and used many times.

    Where matplotlib is missing, `missing` is true and formulas are shown as text.
    """

    def __init__(self) -> None:
        try:
            from matplotlib.font_manager import FontProperties
            from matplotlib.textpath import TextToPath
        except ImportError:
            self.missing = True
        else:
            self.missing = False
            self._paths = TextToPath()
            self._font = FontProperties(math_fontfamily="stix", family="STIXGeneral", size=_EM)
        self._glyphs: dict[str, Any] = {}
        self._names: dict[str, str] = {}

    def draw(self, statement: str) -> Markup:
        """One SVG per line of LaTeX, or the line as text where mathtext cannot draw it."""
        lines = [line.strip() for line in legal(statement).splitlines() if line.strip()]
        return Markup("").join(self._line(line) for line in lines)

    def expression(self, value: Any) -> Markup:
        """A sympy expression as a formula, or as text where it is long or not drawable."""
        import sympy

        nodes = sum(1 for _ in islice(sympy.preorder_traversal(value), _LONGEST))
        if nodes == _LONGEST:
            return _as_text(f"an expression of {_LONGEST} parts or more")
        return self._line(sympy.latex(value).replace(r"\operatorname", r"\mathrm"))

    def definitions(self) -> Markup:
        """The outlines of all glyphs drawn so far, for the page's `<defs>`."""
        paths = (
            Markup('<path id="{}" d="{}"/>').format(short, _outline(*self._glyphs[name]))
            for name, short in self._names.items()
        )
        return Markup("").join(paths)

    def _line(self, line: str) -> Markup:
        if len(line) > _LONGEST:
            return _as_text(line[:_LONGEST] + " …")
        if self.missing:
            return _as_text(line)
        source = line if _DOLLAR.search(line) else f"${line}$"
        try:
            placed, self._glyphs, boxes = self._paths.get_glyphs_mathtext(
                self._font, source, glyph_map=self._glyphs
            )
            width, height, depth = self._paths.get_text_width_height_descent(
                source, self._font, ismath=True
            )
        except (ValueError, RuntimeError):  # mathtext: not in its subset of LaTeX, or no such glyph
            return _as_text(line)
        return Markup(
            '<svg class="formula" role="img" aria-label="{label}" viewBox="{box}" '
            'style="width:{em}em" fill="currentColor"><g transform="scale(1 -1)">{body}</g></svg>'
        ).format(
            label=line,
            box=_view_box(width, height, depth),
            em=f"{(width + 2 * _MARGIN) / _EM:.3f}",
            body=Markup("").join([*self._placed(placed), *map(_box, boxes)]),
        )

    def _placed(self, glyphs: list[tuple[str, float, float, float]]) -> Iterator[Markup]:
        for name, x, y, scale in glyphs:
            if len(self._glyphs[name][1]):  # a space has no outline
                short = self._names.setdefault(name, f"g{len(self._names)}")
                yield Markup(
                    '<use href="#{}" transform="translate({:.1f} {:.1f}) scale({:.4f})"/>'
                ).format(short, x, y, scale)


_MARGIN = 8.0  # italic glyphs lean out of their boxes


def _as_text(line: str) -> Markup:
    return Markup('<code class="formula">{}</code>').format(line)


def _view_box(width: float, height: float, depth: float) -> str:
    top = height - depth + _MARGIN
    return f"{-_MARGIN:.1f} {-top:.1f} {width + 2 * _MARGIN:.1f} {height + 2 * _MARGIN:.1f}"


def _outline(vertices: Any, codes: Any) -> str:
    parts, i = [], 0
    while i < len(codes):
        code = int(codes[i])
        step = _POINTS[code]
        points = (
            "" if code == 79 else " ".join(f"{x:.1f} {y:.1f}" for x, y in vertices[i : i + step])
        )
        parts.append(f"{_LETTER[code]}{points}")
        i += step
    return "".join(parts)


def _box(box: Any) -> Markup:
    """A fraction bar or the roof of a root: a closed outline of straight lines."""
    return Markup('<path d="{}"/>').format(escape(_outline(*box)))
