"""Languages whose answers have no token: refused by every command, or left out by --skip-empty, which says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import language_neurons_alignment as lna_package
from language_neurons_alignment.activation import shard_session
from language_neurons_alignment.core.counts import LanguageBlocks, LanguageCounts, SpanCounts
from language_neurons_alignment.errors import CorpusError
from language_neurons_alignment.store.counts import load_answer_counts, save_blocks, save_counts
from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Lna
from tests.workspace import META, contents, made_up_counts, small_records, write_corpus

CODES, OTHERS = ("en", "fr", "sw"), ("en", "sw")
LANGS = ("--langs", ",".join(CODES))
MODEL = ("--model-path", "/x/base", "-s", "mgsm")
SEARCH = ("-r", 0.2, "-b", 0.6, "--hi", 3)


def nothing(counts: LanguageCounts) -> LanguageCounts:
    """The same questions, and answers without a token."""
    return LanguageCounts(counts.prefix, counts.prefix)


def count(root: Path, *, name: str = "Mistral-base", empty: tuple[str, ...] = ("fr",), blocks: int = 6) -> Layout:
    """Made-up counts in blocks, of languages some of which have no answer token."""
    layout = Layout(root, "mgsm", name)
    for k, code in enumerate(CODES):
        firm = made_up_counts((3, 60), tokens=800, seed=100 + k)
        parts = [firm + made_up_counts((3, 60), tokens=200, seed=10 * block + k) for block in range(blocks)]
        parts = [nothing(part) for part in parts] if code in empty else parts
        save_blocks(layout, code, LanguageBlocks.of(parts), {})
        save_counts(layout, code, sum(parts[1:], parts[0]), {**META, "language": code})
    return layout


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Counts of two models in the current folder; the French answers have no token."""
    monkeypatch.chdir(tmp_path)
    count(tmp_path, name="Mistral-other")
    return count(tmp_path)


COMMANDS = {
    "autosweep": ("autosweep", *MODEL, *SEARCH, *LANGS),
    "identify": ("identify", *MODEL, "-r", 0.2, "-b", 0.6, "-l", 0.1, *LANGS),
    "identify lape": ("identify", *MODEL, "-r", 0.2, "-b", 0.6, "--method", "lape", *LANGS),
    "identify random": ("identify", *MODEL, "--method", "random", "--neurons", 9, *LANGS),
    "identify equal-n": ("identify", *MODEL, "--method", "equal-n", "--neurons", 9, *LANGS),
    "analyze": ("analyze", *MODEL, *SEARCH, *LANGS),
    "compare": ("compare", "/x/base", "/x/other", "-s", "mgsm", "--model-name", "Mistral", *SEARCH, *LANGS),
    "stability": ("stability", *MODEL, *SEARCH, *LANGS, "--draws", 8, "--splits", 2),
    "stability --with": ("stability", *MODEL, *SEARCH, *LANGS, "--draws", 8, "--splits", 2, "--with", "mgsm"),
    "report": ("report", *MODEL, *SEARCH, *LANGS),
}


