"""JSON of a program's own: whole, absent, or refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment.errors import ArtifactError
from language_neurons_alignment.store.files import read_json


def has_cells(content: Any) -> bool:
    return all(isinstance(value, str) for value in content["cells"].values())


def test_what_is_whole_is_read_and_what_is_absent_is_none(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    assert read_json(path, has_cells, command="lna ppl") is None
    path.write_text('{"cells": {"fr": "é"}}', encoding="utf-8")
    assert read_json(path, has_cells, command="lna ppl") == {"cells": {"fr": "é"}}
    with pytest.raises(ArtifactError, match="not what `lna ppl` writes"):
        read_json(path, lambda _: False, command="lna ppl")


@pytest.mark.parametrize(
    "text", [b"", b'{"cells": {', b"[]", b"null", b"7", b'"cells"', b'{"rows": {}}', b'{"cells": []}', b"\xff\xfe"]
)
def test_what_is_torn_or_something_else_is_refused_with_the_command_that_makes_it_anew(
    tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / "map.json"
    path.write_bytes(text)
    with pytest.raises(ArtifactError, match=r"map\.json cannot be read .*: delete it and run `lna ppl` again"):
        read_json(path, has_cells, command="lna ppl")


def test_a_folder_in_its_place_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_json(tmp_path, has_cells, command="lna ppl")
