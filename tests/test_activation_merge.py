"""Shards: counted apart, merged into the counts of the whole."""

from __future__ import annotations

import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.activation import (
    collect_activations,
    find_shards,
    merge_counts,
    shard_layout,
    shard_session,
    shards_at,
)
from language_neurons_alignment.cli import main
from language_neurons_alignment.corpus.records import add_hashes, read_corpus, records_hash
from language_neurons_alignment.errors import ConflictError, IncompatibleError, MissingArtifactError, SettingsError
from language_neurons_alignment.store.counts import load_counts
from language_neurons_alignment.store.layout import Layout
from tests.small_run import LANGUAGES, opened
from tests.workspace import (
    META,
    ForbiddenSource,
    contents,
    killed_at,
    leftovers,
    made_up_counts,
    small_records,
    store_counts,
    write_corpus,
)

PARTS = 2


def counted_in_shards(folder: Path) -> Layout:
    """Both shards of the small corpus, counted; the layout of the whole, which has no counts yet."""
    with opened(folder) as whole:
        for part in range(1, PARTS + 1):
            shard = shard_session(whole, part, PARTS)
            for language in LANGUAGES:
                collect_activations(shard, language)
        return whole.layout


def test_merged_shards_are_the_counts_of_the_whole_bit_for_bit(fresh: Path, made: Path) -> None:
    layout = counted_in_shards(fresh)
    merged = merge_counts(layout, find_shards(layout))
    assert [(one.language, one.shards) for one in merged] == [(language, PARTS) for language in sorted(LANGUAGES)]
    for language in LANGUAGES:
        ours, ours_meta = load_counts(layout, language)
        whole, whole_meta = load_counts(replace(layout, root=made / "out"), language)
        for mine, other in ((ours.full, whole.full), (ours.prefix, whole.prefix)):
            assert mine.total_tokens == other.total_tokens
            assert torch.equal(mine.over_zero, other.over_zero)
        assert ours_meta["corpus_hash"] == whole_meta["corpus_hash"]
        assert ours_meta["sequences"] == whole_meta["sequences"]


def test_after_a_merge_nothing_is_left_to_count(fresh: Path) -> None:
    layout = counted_in_shards(fresh)
    merge_counts(layout, find_shards(layout))
    with opened(fresh) as session:
        idle = replace(session, source=ForbiddenSource())
        assert all(collect_activations(idle, language).reused for language in LANGUAGES)


def test_shards_are_disjoint_and_together_the_whole(fresh: Path) -> None:
    corpus = read_corpus(fresh / "corpus.json")
    shards = [corpus.shard(part, 3).records for part in (1, 2, 3)]
    assert sorted(map(repr, sum(shards, ()))) == sorted(map(repr, corpus.records))
    assert add_hashes(map(records_hash, shards)) == records_hash(corpus.records)


def test_folders_from_elsewhere_can_be_named(tmp_path: Path) -> None:
    target = Layout(tmp_path / "here", "whole", "Llama-m")
    for number in (1, 2):
        store_counts(Layout(tmp_path / f"machine{number}", "part", "Llama-m"), ("en",), corpus_hash=f"0{number}")
    shards = shards_at(target, [tmp_path / f"machine{number}/activations/part" for number in (1, 2)])
    merge_counts(target, shards)
    counts, meta = load_counts(target, "en")
    single = made_up_counts(seed=0)
    assert torch.equal(counts.full.over_zero, 2 * single.full.over_zero)
    assert (meta["corpus_hash"], meta["shards"]) == (f"{3:032x}", 2)
    with pytest.raises(SettingsError, match="expected …/activations/<name>"):
        shards_at(target, [tmp_path])


@pytest.mark.parametrize(
    "names",
    [
        ["a.shard-1-of-2"],
        ["a.shard-1-of-2", "a.shard-1-of-2"],
        ["a.shard-1-of-2", "a"],
        ["a.shard-1-of-2", "b.shard-2-of-2"],
        ["a.shard-1-of-2", "a.shard-2-of-3"],
        ["a.shard-1-of-2", "a.shard-2-of-2", "a.shard-3-of-2"],
    ],
)
def test_folders_that_are_not_all_the_parts_of_one_whole_are_refused(tmp_path: Path, names: list[str]) -> None:
    target = Layout(tmp_path, "whole", "Llama-m")
    with pytest.raises(ConflictError, match="would count some questions twice or never: give all parts"):
        shards_at(target, [tmp_path / "activations" / name for name in names])
    whole = [tmp_path / "activations" / f"a.shard-{part}-of-3" for part in (2, 1, 3)]
    assert len(shards_at(target, whole)) == 3


def test_the_same_shard_twice_is_refused(tmp_path: Path) -> None:
    target = Layout(tmp_path, "whole", "Llama-m")
    shards = [shard_layout(target, part, 2) for part in (1, 2)]
    for shard in shards:
        store_counts(shard, ("en",))
    with pytest.raises(IncompatibleError, match="the same records"):
        merge_counts(target, shards)
    assert not target.activation("en").exists()


