"""Step 4 on a tiny model: maps, what interrupts them, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from language_neurons_alignment._session import Session
from language_neurons_alignment.config import MapSettings
from language_neurons_alignment.core.perplexity import perplexity
from language_neurons_alignment.core.selection import to_mask_list
from language_neurons_alignment.corpus.encode import encode_texts
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import (
    ArtifactError,
    ConflictError,
    IncompatibleError,
    LNAError,
    MissingArtifactError,
    SettingsError,
    SilentHookError,
)
from language_neurons_alignment.ppl import perplexity_map
from language_neurons_alignment.store.layout import with_ending
from language_neurons_alignment.store.masks import Mask
from tests.small_run import LANGUAGES, change_corpus, change_weights, idle, layout_of, map_file, opened
from tests.workspace import (
    TEN,
    contents,
    full_disk,
    leftovers,
    silent_hooks,
    stored_cells,
)


def forget_map(work: Path, lam: float) -> None:
    """Delete the cells and the summaries."""
    for ending in (".cells.jsonl", ".json", ".controls.json"):
        map_file(work, lam, ending).unlink()


def keep_cells(work: Path, lam: float, number: int) -> None:
    """Cut the cells off behind so many, with what they were made from."""
    path = map_file(work, lam, ".cells.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: 1 + number]))


@contextmanager
def zeroed_by_hand(engine: TransformersEngine, mask: Sequence[torch.Tensor]) -> Iterator[None]:
    """The plain way, with none of our own code: a hook on each layer's activation that fills in zeros."""
    model = engine._network.model
    handles = []
    for layer, neurons in enumerate(mask):
        off = torch.zeros(96, dtype=torch.bool)
        off[neurons] = True
        module = model.get_submodule(f"model.layers.{layer}.mlp.act_fn")
        handles.append(module.register_forward_hook(lambda _m, _i, out, off=off: out.masked_fill(off, 0.0)))
    yield
    for handle in handles:
        handle.remove()


def test_a_map_is_what_the_model_says_with_the_masks_neurons_at_zero(work: Path, lam: float) -> None:
    masks = to_mask_list(Mask.load(layout_of(work).mask(0.1, lam)).tensor)
    with opened(work) as session:
        stored = perplexity_map(session, top_rate=0.1, lam=lam).map
        engine = session.source()
        assert isinstance(engine, TransformersEngine)
        for column in LANGUAGES:
            texts = encode_texts(
                session.corpus.of_language(column), engine.tokenizer, text="instruction", max_length=2048
            )
            assert stored.cells["none", column] == perplexity(engine.log_likelihood(texts))
            for row, mask in zip(LANGUAGES, masks, strict=True):
                with zeroed_by_hand(engine, mask):
                    expected = perplexity(engine.log_likelihood(texts))
                assert stored.cells[row, column] == expected, "bit for bit, text by text"
    assert stored.change().abs().max() > 0.01, "masks that change nothing would prove nothing"


