"""JUnit XML and the HTML report: valid for any text, complete, and nothing from elsewhere."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from dsf.certificate import Budget, Claim, Hypothesis, Level, Status, Verdict
from dsf.certify import certify, outcome, read_certificate
from dsf.check import Settings, check, junit, merged, plots
from dsf.check.evidence import MOST_ROWS, rows
from dsf.check.formulas import Formulas
from dsf.check.report import render, write_report
from dsf.claims.examples import TOY
from dsf.codec import ArrayStore
from dsf.verify import verify

HOSTILE = (
    "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;]]>\x00\x08\x1b\ufffe"
)
VOID = {"meta", "img", "link", "br", "hr", "input"}


def document_of(*claims: Claim) -> dict:
    results = []
    for claim in claims:
        certificate = certify(claim, 1, Budget.SMOKE)
        record = certificate.to_json()
        keys = ("paper", "title", "level", "expected", "status", "measured", "predicted", "bound")
        results.append(
            {key: record[key] for key in keys}
            | {
                "id": record["claim"],
                "outcome": outcome(certificate),
                "seconds": 0.5,
                "control": {"status": record["control"]["status"]},
                "certificate": record,
            }
        )
    return merged({"seed": 0, "budget": "smoke", "versions": {"dsf": HOSTILE}}, results)


def drawn_claim(**changes: object) -> Claim:
    """A claim whose evidence has every kind of array, and whose texts are as hostile as can be."""
    evidence = {
        "line": np.linspace(-1, 1, 50),
        "matrix": np.tril(np.arange(36.0).reshape(6, 6)) - 10,
        "cube": np.ones((2, 2, 2)),
        "complex": np.exp(1j * np.arange(9)),
        "holes": np.array([0.0, math.nan, math.inf, 1.0]),
        "truth": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        HOSTILE: {"text": HOSTILE, "numbers": [1.0, 2.0, 3.0], "large": 2**80},
        "large": np.ones((120, 120)),
    }
    claim = Claim(
        id="example.drawn",
        title=HOSTILE,
        statement="h_i = A h_{i-1}\n" + HOSTILE,
        citation=HOSTILE,
        level=Level.MEASURED,
        expected=Status.HOLDS,
        bound_rule=HOSTILE,
        instance=lambda task: evidence,
        witness=dict,
        control=lambda drawn: {"line": np.zeros(1)},
        judge=lambda e: Verdict(
            Status.HOLDS if e["line"].any() else Status.VIOLATED,
            *(1e-9, 2e-9, 1e-3),
            (Hypothesis(HOSTILE, HOSTILE, True),),
            HOSTILE,
        ),
    )
    return replace(claim, **changes)  # type: ignore[arg-type]


class Page(HTMLParser):
    """Tags with their attributes, and a complaint where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def document() -> dict:
    return document_of(*TOY.values(), drawn_claim())


CLAIMS = TOY | {"example.drawn": drawn_claim()}


def test_the_page_is_well_formed_and_takes_nothing_from_elsewhere(document):
    text = render(document, CLAIMS)
    page = Page(text)
    names = Counter(tag for tag, _ in page.tags)
    assert not names.keys() & {"script", "iframe", "link", "img", "object", "embed", "form", "base"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "certificates/"))
    assert "@import" not in text and "url(" not in text
    assert names["article"] == len(CLAIMS)


def test_every_text_of_a_hostile_claim_is_shown_and_never_markup(document):
    text = render(document, CLAIMS)
    shown = "".join(Page(text).texts)
    assert "<script" not in text
    # title, citation, bound rule, remark, hypothesis (name and value), evidence (name and value),
    # one line of the statement, one version
    assert shown.count("<script>alert(1)</script>") >= 10
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe]", text)


def test_a_page_without_escaping_would_be_caught(document, monkeypatch):
    import jinja2

    whole = jinja2.Environment.__init__

    def careless(self, **settings: Any):
        settings["autoescape"] = False
        whole(self, **settings)

    monkeypatch.setattr(jinja2.Environment, "__init__", careless)
    assert "<script" in render(document, CLAIMS)