@pytest.mark.parametrize("key", ["config_hash", "weights_hash", "tokenizer_hash", "overlong_policy", "engine", "dtype"])
def test_shards_counted_in_different_ways_are_refused(tmp_path: Path, key: str) -> None:
    target = Layout(tmp_path, "whole", "Llama-m")
    shards = [shard_layout(target, part, 2) for part in (1, 2)]
    for number, shard in enumerate(shards):
        store_counts(shard, ("en",), **{"corpus_hash": f"0{number}", key: f"value {number}"})
    with pytest.raises(IncompatibleError, match=f"has {key} 'value 1', an earlier shard 'value 0'"):
        merge_counts(target, shards)


def test_shards_that_do_not_all_tell_their_tokenizer_are_merged(tmp_path: Path) -> None:
    target = Layout(tmp_path, "whole", "Llama-m")
    shards = [shard_layout(target, part, 2) for part in (1, 2)]
    store_counts(shards[0], ("en",), corpus_hash="00", tokenizer_hash="t")
    store_counts(shards[1], ("en",), corpus_hash="01")
    merge_counts(target, shards)
    assert "tokenizer_hash" not in load_counts(target, "en")[1]
    assert merge_counts(target, shards)[0].reused


def test_counts_that_do_not_say_what_they_were_counted_from_are_refused(tmp_path: Path) -> None:
    target = Layout(tmp_path, "whole", "Llama-m")
    shards = [shard_layout(target, part, 2) for part in (1, 2)]
    for shard in shards:
        store_counts(shard, ("en",), corpus_hash="")
    with pytest.raises(IncompatibleError, match="disjoint"):
        merge_counts(target, shards)


def test_missing_shards_and_languages_are_named(tmp_path: Path) -> None:
    target = Layout(tmp_path, "whole", "Llama-m")
    with pytest.raises(MissingArtifactError, match="no shards"):
        find_shards(target)
    store_counts(shard_layout(target, 1, 3), ("en", "es"), corpus_hash="01")
    with pytest.raises(MissingArtifactError, match=r"2 of 3 shards are missing.*whole\.shard-2-of-3"):
        find_shards(target)
    for part in (2, 3):
        store_counts(shard_layout(target, part, 3), ("en",), corpus_hash=f"0{part}")
    with pytest.raises(MissingArtifactError, match="shard-2-of-3 has no counts of Llama-m in es"):
        merge_counts(target, find_shards(target))
    store_counts(shard_layout(target, 1, 2), ("en",))
    with pytest.raises(ConflictError, match="several divisions"):
        find_shards(target)


def test_counts_that_are_there_are_not_replaced_unless_forced(tmp_path: Path) -> None:
    target = Layout(tmp_path, "whole", "Llama-m")
    store_counts(target, ("en",))
    shards = [shard_layout(target, part, 2) for part in (1, 2)]
    for number, shard in enumerate(shards):
        store_counts(shard, ("en",), corpus_hash=f"0{number}")
    before = contents(tmp_path)
    with pytest.raises(ConflictError, match="--force"):
        merge_counts(target, shards)
    assert contents(tmp_path) == before
    merge_counts(target, shards, overwrite=True)
    assert load_counts(target, "en")[1]["corpus_hash"] != META["corpus_hash"]


MERGE = ("merge", "--model-path", "/x/m", "--model-name", "Llama", "-s", "whole", "--root")
CODES = ("en", "es", "fr")


def shards_of(root: Path, *, other: int = 0) -> Layout:
    """Two shards of three languages; with `other`, counted from other texts."""
    target = Layout(root, "whole", "Llama-m")
    for number in (1, 2):
        shape = (3, 40 + other)
        store_counts(shard_layout(target, number, 2), CODES, shape, corpus_hash=f"{other}{number}")
    return target


