"""A hook of MkDocs: the formulas that pymdownx.arithmatex found become MathML (docs/decisions/0063).

Formulas have powers of 1/2 in place of roots: without a mathematical font, Chromium leaves the sign of a root out.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """A page with `<math>` in place of every formula."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    if r"\sqrt" in found[2]:
        raise ValueError(f"{found[2]!r} has a root, whose sign some browsers leave out: write a power of 1/2")
    block = found[1] == "div"
    formula = convert(html.unescape(found[2]).strip(), display="block" if block else "inline")
    return f'<div class="formula">{formula}</div>' if block else formula
