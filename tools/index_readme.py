"""README.md as a package index can show it: hatchling calls this when it builds the metadata.

An index has the text alone, without the repository beside it, so a relative link leads nowhere there. With a
`Repository` under `[project.urls]` every relative link becomes one into it; without one, pictures are left out and
links keep only their words: an address that is made up would be worse. README itself keeps relative links, which
work on every branch, in every fork and without a network. The package hatch-fancy-pypi-readme replaces texts too, but
by fixed ones, so that the address would stand in two places, and it cannot do one thing with an address and another
without.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = r"\[(?P<words>[^\]]*)\]\((?P<target>(?!https?:|mailto:|#)[^)\s]+)\)"
_LINK = re.compile(rf"(?P<picture>!?){_RELATIVE}")
_PICTURE_AND_CAPTION = re.compile(rf"!{_RELATIVE}\n*(\*[^*]+\*\n*)?")


def as_on_an_index(readme: str, repository: str | None) -> str:
    r"""Return README's text with no relative link left.

    >>> as_on_an_index("![Map](map.png) [Files](files.md)", "https://example.org/lna")
    '![Map](https://example.org/lna/raw/HEAD/map.png) [Files](https://example.org/lna/blob/HEAD/files.md)'
    >>> as_on_an_index("![Map](map.png)\n[Files](files.md) [MIT](https://mit.edu)", None)
    'Files [MIT](https://mit.edu)'
    """
    if repository is None:
        return _LINK.sub(r"\g<words>", _PICTURE_AND_CAPTION.sub("", readme))

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["picture"] else "blob"
        return f"{link['picture']}[{link['words']}]({repository.rstrip('/')}/{kind}/HEAD/{link['target']})"

    return _LINK.sub(absolute, readme)


class IndexReadme(MetadataHookInterface):
    """Sets the field `readme`, which pyproject.toml leaves to it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the text, with links into the repository that `[project.urls]` names."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        readable = as_on_an_index(text, metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": readable}
