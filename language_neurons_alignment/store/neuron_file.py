"""Lists of neurons that somebody wrote by hand or by another tool: JSON pairs, or a CSV with a header."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ..errors import ArtifactError, MissingArtifactError

_SHAPE = "expected [[layer, neuron], …], or a CSV with the columns layer,neuron; numbers from 0"
_LARGEST = 2**31 - 1


def load_neurons(path: Path) -> Int64[Tensor, "place 2"]:
    """The (layer, neuron) places of a `.json` or `.csv` file.

    Raises:
        MissingArtifactError: it is not there.
        ArtifactError: it cannot be read, or something in it is no place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        listed = json.loads(text) if path.suffix == ".json" else _rows(text)
    except FileNotFoundError:
        raise MissingArtifactError(f"{path} is not there: give a file of neurons") from None
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{path} cannot be read as neurons ({error}): {_SHAPE}") from error
    wrong = [one for one in listed if not _is_place(one)] if isinstance(listed, list) else [listed]
    if wrong:
        raise ArtifactError(f"{path} holds {str(wrong[0])[:60]!r}, which is no neuron: {_SHAPE}")
    return torch.tensor(listed, dtype=torch.int64).reshape(-1, 2)


def _rows(text: str) -> list[list[int]]:
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if not {"layer", "neuron"} <= set(table.fieldnames or ()):
        raise ValueError(f"its header is {','.join(table.fieldnames or ()) or 'missing'}")
    return [[int(row["layer"] or ""), int(row["neuron"] or "")] for row in table]


def _is_place(one: Any) -> bool:
    return isinstance(one, list) and len(one) == 2 and all(type(n) is int and 0 <= n <= _LARGEST for n in one)
