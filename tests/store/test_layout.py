"""Where results are, to the letter of docs/files.md and of the seed's README."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment._session import open_session
from language_neurons_alignment.errors import SettingsError
from language_neurons_alignment.store.checkpoint import Checkpoint
from language_neurons_alignment.store.counts import load_counts, save_counts
from language_neurons_alignment.store.layout import Layout, find_layout, model_tag, results_name, with_ending
from tests.workspace import META, made_up_counts

ROOT = Path("out")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, "mgsm", "Mistral-Mistral-7B-v0.1")


def test_every_path_is_the_one_that_users_were_promised() -> None:
    layout = Layout(ROOT, "mgsm", "Mistral-MODEL")
    promised = {
        layout.activation("en"): "out/activations/mgsm/activation.en.Mistral-MODEL.pt",
        layout.activation("zh", prefix=True): "out/activations/mgsm/prefix.activation.zh.Mistral-MODEL.pt",
        layout.mask(0.01, 0.109375): "out/activation_masks/mgsm/0.01-0.109375/mask.Mistral-MODEL",
        with_ending(layout.mask(0.01, 0.109375), ".json"): (
            "out/activation_masks/mgsm/0.01-0.109375/mask.Mistral-MODEL.json"
        ),
        with_ending(layout.perplexity(0.01, 0.109375), ".png"): "out/ppl_maps/mgsm/0.01-0.109375/ppl.Mistral-MODEL.png",
        with_ending(layout.perplexity(0.1, 0, variant=".specific.answer"), ".csv"): (
            "out/ppl_maps/mgsm/0.1-0.0/ppl.Mistral-MODEL.specific.answer.csv"
        ),
    }
    for path, text in promised.items():
        assert path.as_posix() == text


def test_a_name_with_dots_keeps_them_all(layout: Layout) -> None:
    assert layout.activation("en").name == "activation.en.Mistral-Mistral-7B-v0.1.pt"
    assert layout.mask(0.01, 0.1).name == "mask.Mistral-Mistral-7B-v0.1"
    assert with_ending(layout.perplexity(0.01, 0.1), ".json").name == "ppl.Mistral-Mistral-7B-v0.1.json"


@pytest.mark.parametrize(
    ("written", "top_rate", "lam"),
    [
        ("0.10-0.00", 0.1, 0.0),
        ("0.1-0", 0.1, 0),
        ("1e-1-0.0", 0.1, 0.0),
        ("1e-05-0.1", 1e-5, 0.1),
        ("0.01-1e-05", 0.01, 1e-5),
        ("0.01-0.00001", 0.01, 1e-5),
        ("1E-3-1E-4", 0.001, 0.0001),
    ],
)
def test_a_folder_is_found_by_value_however_it_was_written(
    layout: Layout, written: str, top_rate: float, lam: float
) -> None:
    for kind in ("activation_masks", "ppl_maps"):
        (layout.root / kind / "mgsm" / written).mkdir(parents=True)
        (layout.root / kind / "mgsm" / "notes").mkdir()
        (layout.root / kind / "mgsm" / "0.2-0.3").mkdir()
    assert layout.mask(top_rate, lam).parent.name == written
    assert layout.perplexity(top_rate, lam).parent.name == written


def test_the_seeds_flags_find_the_folder_that_identify_writes(layout: Layout) -> None:
    layout.mask(0.1, 0.0).parent.mkdir(parents=True)
    assert layout.mask(0.1, 0.0).parent.name == "0.1-0.0"
    assert layout.mask(float("0.10"), float("0")).parent.name == "0.1-0.0"
    assert layout.mask(float("0.10"), float("-0")).parent.name == "0.1-0.0"


@given(st.floats(1e-9, 1), st.floats(0, 1e6))
def test_what_is_written_for_two_rates_is_read_back_as_the_same_two(top_rate: float, lam: float) -> None:
    folder = Layout(ROOT, "mgsm", "Llama-x").mask(top_rate, lam).parent.name
    readings = [
        (float(folder[:k]), float(folder[k + 1 :]))
        for k, character in enumerate(folder)
        if character == "-" and _is_float(folder[:k]) and _is_float(folder[k + 1 :])
    ]
    assert readings[0] == (top_rate, lam)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("dataset", ["", ".", "..", "a/b", "/abs", "a/", "../mgsm"])
def test_a_dataset_name_that_would_leave_its_folder_is_refused(dataset: str) -> None:
    with pytest.raises(SettingsError, match="dataset"):
        Layout(ROOT, dataset, "Llama-x")


@pytest.mark.parametrize("name", ["a/b", "../../etc"])
def test_a_model_name_that_would_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="model"):
        Layout(ROOT, "mgsm", f"{name}-x")


@pytest.mark.parametrize("dataset", ["mgsm", "my data", "v1.2", "mgsm-24", "数学"])
def test_any_plain_name_is_a_dataset(dataset: str) -> None:
    assert dataset in Layout(ROOT, dataset, "Llama-x").activation("en").parts


@pytest.mark.parametrize(
    ("path", "tag"),
    [
        ("/ABS/PATH/TO/MODEL", "MODEL"),
        ("/ABS/PATH/TO/MODEL/", "MODEL"),
        ("mistralai/Mistral-7B-v0.1", "Mistral-7B-v0.1"),
        ("models/a.b-c_d", "a.b-c_d"),
    ],
)
def test_the_tag_is_the_last_part_of_the_path(path: str, tag: str) -> None:
    assert model_tag(path) == tag


def test_the_tag_of_the_current_folder_is_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my-model" / "inner"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert (model_tag("."), model_tag("./"), model_tag("..")) == ("inner", "inner", "my-model")


@pytest.mark.parametrize("path", ["", os.sep])
def test_a_path_without_a_last_part_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="no last part"):
        model_tag(path)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_results_under_another_family_name_are_found_by_their_tag(tmp_path: Path) -> None:
    touch(Layout(tmp_path, "mgsm", "Llama-my-model-1.5").activation("en"))
    assert find_layout(tmp_path, "mgsm", "Mistral", "my-model-1.5").model == "Llama-my-model-1.5"
    assert find_layout(tmp_path, "mgsm", "Llama", "my-model-1.5").model == "Llama-my-model-1.5"


def test_the_name_given_wins_where_it_has_results(tmp_path: Path) -> None:
    touch(Layout(tmp_path, "mgsm", "Llama-x").activation("en"))
    touch(Layout(tmp_path, "mgsm", "Mistral-x").activation("en"))
    assert find_layout(tmp_path, "mgsm", "Mistral", "x").model == "Mistral-x"
    assert find_layout(tmp_path, "mgsm", "Llama", "x").model == "Llama-x"


def test_between_two_other_names_nothing_is_guessed(tmp_path: Path) -> None:
    touch(Layout(tmp_path, "mgsm", "Llama-x").activation("en"))
    touch(Layout(tmp_path, "mgsm", "Mistral-x").activation("en"))
    assert find_layout(tmp_path, "mgsm", "Qwen2", "x").model == "Qwen2-x"


def test_another_model_whose_tag_ends_alike_is_not_taken_for_it(tmp_path: Path) -> None:
    touch(Layout(tmp_path, "mgsm", "Llama-big-x").activation("en"))
    touch(Layout(tmp_path, "other", "Llama-x").activation("en"))
    assert find_layout(tmp_path, "mgsm", "Mistral", "x").model == "Mistral-x"


def test_a_tag_full_of_pattern_characters_is_taken_literally(tmp_path: Path) -> None:
    touch(Layout(tmp_path, "mgsm", "Llama-a[b]*.c").activation("en"))
    assert find_layout(tmp_path, "mgsm", "Llama", "a[b]*.c").model == "Llama-a[b]*.c"
    assert find_layout(tmp_path, "mgsm", "Mistral", "a[b]*.c").model == "Llama-a[b]*.c"
    assert find_layout(tmp_path, "mgsm", "Mistral", "ab.c").model == "Mistral-ab.c"


def counted(layout: Layout, language: str = "en", **meta: str) -> None:
    save_counts(layout, language, made_up_counts(), {**META, **meta})


def test_results_under_a_name_with_a_dot_are_found_under_another_name_too(tmp_path: Path) -> None:
    touch(Layout(tmp_path, "mgsm", "Llama3.1-x").activation("en"))
    assert find_layout(tmp_path, "mgsm", "Llama", "x").model == "Llama3.1-x"
    assert find_layout(tmp_path, "mgsm", "Llama3.1", "x").model == "Llama3.1-x"


def test_results_under_a_name_with_a_hyphen_are_found_where_they_come_from_this_very_model(tmp_path: Path) -> None:
    counted(Layout(tmp_path, "mgsm", "my-llama.v2-x"))
    this, other = Checkpoint("c1", "w1"), Checkpoint("c1", "w2")
    assert find_layout(tmp_path, "mgsm", "Llama", "x", checkpoint=lambda: this).model == "my-llama.v2-x"
    assert find_layout(tmp_path, "mgsm", "Llama", "x", checkpoint=lambda: other).model == "Llama-x"
    assert find_layout(tmp_path, "mgsm", "Llama", "x").model == "Llama-x", "of a model that is not there"


def test_a_model_s_languages_are_those_of_its_own_files_whatever_its_name(tmp_path: Path) -> None:
    for name in ("Llama-x", "a.Llama-x", "Llama-[x]*?", "Llama-x.pt"):
        touch(Layout(tmp_path, "a[b]*", name).activation("en"))
    layout = Layout(tmp_path, "a[b]*", "Llama-[x]*?")
    touch(layout.activation("zh"))
    touch(layout.activation("fr", prefix=True))
    assert layout.counted_languages() == ("en", "zh")
    assert Layout(tmp_path, "a[b]*", "Llama-x").counted_languages() == ("en",)
    assert Layout(tmp_path, "nothing", "Llama-x").counted_languages() == ()


UNSEEN = ["a\x1b[31mb", "a\nb", "a\0b", "a\x07", "a\x9b", "a\u202eb", "a\u2066b", "a\u200bb", "a\ud83d", "\x7f"]


@pytest.mark.parametrize("name", UNSEEN)
def test_a_name_with_characters_that_cannot_be_seen_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    refusals = [
        lambda: Layout(tmp_path, name, "Llama-x"),
        lambda: Layout(tmp_path, "mgsm", f"{name}-x"),
        lambda: results_name(f"/models/{name}"),
        lambda: results_name("/models/Llama", name),
        lambda: open_session(f"/models/{name}", tmp_path / "corpus.json", "mgsm"),
        lambda: open_session("/models/Llama", tmp_path / "corpus.json", name),
    ]
    for refused in refusals:
        with pytest.raises(SettingsError) as error:
            refused()
        assert str(error.value).isprintable()


def test_names_of_any_script_and_emoji_are_names() -> None:
    for name in ("数学", "मराठी", "می\u200cخواهم", "👩\u200d🚀", "naïve é", "a'b\"c"):
        assert name in Layout(ROOT, name, f"{name}-x").activation("en").parts


@pytest.mark.parametrize("letter", ["a", "é", "数"])
def test_the_longest_model_name_that_is_taken_can_be_written_and_a_longer_one_is_refused(
    tmp_path: Path, letter: str
) -> None:
    longest = letter * (183 // len(letter.encode()))
    layout = Layout(tmp_path, letter * (255 // len(letter.encode())), longest)
    save_counts(layout, "en-x-aaaaaaaa-bbbbbbbb-cccccccc-ddd", made_up_counts(), META)
    assert layout.counted_languages() == ("en-x-aaaaaaaa-bbbbbbbb-cccccccc-ddd",)
    for dataset, model in (("mgsm", longest + letter), (letter * 256, "x")):
        with pytest.raises(SettingsError, match=r"bytes, and files that are named by it leave room for"):
            Layout(tmp_path, dataset, model)


def test_a_result_whose_variant_leaves_no_room_is_refused_before_it_is_made(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "mgsm", "m" * 150)
    assert layout.perplexity(0.1, 0.1, variant=".specific.answer").name.endswith(".answer")
    for path in (layout.perplexity, layout.evaluation, layout.methods, layout.forcing):
        with pytest.raises(SettingsError, match="150 of them the model's"):
            path(0.1, 0.1, variant="." + "v" * 80)
    with pytest.raises(SettingsError, match="150 of them the model's"):
        layout.stability(0.1, "0.1", other="o" * 150)


@pytest.mark.parametrize("root", ["r" * 256, "/".join(["r" * 200] * 20), "a\0b"])
def test_a_root_that_no_system_can_have_is_refused(root: str) -> None:
    with pytest.raises(SettingsError, match=r"choose .*--root"):
        Layout(Path(root), "mgsm", "x")


def test_counts_under_an_earlier_spelling_of_a_language_are_found(layout: Layout) -> None:
    folder = layout.activation("en").parent
    save_counts(layout, "zh", made_up_counts(), META)
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace(".zh.", ".zh-CN."))
    assert layout.counted_languages() == ("zh",)
    assert layout.spelling("zho_Hans") == "zh-CN"
    assert load_counts(layout, "zh")[0].full.over_zero.equal(made_up_counts().full.over_zero)
    for kind in (layout.activation, layout.blocks, layout.moments):
        assert kind("sw").name.split(".")[1] == "sw"


def test_counts_under_two_earlier_spellings_are_refused_until_one_is_renamed(layout: Layout) -> None:
    folder = layout.activation("en").parent
    folder.mkdir(parents=True)
    for spelling in ("swh", "swh-Latn"):
        (folder / f"activation.{spelling}.{layout.model}.pt").touch()
    with pytest.raises(SettingsError, match=r"both for the same language: rename the right one to activation\.sw"):
        layout.activation("sw")
    (folder / f"activation.sw.{layout.model}.pt").touch()
    assert layout.activation("sw").name == f"activation.sw.{layout.model}.pt"
