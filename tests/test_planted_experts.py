"""Planted experts: counts find them, the routing table says so, and a banned expert's language falls silent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from language_neurons_alignment._interventions import intervene
from language_neurons_alignment._report import write_report
from language_neurons_alignment._session import Session, open_session
from language_neurons_alignment.activation import collect_activations, merge_counts, shard_session
from language_neurons_alignment.analysis import Analysis, analyze
from language_neurons_alignment.config import Sampling, Selection
from language_neurons_alignment.core.routing import LanguageRouting
from language_neurons_alignment.corpus.encode import Prompt
from language_neurons_alignment.errors import ArtifactError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.languages import language_code
from language_neurons_alignment.store.counts import load_counts
from language_neurons_alignment.store.masks import Mask
from tests.neuron_sets import source_of
from tests.planted import LANGUAGES, LAYERS, NOISE, WORDS, planted_records
from tests.planted_experts import CHOSEN, EXPERTS, WIDTH, PlantedExperts

CODES = tuple(map(language_code, LANGUAGES))
SELECTION = Selection(len(LANGUAGES) * CHOSEN / (EXPERTS * WIDTH), 0.0, 0.95)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> PlantedExperts:
    return PlantedExperts.save(tmp_path_factory.mktemp("planted") / "experts")


@pytest.fixture(scope="module")
def session(truth: PlantedExperts) -> Iterator[Session]:
    root = truth.folder.parent
    (root / "corpus.json").write_text(json.dumps(planted_records(), ensure_ascii=False), encoding="utf-8")
    with open_session(str(truth.folder), root / "corpus.json", "words", root=root, device="cpu") as session:
        for language in session.corpus.languages:
            collect_activations(session, language, moments=True, blocks=2)
        identify(session.layout, session.corpus.languages, SELECTION)
        yield session


@pytest.fixture(scope="module")
def found(session: Session) -> Analysis:
    return analyze(session.layout, SELECTION)


def test_the_mask_holds_exactly_the_planted_neurons(session: Session, truth: PlantedExperts) -> None:
    mask = Mask.load(session.layout.mask(SELECTION.top_rate, 0.0))
    for language, code in zip(LANGUAGES, CODES, strict=True):
        assert torch.equal(mask.neurons_of(code, ["specific", "related"]), truth.belonging(language)), language


def test_the_routing_says_which_expert_gets_which_language(session: Session, found: Analysis) -> None:
    assert found.experts is not None
    assert found.routing is not None
    for column, code in enumerate(found.experts.languages):
        expert = CODES.index(code)
        assert torch.equal(found.experts.share[:, expert, column], torch.ones(LAYERS, dtype=torch.float64))
        assert torch.equal(found.experts.weight[:, expert, column], torch.ones(LAYERS, dtype=torch.float64))
    assert not found.routing.entropy.any()
    others = [k for k, code in enumerate(found.routing.languages) if code != "en"]
    assert torch.allclose(found.routing.divergence[:, others], torch.ones(LAYERS, len(others), dtype=torch.float64))
    assert not found.routing.divergence[:, found.routing.languages.index("en")].any()
    names = [path.name for path in found.files]
    assert any(name.endswith(".experts.csv") for name in names)
    assert any(name.endswith(".routing.csv") for name in names)


def test_the_report_shows_experts_by_language(session: Session) -> None:
    written = write_report([session.layout], SELECTION)
    assert "Experts by language" in [section.title for section in written.report.figures]
    assert any("experts-divergence" in path.name for path in written.pictures)


def test_banning_its_expert_silences_a_language_and_no_other(session: Session) -> None:
    engine = session.source()
    prompts = {
        language: Prompt(tuple(engine.tokenizer.encode(" ".join(WORDS[language].split()[:4]))))
        for language in LANGUAGES
    }
    spoken = {language: " ".join(WORDS[language].split()[4:8]) for language in LANGUAGES}

    def answers() -> dict[str, str]:
        given = engine.generate(list(prompts.values()), sampling=Sampling(max_new_tokens=4))
        return {language: one.text.strip() for language, one in zip(prompts, given, strict=True)}

    assert answers() == spoken
    french = LANGUAGES.index("French")
    with intervene(engine, [f"ban expert:{layer}.{french}" for layer in range(LAYERS)], source_of()):
        banned = answers()
    assert set(banned["French"].split()) <= set(NOISE)
    assert {language: text for language, text in banned.items() if language != "French"} == {
        language: text for language, text in spoken.items() if language != "French"
    }
    assert answers() == spoken


def test_counts_keep_their_routing_on_disk(session: Session, truth: PlantedExperts) -> None:
    counts, _ = load_counts(session.layout, "fr")
    assert counts.routing is not None
    assert counts.routing.experts.number == EXPERTS
    expected = torch.zeros(LAYERS, EXPERTS, dtype=torch.int64)
    expected[:, LANGUAGES.index("French")] = counts.answer_tokens
    assert torch.equal(counts.routing.answer.routed, expected)


def test_a_count_file_whose_routing_does_not_tally_is_refused(session: Session, tmp_path: Path) -> None:
    path = session.layout.activation("sw")
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)
    content["routing"]["routed"][0, 0] += 1
    torch.save(content, path)
    try:
        with pytest.raises(ArtifactError, match=r"the full routing of layer 0 sends .* expected"):
            load_counts(session.layout, "sw")
    finally:
        path.write_bytes(whole)


def test_parts_of_a_corpus_merge_to_the_routing_of_the_whole(session: Session) -> None:
    for part in (1, 2):
        for language in ("en", "fr"):
            collect_activations(shard_session(session, part, 2), language)
    layout = replace(session.layout, dataset="merged")
    shards = [shard_session(session, part, 2).layout for part in (1, 2)]
    merge_counts(layout, shards)
    for language in ("en", "fr"):
        whole, merged = (load_counts(one, language)[0].routing for one in (session.layout, layout))
        assert isinstance(whole, LanguageRouting)
        assert isinstance(merged, LanguageRouting)
        assert torch.equal(merged.full.routed, whole.full.routed)
        assert torch.equal(merged.prefix.routed, whole.prefix.routed)
        torch.testing.assert_close(merged.full.weight, whole.full.weight)
