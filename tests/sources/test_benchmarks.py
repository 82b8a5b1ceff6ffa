"""The public benchmarks: from their real files, where they are at hand, and from a stand-in for the hub."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment.errors import CorpusError, MissingPackageError, SettingsError
from language_neurons_alignment.languages import DEFAULT_LANGUAGES
from language_neurons_alignment.sources.benchmarks import BENCHMARKS, plain_number, read_benchmark
from tests.conftest import shared_folder

MGSM, MSVAMP, FLORES = (BENCHMARKS[name] for name in ("mgsm", "msvamp", "flores"))


@pytest.mark.parametrize(("name", "questions"), [("mgsm", 250), ("msvamp", 1000)])
def test_the_real_files_give_every_question_its_number_in_every_language(name: str, questions: int) -> None:
    records = read_benchmark(BENCHMARKS[name], None, folder=shared_folder(f"data/{name}")).records
    by_language = {code: [one for one in records if one.language == code] for code in DEFAULT_LANGUAGES}
    assert len(records) == 10 * questions
    for of_one in by_language.values():
        assert [one.id for one in of_one] == [f"{name}-test-{n}" for n in range(1, questions + 1)]
        assert [one.target for one in of_one] == [one.target for one in by_language["en"]]
        assert all(one.target is not None and float(one.target) >= 0 for one in of_one)


def test_mgsm_has_telugu_and_its_first_answers_are_the_published_ones() -> None:
    records = read_benchmark(MGSM, ("te",), folder=shared_folder("data/mgsm")).records
    assert [record.target for record in records[:3]] == ["18", "3", "70000"]
    assert "2125" in {record.target for record in records}  # "2,125" in the file
    assert records[0].instruction.startswith("జనెత్ బాతులు")


def test_mgsm_s_exemplars_have_worked_answers_and_their_numbers() -> None:
    records = read_benchmark(
        MGSM, ("en", "te"), folder=shared_folder("data/mgsm"), split="exemplars", answers="answer"
    ).records
    assert [record.target for record in records if record.language == "te"] == [
        "11",
        "29",
        "39",
        "9",
        "33",
        "8",
        "8",
        "5",
    ]
    assert all(record.target in record.answers[0] for record in records if record.target)
    assert not read_benchmark(MGSM, ("en",), folder=shared_folder("data/mgsm"), split="exemplars").records[0].answers


@pytest.mark.parametrize(
    ("text", "number"),
    [("2,125", "2125"), ("8.0", "8"), ("14.50", "14.5"), ("-3", "-3"), ("1,2", "1,2"), ("many", "many"), (None, None)],
)
def test_numbers_are_written_one_way_and_what_is_none_stays(text: str | None, number: str | None) -> None:
    assert plain_number(text) == number


@pytest.mark.parametrize(
    ("benchmark", "given", "said"),
    [
        (MGSM, {"languages": ("ko",)}, "mgsm has no ko: it has en, ru"),
        (MSVAMP, {"languages": ("te",)}, "msvamp has no te"),
        (MGSM, {"split": "dev"}, "no split 'dev': choose --split from test, exemplars"),
        (MGSM, {"answers": "answer"}, "no worked answers .*--split exemplars --answers-column answer"),
        (MSVAMP, {"answers": "response"}, "final numbers only"),
    ],
)
def test_what_a_benchmark_does_not_have_is_wrong_usage(benchmark: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_benchmark(benchmark, **{"languages": None, **given})


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"there is no .*mgsm_en\.tsv: .*--from"):
        read_benchmark(MGSM, ("en",), folder=tmp_path)
    (tmp_path / "mgsm_en.tsv").write_text("How many?\t2\tmore\n")
    with pytest.raises(CorpusError, match=r"mgsm_en\.tsv, line 1: 3 columns"):
        read_benchmark(MGSM, ("en",), folder=tmp_path)
    for torn, said in (('{"en": {"1"', r"exemplars\.json, line 1: not valid JSON"), ('{"en": {}}', "'te'")):
        (tmp_path / "exemplars.json").write_text(torn)
        with pytest.raises(CorpusError, match=said):
            read_benchmark(MGSM, ("te",), folder=tmp_path, split="exemplars")


def test_flores_is_read_as_its_authors_pack_it(tmp_path: Path) -> None:
    (tmp_path / "devtest").mkdir()
    for tag, text in (("eng_Latn", "One.\nTwo.\n"), ("swh_Latn", "Moja.\nMbili.\n"), ("cmn_Hans", "一。\n二。\n")):
        (tmp_path / "devtest" / f"{tag}.devtest").write_text(text, encoding="utf-8")
    records = read_benchmark(FLORES, ("sw", "zh"), folder=tmp_path).records
    assert [(one.language, one.instruction, one.id) for one in records] == [
        ("sw", "Moja.", "flores-devtest-1"), ("sw", "Mbili.", "flores-devtest-2"),
        ("zh", "一。", "flores-devtest-1"), ("zh", "二。", "flores-devtest-2"),
    ]  # fmt: skip


class FakeHub(types.ModuleType):
    """Stands in for the library `datasets`: says what it was asked, gives rows in the shape of the real cards."""

    def __init__(self, rows: list[dict[str, Any]], configs: list[str] | None = None) -> None:
        super().__init__("datasets")
        self.asked: list[tuple[Any, ...]] = []
        self.rows, self.configs = rows, configs

    def load_dataset(self, name: str, config: str, *, split: str, revision: str | None) -> list[dict[str, Any]]:
        self.asked.append((name, config, split, revision))
        return self.rows

    def get_dataset_config_names(self, name: str, *, revision: str | None) -> list[str]:
        return self.configs or []


def stand_in(monkeypatch: pytest.MonkeyPatch, hub: types.ModuleType | None) -> None:
    monkeypatch.setitem(sys.modules, "datasets", hub)


def test_mgsm_is_asked_of_the_hub_by_its_id_language_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub([{"question": "Q", "answer": None, "answer_number": 18, "equation_solution": None}])
    stand_in(monkeypatch, hub)
    record = read_benchmark(MGSM, ("te",), revision="abc").records[0]
    assert hub.asked == [("juletxara/mgsm", "te", "test", "abc")]
    assert (record.language, record.instruction, record.target, record.id) == ("te", "Q", "18", "mgsm-test-1")


def test_mgsm_s_exemplars_are_the_hub_s_training_split(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub([{"question": "Question: Q", "answer": "A 11.", "answer_number": 11, "equation_solution": "5+6"}])
    stand_in(monkeypatch, hub)
    record = read_benchmark(MGSM, ("en",), split="exemplars", answers="answer").records[0]
    assert hub.asked == [("juletxara/mgsm", "en", "train", None)]
    assert (record.answers, record.target, record.id) == (("A 11.",), "11", "mgsm-exemplars-1")


def test_msvamp_is_asked_of_the_hub_in_the_ten_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub([{"m_query": "Q", "response": "8.0", "equation": "- number0 number1"}])
    stand_in(monkeypatch, hub)
    records = read_benchmark(MSVAMP, None).records
    assert hub.asked == [("Mathoctopus/MSVAMP", code, "test", None) for code in DEFAULT_LANGUAGES]
    assert {record.target for record in records} == {"8"}


def test_flores_is_asked_by_the_tag_that_the_hub_has_for_a_language(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub([{"id": 5, "text": "T", "iso_639_3": "swh"}], ["cmn_Hant", "cmn_Hans", "swh_Latn", "default"])
    stand_in(monkeypatch, hub)
    records = read_benchmark(FLORES, ("sw", "zh"), split="dev").records
    assert hub.asked == [("openlanguagedata/flores_plus", tag, "dev", None) for tag in ("swh_Latn", "cmn_Hans")]
    assert [record.id for record in records] == ["flores-dev-5"] * 2
    with pytest.raises(SettingsError, match="flores has no te on the hub"):
        read_benchmark(FLORES, ("te",))


def test_of_the_varieties_of_a_language_the_one_without_a_glottocode_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = FakeHub([{"id": 5, "text": "T"}], ["cat_Latn_vale1252", "cat_Latn", "apc_Arab_nort3139", "apc_Arab_sout3123"])
    stand_in(monkeypatch, hub)
    read_benchmark(FLORES, ("ca",), split="dev")
    assert [asked[1] for asked in hub.asked] == ["cat_Latn"]
    with pytest.raises(
        SettingsError, match=r"several varieties of apc on the hub \(apc_Arab_nort3139, apc_Arab_sout3123"
    ):
        read_benchmark(FLORES, ("apc",))


@pytest.mark.parametrize("error", [OSError("no network\nlong advice"), ValueError("no config"), RuntimeError("script")])
def test_what_the_hub_says_becomes_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    hub = FakeHub([])
    monkeypatch.setattr(hub, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(error))
    stand_in(monkeypatch, hub)
    with pytest.raises(
        CorpusError, match=r"cannot fetch juletxara/mgsm \(en, test\) from the hub: .*--from DIR"
    ) as caught:
        read_benchmark(MGSM, ("en",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "there", [None, types.ModuleType("datasets")], ids=["not installed", "only a folder of that name"]
)
def test_without_the_library_the_error_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, there: types.ModuleType | None
) -> None:
    stand_in(monkeypatch, there)
    with pytest.raises(MissingPackageError, match=r"datasets.*pip install 'language_neurons_alignment\[data\]'"):
        read_benchmark(MGSM, ("en",))


def test_damaged_numbers_and_endless_brackets_are_no_crash(tmp_path: Path) -> None:
    assert [plain_number(text) for text in ("Infinity", "NaN", "1e999999")] == ["Infinity", "NaN", "1e999999"]
    (tmp_path / "exemplars.json").write_text("[" * 1_000_000)
    with pytest.raises(CorpusError, match=r"exemplars\.json, line 1: brackets are nested too deeply"):
        read_benchmark(MGSM, ("en",), folder=tmp_path, split="exemplars")
