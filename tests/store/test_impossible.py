"""Counts, blocks, moments and masks that cannot be are refused in one line, before memory is taken for them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from language_neurons_alignment.core.counts import (
    LanguageBlocks,
    LanguageCounts,
    LanguageMoments,
    SpanCounts,
    SpanMoments,
    check_tally,
    excess,
)
from language_neurons_alignment.errors import ArtifactError, IncompatibleError, LNAError, TallyError
from language_neurons_alignment.store.counts import (
    answer_moments,
    load_answer_counts,
    load_blocks,
    load_counts,
    load_origin,
    load_span,
    save_blocks,
    save_counts,
)
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import Mask, MaskDescription, load_neurons
from tests.workspace import META, made_up_counts

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, "mgsm", "Llama-tiny")


def refused(read: Callable[[], object], says: str | None = None) -> str:
    """The error of a reader, which has to be one line."""
    with pytest.raises(LNAError, match=says) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def of_elsewhere(layout: Layout, counts: LanguageCounts, language: str = "en") -> None:
    """Counts as the paper's code writes them: without meta."""
    for prefix, span in ((False, counts.full), (True, counts.prefix)):
        path = layout.activation(language, prefix=prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"total_tokens": span.total_tokens, "over_zero": span.over_zero}, path)


def as_old(layout: Layout, language: str, paths: Callable[..., Path], **more: object) -> None:
    """Make files what version 0.1 wrote: `meta` does not say what they are."""
    for prefix in (False, True):
        path = paths(language, prefix=prefix)
        content = torch.load(path, weights_only=True)
        meta = {key: value for key, value in content["meta"].items() if key not in ("kind", "model", "counts_hash")}
        if paths == layout.moments:
            meta["counts_hash"] = content["meta"]["counts_hash"]
        torch.save({**content, "meta": {**meta, **more}}, path)


def exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def with_moments(seed: int = 0) -> LanguageCounts:
    """Counts and moments of the same random activations; the prefix is the first 30 of 80 tokens."""
    values = torch.randn(80, 2, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spans = [values, values[:30]]
    full, prefix = (SpanCounts(len(one), (one > 0).sum(0)) for one in spans)
    sums = [SpanMoments(len(one), one.sum(0), one.square().sum(0)) for one in spans]
    return LanguageCounts(full, prefix, LanguageMoments(*sums))


@pytest.mark.parametrize("stored", ["now", "by 0.1", "elsewhere"])
def test_exchanged_prefix_and_full_files_are_refused(layout: Layout, stored: str) -> None:
    if stored == "elsewhere":
        of_elsewhere(layout, made_up_counts())
    else:
        save_counts(layout, "en", made_up_counts(), META)
    if stored == "by 0.1":
        as_old(layout, "en", layout.activation)
    load_counts(layout, "en")
    exchange(layout.activation("en"), layout.activation("en", prefix=True))
    told = "kind 'counts of prefixes' in its meta, but 'counts of whole texts' in its name"
    says = told if stored == "now" else "prefix has 1000"
    refused(lambda: load_counts(layout, "en"), says)
    refused(lambda: load_answer_counts(layout, ["en"]), says)


@pytest.mark.parametrize("kind", ["blocks", "moments"])
@pytest.mark.parametrize("old", [False, True])
def test_exchanged_blocks_and_moments_are_refused(layout: Layout, kind: str, old: bool) -> None:
    counts = with_moments()
    save_blocks(layout, "en", LanguageBlocks.of([counts]), META)
    save_counts(layout, "en", counts, META)
    paths, read = {
        "blocks": (layout.blocks, lambda: load_blocks(layout, "en")),
        "moments": (layout.moments, lambda: answer_moments(layout, "en")),
    }[kind]
    if old:
        as_old(layout, "en", paths)
    read()
    exchange(paths("en"), paths("en", prefix=True))
    refused(read, None if old else "renamed or exchanged")


def test_a_file_under_another_language_model_or_kind_is_refused_with_both_names(layout: Layout) -> None:
    save_counts(layout, "en", made_up_counts(), META)
    save_counts(layout, "fr", made_up_counts(seed=1), META)
    for prefix in (False, True):
        exchange(layout.activation("en", prefix=prefix), layout.activation("fr", prefix=prefix))
    refused(lambda: load_counts(layout, "en"), "language 'fr' in its meta, but 'en' in its name")
    refused(lambda: load_span(layout.activation("en")), "language 'fr' in its meta, but 'en' in its name")
    refused(lambda: load_origin(layout.activation("en")), "language 'fr' in its meta, but 'en' in its name")


def test_a_file_of_another_model_is_refused(layout: Layout) -> None:
    save_counts(layout, "en", made_up_counts(), META)
    other = replace(layout, model="Llama-big")
    for prefix in (False, True):
        shutil.copy(layout.activation("en", prefix=prefix), other.activation("en", prefix=prefix))
    refused(lambda: load_counts(other, "en"), "model 'Llama-tiny' in its meta, but 'Llama-big' in its name")


def test_counts_changed_after_they_were_stored_are_refused(layout: Layout) -> None:
    """One neuron fires once less: every inequality still holds."""
    save_counts(layout, "en", made_up_counts(), META)
    content = torch.load(layout.activation("en", prefix=True), weights_only=True)
    content["over_zero"][content["over_zero"] == content["over_zero"].max()] -= 1
    torch.save(content, layout.activation("en", prefix=True))
    refused(lambda: load_counts(layout, "en"), "changed after it was counted")


@pytest.mark.parametrize("kind", ["counts", "blocks", "moments"])
@pytest.mark.parametrize("prefix", [False, True])
def test_a_file_of_another_run_with_the_same_meta_is_refused(layout: Layout, kind: str, prefix: bool) -> None:
    """Every inequality holds between the two: the digest in each meta alone tells them apart."""
    paths, read = {
        "counts": (layout.activation, lambda: load_counts(layout, "en")),
        "blocks": (layout.blocks, lambda: load_blocks(layout, "en")),
        "moments": (layout.moments, lambda: answer_moments(layout, "en")),
    }[kind]
    aside, runs = layout.root / "aside", [with_moments(), with_moments()]
    for span in (runs[1].full, runs[1].prefix):  # another neuron fires once more, in answers and prefix alike
        span.over_zero[0, 0] -= 1
    for counts in runs:
        save_blocks(layout, "en", LanguageBlocks.of([counts]), META)
        save_counts(layout, "en", counts, META)
        read()
        if counts is runs[0]:
            shutil.copy(paths("en", prefix=prefix), aside)
    shutil.copy(aside, paths("en", prefix=prefix))
    refused(read, "do not belong together, they come from different runs")


# every pair that can be is read, every broken inequality is refused

SHAPE = (2, 3)


@st.composite
def pairs(draw: st.DrawFn, *, apart: int = 0) -> LanguageCounts:
    """Counts of tokens that text and prefix share, of the answers, and of prefix tokens that are the prefix's alone."""
    shared, answers = draw(st.integers(1, 10**6)), draw(st.integers(1, 10**6))

    def fired(tokens: int) -> Tensor:
        return torch.tensor(draw(st.lists(st.integers(0, tokens), min_size=6, max_size=6))).reshape(SHAPE)

    common = fired(shared)
    full, prefix = common + fired(answers), common + fired(apart)
    return LanguageCounts(SpanCounts(shared + answers, full), SpanCounts(shared + apart, prefix))


@settings(max_examples=40, deadline=None)
@given(counts=pairs(), elsewhere=st.booleans())
def test_every_possible_pair_is_read(
    tmp_path_factory: pytest.TempPathFactory, counts: LanguageCounts, elsewhere: bool
) -> None:
    layout = Layout(tmp_path_factory.mktemp("counts"), "mgsm", "Llama-tiny")
    if elsewhere:
        of_elsewhere(layout, counts)
    else:
        save_counts(layout, "en", counts, META)
    read = load_counts(layout, "en")[0]
    assert torch.equal(read.full.over_zero, counts.full.over_zero)
    assert torch.equal(read.prefix.over_zero, counts.prefix.over_zero)
    assert not load_answer_counts(layout, ["en"]).notes
    check_tally(counts, full_tokens=counts.full.total_tokens, prefix_tokens=counts.prefix.total_tokens)


@settings(max_examples=60, deadline=None)
@given(counts=pairs(), at=st.integers(0, 5), by=st.integers(1, 10**6), broken=st.integers(0, 5), form=st.booleans())
def test_every_broken_inequality_is_refused(
    tmp_path_factory: pytest.TempPathFactory, counts: LanguageCounts, at: int, by: int, broken: int, form: bool
) -> None:
    full, prefix = counts.full, counts.prefix
    room = full.total_tokens - prefix.total_tokens
    one, other = full.over_zero.clone().view(-1), prefix.over_zero.clone().view(-1)
    tokens, prefix_tokens = full.total_tokens, prefix.total_tokens
    if broken == 0:
        one[at] = tokens + by
    elif broken == 1:
        other[at] = prefix_tokens + by
    elif broken == 2:
        other[at] = -by
    elif broken == 3:  # more often in the prefix than in the text
        other[at] = min(one[at] + by, prefix_tokens)
        one[at] = other[at] - 1 if other[at] else 0
        other[at] = one[at] + 1
    elif broken == 4:  # more often in the answers than these have tokens
        other[at], one[at] = 0, room + 1
        prefix_tokens, tokens = prefix_tokens + 1, tokens + 1
    else:
        prefix_tokens = tokens + by
    changed = LanguageCounts(SpanCounts(tokens, one.view(SHAPE)), SpanCounts(prefix_tokens, other.view(SHAPE)))
    layout = Layout(tmp_path_factory.mktemp("counts"), "mgsm", "Llama-tiny")
    if form:
        of_elsewhere(layout, changed)
    else:
        save_counts(layout, "en", changed, META)
    refused(lambda: load_counts(layout, "en"), "impossible counts")
    with pytest.raises(TallyError, match="nothing was written"):
        check_tally(changed, full_tokens=tokens, prefix_tokens=prefix_tokens)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), apart=st.integers(1, 50))