def test_every_anchor_is_there_once_and_every_link_leads_somewhere(document, tmp_path):
    page_path = write_report(tmp_path / "deep" / "report", document, CLAIMS)
    tags = Page(page_path.read_text("utf-8")).tags
    ids = Counter(attributes["id"] for _, attributes in tags if "id" in attributes)
    assert set(ids.values()) == {1}
    assert set(CLAIMS) <= set(ids)
    for tag, attributes in tags:
        target = attributes.get("href")
        if target and target.startswith("#"):
            assert target[1:] in ids, tag
        elif target:
            assert (page_path.parent / target).is_file()


def test_the_certificates_beside_the_page_verify(document, tmp_path):
    write_report(tmp_path, document, CLAIMS)
    for row in document["claims"]:
        path = tmp_path / "certificates" / f"{row['id']}.json"
        assert read_certificate(path).to_json() == row["certificate"]
        store = ArrayStore.beside(path)
        assert verify(json.loads(path.read_bytes()), claims=CLAIMS, store=store).accepted


def test_writing_again_replaces_and_leaves_the_same(document, tmp_path):
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    write_report(tmp_path, document, CLAIMS)
    first = files()
    (tmp_path / "index.html").write_text("an older page")
    write_report(tmp_path, document, CLAIMS)
    assert files() == first


def test_large_arrays_are_read_from_beside_the_merged_file(tmp_path):
    settings = Settings(
        reference="dsf.claims.examples:TOY", budget=Budget.SMOKE, json=tmp_path / "o.json"
    )
    found = check(settings)
    inline = render(found, TOY)
    stored = render(found, TOY, ArrayStore.beside(tmp_path / "o.json"))
    assert inline == stored


FORMULAS = [
    (r"x=1", 3),
    (r"$x=1$", 3),
    (r"h_i = \Lambda_i h_{i-1}", 9),
    (r"a $\leq$ b", 3),
]


def test_the_first_values_of_evidence_are_shown_and_the_rest_are_counted():
    evidence = {f"v{i}": float(i) for i in range(MOST_ROWS + 3)}
    shown, left_out = rows(evidence, None, Formulas())
    assert [(row.name, row.text) for row in shown] == [(f"v{i}", str(i)) for i in range(MOST_ROWS)]
    assert left_out == 3


def test_symbolic_evidence_is_drawn_as_formulas():
    certificate = certify(TOY["example.softplus-gate"], 1, Budget.SMOKE)
    shown, _ = rows(certificate.evidence, None, Formulas())
    drawn = [row.drawing for row in shown if row.kind == "expression"]
    assert drawn and all(ElementTree.fromstring(str(one)).tag == "svg" for one in drawn)


@pytest.mark.parametrize(("source", "glyphs"), FORMULAS)
def test_a_formula_is_outlines_of_its_glyphs(source, glyphs):
    formulas = Formulas()
    svg = ElementTree.fromstring(str(formulas.draw(source)))
    names = [use.attrib["href"][1:] for use in svg.iter("use")]
    definitions = ElementTree.fromstring(f"<defs>{formulas.definitions()}</defs>")
    outlines = {path.attrib["id"]: path.attrib["d"] for path in definitions}
    assert len(names) == glyphs
    assert set(names) == set(outlines)
    assert all(d.startswith("M") and d.endswith("Z") for d in outlines.values())
    assert svg.attrib["aria-label"] == source
    assert not list(svg.iter("text"))


@pytest.mark.parametrize(
    "source", [r"\begin{pmatrix}1\end{pmatrix}", r"\nosuchcommand", "x" * 5000]
)
def test_what_mathtext_does_not_draw_is_shown_as_text(source):
    element = ElementTree.fromstring(str(Formulas().draw(source)))
    assert element.tag == "code"
    assert (element.text or "")[:20] == source[:20]


def test_each_line_is_a_formula():
    drawn = ElementTree.fromstring(f"<div>{Formulas().draw('x' + chr(10) + chr(10) + 'y')}</div>")
    assert [child.tag for child in drawn] == ["svg", "svg"]


def marks(svg: str) -> dict[str, float]:
    """The horizontal positions of the marks by name."""
    places = {}
    for group in ElementTree.fromstring(svg).iter("g"):
        shape = group[1]
        found = shape.attrib.get("cx") or shape.attrib.get("x")
        moved = re.search(r"translate\(([\d.]+) ", shape.attrib.get("transform", ""))
        places[group.attrib["class"]] = float(found or (moved and moved[1]) or "nan")
    return places


PAIRS = [
    (1e-12, 1e-3),
    (0.0, 1e-9),
    (1e-300, 1e300),
    (-2.0, 3.0),
    (-3.0, -1.0),
    (-1.7e308, 1.7e308),
    (5e-324, 1.0),
]


