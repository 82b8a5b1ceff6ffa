"""The examples in the docstrings of corpora and their sources."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = [
    *(f"corpus.{name}" for name in ("records", "encode", "templates", "checks", "numbers", "numerals", "language_id")),
    "corpus.grading",
    *(f"sources.{name}" for name in ("benchmarks", "tables", "folders", "source")),
    "_dataset",
    "_demo",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run_and_come_out_as_written(name: str) -> None:
    result = doctest.testmod(import_module(f"language_neurons_alignment.{name}"))
    assert result.failed == 0
    assert result.attempted > 0
