"""Large libraries, imported in less time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import large libraries without Python's garbage collector, which would go through them again and again.

    That saves a fifth of the time in which torch and the transformers library are imported.

    >>> with importing():
    ...     import json
    >>> gc.isenabled()
    True
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