def test_prefix_tokens_of_their_own_are_allowed_as_many_as_there_are(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, apart: int
) -> None:
    counts = data.draw(pairs(apart=apart))
    layout = Layout(tmp_path_factory.mktemp("counts"), "mgsm", "Llama-tiny")
    save_counts(layout, "en", counts, {**META, "boundary_cases": 1, "unshared_prefix_tokens": apart})
    load_counts(layout, "en")
    most = max(0, -int((counts.full.over_zero - counts.prefix.over_zero).min()))
    if most:
        save_counts(layout, "en", counts, {**META, "boundary_cases": 1, "unshared_prefix_tokens": most - 1})
        if most - 1 < apart:
            refused(lambda: load_counts(layout, "en"), "impossible counts")


def test_boundary_cases_of_0_1_count_as_prefixes_of_the_mean_length(layout: Layout) -> None:
    full, prefix = torch.tensor([[10, 20]]), torch.tensor([[15, 20]])
    counts = LanguageCounts(SpanCounts(200, full), SpanCounts(100, prefix))
    for cases, fits in ((0, False), (1, True)):
        save_counts(layout, "en", counts, {**META, "boundary_cases": cases, "sequences": 20})
        as_old(layout, "en", layout.activation)
        if fits:
            load_counts(layout, "en")
        else:
            refused(lambda: load_counts(layout, "en"), "1 of 2 neurons fire more often in the prefix .* by up to 5")


def test_two_passes_that_rounded_differently_are_read_with_a_note(layout: Layout) -> None:
    counts = made_up_counts((8, 1000))
    prefix = counts.prefix.over_zero.clone()
    full = counts.full.over_zero.clone()
    prefix[0, 0], full[0, 0] = 9, 5  # 4 of 250 prefix tokens is less than 1 in 50
    of_elsewhere(layout, LanguageCounts(replace(counts.full, over_zero=full), replace(counts.prefix, over_zero=prefix)))
    [note] = load_answer_counts(layout, ["en"]).notes
    assert "of 8000 neurons, en 1 fire more often in the prefix than in the text" in note
    assert note.endswith("by 4 tokens at most")
    assert load_answer_counts(layout, ["en"]).counts[0, 0, 0] == 0
    prefix[0, 0] = 12  # and 7 is more
    of_elsewhere(layout, LanguageCounts(replace(counts.full, over_zero=full), replace(counts.prefix, over_zero=prefix)))
    refused(lambda: load_counts(layout, "en"), "1 of 8000 neurons fire more often in the prefix .* by up to 7")
    prefix[0, :5], full[0, :5] = 3, 2  # small, but too many
    of_elsewhere(layout, LanguageCounts(replace(counts.full, over_zero=full), replace(counts.prefix, over_zero=prefix)))
    refused(lambda: load_counts(layout, "en"), "5 of 8000 neurons")


