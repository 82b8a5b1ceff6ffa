"""Counts in blocks of the corpus: they add up to the whole, are refused where they cannot, and merge."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.activation import collect_activations, find_shards, merge_counts, shard_session
from language_neurons_alignment.config import PipelineSettings
from language_neurons_alignment.core.counts import LanguageCounts
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import (
    ArtifactError,
    ConflictError,
    CorpusError,
    IncompatibleError,
    MissingArtifactError,
    SettingsError,
    TallyError,
)
from language_neurons_alignment.store import files as atomic
from language_neurons_alignment.store.counts import answer_moments, load_blocks, load_counts
from tests.small_run import LANGUAGES, SETTINGS, idle, layout_of, opened, run
from tests.workspace import contents, small_records, write_corpus


@pytest.fixture
def seven(fresh: Path) -> Path:
    """A model, seven questions in each language, and no results yet."""
    write_corpus(fresh / "corpus.json", small_records(LANGUAGES, questions=7))
    return fresh


def test_blocks_add_up_to_the_counts_bit_for_bit_and_to_those_of_a_run_without_blocks(seven: Path) -> None:
    with opened(seven) as session:
        collect_activations(session, "es", blocks=3)
        collect_activations(replace(session, layout=replace(session.layout, dataset="whole")), "es")
    counts, meta = load_counts(layout_of(seven), "es")
    blocks = load_blocks(layout_of(seven), "es")
    for kept, whole in ((blocks.full, counts.full), (blocks.prefix, counts.prefix)):
        assert kept.total_tokens.sum() == whole.total_tokens
        assert torch.equal(kept.over_zero.long().sum(dim=0), whole.over_zero)
        assert (kept.over_zero <= kept.total_tokens.view(-1, 1, 1)).all()
    assert contents(seven / "out" / "activations" / "whole") == {
        name: content
        for name, content in contents(seven / "out" / "activations" / "small").items()
        if "blocks" not in name
    }
    assert meta["sequences"] == 14


def test_a_block_is_every_third_question_in_every_language(seven: Path) -> None:
    for language in ("en", "sw"):
        with opened(seven) as session:
            collect_activations(session, language, blocks=3)
        blocks = load_blocks(layout_of(seven), language)
        for block in range(3):
            records = small_records([language], questions=7)[block::3]
            write_corpus(seven / "part.json", records)
            layout = replace(layout_of(seven), dataset=f"part-{block}")
            with opened(seven) as whole:
                alone = shard_session(whole, block + 1, 3)
                collect_activations(replace(alone, layout=layout), language)
            counts, _ = load_counts(layout, language)
            assert torch.equal(blocks.full.over_zero[block].long(), counts.full.over_zero)
            assert int(blocks.prefix.total_tokens[block]) == counts.prefix.total_tokens


def test_records_without_answers_keep_their_place_among_the_blocks(seven: Path) -> None:
    records = small_records(LANGUAGES, questions=7)
    records[1]["answers"] = []
    write_corpus(seven / "corpus.json", records)
    with opened(seven) as session:
        for language in ("en", "es"):
            collect_activations(session, language, blocks=3)
    one, other = (load_blocks(layout_of(seven), language).prefix.total_tokens for language in ("en", "es"))
    assert (one[1] < one[2], other[1] == other[2]) == (True, True)


@pytest.mark.parametrize(
    ("blocks", "error", "said"), [(8, CorpusError, "leave 1 of 8 blocks empty"), (1, SettingsError, "at least 2")]
)
def test_more_blocks_than_questions_are_refused_before_the_model_is_loaded(
    seven: Path, blocks: int, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        collect_activations(idle(opened(seven)), "en", blocks=blocks)


def test_blocks_that_are_there_are_used_again_and_others_are_a_conflict(seven: Path) -> None:
    with opened(seven) as session:
        collect_activations(session, "en", blocks=3)
        collect_activations(session, "es")
        before = contents(seven / "out")
        assert collect_activations(idle(session), "en", blocks=3).reused
        assert collect_activations(idle(session), "en").reused
        with pytest.raises(ConflictError, match="in 3 blocks, this run has --blocks 4"):
            collect_activations(idle(session), "en", blocks=4)
        with pytest.raises(ConflictError, match="without blocks, this run has --blocks 4"):
            collect_activations(idle(session), "es", blocks=4)
        assert contents(seven / "out") == before
        assert not collect_activations(session, "es", blocks=4, overwrite=True).reused
    assert len(load_blocks(layout_of(seven), "es").full.total_tokens) == 4


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neuron at zero, which rounding makes fire once a pass, however many texts that has."""
    count = TransformersEngine.count

    def rounded(self: TransformersEngine, groups: list, **named: object) -> LanguageCounts:
        counts = count(self, groups, **named)  # type: ignore[arg-type]
        counts.full.over_zero[0, 0] = counts.prefix.over_zero[0, 0] = 1
        return counts

    monkeypatch.setattr(TransformersEngine, "count", rounded)