def merged_again(
    root: Path, *flags: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """The exit code of a merge, and what it says on stderr."""
    monkeypatch.setattr("sys.argv", ["lna", *MERGE, str(root), *flags])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capsys.readouterr().err


def times(layout: Layout) -> dict[str, int]:
    return {language: layout.activation(language).stat().st_mtime_ns for language in CODES}


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("at", ["activation.es.Llama-m.pt", "prefix.activation.es.Llama-m.pt"])
def test_a_merge_that_was_killed_goes_on_and_keeps_what_was_merged(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, whole = shards_of(tmp_path / "out"), shards_of(tmp_path / "whole")
    merge_counts(whole, find_shards(whole))
    assert killed_at(at, *MERGE, layout.root) == -signal.SIGKILL
    assert layout.activation("en").exists()
    assert not layout.activation("es").exists()
    before = layout.activation("en").stat().st_mtime_ns
    code, said = merged_again(layout.root, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, said
    assert "already merged from the same shards: English (--force merges again)" in said
    assert layout.activation("en").stat().st_mtime_ns == before
    assert contents(layout.root) == contents(whole.root)
    assert leftovers(layout.root) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("flags", [(), ("--force",)])
@pytest.mark.parametrize("at", ["activation.es.Llama-m.pt", "prefix.activation.es.Llama-m.pt"])
def test_a_forced_merge_that_was_killed_goes_on_also_without_force(
    tmp_path: Path,
    at: str,
    flags: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    layout, whole = shards_of(tmp_path / "out"), shards_of(tmp_path / "whole", other=1)
    merge_counts(layout, find_shards(layout))
    merge_counts(whole, find_shards(whole))
    shards_of(layout.root, other=1)
    before = contents(layout.root)
    code, said = merged_again(layout.root, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, "is there already, with corpus_hash" in said) == (1, True), said
    assert contents(layout.root) == before
    assert killed_at(at, *MERGE, layout.root, "--force") == -signal.SIGKILL
    first = times(layout)["en"]
    code, said = merged_again(layout.root, *flags, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, said
    assert times(layout)["en"] == first
    assert contents(layout.root) == contents(whole.root)


def test_a_second_merge_writes_nothing_and_a_forced_one_writes_everything(tmp_path: Path) -> None:
    layout = shards_of(tmp_path)
    assert not any(one.reused for one in merge_counts(layout, find_shards(layout)))
    before = times(layout)
    again = merge_counts(layout, find_shards(layout))
    assert [(one.language, one.reused, one.paths[0]) for one in again] == [
        (language, True, layout.activation(language)) for language in CODES
    ]
    assert times(layout) == before
    assert not any(one.reused for one in merge_counts(layout, find_shards(layout), overwrite=True))
    assert all(written > before[language] for language, written in times(layout).items())
    assert not layout.merging().exists()


def test_shards_with_moments_or_blocks_that_the_merged_counts_lack_are_not_passed_over(fresh: Path) -> None:
    write_corpus(fresh / "corpus.json", small_records(LANGUAGES, questions=8))
    with opened(fresh) as whole:
        for moments, blocks, said in ((False, None, ""), (True, None, "moments"), (False, 2, "2 blocks")):
            for part in range(1, PARTS + 1):
                shard = shard_session(whole, part, PARTS)
                collect_activations(shard, "en", overwrite=True, moments=moments, blocks=blocks)
            shards = find_shards(whole.layout)
            if said:
                with pytest.raises(ConflictError, match=f"without the {said} that these shards have: use --force"):
                    merge_counts(whole.layout, shards)
            merge_counts(whole.layout, shards, overwrite=bool(said))
            assert [one.reused for one in merge_counts(whole.layout, shards)] == [True]


def test_counts_of_the_whole_are_not_taken_for_merged_ones(fresh: Path) -> None:
    layout = counted_in_shards(fresh)
    with opened(fresh) as session:
        collect_activations(session, "es")
    said = "activation.es.Llama-tiny-llama.pt is there already, with shards None, these shards have 2: use --force"
    with pytest.raises(ConflictError, match=re.escape(said)):
        merge_counts(layout, find_shards(layout))
    assert not layout.activation("en").exists()


@pytest.mark.parametrize(("part", "parts"), [(0, 2), (3, 2), (1, 0)])
def test_a_part_that_there_is_not_is_refused(fresh: Path, part: int, parts: int) -> None:
    with opened(fresh) as session, pytest.raises(SettingsError, match="1 <= K <= N"):
        shard_session(session, part, parts)


def test_names_full_of_pattern_characters_are_taken_literally(tmp_path: Path) -> None:
    target = Layout(tmp_path, "my[data]*", "Llama-a[b]?.c")
    decoy = Layout(tmp_path, "myd", "Llama-ab!.c")
    for layout in (target, decoy):
        for part in (1, 2):
            store_counts(shard_layout(layout, part, 2), ("en", "fr"), corpus_hash=f"0{part}")
    merged = merge_counts(target, find_shards(target))
    assert [one.language for one in merged] == ["en", "fr"]
    assert not decoy.activation("en").exists()


@pytest.mark.parametrize("invariant", [(True, True), (True, False), (False, False)])
def test_whether_shards_add_up_exactly_is_said(
    fresh: Path,
    invariant: tuple[bool, bool],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for part, one in enumerate(invariant, start=1):
        choices = {"batch_invariant": True} if one else {}
        with opened(fresh, dtype="bfloat16", **choices) as whole:
            collect_activations(shard_session(whole, part, len(invariant)), "en")
            layout = whole.layout
    model = ["--model-path", str(fresh / "tiny-llama"), "-s", "small", "--root", str(fresh / "out")]
    monkeypatch.setattr("sys.argv", ["lna", "merge", *model])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr().err
    assert ("counted in bfloat16 without --batch-invariant" in said) is not all(invariant)
    meta = load_counts(layout, "en")[1]
    assert meta.get("batch_invariant") is (True if all(invariant) else None)


def test_counts_made_without_it_are_not_taken_for_those_made_with_it(fresh: Path) -> None:
    with opened(fresh) as plain:
        collect_activations(plain, "en")
    with opened(fresh, batch_invariant=True) as exact, pytest.raises(ConflictError, match="batch_invariant None"):
        collect_activations(exact, "en")
    with opened(fresh, batch_invariant=True) as exact:
        assert collect_activations(exact, "en", overwrite=True).meta["batch_invariant"] is True
