"""A part of another library, replaced while something of that library runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TURN = threading.RLock()


@contextmanager
def replaced(owner: Any, name: str, part: Any) -> Iterator[None]:
    """While the context is open, a module or a class has `part` under this name; afterwards what it had before.

    Threads take turns: where two contexts overlapped, the second would keep the first's part for its own, and leave it
    there for good.

    >>> import json
    >>> with replaced(json, "dumps", lambda value: "three"):
    ...     json.dumps(3)
    'three'
    >>> json.dumps(3)
    '3'
    """
    with _TURN:
        before = vars(owner)[name]  # of a class the descriptor, so that a classmethod stays one
        setattr(owner, name, part)
        try:
            yield
        finally:
            setattr(owner, name, before)
