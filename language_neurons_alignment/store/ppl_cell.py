"""The cells of a perplexity map, as JSON holds them."""

from __future__ import annotations

import json
import math
from typing import Any

from ..core.perplexity import Perplexity, TextLikelihood


def to_plain(key: tuple[str, str], cell: Perplexity) -> dict[str, Any]:
    """A cell as JSON, which has no infinity: null stands for it. Each text's numbers stand in one line."""
    sums = {"token": cell.token, "text": cell.text, "nll": cell.nll, "tokens": cell.tokens, "texts": cell.texts}
    single = {
        "text_nll": " ".join(repr(one.nll) for one in cell.likelihoods),
        "text_tokens": " ".join(str(one.tokens) for one in cell.likelihoods),
    }
    finite = {name: value if math.isfinite(value) else None for name, value in sums.items()}
    return {"deactivated": key[0], "text_language": key[1], **finite, **(single if cell.likelihoods else {})}


def from_plain(stored: dict[str, Any]) -> tuple[tuple[str, str], Perplexity]:
    """The inverse of `to_plain`; cells of older files know only their sums."""
    token, text, nll = (math.inf if stored[name] is None else float(stored[name]) for name in ("token", "text", "nll"))
    each = zip(stored.get("text_nll", "").split(), stored.get("text_tokens", "").split(), strict=True)
    likelihoods = tuple(TextLikelihood(float(one), int(tokens)) for one, tokens in each)
    counted = Perplexity(token, text, nll, int(stored["tokens"]), int(stored["texts"]), likelihoods)
    return (stored["deactivated"], stored["text_language"]), counted


def to_json(content: dict[str, Any]) -> str:
    """A whole file with each cell in a line of its own: a file of controls is written hundreds of times."""
    head = json.dumps({key: value for key, value in content.items() if key != "cells"}, indent=1, ensure_ascii=False)
    cells = ",\n  ".join(json.dumps(cell, ensure_ascii=False) for cell in content["cells"])
    return head.removesuffix("\n}") + f',\n "cells": [\n  {cells}\n ]\n}}\n'
