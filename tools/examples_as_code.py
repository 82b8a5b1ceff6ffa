"""A griffe extension: examples in docstrings are shown as code on the API page.

A docstring's `>>>` lines stand between its other paragraphs, where Markdown would take them for quotations.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


class ExamplesAsCode(griffe.Extension):
    """Puts each block of `>>>` lines, with what they print, between code fences."""

    def on_object(self, *, obj: griffe.Object, **_others: Any) -> None:
        """Change the docstring that a page is made from; the source stays as it is."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(
                lambda found: f"```pycon\n{re.sub(f'(?m)^{found[1]}', '', found[0])}\n```", obj.docstring.value
            )