def test_ctrl_c_in_the_middle_keeps_the_finished_cells_and_a_rerun_computes_only_the_others(
    work: Path, lam: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(work / "out")
    forget_map(work, lam)
    for ending in (".png", ".csv"):
        map_file(work, lam, ending).unlink()
    calls, score = [], TransformersEngine.log_likelihood

    def interrupted_at_the_sixth(self: TransformersEngine, texts: object, **named: object) -> object:
        calls.append(texts)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return score(self, texts, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(TransformersEngine, "log_likelihood", interrupted_at_the_sixth)
    with pytest.raises(KeyboardInterrupt), opened(work) as session:
        perplexity_map(session, top_rate=0.1, lam=lam)
    assert len(stored_cells(map_file(work, lam, ".cells.jsonl"))) == 5
    assert leftovers(work) == []
    with opened(work) as session:
        done = perplexity_map(session, top_rate=0.1, lam=lam)
    assert (done.computed, done.controls_computed) == (12 - 5, 45)
    assert len(calls) - 6 == 12 - 5 + 45
    assert contents(work / "out") == whole


def test_a_language_more_computes_only_its_row_and_column(work: Path, lam: float) -> None:
    forget_map(work, lam)
    with opened(work) as session:
        assert perplexity_map(session, ("en", "es"), top_rate=0.1, lam=lam).computed == 6
        assert perplexity_map(session, top_rate=0.1, lam=lam).computed == 6
        assert perplexity_map(idle(session), ("sw",), top_rate=0.1, lam=lam).map.languages == ("sw",)


def test_an_interrupted_replacement_leaves_the_old_map(work: Path, lam: float, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(work / "out")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TransformersEngine, "log_likelihood", interrupted)
    with pytest.raises(KeyboardInterrupt), opened(work) as session:
        perplexity_map(session, top_rate=0.1, lam=lam, overwrite=True)
    after = contents(work / "out")
    begun = [name for name in after if name not in before]
    assert [Path(name).name for name in begun] == ["ppl.Llama-tiny-llama.cells.new.jsonl"]
    assert {name: content for name, content in after.items() if name in before} == before


def test_a_replacement_that_was_interrupted_goes_on_where_it_stopped_and_the_old_map_stays_until_then(
    work: Path, lam: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(work / "out")
    score, calls = TransformersEngine.log_likelihood, []

    def interrupted(self: TransformersEngine, texts: object, **named: object) -> object:
        calls.append(texts)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return score(self, texts, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(TransformersEngine, "log_likelihood", interrupted)
        with pytest.raises(KeyboardInterrupt), opened(work) as session:
            perplexity_map(session, top_rate=0.1, lam=lam, overwrite=True)
    assert before.items() <= contents(work / "out").items()
    assert len(stored_cells(map_file(work, lam, ".cells.new.jsonl"))) == 7
    with opened(work) as session:
        done = perplexity_map(session, top_rate=0.1, lam=lam, overwrite=True)
        assert (done.computed, done.controls_computed) == (12 - 7, 45)
        assert contents(work / "out") == before
        assert perplexity_map(session, top_rate=0.1, lam=lam, overwrite=True).computed == 12
    assert contents(work / "out") == before


def test_a_missing_mask_is_an_error_and_never_an_unmasked_map(work: Path) -> None:
    before = contents(work / "out")
    with pytest.raises(MissingArtifactError, match=r"0\.1-0\.77/mask\.Llama-tiny-llama is not there.*lna identify"):
        perplexity_map(idle(opened(work)), top_rate=0.1, lam=0.77)
    assert contents(work / "out") == before


@pytest.mark.parametrize(("top_rate", "lam"), [(math.nan, 0.1), (0.0, 0.1), (0.1, math.nan), (0.1, -1.0)])
def test_rates_of_a_map_that_are_no_rates_are_wrong_usage(work: Path, top_rate: float, lam: float) -> None:
    with pytest.raises(SettingsError):
        perplexity_map(idle(opened(work)), top_rate=top_rate, lam=lam)


def test_a_torn_mask_is_an_error_in_one_line(work: Path, lam: float) -> None:
    path = layout_of(work).mask(0.1, lam)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        perplexity_map(idle(opened(work)), top_rate=0.1, lam=lam)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [change_weights, change_corpus])
def test_a_mask_or_map_of_another_model_or_corpus_is_an_error_and_stays(work: Path, lam: float, change: object) -> None:
    change(work)  # type: ignore[operator]
    before = contents(work / "out")
    with pytest.raises((IncompatibleError, ConflictError)):
        perplexity_map(idle(opened(work)), top_rate=0.1, lam=lam)
    assert contents(work / "out") == before


def save_published(path: Path, layers: int, index: int) -> None:
    """A mask as others publish it, without a description, one neuron in each layer of each of ten languages."""
    with_ending(path, ".json").unlink()
    torch.save([[torch.tensor([index]) for _ in range(layers)] for _ in TEN], path)


@pytest.mark.parametrize(("layers", "index", "named"), [(4, 5, "4 layers"), (3, 96, "another model's mask")])
def test_a_mask_of_another_shape_is_an_error_before_anything_is_scored(
    work: Path, lam: float, layers: int, index: int, named: str
) -> None:
    save_published(layout_of(work).mask(0.1, lam), layers, index)
    forget_map(work, lam)
    with opened(work) as session, pytest.raises(LNAError, match=named):
        perplexity_map(session, LANGUAGES, top_rate=0.1, lam=lam)
    assert not map_file(work, lam, ".json").exists()
    assert not map_file(work, lam, ".cells.jsonl").exists()


def test_a_published_mask_without_description_can_be_used(work: Path, lam: float) -> None:
    save_published(layout_of(work).mask(0.1, lam), 3, 95)
    with opened(work) as session:
        with pytest.raises(ConflictError, match="another mask"):
            perplexity_map(session, LANGUAGES, top_rate=0.1, lam=lam)
        done = perplexity_map(session, LANGUAGES, top_rate=0.1, lam=lam, overwrite=True)
        assert done.computed == 12
        with pytest.raises(MissingArtifactError, match="no description"):
            perplexity_map(
                session, LANGUAGES, top_rate=0.1, lam=lam, settings=MapSettings(classes=("specific", "general"))
            )


def test_a_language_that_the_mask_has_not_is_refused_before_anything_runs(work: Path, lam: float) -> None:
    with pytest.raises(SettingsError, match="no neurons of de: choose --langs from en, es, sw"):
        perplexity_map(idle(opened(work)), ("en", "de"), top_rate=0.1, lam=lam)


@pytest.mark.parametrize(
    ("choice", "ending"),
    [
        ({"classes": ("specific",)}, ".specific"),
        ({"classes": ("general", "specific")}, ".specific-general"),
        ({"classes": ("related", "specific")}, ""),
        ({"text": "answer"}, ".answer"),
        ({"text": "full", "classes": ("related",)}, ".related.full"),
    ],
)
def test_another_choice_of_neurons_or_text_stands_in_files_of_its_own(
    work: Path, lam: float, choice: dict[str, object], ending: str
) -> None:
    before = contents(work / "out")
    with opened(work) as session:
        done = perplexity_map(session, ("en", "es"), top_rate=0.1, lam=lam, settings=MapSettings(**choice))  # type: ignore[arg-type]
    assert done.json.name == f"ppl.Llama-tiny-llama{ending}.json"
    assert done.png.name == f"ppl.Llama-tiny-llama{ending}.png"
    kept = {name: content for name, content in contents(work / "out").items() if not ending or ending not in name}
    if ending:
        assert kept == before
        assert done.computed == 6
    else:
        assert done.computed == 0


def test_another_scale_of_the_figure_stands_beside_the_first_and_computes_nothing(work: Path, lam: float) -> None:
    before = contents(work / "out")
    done = perplexity_map(
        idle(opened(work)), top_rate=0.1, lam=lam, settings=MapSettings(scale="log1p", average="text")
    )
    assert done.png.name == "ppl.Llama-tiny-llama.log1p-text.png"
    assert {**contents(work / "out"), **before} == contents(work / "out")


def test_cells_of_another_precision_never_stand_in_one_map(work: Path, lam: float) -> None:
    keep_cells(work, lam, 5)
    before = contents(work / "out")
    for choice in ({"dtype": "bfloat16"},):
        with opened(work, **choice) as session, pytest.raises(ConflictError, match=r"dtype \(float32\)"):
            perplexity_map(session, top_rate=0.1, lam=lam)
    assert contents(work / "out") == before


def test_an_intervention_that_never_fired_is_an_error_and_its_cells_are_not_kept(work: Path, lam: float) -> None:
    forget_map(work, lam)
    with opened(work) as session, silent_hooks(), pytest.raises(SilentHookError):
        perplexity_map(session, top_rate=0.1, lam=lam)
    assert {one["cell"][0] for one in stored_cells(map_file(work, lam, ".cells.jsonl"))} == {"none"}
    assert not map_file(work, lam, ".json").exists(), "a summary is of a finished map"


def likelihoods(session: Session) -> list[float]:
    engine = session.source()
    texts = [tuple(engine.tokenizer.encode(record.instruction)) for record in session.corpus.records]
    from language_neurons_alignment.corpus.encode import ScoredText

    return [one.nll for one in engine.log_likelihood([ScoredText(tokens) for tokens in texts])]


def test_the_model_is_what_it_was_before_after_a_masked_run_and_after_an_exception(
    work: Path, lam: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_map(work, lam)
    with opened(work) as session:
        before = likelihoods(session)
        perplexity_map(session, top_rate=0.1, lam=lam)
        assert likelihoods(session) == before
        score, calls = TransformersEngine.log_likelihood, []

        def failing(self: TransformersEngine, texts: object, **named: object) -> object:
            calls.append(1)
            done = score(self, texts, **named)  # type: ignore[arg-type]
            if len(calls) == 5:
                raise RuntimeError("in the middle of a masked row")
            return done

        with monkeypatch.context() as patched:
            patched.setattr(TransformersEngine, "log_likelihood", failing)
            with pytest.raises(RuntimeError):
                perplexity_map(session, top_rate=0.1, lam=lam, overwrite=True)
        assert likelihoods(session) == before


def test_a_full_disk_in_the_middle_of_a_map_keeps_the_cells_that_are_done(work: Path, lam: float) -> None:
    keep_cells(work, lam, 5)
    before = contents(work / "out")
    with opened(work) as session, full_disk("fsync"), pytest.raises(ArtifactError, match="the disk is full"):
        perplexity_map(session, top_rate=0.1, lam=lam)
    assert contents(work / "out") == before
