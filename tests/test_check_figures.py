"""Papers' figures in the report: only of papers asked for, one image each, and failures are said."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dsf.certificate import Budget
from dsf.check import Settings, check, figures
from dsf.check.figures import Drawing, drawings
from dsf.check.report import render, write_report
from dsf.claims.examples import TOY
from dsf.cli.check import Outputs, execute
from dsf.papers.paper import Paper

HOSTILE = "</figcaption><script>alert(1)</script>\"'&\x00"


def line():
    """A line.

    More about it.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=(2, 1))
    made.subplots().plot([0, 1], label="</svg><script>")
    return made


def broken():
    raise ArithmeticError(HOSTILE)


def not_a_figure():
    return "a line"


def paper(*names: str) -> Paper:
    # The module's own name depends on how pytest imports it, so a stable one is registered.
    sys.modules["figures_of_this_test"] = sys.modules[__name__]
    references = tuple(f"figures_of_this_test:{name}" for name in names)
    address = "https://arxiv.org/abs/2401.00001"
    return Paper("doe2024", "On lines", ("Jane Doe",), 2024, "2401.00001", address, (), references)


def document() -> dict:
    return check(Settings(ids=("example.rounding-of-a-sum",), reference="dsf.claims.examples:TOY"))


def test_only_papers_asked_for_are_drawn() -> None:
    assert drawings([], table=[paper("line")]) == []
    assert drawings(["another2024"], table=[paper("line")]) == []
    (one,) = drawings(["doe2024"], table=[paper("line")])
    assert (one.paper, one.caption, one.failure) == ("doe2024", "A line.", "")


def test_each_figure_is_announced_before_it_is_drawn() -> None:
    heard: list[str] = []
    drawings(["doe2024"], heard.append, table=[paper("line", "broken")])
    assert heard == ["doe2024 line", "doe2024 broken"]


def test_an_image_is_svg_and_equal_for_equal_figures() -> None:
    first, second = (drawings(["doe2024"], table=[paper("line")])[0] for _ in range(2))
    assert first == second
    kind, _, content = first.image.partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")


@pytest.mark.parametrize(
    ("name", "said"),
    [("broken", "ArithmeticError"), ("not_a_figure", "TypeError"), ("absent", "ValueError")],
)
def test_a_figure_that_fails_says_why_and_the_others_are_drawn(name: str, said: str) -> None:
    failed, drawn = drawings(["doe2024"], table=[paper(name, "line")])
    assert failed.failure.startswith(said) and failed.image == ""
    assert drawn.image and not drawn.failure


def test_the_page_has_image_caption_and_failure(tmp_path: Path) -> None:
    found = drawings(["doe2024"], table=[paper("line", "broken")])
    page = write_report(tmp_path, document(), TOY, drawings=found).read_text("utf-8")
    assert re.findall(r'<img src="(data:image/svg\+xml;base64,[\w+/=]+)"', page) == [found[0].image]
    assert "img-src data:" in page and "A line." in page
    assert "could not be drawn: ArithmeticError" in page and "<script" not in page


def test_a_page_without_figures_allows_no_images() -> None:
    text = render(document(), TOY)
    assert "img-src" not in text and "<img" not in text and 'id="figures"' not in text


def test_hostile_captions_are_text() -> None:
    text = render(document(), TOY, drawings=[Drawing(HOSTILE, HOSTILE, HOSTILE, "", HOSTILE)])
    assert "<script" not in text and "\x00" not in text


def test_without_matplotlib_formulas_are_text_and_the_page_says_so(monkeypatch) -> None:
    for name in ("matplotlib", "matplotlib.font_manager", "matplotlib.textpath"):
        monkeypatch.setitem(sys.modules, name, None)
    text = render(document(), TOY)
    assert "matplotlib is not installed" in text and '<svg class="formula"' not in text
    (one,) = drawings(["doe2024"], table=[paper("line")])
    assert "matplotlib" in one.failure


def test_the_command_draws_and_says_what_fails(tmp_path: Path, monkeypatch, capfd) -> None:
    asked: list[tuple[str, ...]] = []

    def instead(slugs, announce=None, table=None):
        asked.append(tuple(slugs))
        return drawings(["doe2024"], announce, table=[paper("broken", "line")]) if slugs else []

    monkeypatch.setattr(figures, "drawings", instead)
    outputs = Outputs(report=tmp_path)
    ids = ("sieber2024.t9-gru-gate",)
    assert execute(Settings(ids=ids, budget=Budget.SMOKE), outputs) == 0
    assert asked == [()]
    settings = Settings(ids=ids, papers=("sieber2024",), budget=Budget.SMOKE)
    assert execute(settings, outputs) == 0 and asked[-1] == ("sieber2024",)
    assert "ArithmeticError" in capfd.readouterr().err
    assert "<img" in (tmp_path / "index.html").read_text("utf-8")
