"""A run as JUnit XML, the form that continuous integration reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from .text import legal, number


def junit(document: Mapping[str, Any]) -> bytes:
    """One test case per claim: failed where the outcome is definite and not the expected one,
    an error where it is undecided, skipped where it was not run.
    """
    claims = document["claims"]
    kinds = [_KIND.get(claim["outcome"]) for claim in claims]
    counts = {
        "tests": str(len(claims)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "skipped": str(kinds.count("skipped")),
        "time": f"{sum(claim['seconds'] for claim in claims):.6f}",
    }
    root = ElementTree.Element("testsuites", {"name": "dsf check", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "dsf check", **counts})
    properties = ElementTree.SubElement(suite, "properties")
    settings = {"seed": document["seed"], "budget": document["budget"], **document["versions"]}
    for name, value in settings.items():
        ElementTree.SubElement(properties, "property", name=legal(name), value=legal(value))
    for claim, kind in zip(claims, kinds, strict=True):
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=legal(claim["paper"]),
            name=legal(claim["id"]),
            time=f"{claim['seconds']:.6f}",
        )
        if kind:
            result = ElementTree.SubElement(case, kind, message=legal(_message(claim)))
            result.text = legal(claim["certificate"]["remark"])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


_KIND = {
    "unexpected": "failure",
    "control-passed": "failure",
    "undecided": "error",
    "not-run": "skipped",
}


def _message(claim: Mapping[str, Any]) -> str:
    return (
        f"{claim['outcome']}: {claim['status']} where {claim['expected']} is expected "
        f"(measured {number(claim['measured'])}, bound {number(claim['bound'])})"
    )