def test_our_own_files_have_no_allowance(layout: Layout) -> None:
    counts = made_up_counts((8, 1000))
    full = counts.full.over_zero.clone()
    counts.prefix.over_zero[0, 0], full[0, 0] = 9, 8
    for old in (False, True):
        save_counts(layout, "en", replace(counts, full=replace(counts.full, over_zero=full)), META)
        if old:
            as_old(layout, "en", layout.activation)
        refused(lambda: load_counts(layout, "en"), "1 of 8000 neurons fire more often in the prefix")


# what a file may hold

TABLE = torch.ones(2, 3, dtype=torch.int64)
SPARSE = TABLE.to_sparse()


class Own(Tensor):
    """A subclass."""


@pytest.mark.parametrize(
    "table",
    [
        TABLE.bool(),
        TABLE.float(),
        TABLE.double(),
        TABLE.half(),
        TABLE.to(torch.complex64),
        TABLE.to(torch.uint16),
        TABLE.to(torch.uint64),
        torch.quantize_per_tensor(TABLE.float(), 1.0, 0, torch.qint8),
        SPARSE,
        TABLE.to_sparse_csr(),
        TABLE.to("meta"),
        torch.ones(1, 1, dtype=torch.int64).expand(2, 3),
        torch.ones(1, dtype=torch.int64).expand(30000, 30000),
        torch.ones(4, dtype=torch.int64).as_strided((2, 3), (1, 1)),
        TABLE[:0],
        TABLE[:, :0],
        torch.ones(2**10 + 1, 1, dtype=torch.int64),
        torch.ones(1, 2**20 + 1, dtype=torch.uint8),
        torch.nn.Parameter(TABLE.float()),
        TABLE.as_subclass(Own),
        TABLE.tolist(),
        bytearray(6),
    ],
    ids=str,
)
def test_what_is_no_table_of_whole_numbers_is_refused(tmp_path: Path, table: object) -> None:
    path = tmp_path / "file.pt"
    torch.save({"total_tokens": 9, "over_zero": table}, path)
    refused(lambda: load_span(path), r"file\.pt (is not a count file|cannot be read)")
    torch.save({"total_tokens": torch.tensor([9, 9]), "over_zero": table}, path)
    refused(lambda: load_span(path))


@pytest.mark.parametrize(
    "tokens", [True, 5.0, float("nan"), None, "5", -1, 2**53 + 1, 10**30, torch.tensor(5.0), torch.tensor(True)]
)
def test_what_is_no_number_of_tokens_is_refused(tmp_path: Path, tokens: object) -> None:
    path = tmp_path / "file.pt"
    torch.save({"total_tokens": tokens, "over_zero": TABLE}, path)
    refused(lambda: load_span(path))
    refused(lambda: load_origin(path))


def test_counts_of_many_layouts_in_memory_are_read(tmp_path: Path) -> None:
    for table in (TABLE, TABLE.T, torch.ones(4, 3, dtype=torch.int64)[::2], TABLE.int(), TABLE.to(torch.uint8)):
        torch.save({"total_tokens": 9, "over_zero": table}, tmp_path / "file.pt")
        assert load_span(tmp_path / "file.pt")[0].over_zero.sum() == 6


@pytest.mark.parametrize(
    "meta", [{"x": [[1]]}, {"x": TABLE}, {"x": {}}, {1: "x"}, {"boundary_cases": -1}, {"sequences": "7"}]
)
def test_a_meta_of_other_than_plain_values_is_refused(layout: Layout, meta: dict[Any, Any]) -> None:
    of_elsewhere(layout, made_up_counts())
    for prefix in (False, True):
        path = layout.activation("en", prefix=prefix)
        content = torch.load(path, weights_only=True)
        torch.save({**content, "meta": meta}, path)
    refused(lambda: load_counts(layout, "en"), "its meta")


