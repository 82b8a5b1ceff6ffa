"""Moments beside the counts: collected with them, later, in shards; and read as means of a language's answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from language_neurons_alignment.activation import collect_activations, find_shards, merge_counts, shard_session
from language_neurons_alignment.errors import ArtifactError, ConflictError, IncompatibleError, MissingArtifactError
from language_neurons_alignment.store.counts import answer_moments, load_counts, save_counts
from language_neurons_alignment.store.layout import Layout
from tests.engines.oracle import NaiveEngine
from tests.small_run import LANGUAGES, SETTINGS, idle, layout_of, opened, run
from tests.workspace import META, contents, made_up_counts, small_records


def test_a_run_with_moments_has_those_of_the_answers(fresh: Path) -> None:
    run(fresh, replace(SETTINGS, moments=True))
    oracle = NaiveEngine(fresh / "tiny-llama")
    encode = oracle.tokenizer.encode
    for language in LANGUAGES:
        rows = []
        for record in small_records([language]):
            border = len(encode(record["instruction"]))
            for answer in record["answers"]:
                tokens = tuple(encode(record["instruction"] + answer["generated"]))
                assert list(tokens[:border]) == encode(record["instruction"]), "no merge across the border here"
                layers = oracle._pass(tokens).activations
                rows.append(np.stack([one.double().numpy()[border:] for one in layers], axis=1))
        values = np.concatenate(rows)  # [token, layer, neuron]
        found = answer_moments(layout_of(fresh), language)
        assert found.tokens == len(values)
        np.testing.assert_allclose(found.mean.numpy(), values.mean(0), rtol=0, atol=2e-5)
        np.testing.assert_allclose(found.variance.numpy(), values.var(0), rtol=1e-3, atol=1e-3)


def test_counts_that_are_there_are_counted_again_for_their_moments_and_stay(work: Path) -> None:
    before = contents(work / "out")
    with pytest.raises(MissingArtifactError, match=r"moments\.en\..* is not there: .*lna activation --moments.* -l en"):
        answer_moments(layout_of(work), "en")
    with opened(work) as session:
        done = collect_activations(session, "en", moments=True)
        again = collect_activations(idle(session), "en", moments=True)
        without = collect_activations(idle(session), "en")
    assert (done.reused, done.recounted, again.reused, again.recounted) == (False, True, True, False)
    assert [path.name.split(".en.")[0] for path in done.paths] == [
        "activation", "prefix.activation", "moments", "prefix.moments",
    ]  # fmt: skip
    assert again.paths == done.paths
    assert without.paths == done.paths[:2]
    after = contents(work / "out")
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2
    assert answer_moments(layout_of(work), "en").digest == answer_moments(layout_of(work), "en").digest


def test_counts_that_come_out_otherwise_are_a_conflict_until_forced(work: Path) -> None:
    layout = layout_of(work)
    counts, meta = load_counts(layout, "en")
    counts.full.over_zero[0, 0] -= 1
    save_counts(layout, "en", counts, meta)
    before = contents(work / "out")
    with opened(work) as session:
        with pytest.raises(ConflictError, match=r"1 of 288 neurons come out differently.*--force"):
            collect_activations(session, "en", moments=True)
        assert contents(work / "out") == before
        collect_activations(session, "en", moments=True, overwrite=True)
    assert answer_moments(layout, "en").tokens > 0


def test_counts_of_another_engine_are_a_conflict_before_anything_is_counted(work: Path) -> None:
    layout = layout_of(work)
    counts, meta = load_counts(layout, "en")
    save_counts(layout, "en", counts, {**meta, "engine": "vllm"})
    with opened(work) as session, pytest.raises(ConflictError, match="engine 'vllm', this run has 'transformers'"):
        collect_activations(session, "en", moments=True, start=never)


def never(_label: str, _tokens: int) -> NoReturn:
    raise AssertionError("counting began")


def test_moments_of_other_counts_are_refused_and_made_anew(work: Path) -> None:
    layout = layout_of(work)
    with opened(work) as session:
        collect_activations(session, "en", moments=True)
        right = answer_moments(layout, "en")
        counts, meta = load_counts(layout, "en", moments=True)
        other = made_up_counts((3, 96), seed=5)
        save_counts(layout, "en", replace(other, moments=counts.moments), meta)
        theirs = layout.moments("en").read_bytes(), layout.moments("en", prefix=True).read_bytes()
        save_counts(layout, "en", replace(counts, moments=None), meta)
        layout.moments("en").write_bytes(theirs[0])
        layout.moments("en", prefix=True).write_bytes(theirs[1])
        with pytest.raises(IncompatibleError, match="collected with other counts"):
            answer_moments(layout, "en")
        assert collect_activations(session, "en", moments=True).recounted
    assert answer_moments(layout, "en").digest == right.digest


def shards(folder: Path, *with_moments: bool) -> Layout:
    with opened(folder) as whole:
        for part, moments in enumerate(with_moments, start=1):
            for language in LANGUAGES:
                collect_activations(shard_session(whole, part, len(with_moments)), language, moments=moments)
        return whole.layout


def test_moments_of_shards_add_to_those_of_the_whole(fresh: Path) -> None:
    layout = shards(fresh, True, True)
    merged = merge_counts(layout, find_shards(layout))
    assert [len(one.paths) for one in merged] == [4] * len(LANGUAGES)
    for language in LANGUAGES:
        (first, _), (second, _), (both, _) = (
            load_counts(one, language, moments=True) for one in (*find_shards(layout), layout)
        )
        assert first.moments is not None
        assert second.moments is not None
        assert both.moments is not None
        assert torch.equal(both.moments.full.sum, first.moments.full.sum + second.moments.full.sum)
        assert torch.equal(
            both.moments.prefix.sum_of_squares,
            first.moments.prefix.sum_of_squares + second.moments.prefix.sum_of_squares,
        )
    with opened(fresh, root=fresh / "whole") as session:
        for language in LANGUAGES:
            collect_activations(session, language, moments=True)
            mine, whole = answer_moments(layout, language), answer_moments(session.layout, language)
            assert mine.tokens == whole.tokens
            assert (mine.config_hash, mine.weights_hash) == (whole.config_hash, whole.weights_hash)
            torch.testing.assert_close(mine.mean, whole.mean, rtol=0, atol=1e-6)
            torch.testing.assert_close(mine.variance, whole.variance, rtol=1e-4, atol=1e-5)


def test_shards_with_moments_and_without_are_not_merged(fresh: Path) -> None:
    layout = shards(fresh, True, False)
    with pytest.raises(IncompatibleError, match=r"`lna activation --moments`, or none"):
        merge_counts(layout, find_shards(layout))


def test_what_is_not_a_file_of_moments_is_refused(work: Path) -> None:
    layout = layout_of(work)
    with opened(work) as session:
        collect_activations(session, "en", moments=True)
    content = torch.load(layout.moments("en"), weights_only=True)
    assert set(content) == {"total_tokens", "sum", "sum_of_squares", "meta"}
    for wrong in (
        {"total_tokens": 3.5},
        {"total_tokens": -1},
        {"sum": content["sum"].float()},
        {"sum": content["sum"] * torch.nan},
        {"sum": content["sum"][:2]},
        {"sum_of_squares": [1.0]},
        {"meta": None},
    ):
        torch.save({**content, **wrong}, layout.moments("en"))
        with pytest.raises(ArtifactError, match="is not a file of activation moments"):
            answer_moments(layout, "en")
    layout.moments("en").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="cannot be read"):
        answer_moments(layout, "en")
    torch.save({**content, "meta": META}, layout.moments("en"))
    with pytest.raises(IncompatibleError, match="do not belong together"):
        answer_moments(layout, "en")
