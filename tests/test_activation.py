"""Step 1 on a tiny model: what is stored, what is reused, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from language_neurons_alignment._session import Session
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.autosweep import autosweep
from language_neurons_alignment.config import Selection
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import (
    ArtifactError,
    ConflictError,
    CorpusError,
    EngineError,
    SettingsError,
    TallyError,
)
from language_neurons_alignment.identify import identify
from language_neurons_alignment.ppl import perplexity_map
from language_neurons_alignment.store.counts import load_counts, save_counts
from tests.small_run import LANGUAGES, change_corpus, change_weights, idle, layout_of, opened, run
from tests.workspace import (
    ForbiddenSource,
    contents,
    full_disk,
    write_corpus,
)


def change_tokenizer(folder: Path) -> None:
    """The same model with a tokenizer that puts no token in front."""
    path = folder / "tiny-llama" / "tokenizer.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "post_processor": None}))


@pytest.mark.parametrize("change", [change_weights, change_tokenizer, change_corpus])
def test_counts_of_another_model_or_corpus_are_a_conflict_until_forced(work: Path, change: object) -> None:
    before = contents(work / "out")
    change(work)  # type: ignore[operator]
    with pytest.raises(ConflictError, match=r"activation\.en\..*--force"):
        collect_activations(idle(opened(work)), "en")
    assert contents(work / "out") == before
    with opened(work) as session:
        assert not collect_activations(session, "en", overwrite=True).reused
        assert collect_activations(idle(session), "en").reused


def test_counts_of_an_earlier_version_that_did_not_note_the_tokenizer_are_used(work: Path) -> None:
    layout = layout_of(work)
    counts, meta = load_counts(layout, "en")
    assert meta.pop("tokenizer_hash")
    save_counts(layout, "en", counts, meta)
    assert collect_activations(idle(opened(work)), "en").reused


@pytest.mark.parametrize("choice", [{"dtype": "bfloat16"}, {"engine": "vllm"}])
def test_counts_of_another_precision_or_engine_are_a_conflict_where_it_is_asked_for(
    work: Path, choice: dict[str, str]
) -> None:
    with pytest.raises(ConflictError, match=next(iter(choice))):
        collect_activations(idle_but_asking(work, **choice), "en")


def idle_but_asking(folder: Path, **choice: str) -> Session:
    """A session whose flags ask for something, and whose model must not be loaded."""
    session = opened(folder)
    source = ForbiddenSource()
    source.settings = replace(source.settings, **choice)
    return replace(session, source=source)


def test_asking_by_name_for_what_was_used_anyway_is_no_conflict(work: Path) -> None:
    asking = idle_but_asking(work, dtype="float32", engine="transformers")
    assert collect_activations(asking, "en").reused
    lam = run(work).identification.description.lam
    assert perplexity_map(asking, top_rate=0.1, lam=lam).computed == 0


def test_another_treatment_of_long_sequences_is_a_conflict(work: Path) -> None:
    with pytest.raises(ConflictError, match="overlong_policy 'error', this run has 'truncate'"):
        collect_activations(idle(opened(work)), "en", overlong="truncate")


def test_a_prefix_file_alone_is_half_a_result_and_is_made_whole(work: Path) -> None:
    before = contents(work / "out")
    layout_of(work).activation("en").unlink()
    with opened(work) as session:
        assert not collect_activations(session, "en").reused
    assert contents(work / "out") == before


def test_a_torn_count_file_is_an_error_that_says_what_to_do(work: Path) -> None:
    path = layout_of(work).activation("en")
    path.write_bytes(path.read_bytes()[:500])
    for act in (
        lambda: collect_activations(idle(opened(work)), "en"),
        lambda: identify(layout_of(work), LANGUAGES, Selection(0.1, 0.0)),
        lambda: autosweep(layout_of(work), LANGUAGES, top_rate=0.1),
    ):
        with pytest.raises(ArtifactError, match=r"cannot be read .* delete it and collect it"):
            act()
    path.unlink()
    with opened(work) as session:
        collect_activations(session, "en")


def test_a_language_that_the_corpus_has_not_is_an_error_before_the_model_is_loaded(fresh: Path) -> None:
    with pytest.raises(CorpusError, match="no records in 'de'"):
        collect_activations(idle(opened(fresh)), "de")


def test_an_unknown_treatment_of_long_sequences_is_refused_before_the_model_is_loaded(fresh: Path) -> None:
    with pytest.raises(SettingsError, match="--overlong must be one of"):
        collect_activations(idle(opened(fresh)), "en", overlong="drop")


def test_questions_without_answers_are_an_error_and_make_no_file(fresh: Path) -> None:
    write_corpus(fresh / "corpus.json", [{"lang": "en", "instruction": "How many?", "answers": []}])
    with opened(fresh) as session, pytest.raises(CorpusError, match="has an answer"):
        collect_activations(session, "en")
    assert not contents(fresh / "out")


def test_too_long_sequences_are_an_error_with_numbers_or_are_cut_by_choice(fresh: Path) -> None:
    config = json.loads((fresh / "tiny-llama" / "config.json").read_text())
    (fresh / "tiny-llama" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 30}))
    with opened(fresh) as session:
        with pytest.raises(CorpusError, match=r"6 of 6 sequences .* the limit is 30"):
            collect_activations(session, "en")
        assert not contents(fresh / "out")
        done = collect_activations(session, "en", overlong="truncate")
    assert (done.meta["overlong"], done.meta["overlong_policy"]) == (6, "truncate")
    assert load_counts(session.layout, "en")[0].full.total_tokens == 6 * 30


def test_a_wrong_tally_is_an_error_and_nothing_is_written(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = TransformersEngine.count

    def count_a_text_twice(self: TransformersEngine, groups: object, **named: object) -> object:
        return count(self, [*groups, groups[0]], **named)  # type: ignore

    monkeypatch.setattr(TransformersEngine, "count", count_a_text_twice)
    with opened(fresh) as session, pytest.raises(TallyError, match="nothing was written"):
        collect_activations(session, "en")
    assert not contents(fresh / "out")


def test_a_full_disk_while_counting_leaves_no_file_and_the_earlier_languages(fresh: Path) -> None:
    with opened(fresh) as session:
        collect_activations(session, "en")
        before = contents(fresh / "out")
        with full_disk("fsync"), pytest.raises(ArtifactError, match="the disk is full"):
            collect_activations(session, "es")
    assert contents(fresh / "out") == before


def test_a_model_that_is_not_there_is_an_error_in_one_line(fresh: Path) -> None:
    (fresh / "tiny-llama").rename(fresh / "elsewhere")
    with opened(fresh) as session, pytest.raises(EngineError, match="there is no model") as caught:
        collect_activations(session, "en")
    assert "\n" not in str(caught.value)


def test_provenance_says_what_the_counts_were_made_from(made: Path) -> None:
    meta = load_counts(layout_of(made), "en")[1]
    assert {"config_hash", "weights_hash", "corpus_hash", "engine", "transformers", "torch", "dtype", "sequences",
            "overlong", "boundary_cases", "version", "language"} <= set(meta)  # fmt: skip
    assert (meta["engine"], meta["dtype"], meta["sequences"], meta["overlong"]) == ("transformers", "float32", 6, 0)
