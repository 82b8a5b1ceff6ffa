"""Results of two made-up models, one of them with perplexity maps, and the page that comes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from language_neurons_alignment._report import WrittenReport, compose, gather, write_report
from language_neurons_alignment.config import Selection
from language_neurons_alignment.core.perplexity import UNDISTURBED, Perplexity
from language_neurons_alignment.identify import Identification, identify
from language_neurons_alignment.report.sections import Report
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout, with_ending
from language_neurons_alignment.store.masks import Mask
from tests.workspace import META, TEN, made_up_counts

SHAPE = (6, 80)
RATES = Selection(0.2, 0.25, 0.8)
CHOICE = Selection(RATES.top_rate, RATES.lam, RATES.bar)


def counted(root: Path, model: str, languages: Sequence[str] = TEN, *, seed: int = 0) -> Layout:
    """Made-up counts of a model."""
    layout = Layout(root, "mgsm", model)
    for number, code in enumerate(languages):
        counts = made_up_counts(SHAPE, seed=seed + number)
        save_counts(layout, code, counts, {**META, "language": code, "sequences": 7, "engine": "made up"})
    return layout


def identified(layout: Layout, languages: Sequence[str] = TEN) -> Identification:
    """The mask of it."""
    return identify(layout, languages, RATES)


def mapped(layout: Layout, found: Identification, *, classes: Sequence[str] = (), cells: int | None = None) -> Path:
    """A perplexity map of that mask: row i, column j has 100 · (1 + (i + 1) / (j + 1)); `cells` cuts it short."""
    languages = found.description.languages
    off = tuple(classes) or ("specific", "related")
    mask = Mask(tuple(languages), found.mask, found.description)
    plain = [
        {"deactivated": row, "text_language": column}
        | asdict(Perplexity(100.0 * (1 + i / (j + 1)), 50.0 * (1 + i / (j + 1)), 1.0, 9, 3))
        for i, row in enumerate((UNDISTURBED, *languages))
        for j, column in enumerate(languages)
    ]
    content = {
        "provenance": {"mask": mask.digest_of(off), "corpus": dict.fromkeys(languages, "0f")},
        "engine": {"engine": "made up", "dtype": "float32"},
        "cells": plain[:cells],
    }  # fmt: skip
    path = layout.perplexity(RATES.top_rate, found.description.lam, variant=f".{'-'.join(classes)}" if classes else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    with_ending(path, ".json").write_text(json.dumps(content), encoding="utf-8")
    return path


def layouts(root: Path, *names: str) -> list[Layout]:
    """Where the results of models on the dataset mgsm are."""
    return [Layout(root, "mgsm", name) for name in names]


def composed(root: Path, name: str = "Llama-base") -> Report:
    """The content of the report on one model."""
    return compose(gather(layouts(root, name), CHOICE, called=[name]), search=CHOICE.search)


@pytest.fixture(scope="package")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of Llama-base, which has maps, and of Llama-aligned; their dataset's name is hostile."""
    root = tmp_path_factory.mktemp("results")
    base = counted(root, "Llama-base")
    found = identified(base)
    mapped(base, found)
    mapped(base, found, classes=("specific",))
    identified(counted(root, "Llama-aligned", seed=40))
    return root


@pytest.fixture(scope="package")
def written(results: Path) -> WrittenReport:
    """The report on both."""
    names = ("Llama-base", "Llama-aligned")
    return write_report(layouts(results, *names), CHOICE, called=names, trained=("zh", "de"))