def memory() -> int:
    """The most memory that this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def repacked(path: Path, change: Callable[[str, bytes], bytes], *, compressed: bool = False) -> None:
    """Rewrite what torch packed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))


def calls(function: str, size: int) -> Callable[[str, bytes], bytes]:
    """Content that calls a function which torch allows, with one number."""
    pickled = f"c{function}\n".encode() + b"J" + size.to_bytes(4, "little") + b"\x85R."
    return lambda name, content: b"\x80\x02" + pickled if name.endswith("/data.pkl") else content


def test_a_small_file_never_takes_much_memory(tmp_path: Path) -> None:
    big, path = 2**27, tmp_path / "file.pt"  # of int64: 1 GB
    before = memory()
    torch.save({"total_tokens": 9, "over_zero": torch.ones(1, 1, dtype=torch.int64).expand(2**10, big >> 10)}, path)
    assert path.stat().st_size < 2000
    refused(lambda: load_span(path), "repeats the numbers")
    refused(lambda: load_origin(path), "repeats the numbers")
    refused(lambda: Mask.load(path))
    for function in ("builtins\nbytearray", "torch\nLongTensor", "torch\nTensor", "torch.storage\nUntypedStorage"):
        torch.save(TABLE, path)
        repacked(path, calls(function, 2**30))
        refused(lambda: load_span(path), function.replace("\n", "."))
    torch.save(OrderedDict(x=torch.zeros(2**22)), path)
    repacked(path, lambda _, content: content, compressed=True)
    refused(lambda: load_span(path), "larger than on disk")
    torch.save([[torch.zeros(1, dtype=torch.int64).expand(big)]], path)
    refused(lambda: Mask.load(path), "repeats the numbers")
    assert memory() - before < 2**28


# blocks and moments

BLOCKS = [made_up_counts((2, 5), seed=seed) for seed in range(3)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["total_tokens"].__setitem__(1, -1000), "in block 2"),
        (lambda c: c["over_zero"].__setitem__((1, 0, 0), -3), "in block 2, over_zero spans -3"),
        (lambda c: c["over_zero"].__setitem__((2, 0, 0), 1001), "in block 3, over_zero spans .*1001 for 1000"),
        (lambda c: c["total_tokens"].fill_(2**60), "its blocks have"),
        (lambda c: c.update(total_tokens=c["total_tokens"].double()), "is not a file with blocks"),
        (lambda c: c.update(over_zero=c["over_zero"].double()), "is not a file with blocks"),
        (lambda c: c.update(over_zero=c["over_zero"][:, :, :0]), "is not a file with blocks"),
        (lambda c: c.update(total_tokens=c["total_tokens"][:2]), "is not a file with blocks"),
        (lambda c: c.update(over_zero=torch.ones(1, 1, 1, dtype=torch.int64).expand(3, 2, 5)), "repeats"),
        (lambda c: c["over_zero"].__setitem__((0, 0, 0), int(c["over_zero"][0, 0, 0]) - 1), "do not add up"),
    ],
)
def test_impossible_blocks_are_refused(layout: Layout, change: Change, says: str) -> None:
    save_blocks(layout, "en", LanguageBlocks.of(BLOCKS), META)
    save_counts(layout, "en", BLOCKS[0] + BLOCKS[1] + BLOCKS[2], META)
    assert len(load_blocks(layout, "en")) == 3
    content = torch.load(layout.blocks("en"), weights_only=True)
    content["over_zero"] = content["over_zero"].long()
    change(content)
    torch.save(content, layout.blocks("en"))
    refused(lambda: load_blocks(layout, "en"), says)