@pytest.mark.usefixtures("rounding")
def test_moments_are_counted_in_the_blocks_that_are_there(seven: Path) -> None:
    with opened(seven) as session:
        collect_activations(session, "en", blocks=3)
        before = contents(seven / "out")
        assert collect_activations(session, "en", moments=True).recounted
    after = contents(seven / "out")
    assert {name: after[name] for name in before} == before
    assert answer_moments(layout_of(seven), "en").tokens > 0
    assert load_counts(layout_of(seven), "en")[0].full.over_zero[0, 0] == 3


@pytest.mark.usefixtures("rounding")
def test_blocks_of_other_counts_do_not_tell_how_to_count_again(seven: Path) -> None:
    with opened(seven) as session:
        collect_activations(session, "en", blocks=3)
        collect_activations(session, "en", overwrite=True)
        assert collect_activations(session, "en", moments=True).recounted


@pytest.mark.parametrize("died", range(6))
def test_killed_while_its_files_are_stored_and_started_again_they_are_the_same(
    seven: Path, monkeypatch: pytest.MonkeyPatch, died: int
) -> None:
    """Two files of blocks, two of moments, two of counts, the full counts last: killed in front of each."""
    with opened(seven, root=seven / "whole") as session:
        collect_activations(session, "en", blocks=3, moments=True)
    put, placed = os.replace, []

    def killed(source: object, target: object) -> None:
        if len(placed) == died:
            raise KeyboardInterrupt
        placed.append(target)
        put(source, target)  # type: ignore[arg-type]

    with opened(seven) as session:
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                collect_activations(session, "en", blocks=3, moments=True)
        assert not layout_of(seven).activation("en").exists()
        again = collect_activations(session, "en", blocks=3, moments=True)
    assert not again.reused
    assert contents(seven / "out") == contents(seven / "whole")


def test_blocks_of_other_counts_are_refused(seven: Path) -> None:
    layout = layout_of(seven)
    with opened(seven) as session:
        for language in ("en", "es"):
            collect_activations(session, language, blocks=3)
    for prefix in (False, True):
        shutil.copy(layout.blocks("es", prefix=prefix), layout.blocks("en", prefix=prefix))
    with pytest.raises(IncompatibleError, match=r"language 'es' in its meta, but 'en' in its name"):
        load_blocks(layout, "en")
    for prefix in (False, True):
        content = torch.load(layout.blocks("en", prefix=prefix), weights_only=True)
        torch.save({**content, "meta": {**content["meta"], "language": "en"}}, layout.blocks("en", prefix=prefix))
    with pytest.raises(IncompatibleError, match=r"do not add up to the counts .* --force"):
        load_blocks(layout, "en")
    torch.save({"total_tokens": 3, "over_zero": torch.zeros(2, 2)}, layout.blocks("en"))
    with pytest.raises(ArtifactError, match="is not a file with blocks of counts"):
        load_blocks(layout, "en")
    layout.blocks("en").unlink()
    with pytest.raises(MissingArtifactError, match="lna activation --blocks"):
        load_blocks(layout, "en")


def test_every_block_has_a_tally_of_its_own(seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, seen = TransformersEngine.count, []

    def count_texts_of_one_block_in_the_next(self: TransformersEngine, groups: list, **named: object) -> object:
        seen.append(groups)
        return count(self, groups[:-1] if len(seen) == 1 else [*groups, seen[0][-1]], **named)  # type: ignore

    monkeypatch.setattr(TransformersEngine, "count", count_texts_of_one_block_in_the_next)
    with opened(seven) as session, pytest.raises(TallyError, match="nothing was written"):
        collect_activations(session, "en", blocks=2)
    assert not contents(seven / "out")


def test_shards_with_blocks_merge_to_the_blocks_of_the_whole(seven: Path) -> None:
    with opened(seven) as session:
        for part in (1, 2):
            collect_activations(shard_session(session, part, 2), "en", blocks=3)
    shards = find_shards(layout_of(seven))
    merge_counts(layout_of(seven), shards)
    merged = load_blocks(layout_of(seven), "en")
    parts = [load_blocks(shard, "en") for shard in shards]
    assert torch.equal(merged.full.total_tokens, sum(part.full.total_tokens for part in parts))
    shards[1].blocks("en").unlink()
    with pytest.raises(IncompatibleError, match="the same --blocks"):
        merge_counts(layout_of(seven), shards, overwrite=True)


def test_a_whole_run_keeps_blocks_of_every_language_and_is_otherwise_the_same(seven: Path) -> None:
    kept = run(seven, replace(SETTINGS, blocks=4))
    for language in LANGUAGES:
        assert len(load_blocks(layout_of(seven), language).full.total_tokens) == 4
    shutil.rmtree(seven / "out")
    assert run(seven).identification.description == kept.identification.description
    with pytest.raises(SettingsError, match="--blocks must be at least 2"):
        PipelineSettings(blocks=1)