@pytest.mark.parametrize(("low", "high"), PAIRS)
def test_the_scale_keeps_order_and_stays_inside(low, high):
    below, above = marks(str(plots.scale(low, high))), marks(str(plots.scale(high, low)))
    assert below["measured"] < below["bound"]
    assert above["measured"] > above["bound"]
    assert all(0 <= x <= 320 for x in [*below.values(), *above.values()])


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-300])
def test_equal_values_share_their_place(value):
    places = marks(str(plots.scale(value, value, value)))
    assert len(places) == 3 and len(set(places.values())) == 1


def test_nothing_to_compare_gives_no_scale():
    assert plots.scale(None, 1.0) == "" == plots.scale(1.0, None)


ARRAYS = {
    "line": (np.arange(5.0), "plot"),
    "long": (np.sin(np.arange(5000.0)), "plot"),
    "constant": (np.ones(4), "plot"),
    "extreme": (np.array([-1.7e308, 1.7e308, 0.0]), "plot"),
    "holes": (np.array([math.nan, 1.0, math.inf, 2.0]), "plot"),
    "integers": (np.arange(4), "plot"),
    "truth": (np.array([True, False]), "plot"),
    "row": (np.arange(6.0)[None], "plot"),
    "matrix": (np.arange(12.0).reshape(3, 4) - 5, "heat"),
    "large": (np.ones((500, 300)), "heat"),
    "zeros": (np.zeros((2, 2)), "heat"),
    "opposite": (np.array([[1.7e308, -1.7e308], [0.0, 1.0]]), "heat"),
    "complex": (np.full((2, 2), 1j), "heat"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_drawn_inside_its_box(name):
    values, kind = ARRAYS[name]
    svg = ElementTree.fromstring(str(plots.array(values)))
    assert svg.attrib["class"] == kind
    width, height = (float(svg.attrib[side]) for side in ("width", "height"))
    if kind == "heat":
        for cell in svg.iter("rect"):
            assert 0 <= float(cell.attrib["x"]) < width and 0 <= float(cell.attrib["y"]) < height
            assert 0 < float(cell.attrib["opacity"]) <= 1
    else:
        outline = next(svg.iter("path")).attrib["d"]
        points = [tuple(map(float, point.split())) for point in re.split("[ML]", outline)[1:]]
        assert len(points) == min(np.isfinite(values).sum(), 240)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 2, 2)), np.zeros(0), np.ones(1), np.full(3, math.nan)]
)
def test_what_cannot_be_drawn_is_left_out(values):
    assert plots.array(values) == ""


def test_the_heat_map_shows_sign_and_place():
    svg = ElementTree.fromstring(str(plots.array(np.array([[0.0, 2.0], [-1.0, 0.0]]))))
    cells = {
        (float(c.attrib["x"]) > 0, float(c.attrib["y"]) > 0): (
            c.attrib["class"],
            c.attrib["opacity"],
        )
        for c in svg.iter("rect")
    }
    assert cells == {(True, False): ("positive", "1.00"), (False, True): ("negative", "0.50")}


KIND = {
    "unexpected": "failure",
    "control-passed": "failure",
    "undecided": "error",
    "not-run": "skipped",
}


def test_junit_has_one_case_per_claim_and_its_kind(document):
    suite = ElementTree.fromstring(junit(document)).find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert [case.attrib["name"] for case in cases] == [row["id"] for row in document["claims"]]
    for case, row in zip(cases, document["claims"], strict=True):
        assert case.attrib["classname"] == row["paper"]
        expected = KIND.get(row["outcome"])
        assert [child.tag for child in case] == ([expected] if expected else [])
    kinds = Counter(child.tag for case in cases for child in case)
    assert suite.attrib["tests"] == str(len(cases))
    assert (suite.attrib["failures"], suite.attrib["errors"], suite.attrib["skipped"]) == (
        str(kinds["failure"]),
        str(kinds["error"]),
        str(kinds["skipped"]),
    )


def test_junit_is_valid_xml_for_any_text():
    failing = drawn_claim(expected=Status.VIOLATED)
    case = ElementTree.fromstring(junit(document_of(failing))).find(".//failure")
    assert case is not None and case.text is not None
    assert "<script>alert(1)</script>" in case.text and "\ufffd" in case.text
