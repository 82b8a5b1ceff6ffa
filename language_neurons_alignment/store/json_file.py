"""JSON that is a program's own: read whole and checked, or refused in words that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ArtifactError


def read_json(path: Path, is_whole: Callable[[Any], bool], *, command: str) -> dict[str, Any] | None:
    """What is in a file; None where there is none.

    Args:
        path: the file.
        is_whole: whether what was read has all its parts; it may raise what a missing part raises.
        command: what makes the file.

    Raises:
        ArtifactError: it cannot be read, or is not whole.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not is_whole(content):
            raise ValueError(f"not what `{command}` writes")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(path, error, command=command) from error
    return content


def unreadable(path: Path, error: Exception, *, command: str) -> ArtifactError:
    """The error of a file that is torn or not of its kind."""
    return ArtifactError(f"{path} cannot be read ({error!r}): delete it and run `{command}` again")