def test_a_block_whose_prefix_fires_more_than_its_text_is_refused_although_the_sums_are_right(layout: Layout) -> None:
    for prefix in (False, True):
        moved = LanguageBlocks.of(BLOCKS)
        span = moved.prefix if prefix else moved.full
        at = (0, 0, 0), (1, 0, 0)
        left = int(moved.prefix.over_zero[at[0]] if prefix else moved.full.over_zero[at[0]])
        if not prefix:
            room = 1000 - int(span.over_zero[at[1]])
            by = min(left, room)
            span.over_zero[at[0]] -= by
            span.over_zero[at[1]] += by
        save_blocks(layout, "en", moved, META)
        save_counts(layout, "en", BLOCKS[0] + BLOCKS[1] + BLOCKS[2], META)
        if not prefix:
            refused(lambda: load_blocks(layout, "en"), "in block [12], 1 of 10 neurons fire")
        else:
            load_blocks(layout, "en")


@pytest.mark.parametrize("seed", range(5))
def test_moments_of_real_values_are_read(layout: Layout, seed: int) -> None:
    save_counts(layout, "en", with_moments(seed), META)
    assert answer_moments(layout, "en").tokens == 50
    as_old(layout, "en", layout.moments)
    assert answer_moments(layout, "en").tokens == 50


def at(name: str, value: float) -> Change:
    return lambda content: content[name].__setitem__((1, 3), value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (at("sum", 1e6), "sum of squares does not allow"),
        (at("sum", -1e6), "sum of squares does not allow"),
        (at("sum_of_squares", -1.0), "negative sum of squares"),
        (at("sum_of_squares", 0.0), "have no squares"),
        (at("sum_of_squares", 1e-3), "sum of squares does not allow|do not go together"),
        (at("sum", float("inf")), "is not a file of activation moments"),
        (at("sum_of_squares", float("nan")), "is not a file of activation moments"),
        (lambda c: c.update(total_tokens=81), "of 81 tokens, the counts of 80"),
        (lambda c: c.update(total_tokens=True), "is not a file of activation moments"),
        (lambda c: c.update(total_tokens=80.0), "is not a file of activation moments"),
        (lambda c: c.update(sum=c["sum"].to_sparse()), "cannot be read"),
        (lambda c: c.update(sum=c["sum"][:1, :1].clone().expand(2, 7)), "repeats the numbers"),
        (lambda c: c.update(sum=c["sum"].clone().requires_grad_()), "expected a plain one"),
    ],
)
def test_impossible_moments_are_refused(layout: Layout, change: Change, says: str) -> None:
    save_counts(layout, "en", with_moments(), META)
    content = torch.load(layout.moments("en"), weights_only=True)
    change(content)
    torch.save(content, layout.moments("en"))
    refused(lambda: answer_moments(layout, "en"), says)
    refused(lambda: load_counts(layout, "en", moments=True), says)


@pytest.mark.parametrize("fired", [0, 80])
def test_a_sum_has_the_sign_of_a_neuron_that_never_or_always_fires(layout: Layout, fired: int) -> None:
    counts = with_moments()
    assert counts.moments is not None
    counts.full.over_zero[0, 0], counts.prefix.over_zero[0, 0] = fired, min(fired, 30)
    for span in (counts.moments.full, counts.moments.prefix):
        span.sum[0, 0] = 0.01 if fired == 0 else -0.01
    save_counts(layout, "en", counts, META)
    refused(lambda: answer_moments(layout, "en"), "never fired" if fired == 0 else "always fired")


# masks and lists of neurons


def listed(*indices: object, layers: int = 2) -> list[list[Tensor]]:
    return [[torch.tensor(indices) for _ in range(layers)]]


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (listed(-1, 2), "neuron indices -1..2"),
        (listed(1, 2**20), "no model is wider"),
        (listed(2**62), "no model is wider"),
        (listed(3, 1, 3), "names 1 neurons more than once"),
        (listed(1.0, 2.0), "is not a mask"),
        (listed(True), "is not a mask"),
        ([[torch.tensor([1])], [torch.tensor([1]), torch.tensor([2])]], "have 1, 2 layers"),
        ([[]], "have 0 layers"),
        ([], "have no layers"),
        ([[torch.tensor([1])] * 1025], "1..1024"),
        ([[torch.tensor([1]).expand(4)]], "repeats the numbers"),
        ([[torch.tensor([1, 2]).to_sparse()]], "cannot be read"),
        ([[torch.tensor([1], device="meta")]], "cannot be read"),
    ],
)
def test_an_impossible_mask_is_refused(tmp_path: Path, stored: object, says: str) -> None:
    path = tmp_path / "mask.X-y"
    torch.save(stored, path)
    refused(lambda: Mask.load(path), says)
    refused(lambda: Mask.load(path, d_mlp=2**20), says)


