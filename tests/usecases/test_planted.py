"""Neurons that were planted by hand are the neurons that the whole pipeline finds, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from language_neurons_alignment._session import open_session
from language_neurons_alignment.config import PipelineSettings, Selection
from language_neurons_alignment.languages import in_default_order, language_code
from language_neurons_alignment.pipeline import run_pipeline
from language_neurons_alignment.store.masks import Mask
from tests.planted import D_MLP, LANGUAGES, LAYERS, PlantedModel, planted_records


@pytest.mark.slow
def test_the_pipeline_finds_exactly_the_planted_neurons_and_mutes_exactly_their_languages(tmp_path: Path) -> None:
    truth = PlantedModel.save(tmp_path / "planted")
    (tmp_path / "corpus.json").write_text(json.dumps(planted_records()), encoding="utf-8")
    settings = PipelineSettings(selection=Selection(len(truth.planted) / (LAYERS * D_MLP)))
    with open_session(str(truth.folder), tmp_path / "corpus.json", "words", root=tmp_path, device="cpu") as session:
        languages = in_default_order(session.corpus.languages)
        done = run_pipeline(session, languages, settings)
    assert languages == tuple(language_code(name) for name in languages)
    by_code = {language_code(name): name for name in LANGUAGES}
    stored = Mask.load(done.identification.path).tensor
    for k, code in enumerate(languages):
        assert torch.equal(stored[..., k], truth.belonging(by_code[code])), f"the neurons of {by_code[code]}"
    assert done.sweep is not None
    assert done.sweep.appear[-1] == 0
    assert done.identification.classes.general.sum() == len(truth.everywhere)
    change = done.map.map.change()
    own = change.diagonal()
    others = change[~torch.eye(len(languages), dtype=torch.bool)]
    assert float(own.min()) > 2 * max(1.0, float(others.max())), "each language suffers most from its own neurons"
    effects = done.map.effects()
    assert torch.equal(effects.inside, ~torch.eye(len(languages), dtype=torch.bool)), "all else is within control"
    controls = torch.stack([one.change() for one in done.map.map.controls])
    assert controls.abs().max() == 0, "neurons of no language carry nothing"
    found = done.map.selectivity()
    assert found is not None
    assert found.controls is not None
    assert found.precision.min() > 0.99
    assert found.controls.f1.max() == 0