@pytest.mark.parametrize("command", ["identify", "autosweep", "analyze"])
@pytest.mark.parametrize("skip", [(), ("--skip-empty",)])
def test_where_no_language_would_be_left_leaving_out_is_not_advised(
    lna: Lna, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, skip: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    count(tmp_path, empty=CODES)
    call = lna(*COMMANDS[command], *skip)
    assert call.code == 1, call.out
    assert "no token in en (0), fr (0), sw (0)" in call.err
    assert call.err.strip().endswith("count answers that are not empty")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_refuses_in_one_line_and_writes_nothing(
    lna: Lna, counted: Layout, command: tuple[object, ...]
) -> None:
    before = contents(counted.root)
    call = lna(*command)
    assert call.code == 1, call.out
    assert len(call.err.strip().splitlines()) == 1
    assert "no token in fr (0)" in call.err
    assert "--skip-empty" in call.err
    assert contents(counted.root) == before


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_with_the_flag_the_language_is_left_out_and_said_to_be(
    lna: Lna, counted: Layout, command: tuple[object, ...]
) -> None:
    call = lna(*command, "--skip-empty", "--json")
    assert call.code == 0, call.err
    assert "left out, because the answers have no token: fr" in call.err
    assert any("left out, because the answers have no token: fr" in note for note in call.json["notes"])


def test_what_is_left_out_changes_nothing_else(lna: Lna, counted: Layout) -> None:
    """The masks of the others are those of a run that never heard of French."""
    identify = ("identify", *MODEL, "-r", 0.2, "-b", 0.6, "-l", 0.1, "--json")
    skipping = lna(*identify, *LANGS, "--skip-empty").json
    alone = lna(*identify, "--langs", "en,sw", "--root", count_elsewhere(counted)).json
    assert skipping["languages"] == ["en", "sw"]
    assert skipping["left_out"] == ["fr"]
    assert alone["left_out"] == []
    same = ("threshold", "appear", "neurons", "counts", "mask_hash", "lam")
    assert {name: skipping[name] for name in same} == {name: alone[name] for name in same}
    described = json.loads(Path(f"{skipping['mask']}.json").read_text())
    assert (described["languages"], described["left_out"]) == (["en", "sw"], ["fr"])
    sweep = [lna("autosweep", *MODEL, *SEARCH, *one).out for one in ((*LANGS, "--skip-empty"), ("--langs", "en,sw"))]
    assert sweep[0] == sweep[1]


def count_elsewhere(layout: Layout) -> Path:
    count(layout.root / "elsewhere")
    return layout.root / "elsewhere"


def test_all_languages_empty_is_refused_with_the_flag_too(lna: Lna, tmp_path: Path) -> None:
    count(tmp_path, empty=CODES)
    call = lna(*COMMANDS["identify"], "--root", tmp_path, "--skip-empty")
    assert call.code == 1
    assert "no token in en (0), fr (0), sw (0)" in call.err
    assert not (tmp_path / "activation_masks").exists()


STEPS: dict[str, Callable[[Layout], Any]] = {
    "quick_autosweep": lambda layout: lna_package.quick_autosweep(
        "Mistral", "base", "mgsm", 0.2, hi=3, bar=0.6, langs=CODES, root=layout.root
    ),
    "open_neurons": lambda layout: lna_package.open_neurons(
        layout, lna_package.config.Selection(0.2, 0.1, 0.6, languages=CODES)
    ),
    "Neuron_Prob": lambda layout: lna_package.Neuron_Prob.load(
        "Mistral", "base", "mgsm", langs=CODES, root=layout.root
    ),
    "load_answer_counts": lambda layout: load_answer_counts(layout, CODES),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_step_in_python_refuses_it(counted: Layout, step: Callable[[Layout], Any]) -> None:
    with pytest.raises(CorpusError, match=r"no token in fr \(0\)"):
        step(counted)


@pytest.mark.parametrize("tokens", [0, -3])
def test_counts_in_memory_cannot_hold_such_a_language(counted: Layout, tokens: int) -> None:
    """What no command can go around: also answers that merge into their instructions have less than no token."""
    counts = load_answer_counts(counted, OTHERS)
    with pytest.raises(CorpusError, match=rf"no token in sw \({tokens}\)"):
        replace(counts, tokens=torch.tensor([5, tokens]))


def test_a_block_without_answers_is_refused_because_samples_may_consist_of_it(lna: Lna, tmp_path: Path) -> None:
    layout = count(tmp_path, empty=())
    parts = [made_up_counts((3, 60), tokens=200, seed=block) for block in range(6)]
    parts[3] = nothing(parts[3])
    save_blocks(layout, "fr", LanguageBlocks.of(parts), {})
    save_counts(layout, "fr", sum(parts[1:], parts[0]), META)
    call = lna(*COMMANDS["stability"], "--root", tmp_path)
    assert call.code == 1
    assert "1 of 6 blocks have no answer token in fr (the first is block 4)" in call.err
    assert not (tmp_path / "stability").exists()


# before a model works


def corpus_with(path: Path, **answers: list[str]) -> Path:
    """Two questions in each of three languages, with these answers in some."""
    records = small_records(CODES, questions=2)
    for record in records:
        if record["lang"] in answers:
            record["answers"] = [{"generated": one} for one in answers[record["lang"]]]
    return write_corpus(path, records)


RUN = ("run", "--model-path", "tiny-llama", "-s", "toy", "-r", 0.1, "-b", 0.8, "--hi", 3, "--controls", 0)
ACTIVATION = ("activation", "--model-path", "tiny-llama", "-s", "toy")
LONG = " very" * 200


@pytest.fixture
def uncounted(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which no model may count."""
    from language_neurons_alignment.engines.transformers.engine import TransformersEngine

    def forbidden(*_arguments: object, **_named: object) -> None:
        raise AssertionError("the model worked before the corpus was refused")

    monkeypatch.setattr(TransformersEngine, "count", forbidden)
    return here


@pytest.mark.parametrize("answers", [[""], ["", ""]])
def test_answers_that_are_empty_are_refused_before_a_model_counts_any_language(
    lna: Lna, uncounted: Path, answers: list[str]
) -> None:
    corpus = corpus_with(uncounted / "corpus.json", sw=answers)
    for command in ((*RUN, "-d", corpus), (*ACTIVATION, "-d", corpus, "-l", "sw")):
        call = lna(*command)
        assert call.code == 1, call.out
        assert "no token in sw (0)" in call.err
        assert not list(Path("activations").rglob("*.pt"))


def test_answers_that_are_truncated_away_or_skipped_are_refused_as_well(lna: Lna, uncounted: Path) -> None:
    records = small_records(CODES, questions=2)
    for record in records:
        if record["lang"] == "sw":
            record["instruction"] += LONG * 4
    corpus = write_corpus(uncounted / "corpus.json", records)
    call = lna(*RUN, "-d", corpus, "--overlong", "truncate")
    assert (call.code, "no token in sw" in call.err) == (1, True), call.err
    call = lna(*RUN, "-d", corpus, "--overlong", "skip")
    assert (call.code, "no token in sw" in call.err) == (1, True), call.err
    assert not list(Path("activations").rglob("*.pt"))


def test_run_leaves_it_out_and_counts_and_maps_the_others(lna: Lna, here: Path) -> None:
    corpus = corpus_with(here / "corpus.json", fr=[""])
    call = lna(*RUN, "-d", corpus, "--skip-empty", "--json")
    assert call.code == 0, call.err
    assert "left out, because the answers have no token: fr" in call.err
    assert call.json["identification"]["languages"] == ["en", "sw"]
    assert call.json["identification"]["left_out"] == ["fr"]
    assert call.json["map"]["languages"] == ["en", "sw"]
    methods = lna(
        "methods", "--model-path", "tiny-llama", "-s", "toy", "-d", corpus, "-r", 0.1, "--methods", "lape",
    )  # fmt: skip
    assert methods.code == 0, methods.err


def test_run_leaves_out_languages_that_have_no_answers_at_all(lna: Lna, here: Path) -> None:
    corpus = corpus_with(here / "corpus.json", fr=[])
    assert lna(*RUN, "-d", corpus).code == 1
    call = lna(*RUN, "-d", corpus, "--skip-empty", "--json")
    assert call.code == 0, call.err
    assert call.json["identification"]["left_out"] == ["fr"]


def count_shards(lna: Lna, corpus: Path) -> None:
    """Count both shards: French by the command, the others with a model that is loaded once."""
    for part in (1, 2):
        call = lna(*ACTIVATION, "-d", corpus, "-l", "fr", "--shard", f"{part}/2")
        assert call.code == 0, call.err
    with lna_package.open_session("tiny-llama", corpus, "toy") as whole:
        for part, code in product((1, 2), OTHERS):
            lna_package.collect_activations(shard_session(whole, part, 2), code, shard=True)


def test_a_shard_may_have_a_language_without_answers_and_the_whole_may_not(lna: Lna, here: Path) -> None:
    records = small_records(CODES, questions=2)
    next(record for record in records if record["lang"] == "fr")["answers"] = [{"generated": ""}]
    corpus = write_corpus(here / "corpus.json", records)
    count_shards(lna, corpus)
    assert lna("merge", "--model-path", "tiny-llama", "-s", "toy").code == 0
    counts = load_answer_counts(Layout(here, "toy", "Llama-tiny-llama"), CODES)
    assert bool((counts.tokens > 0).all())


def test_shards_that_merge_to_nothing_are_refused_where_they_are_used(lna: Lna, here: Path) -> None:
    corpus = corpus_with(here / "corpus.json", fr=[""])
    count_shards(lna, corpus)
    assert lna("merge", "--model-path", "tiny-llama", "-s", "toy").code == 0
    call = lna("identify", "--model-path", "tiny-llama", "-s", "toy", "-r", 0.1, "-l", 0, *LANGS)
    assert (call.code, "no token in fr" in call.err) == (1, True), call.err


# said, not passed over


def counts_of(root: Path, table: torch.Tensor, *, tokens: int = 100) -> Layout:
    """Counts of [lang, neuron] in one layer over answers of so many tokens."""
    layout = Layout(root, "mgsm", "Mistral-base")
    for code, fired in zip(CODES, table, strict=False):
        full, prefix = SpanCounts(tokens + 10, fired[None] + 5), SpanCounts(10, torch.full((1, len(fired)), 5))
        save_counts(layout, code, LanguageCounts(full, prefix), {**META, "language": code})
    return layout


def some(neurons: int = 40) -> torch.Tensor:
    return torch.randint(0, 90, (3, neurons), generator=torch.Generator().manual_seed(0))


def silent(code: int) -> torch.Tensor:
    table = some()
    table[code] = 0
    return table


def saturated() -> torch.Tensor:
    table = some()
    table[:, 10:] = 100
    return table


SAID = {
    "τ is 1": (saturated(), 100, LANGS, "τ = 1 and no probability is above it"),
    "one language": (some(), 100, ("--langs", "en"), "en is the only language"),
    "a silent language": (silent(2), 100, LANGS, "no neuron fires in the answers of sw"),
    "an empty mask": (silent(2), 100, LANGS, "no neuron belongs to fr, sw: their masks are empty"),
    "all silent": (torch.zeros(3, 40, dtype=torch.int64), 100, LANGS, "no neuron belongs to any language"),
    "one token": (some().clamp(max=1), 1, LANGS, "few answer tokens, so probabilities in coarse steps, in en (1), "),
    "all alike": (some()[:1].expand(3, -1), 100, LANGS, "en, fr, sw have the same counts"),
    "nearly none fires": (torch.eye(3, 40, dtype=torch.int64), 100, LANGS, "τ = 0, so a neuron that fires once"),
}


@pytest.mark.parametrize(("table", "tokens", "langs", "said"), SAID.values(), ids=SAID)
def test_what_leaves_the_method_little_to_find_is_said(
    lna: Lna, tmp_path: Path, table: torch.Tensor, tokens: int, langs: tuple[str, str], said: str
) -> None:
    counts_of(tmp_path, table, tokens=tokens)
    bar = 0.6 if tokens == 100 else 0.9
    call = lna("identify", *MODEL, "-r", 0.1, "-b", bar, "-l", 0, *langs, "--root", tmp_path, "--json")
    assert call.code == 0, call.err
    assert any(line.startswith("note: ") and said in line for line in call.err.splitlines()), call.err
    assert any(said in note for note in call.json["notes"])
    analysed = lna("analyze", *MODEL, "-r", 0.1, "--root", tmp_path, "--json")
    assert analysed.json["notes"] == call.json["notes"]


def test_ordinary_counts_say_nothing(lna: Lna, tmp_path: Path) -> None:
    counts_of(tmp_path, some())
    call = lna("identify", *MODEL, "-r", 0.5, "-b", 0.6, "-l", 0, *LANGS, "--root", tmp_path, "--json")
    assert (call.err, call.json["notes"]) == ("", [])


def test_ppl_and_generate_say_that_an_empty_mask_changes_nothing(lna: Lna, here: Path) -> None:
    corpus = corpus_with(here / "corpus.json")
    model = ("--model-path", "tiny-llama", "-s", "toy")
    with lna_package.open_session("tiny-llama", corpus, "toy") as session:
        for code in CODES:
            lna_package.collect_activations(session, code)
    empty = lna("identify", *model, "-r", 0.1, "-b", 1.0, "-l", 0, *LANGS)
    assert "every mask is empty" in empty.err
    call = lna("ppl", *model, "-d", corpus, "-r", 0.1, "-l", 0, "--controls", 0, "--json")
    assert call.code == 0, call.err
    for said in ("the step 'zero sw' changes nothing, for ", "no perplexity in the whole map differs"):
        assert said in call.err
        assert any(said in note for note in call.json["notes"])
    again = lna("ppl", *model, "-d", corpus, "-r", 0.1, "-l", 0, "--controls", 0, "--json")
    assert again.json["notes"] == call.json["notes"]