def test_indices_may_come_in_any_order(tmp_path: Path) -> None:
    torch.save(listed(5, 1, 3), tmp_path / "mask.X-y")
    assert Mask.load(tmp_path / "mask.X-y").tensor[0, :, 0].nonzero().flatten().tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_mlp": 10**12}, "of 2 × 1000000000000 neurons"),
        ({"d_mlp": 2}, "do not belong together"),
        ({"d_mlp": 4.0}, "its d_mlp is '4.0'"),
        ({"layers": 10**12}, "do not belong together"),
        ({"d_mlp": -1}, "of 2 × -1 neurons"),
    ],
)
def test_a_description_of_another_size_takes_no_memory(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    description = MaskDescription(
        ["en"], 0.1, 0.0, 0.9, 0.5, [0, 1], {}, {}, 2, 5, {}, "c", "w", "0",
    )  # fmt: skip
    Mask(("en",), torch.ones(2, 5, 1, dtype=torch.bool), description).save(tmp_path / "mask.X-y")
    path = tmp_path / "mask.X-y.json"
    content = {**json.loads(path.read_text()), **change}
    del content["description_hash"]  # as earlier versions wrote it
    path.write_text(json.dumps(content))
    refused(lambda: Mask.load(tmp_path / "mask.X-y"), says)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("n.json", "[[1024, 1]]", "no neuron"),
        ("n.json", "[[0, 1048576]]", "no neuron"),
        ("n.json", "[" * 10**5, "cannot be read as neurons"),
        ("n.csv", "layer,neuron\n0,1_000\n", "cannot be read as neurons"),
        ("n.csv", "layer,neuron\n0,٣\n", "cannot be read as neurons"),
    ],
)
def test_an_impossible_list_of_neurons_is_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    refused(lambda: load_neurons(tmp_path / name), says)


# the published counts


@pytest.mark.reference
def test_the_published_counts_are_read_with_a_note_and_every_wrong_pair_is_refused(
    mistral_reference: Path, tmp_path: Path
) -> None:
    model = "Mistral-de76d14562b1da1ba0e52d5b245cf9c0859e2af3"
    real, wrong = Layout(mistral_reference, "mgsm", model), Layout(tmp_path, "mgsm", model)
    [note] = load_answer_counts(real, ["bn", "sw", "th"]).notes
    assert "of 458752 neurons, bn 5, sw 9, th 4 fire more often in the prefix" in note
    assert "bn 1, sw 2, th 2 fire more often in the answers" in note
    assert note.endswith("by 764 tokens at most")
    for one, other in (("th", "zh"), ("bn", "ru"), ("sw", "en"), ("fr", "es")):  # the closest of 90, and a near pair
        for language, prefix in ((one, False), (other, True)):
            path = wrong.activation("en", prefix=prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            os.symlink(real.activation(language, prefix=prefix), path)
        refused(lambda: load_counts(wrong, "en"), "impossible counts")


def test_excess_says_how_many_neurons_and_by_how_much() -> None:
    counts = LanguageCounts(SpanCounts(10, torch.tensor([[1, 9, 4]])), SpanCounts(4, torch.tensor([[3, 1, 2]])))
    found = excess(counts)
    assert (found.prefix, found.answer, found.largest, found.neurons) == (1, 1, 2, 2)
    assert excess(counts, unshared=2).neurons == 0


def test_the_errors_are_of_the_kinds_that_callers_expect(layout: Layout) -> None:
    of_elsewhere(layout, made_up_counts())
    exchange(layout.activation("en"), layout.activation("en", prefix=True))
    with pytest.raises(ArtifactError):
        load_counts(layout, "en")
    save_counts(layout, "fr", made_up_counts(), META)
    layout.activation("fr").rename(layout.activation("es"))
    with pytest.raises(IncompatibleError):
        load_span(layout.activation("es"))
