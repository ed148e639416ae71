"""Shows the examples of docstrings as code: Markdown would read `>>>` as a quotation.

An extension of griffe, named in mkdocs.yml.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"(?m)^(>>> .*(?:\n(?!\s*$).*)*)")


def fenced(text: str) -> str:
    """The text with each block of examples, from `>>>` to the next empty line, in a fence."""
    return _EXAMPLE.sub(lambda found: f"```pycon\n{found[1]}\n```", text)


class FencedExamples(griffe.Extension):
    """Rewrites every docstring once, as it is loaded."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
