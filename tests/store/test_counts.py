"""Count files: what is stored comes back, and nothing else is taken for counts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from language_neurons_alignment.core.counts import LanguageCounts, SpanCounts
from language_neurons_alignment.errors import ArtifactError, IncompatibleError, MissingArtifactError
from language_neurons_alignment.store.counts import (
    counts_hash,
    load_answer_counts,
    load_counts,
    load_origin,
    load_span,
    save_counts,
)
from language_neurons_alignment.store.layout import Layout
from tests.workspace import META, contents, full_disk, made_up_counts


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, "mgsm", "Llama-tiny")


def assert_equal(one: LanguageCounts, other: LanguageCounts) -> None:
    for a, b in ((one.full, other.full), (one.prefix, other.prefix)):
        assert a.total_tokens == b.total_tokens
        assert a.over_zero.dtype == b.over_zero.dtype == torch.int64
        assert torch.equal(a.over_zero, b.over_zero)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), layers=st.integers(1, 4), d_mlp=st.integers(1, 30))
def test_counts_and_their_provenance_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, seed: int, layers: int, d_mlp: int
) -> None:
    layout = Layout(tmp_path_factory.mktemp("counts"), "mgsm", "Llama-tiny")
    counts = made_up_counts((layers, d_mlp), seed=seed)
    save_counts(layout, "en", counts, META)
    read, meta = load_counts(layout, "en")
    assert_equal(read, counts)
    assert meta == {**META, "language": "en"}
    assert counts_hash(read) == counts_hash(counts)


def test_a_plain_torch_load_with_weights_only_reads_the_format_of_the_seed(layout: Layout) -> None:
    counts = made_up_counts()
    save_counts(layout, "en", counts, {**META, "torch": torch.__version__})  # a subclass of str
    for path, span in ((layout.activation("en"), counts.full), (layout.activation("en", prefix=True), counts.prefix)):
        content = torch.load(path, weights_only=True)
        assert set(content) == {"total_tokens", "over_zero", "meta"}
        assert content["total_tokens"] == span.total_tokens
        assert type(content["total_tokens"]) is int
        assert content["over_zero"].dtype == torch.int64
        assert {type(value) for value in content["meta"].values()} == {str}


def test_files_made_elsewhere_have_no_provenance_and_are_read_all_the_same(layout: Layout) -> None:
    counts = made_up_counts()
    for prefix, span in ((False, counts.full), (True, counts.prefix)):
        path = layout.activation("en", prefix=prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"total_tokens": torch.tensor(span.total_tokens), "over_zero": span.over_zero.int()}, path)
    read, meta = load_counts(layout, "en")
    assert_equal(read, counts)
    assert meta == {}


@pytest.mark.parametrize("prefix", [False, True])
def test_a_missing_file_is_named_with_the_command_that_makes_it(layout: Layout, prefix: bool) -> None:
    save_counts(layout, "en", made_up_counts(), META)
    layout.activation("en", prefix=prefix).unlink()
    with pytest.raises(MissingArtifactError, match=r"activation\.en\.Llama-tiny\.pt is not there: .*lna activation"):
        load_counts(layout, "en")


@pytest.mark.parametrize("kept", [0, 1, 2, 10, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, -1])
def test_a_file_torn_anywhere_is_an_error_in_one_line(layout: Layout, kept: float) -> None:
    save_counts(layout, "en", made_up_counts(), META)
    path = layout.activation("en")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        load_span(path)
    assert "\n" not in str(caught.value)
    assert "lna activation" in str(caught.value)


@pytest.mark.parametrize("content", [b"\x00" * 2000, b"{}", b"PK\x03\x04 not a zip", "Ελληνικά".encode() * 100])
def test_a_file_of_another_kind_is_an_error_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"file\.pt cannot be read"):
        load_span(path)


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_span(tmp_path)


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("save", [torch.save, lambda content, path: Path(path).write_bytes(pickle.dumps(content))])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, save: object) -> None:
    path, target = tmp_path / "file.pt", tmp_path / "code-was-run"
    save({"total_tokens": 1, "over_zero": Malicious(target)}, path)  # type: ignore[operator]
    pickle.loads(pickle.dumps(Malicious(tmp_path / "proof")))
    assert (tmp_path / "proof").exists(), "the attack has to work where it is not refused"
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_span(path)
    assert not target.exists()


TABLE = torch.ones(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        TABLE,
        {"over_zero": TABLE},
        {"total_tokens": 5},
        {"total_tokens": "five", "over_zero": TABLE},
        {"total_tokens": 5.5, "over_zero": TABLE},
        {"total_tokens": torch.tensor([5, 6]), "over_zero": TABLE},
        {"total_tokens": 5, "over_zero": [[1, 2]]},
        {"total_tokens": 5, "over_zero": TABLE[0]},
        {"total_tokens": 5, "over_zero": TABLE[:, :0]},
        {"total_tokens": 5, "over_zero": TABLE.float()},
        {"total_tokens": 5, "over_zero": TABLE * torch.tensor(float("nan"))},
        {"total_tokens": 5, "over_zero": TABLE.to(torch.complex64)},
        {"total_tokens": 5, "over_zero": TABLE.bool()},
    ],
)
def test_what_is_not_a_count_file_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "file.pt")
    foreign = r"file\.pt is not a count file.*lna did not write it: move it away, or use another --root or -s, and"
    with pytest.raises(ArtifactError, match=foreign) as caught:  # whose it is is not known
        load_span(tmp_path / "file.pt")
    assert "delete" not in str(caught.value)
    if not isinstance(content, dict) or type(content.get("total_tokens")) is not int:
        with pytest.raises(ArtifactError, match=foreign):
            load_origin(tmp_path / "file.pt")
    if isinstance(content, dict):
        torch.save({**content, "meta": META}, tmp_path / "file.pt")
        with pytest.raises(ArtifactError, match=r"delete it and collect it with `lna activation`"):
            load_span(tmp_path / "file.pt")


@pytest.mark.parametrize("content", [torch.nn.Linear(2, 2), {"total_tokens": 1, "over_zero": torch.Size([2])}])
def test_what_another_program_stored_is_not_to_be_deleted(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ArtifactError, match=r"expected plain tensors .*: name another file, or move it away") as caught:
        load_span(tmp_path / "file.pt")
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("prefix", [False, True])
def test_a_pair_of_which_one_file_has_no_meta_is_refused_by_that(layout: Layout, prefix: bool) -> None:
    save_counts(layout, "en", made_up_counts(), META)
    path = layout.activation("en", prefix=prefix)
    content = torch.load(path, weights_only=True)
    del content["meta"]
    torch.save(content, path)
    with pytest.raises(IncompatibleError, match=rf"says in its meta how it was made, and {path.name} has no meta"):
        load_counts(layout, "en")


def test_counts_with_two_tokenizers_are_not_combined(layout: Layout) -> None:
    for language, digest in (("en", ""), ("fr", "t1"), ("es", "t1"), ("sw", "t2")):
        meta = {**META, "tokenizer_hash": digest} if digest else META  # earlier versions did not note it
        save_counts(layout, language, made_up_counts(), meta)
    assert load_answer_counts(layout, ("en", "fr", "es")).tokenizer_hash == "t1"
    assert load_answer_counts(layout, ("en", "sw")).tokenizer_hash == "t2"
    with pytest.raises(IncompatibleError, match=r"'fr' and 'sw' come from different models .other tokenizer.*--force"):
        load_answer_counts(layout, ("en", "fr", "sw"))


@pytest.mark.parametrize(("low", "high", "total"), [(-1, 3, 5), (0, 6, 5), (0, 1, 0), (0, 1, -5)])
def test_impossible_counts_are_refused_with_the_numbers(tmp_path: Path, low: int, high: int, total: int) -> None:
    torch.save({"total_tokens": total, "over_zero": torch.tensor([[low, high]])}, tmp_path / "file.pt")
    with pytest.raises(ArtifactError, match=f"spans {low}..{high} for {total} tokens"):
        load_span(tmp_path / "file.pt")


def test_a_full_and_a_prefix_file_of_other_runs_are_refused(layout: Layout) -> None:
    counts = made_up_counts()
    other = {**META, "config_hash": "another"}
    save_counts(layout, "en", counts, META)
    old_prefix = layout.activation("en", prefix=True).read_bytes()
    save_counts(layout, "en", counts, other)
    layout.activation("en", prefix=True).write_bytes(old_prefix)
    with pytest.raises(IncompatibleError, match="do not belong together"):
        load_counts(layout, "en")


def test_a_full_and_a_prefix_file_of_other_shapes_are_refused(layout: Layout) -> None:
    save_counts(layout, "en", LanguageCounts(made_up_counts((3, 40)).full, made_up_counts((3, 41)).prefix), META)
    with pytest.raises(IncompatibleError, match="do not belong together"):
        load_counts(layout, "en")


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_earlier_counts_as_they_were(layout: Layout, function: str) -> None:
    save_counts(layout, "en", made_up_counts(seed=1), META)
    before = contents(layout.root)
    with full_disk(function), pytest.raises(ArtifactError, match="the disk is full"):
        save_counts(layout, "en", made_up_counts(seed=2), META)
    assert contents(layout.root) == before


def test_the_digest_tells_every_change_of_the_counts() -> None:
    counts = made_up_counts()
    one_more = counts.full.over_zero.clone()
    one_more[2, 7] += 1
    others = [
        LanguageCounts(SpanCounts(counts.full.total_tokens + 1, counts.full.over_zero), counts.prefix),
        LanguageCounts(SpanCounts(counts.full.total_tokens, one_more), counts.prefix),
        LanguageCounts(counts.prefix, counts.full),
        LanguageCounts(SpanCounts(counts.full.total_tokens, counts.full.over_zero.reshape(6, 20)), counts.prefix),
    ]
    assert len({counts_hash(one) for one in (counts, *others)}) == 5
