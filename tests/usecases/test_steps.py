"""The steps on a tiny model: from a corpus to a map, and what each refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.analysis import Neuron_Mask, Neuron_Prob
from language_neurons_alignment.autosweep import autosweep, quick_autosweep, show_lambda
from language_neurons_alignment.config import MapSettings, PipelineSettings, Selection, SweepRange
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import (
    ArtifactError,
    ConflictError,
    CorpusError,
    EngineError,
    IncompatibleError,
    LNAError,
    MissingArtifactError,
    SettingsError,
    SilentHookError,
    SweepError,
    TallyError,
)
from language_neurons_alignment.identify import identify
from language_neurons_alignment.ppl import perplexity_map
from language_neurons_alignment.session import Session
from language_neurons_alignment.store.counts_file import load_counts, save_counts
from language_neurons_alignment.store.layout import Layout, with_ending
from language_neurons_alignment.store.mask_file import load_mask_list
from tests.usecases.conftest import LANGUAGES, SETTINGS, opened, run
from tests.workspace import (
    TEN,
    ForbiddenSource,
    contents,
    full_disk,
    leftovers,
    made_up_counts,
    small_records,
    store_counts,
    write_corpus,
)


def idle(session: Session) -> Session:
    """The same session with a model that must not be loaded."""
    return replace(session, source=ForbiddenSource())


def layout_of(folder: Path) -> Layout:
    return Layout(folder / "out", "small", "Llama-tiny-llama")


def change_weights(folder: Path) -> None:
    path = folder / "tiny-llama" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.5
    save_file(weights, path, metadata={"format": "pt"})


def change_corpus(folder: Path) -> None:
    write_corpus(folder / "corpus.json", small_records(LANGUAGES, questions=4))


# ── All steps in a row ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_run_leaves_every_file_where_it_was_promised_and_nothing_else(made: Path) -> None:
    lam = run(made).identification.description.lam
    rates = f"0.1-{lam!r}"
    assert set(contents(made / "out")) == {
        *(
            f"activations/small/{prefix}activation.{language}.Llama-tiny-llama.pt"
            for language in LANGUAGES
            for prefix in ("", "prefix.")
        ),
        *(f"activation_masks/small/{rates}/mask.Llama-tiny-llama{ending}" for ending in ("", ".json")),
        *(f"ppl_maps/small/{rates}/ppl.Llama-tiny-llama.{ending}" for ending in ("png", "json", "csv")),
    }
    assert leftovers(made) == []


def test_the_steps_one_by_one_make_the_same_files_as_the_whole_run(work: Path, fresh: Path, made: Path) -> None:
    with opened(fresh) as session:
        for language in LANGUAGES:
            collect_activations(session, language)
        found = autosweep(session.layout, LANGUAGES, top_rate=0.1, bar=0.8, search=SETTINGS.search)
        identify(session.layout, LANGUAGES, Selection(0.1, found.lam, 0.8))
        perplexity_map(session, top_rate=0.1, lam=found.lam)
    assert contents(fresh / "out") == contents(made / "out")


def test_a_second_run_computes_nothing_and_changes_no_file(work: Path) -> None:
    before = contents(work / "out")
    from language_neurons_alignment.pipeline import run_pipeline

    again = run_pipeline(idle(opened(work)), LANGUAGES, SETTINGS)
    assert all(one.reused for one in again.collected)
    assert again.map.computed == 0
    assert contents(work / "out") == before


def test_forcing_computes_everything_again_and_finds_the_same(work: Path) -> None:
    before = contents(work / "out")
    again = run(work, replace(SETTINGS, force=True))
    assert not any(one.reused for one in again.collected)
    assert again.map.computed == 3 * 4
    assert contents(work / "out") == before


def test_a_lambda_that_is_given_is_used_and_not_searched(work: Path) -> None:
    done = run(work, replace(SETTINGS, lam=0.5))
    assert done.sweep is None
    assert done.identification.path.parent.name == "0.1-0.5"


@pytest.mark.parametrize(
    "wrong",
    [{"top_rate": math.nan}, {"top_rate": 0.0}, {"top_rate": 1.01}, {"top_rate": -1}, {"bar": math.nan}, {"bar": 0},
     {"bar": 1.5}, {"lam": math.nan}, {"lam": -0.1}, {"lam": math.inf}],
)  # fmt: skip
def test_rates_that_are_no_rates_are_refused_before_anything_runs(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="got"):
        PipelineSettings(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"lo": -0.1}, {"lo": 0.3}, {"hi": math.nan}, {"hi": math.inf}, {"eps": 0}, {"eps": math.nan}]
)
def test_ranges_that_are_no_ranges_are_refused_before_anything_runs(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        SweepRange(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"classes": ()}, {"classes": ("specific", "typo")}, {"text": "question"}, {"overlong": "drop"},
              {"scale": "log"}, {"average": "mean"}],
)  # fmt: skip
def test_choices_that_there_are_not_are_refused_before_anything_runs(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        MapSettings(**wrong)  # type: ignore[arg-type]


# ── Counting ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("change", [change_weights, change_corpus])
def test_counts_of_another_model_or_corpus_are_a_conflict_until_forced(work: Path, change: object) -> None:
    before = contents(work / "out")
    change(work)  # type: ignore[operator]
    with pytest.raises(ConflictError, match=r"activation\.en\..*--force"):
        collect_activations(idle(opened(work)), "en")
    assert contents(work / "out") == before
    with opened(work) as session:
        assert not collect_activations(session, "en", force=True).reused
        assert collect_activations(idle(session), "en").reused


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
    assert not (fresh / "out").exists()


def test_too_long_sequences_are_an_error_with_numbers_or_are_cut_by_choice(fresh: Path) -> None:
    config = json.loads((fresh / "tiny-llama" / "config.json").read_text())
    (fresh / "tiny-llama" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 30}))
    with opened(fresh) as session:
        with pytest.raises(CorpusError, match=r"6 of 6 sequences .* the limit is 30"):
            collect_activations(session, "en")
        assert not (fresh / "out").exists()
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
    assert not (fresh / "out").exists()


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


# ── AutoSweep and identification ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def counted(tmp_path: Path) -> Layout:
    """Made-up counts of ten languages."""
    layout = Layout(tmp_path, "mgsm", "Llama-made-up")
    store_counts(layout)
    return layout


def test_quick_autosweep_is_autosweep_as_a_float_and_prints_nothing(
    counted: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    search = SweepRange(0.0, 5.0)
    expected = autosweep(counted, TEN, top_rate=0.1, bar=0.5, search=search)
    lam = quick_autosweep(
        model_name="Llama", model_path="/ABS/made-up", dataset="mgsm", toprate=0.1, lo=0.0, hi=5.0, eps=1e-3, bar=0.5,
        root=counted.root,
    )  # fmt: skip
    assert type(lam) is float
    assert lam == expected.lam
    whole = quick_autosweep("Llama", "/ABS/made-up", "mgsm", 0.1, 0, 5, 1e-3, 0.0083, root=counted.root)
    assert type(whole) is float, "whole numbers for lo and hi"
    assert expected.appear[-1] == 0
    assert capfd.readouterr() == ("", "")


def test_the_counts_are_found_under_another_family_name(counted: Layout) -> None:
    args = {"model_path": "/ABS/made-up", "dataset": "mgsm", "toprate": 0.1, "hi": 5.0, "root": counted.root}
    assert quick_autosweep("Mistral", **args) == quick_autosweep("Llama", **args)  # type: ignore[arg-type]


def test_autosweep_writes_nothing_and_reads_the_counts_once(counted: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    before, loads = contents(counted.root), []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **named: loads.append(path) or load(path, **named))
    seen: list[float] = []
    autosweep(counted, TEN, top_rate=0.1, bar=0.5, search=SweepRange(0, 5), observe=lambda lam, _: seen.append(lam))
    assert len(seen) > 1
    assert len(loads) == 20
    assert contents(counted.root) == before


def test_no_lambda_in_range_is_an_error_with_both_ends(counted: Layout) -> None:
    with pytest.raises(SweepError, match=r"appear\[K\] is \d+ at lo and \d+ at hi"):
        autosweep(counted, ("en",), top_rate=1.0, bar=0.1)


@pytest.mark.parametrize("lam", [0.0, 0.109375, 0.03671875, 1e-7, 0.2, 1 / 3, 12.5, 1e-20])
def test_a_lambda_is_shown_in_at_least_six_decimals_and_reads_back_as_itself(lam: float) -> None:
    shown = show_lambda(lam)
    assert float(shown) == lam
    assert len(shown.partition(".")[2]) >= 6
    assert "e" not in shown


def test_a_missing_language_is_an_error_that_names_the_file_and_the_command(counted: Layout) -> None:
    counted.activation("th").unlink()
    for act in (
        lambda: autosweep(counted, TEN, top_rate=0.1),
        lambda: identify(counted, TEN, Selection(0.1, 0.0)),
        lambda: quick_autosweep("Llama", "/ABS/made-up", "mgsm", root=counted.root),
    ):
        with pytest.raises(MissingArtifactError, match=r"activation\.th\.Llama-made-up\.pt .*lna activation"):
            act()
    assert identify(counted, ("en", "sw"), Selection(0.1, 0.0)).description.languages == ["en", "sw"]


def test_counts_of_other_shapes_or_models_are_an_error_that_names_the_language(counted: Layout) -> None:
    save_counts(counted, "bn", made_up_counts((3, 41)), {"config_hash": "c1", "weights_hash": "w1"})
    with pytest.raises(IncompatibleError, match=r"'bn' have shape \(3, 41\), those of 'en' \(3, 40\)"):
        identify(counted, TEN, Selection(0.1, 0.0))
    for key in ("config_hash", "weights_hash"):
        store_counts(counted)
        store_counts(counted, ("bn",), **{key: "another"})
        with pytest.raises(IncompatibleError, match="'en' and 'bn' come from different models"):
            identify(counted, TEN, Selection(0.1, 0.0))
    assert not (counted.root / "activation_masks").exists()


def test_a_mask_of_other_counts_bar_or_languages_is_a_conflict_until_forced(counted: Layout) -> None:
    identify(counted, TEN, Selection(0.1, 0.0, 0.9))
    before = contents(counted.root / "activation_masks")
    for languages, bar in ((TEN, 0.8), (("en", "sw"), 0.9)):
        with pytest.raises(ConflictError, match="--force"):
            identify(counted, languages, Selection(0.1, 0.0, bar))
    store_counts(counted, ("sw", "en"))
    with pytest.raises(ConflictError, match="other counts"):
        identify(counted, TEN, Selection(0.1, 0.0, 0.9))
    assert contents(counted.root / "activation_masks") == before
    identify(counted, TEN, Selection(0.1, 0.0, 0.9), force=True)
    assert contents(counted.root / "activation_masks") != before


def test_the_description_adds_up(counted: Layout) -> None:
    found = identify(counted, TEN, Selection(0.1, 0.05, 0.6))
    described = found.description
    assert sum(described.appear) == round(0.1 * 3 * 40) == int(found.selected.sum())
    assert described.classes["specific"] == described.appear[1]
    assert described.classes["related"] == sum(described.appear[2:-1])
    assert described.classes["unassigned"] == described.appear[0]
    assert sum(described.neurons.values()) == sum(j * count for j, count in enumerate(described.appear))
    assert (described.layers, described.d_mlp, described.languages) == (3, 40, list(TEN))
    assert json.loads(with_ending(found.path, ".json").read_text())["appear"] == described.appear


def test_those_who_know_the_papers_names_find_them(counted: Layout) -> None:
    found = identify(counted, TEN, Selection(0.1, 0.05, 0.6))
    probabilities = Neuron_Prob.load("Llama", "/ABS/made-up", "mgsm", root=counted.root)
    assert probabilities.probability.shape == (3, 40, 10)
    assert torch.equal(probabilities.statistics(bar=0.6).member, found.statistics.member)
    assert torch.equal(Neuron_Mask.load(found.path, d_mlp=40).mask, found.mask)


# ── Perplexity maps ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def lam(work: Path) -> float:
    (folder,) = (work / "out" / "activation_masks" / "small").iterdir()
    return float(folder.name.split("-", 1)[1])


def map_file(work: Path, lam: float, ending: str) -> Path:
    return with_ending(layout_of(work).perplexity(0.1, lam), ending)


def test_a_map_is_what_the_model_says_with_the_masks_neurons_at_zero(work: Path, lam: float) -> None:
    from language_neurons_alignment.core.interventions import Intervention
    from language_neurons_alignment.core.masks import from_mask_list
    from language_neurons_alignment.core.perplexity import perplexity
    from language_neurons_alignment.corpus.encode import encode_texts

    mask = from_mask_list(load_mask_list(layout_of(work).mask(0.1, lam)), d_mlp=96)
    with opened(work) as session:
        stored = perplexity_map(session, top_rate=0.1, lam=lam).map
        engine = session.source()
        for column in LANGUAGES:
            texts = encode_texts(
                session.corpus.of_language(column), engine.tokenizer, text="instruction", max_length=2048
            )
            assert stored.cells["none", column].token == pytest.approx(
                perplexity(engine.log_likelihood(texts)).token, rel=1e-5
            )
            for k, row in enumerate(LANGUAGES):
                with engine.intervene(Intervention.zero(mask[..., k])):
                    expected = perplexity(engine.log_likelihood(texts))
                assert stored.cells[row, column].token == pytest.approx(expected.token, rel=1e-5)
    assert stored.change().abs().max() > 0.01, "masks that change nothing would prove nothing"


def test_ctrl_c_in_the_middle_keeps_the_finished_cells_and_a_rerun_computes_only_the_others(
    work: Path, lam: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(work / "out")
    for ending in (".json", ".png", ".csv"):
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
    assert len(json.loads(map_file(work, lam, ".json").read_text())["cells"]) == 5
    assert leftovers(work) == []
    with opened(work) as session:
        done = perplexity_map(session, top_rate=0.1, lam=lam)
    assert done.computed == len(calls) - 6 == 12 - 5
    assert contents(work / "out") == whole


def test_a_language_more_computes_only_its_row_and_column(work: Path, lam: float) -> None:
    map_file(work, lam, ".json").unlink()
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
        perplexity_map(session, top_rate=0.1, lam=lam, force=True)
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
    map_file(work, lam, ".json").unlink()
    with opened(work) as session, pytest.raises(LNAError, match=named):
        perplexity_map(session, LANGUAGES, top_rate=0.1, lam=lam)
    assert not map_file(work, lam, ".json").exists()


def test_a_published_mask_without_description_can_be_used(work: Path, lam: float) -> None:
    save_published(layout_of(work).mask(0.1, lam), 3, 95)
    with opened(work) as session:
        with pytest.raises(ConflictError, match="another mask"):
            perplexity_map(session, LANGUAGES, top_rate=0.1, lam=lam)
        done = perplexity_map(session, LANGUAGES, top_rate=0.1, lam=lam, force=True)
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
    stored = json.loads(map_file(work, lam, ".json").read_text())
    map_file(work, lam, ".json").write_text(json.dumps({**stored, "cells": stored["cells"][:5]}))
    before = contents(work / "out")
    for choice in ({"dtype": "bfloat16"},):
        with opened(work, **choice) as session, pytest.raises(ConflictError, match=r"dtype \(float32\)"):
            perplexity_map(session, top_rate=0.1, lam=lam)
    assert contents(work / "out") == before


def test_an_intervention_that_never_fired_is_an_error_and_its_cells_are_not_kept(
    work: Path, lam: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    map_file(work, lam, ".json").unlink()
    monkeypatch.setattr("language_neurons_alignment.engines.transformers.hooks.hooked", _no_hooks)
    with opened(work) as session, pytest.raises(SilentHookError):
        perplexity_map(session, top_rate=0.1, lam=lam)
    cells = json.loads(map_file(work, lam, ".json").read_text())["cells"]
    assert {cell["deactivated"] for cell in cells} == {"none"}


def _no_hooks(_hooks: object) -> object:
    from contextlib import nullcontext

    return nullcontext()


def likelihoods(session: Session) -> list[float]:
    engine = session.source()
    texts = [tuple(engine.tokenizer.encode(record.instruction)) for record in session.corpus.records]
    from language_neurons_alignment.corpus.sequences import ScoredText

    return [one.nll for one in engine.log_likelihood([ScoredText(tokens) for tokens in texts])]


def test_the_model_is_what_it_was_before_after_a_masked_run_and_after_an_exception(
    work: Path, lam: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    map_file(work, lam, ".json").unlink()
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
                perplexity_map(session, top_rate=0.1, lam=lam, force=True)
        assert likelihoods(session) == before


def test_a_full_disk_in_the_middle_of_a_map_keeps_the_cells_that_are_done(work: Path, lam: float) -> None:
    stored = json.loads(map_file(work, lam, ".json").read_text())
    map_file(work, lam, ".json").write_text(json.dumps({**stored, "cells": stored["cells"][:5]}))
    before = contents(work / "out")
    with opened(work) as session, full_disk("fsync"), pytest.raises(ArtifactError, match="the disk is full"):
        perplexity_map(session, top_rate=0.1, lam=lam)
    assert contents(work / "out") == before
