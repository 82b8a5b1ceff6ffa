"""Every command of the seed with its exact flags: stdout carries results only, errors are one line."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from language_neurons_alignment.cli.app import app
from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Call, Lna
from tests.workspace import TEN, contents, full_disk, leftovers, small_records, store_counts, write_corpus

MODEL = ("--model-name", "Mistral", "--model-path", "/ABS/PATH/TO/MODEL")


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Made-up counts of ten languages in the current folder, of a model that is nowhere."""
    layout = Layout(tmp_path, "mgsm", "Mistral-MODEL")
    store_counts(layout)
    monkeypatch.chdir(tmp_path)
    return layout


def assert_one_line(call: Call, code: int, *named: str) -> None:
    """A failure in one line that names what it is about, and nothing on stdout."""
    assert call.code == code, call
    assert call.out == ""
    assert call.err.count("\n") == 1, call.err
    assert call.err.startswith("lna: ")
    assert "Traceback" not in call.err
    for text in named:
        assert text in call.err


def test_the_seeds_four_commands_with_their_exact_flags_leave_the_promised_files(lna: Lna, here: Path) -> None:
    model = ("--model-name", "Mistral", "--model-path", here / "tiny-llama")
    for language in TEN:
        call = lna("activation", *model, "-l", language, "-d", "datasets/mgsm.json", "-s", "mgsm")
        assert call.code == 0, call.err
        assert call.lines == [
            f"activations/mgsm/activation.{language}.Mistral-tiny-llama.pt",
            f"activations/mgsm/prefix.activation.{language}.Mistral-tiny-llama.pt",
        ]
        assert all(Path(line).is_file() for line in call.lines)
    call = lna("autosweep", *model, "-r", 0.01, "-s", "mgsm", "--lo", "0.0", "--hi", 0.2, "--eps", "1e-3", "-b", 0.95)
    assert call.code == 0, call.err
    assert re.fullmatch(r"best λ = \d+\.\d{6,}", call.lines[-1])
    assert call.lines == call.lines[-1:]
    assert re.search(r"\[autosweep\] evaluating λ=0\.200000\nappear = \[\d+(, \d+){10}\]\n", call.err)
    lam = call.lines[-1].split(" = ")[1]
    call = lna("identify", *model, "-r", 0.01, "-l", lam, "-s", "mgsm", "-b", 0.95)
    assert call.code == 0, call.err
    assert call.lines[-1] == f"activation_masks/mgsm/0.01-{float(lam)!r}/mask.Mistral-tiny-llama"
    assert Path(call.lines[-1]).is_file()
    call = lna("ppl", *model, "-r", 0.01, "-l", lam, "-s", "mgsm", "-d", "datasets/mgsm.json")
    assert call.code == 0, call.err
    png = Path(f"ppl_maps/mgsm/0.01-{float(lam)!r}/ppl.Mistral-tiny-llama.png")
    assert str(png) in call.lines
    assert png.read_bytes().startswith(b"\x89PNG")
    before = contents(here)
    again = lna("ppl", *model, "-r", "0.010", "-l", lam + "0", "-s", "mgsm", "-d", "datasets/mgsm.json")
    assert "110 cells of the perplexity map were there already" in again.err
    assert {name: content for name, content in contents(here).items() if name in before} == before
    assert leftovers(here) == []


def test_run_does_it_all_and_a_second_time_nothing(lna: Lna, here: Path) -> None:
    flags = ("run", "--model-path", "tiny-llama", "-d", "datasets/mgsm.json", "-s", "mgsm", "--langs", "es,en,sw",
             "-r", 0.1, "-b", 0.8, "--hi", 2)  # fmt: skip
    first = lna(*flags)
    assert first.code == 0, first.err
    assert first.lines[0].startswith("best λ = ")
    paths = [line.split()[-1] for line in first.lines[-4:]]
    assert [Path(path).suffix for path in paths[1:]] == [".png", ".json", ".csv"]
    assert all(Path(path).is_file() for path in paths)
    before = contents(here)
    second = lna(*flags)
    assert "already counted from the same model and corpus: Spanish, English, Swahili" in second.err
    assert "12 cells" in second.err
    assert second.out == first.out
    assert contents(here) == before
    as_json = lna(*flags, "--json")
    assert as_json.json["reused"] == ["es", "en", "sw"]
    assert as_json.json["map"]["computed"] == 0
    assert list(as_json.json["activations"]) == ["es", "en", "sw"]


def test_moments_are_added_to_counts_that_are_there_and_it_says_so(lna: Lna, here: Path) -> None:
    flags = ("activation", "--model-path", "tiny-llama", "-l", "en", "-d", "datasets/mgsm.json", "-s", "mgsm")
    plain = lna(*flags)
    both = lna(*flags, "--moments")
    assert both.out == plain.out + "".join(
        f"activations/mgsm/{prefix}moments.en.Llama-tiny-llama.pt\n" for prefix in ("", "prefix.")
    )
    assert "counted before, but without moments: English; counted again, and the counts are the same" in both.err
    again = lna(*flags, "--moments", "--json")
    assert "already counted" in again.err
    assert (again.json["reused"], Path(again.json["prefix_moments"]).is_file()) == (True, True)
    assert Path(again.json["moments"]).is_file()


def test_a_map_is_told_with_intervals_controls_and_selectivity(lna: Lna, here: Path) -> None:
    flags = ("--model-path", "tiny-llama", "-d", "datasets/mgsm.json", "-s", "mgsm", "-r", 0.1)
    assert lna("run", *flags, "--langs", "es,en", "-b", 0.8, "-l", 0.1, "--controls", 0).code == 0
    mapped = ("ppl", *flags, "-l", 0.1)
    assert "control" not in lna(*mapped, "--controls", 0).out
    told = lna(*mapped, "--controls", 2)
    assert "2 cells of the perplexity map's controls" not in told.err
    assert re.search(r"neurons off  own perplexity  95 % interval +control's range +largest", told.out)
    ends = r"[+-][\d.]+ to [+-][\d.]+"
    assert re.search(rf"^Spanish .*%  +{ends}  +{ends}  +(within|outside) control", told.out, re.MULTILINE), told.out
    assert re.search(r"^selectivity  precision +recall +F1 +F1 of controls", told.out, re.MULTILINE)
    assert re.search(r"^Spanish +\d\.\d\d \[", told.out, re.MULTILINE)
    assert "control's range" in lna(*mapped, "--controls", 0).out, "those that are there are shown"
    stored = Path("ppl_maps/mgsm/0.1-0.1/ppl.Llama-tiny-llama.cells.jsonl")
    stored.write_text(re.sub(r',\s*"text_(nll|tokens)": "[^"]*"', "", stored.read_text()))
    assert "6 cells know only their sums" in lna(*mapped, "--controls", 0).out
    one = lna(*mapped, "--do", "scale:2 es", "--controls", 2)
    assert re.search(r"^do +Spanish +[+-]", one.out, re.MULTILINE), one
    for path in Path("activations").rglob("*.es.*"):
        path.unlink()
    alone = lna(*mapped, "--controls", 2, "--force")
    assert alone.code == 0, alone.err
    assert "matched by layer alone" in alone.err


def test_a_single_control_has_no_range_and_is_wrong_usage(lna: Lna, here: Path) -> None:
    flags = ("--model-path", "tiny-llama", "-d", "datasets/mgsm.json", "-s", "mgsm", "-l", 0.1)
    assert_one_line(lna("ppl", *flags, "--controls", 1), 2, "--controls must be at least 2")


def test_json_is_the_only_thing_on_stdout_and_parses(lna: Lna, here: Path) -> None:
    flags = ("--model-path", "tiny-llama", "-s", "mgsm", "--json")
    for language in ("en", "es"):
        counted = lna("activation", "-l", language, "-d", "datasets/mgsm.json", *flags).json
        assert (counted["language"], counted["reused"]) == (language, False)
        assert Path(counted["full"]).is_file()
    assert lna("activation", "-l", "English", "-d", "datasets/mgsm.json", *flags).json["reused"] is True
    swept = lna("autosweep", "--langs", "en,es", "-b", 0.5, "-r", 0.1, "--hi", 3, *flags)
    assert swept.json["appear"][-1] == 0
    assert "[autosweep]" in swept.err
    lam = swept.json["lambda"]
    found = lna("identify", "--langs", "en,es", "-b", 0.5, "-r", 0.1, "-l", lam, *flags).json
    assert (found["languages"], found["lam"]) == (["en", "es"], lam)
    drawn = lna("ppl", "-r", 0.1, "-l", lam, "-d", "datasets/mgsm.json", *flags).json
    assert drawn["rows"] == ["none", "en", "es"]
    assert len(drawn["perplexity"]) == 3
    assert len(drawn["percent"]) == 2
    assert (drawn["computed"], drawn["controls_computed"]) == (6, 2 * 2 * 5)
    assert (drawn["control"]["sets"], drawn["control"]["matched_by"]) == (5, "layer and activity")
    for ends in (drawn["interval"], drawn["control"]):
        assert len(ends["low"]) == len(ends["high"]) == len(drawn["within_control"]) == 2
    assert drawn["selectivity"]["f1"]["low"] <= drawn["selectivity"]["f1"]["value"]


def test_the_printed_lambda_is_the_one_that_identify_and_quick_autosweep_mean(lna: Lna, counted: Layout) -> None:
    from language_neurons_alignment.autosweep import quick_autosweep

    for exact in (False, True):
        call = lna("autosweep", *MODEL, "-s", "mgsm", "-r", 0.1, "-b", 0.5, "--hi", 5, *(["--exact"] if exact else []))
        assert call.code == 0, call.err
        lam = call.lines[-1].removeprefix("best λ = ")
        assert float(lam) == quick_autosweep(
            "Mistral", "/ABS/PATH/TO/MODEL", "mgsm", 0.1, 0.0, 5.0, bar=0.5, exact=exact
        )
        done = lna("identify", *MODEL, "-s", "mgsm", "-r", 0.1, "-b", 0.5, "-l", lam)
        assert Path(done.lines[-1]).parent.name == f"0.1-{float(lam)!r}"
        assert json.loads(Path(done.lines[-1] + ".json").read_text())["appear"][-1] == 0


@pytest.mark.parametrize(("bar", "none"), [(0.95, True), (0.1, False)])
def test_no_selected_neuron_of_all_languages_is_said_only_where_there_is_none(
    lna: Lna, counted: Layout, bar: float, none: bool
) -> None:
    call = lna("identify", *MODEL, "-s", "mgsm", "-r", 0.5, "-b", bar, "-l", 0)
    assert call.code == 0, call.err
    (last,) = (line for line in call.lines if re.match(r" *10 +\d+  all languages", line))
    assert last.endswith("all languages: none, by the choice of λ") is none
    assert (int(last.split()[1]) == 0) is none


def test_results_of_another_name_are_used_and_that_is_said(lna: Lna, counted: Layout) -> None:
    call = lna("autosweep", "--model-name", "Llama", "--model-path", "/ABS/PATH/TO/MODEL", "-s", "mgsm", "-r", 0.1)
    assert call.code == 0
    assert "using those of Mistral-MODEL" in call.err


def test_missing_counts_are_one_line_and_exit_1(lna: Lna, counted: Layout) -> None:
    counted.activation("sw").unlink()
    for command in (("autosweep",), ("identify", "-l", 0.1)):
        call = lna(*command, *MODEL, "-s", "mgsm", "--langs", "en,sw")
        assert_one_line(call, 1, "activation.sw.Mistral-MODEL.pt is not there", "lna activation")
        assert_one_line(lna(*command, *MODEL, "-s", "other"), 1, "activation.en.Mistral-MODEL.pt is not there")


def test_torn_counts_are_one_line_and_exit_1(lna: Lna, counted: Layout) -> None:
    counted.activation("fr").write_bytes(counted.activation("fr").read_bytes()[:700])
    assert_one_line(lna("autosweep", *MODEL, "-s", "mgsm"), 1, "activation.fr.Mistral-MODEL.pt cannot be read")


def test_counts_of_other_shapes_and_other_models_are_one_line_and_exit_1(lna: Lna, counted: Layout) -> None:
    store_counts(counted, ("th",), shape=(3, 41))
    assert_one_line(lna("identify", *MODEL, "-s", "mgsm", "-l", 0.1), 1, "'th'", "(3, 41)", "different models")
    store_counts(counted, ("th",), weights_hash="another")
    assert_one_line(lna("identify", *MODEL, "-s", "mgsm", "-l", 0.1), 1, "'th'", "different models")
    assert not Path("activation_masks").exists()


def test_no_fine_lambda_is_one_line_and_exit_1(lna: Lna, counted: Layout) -> None:
    call = lna("autosweep", *MODEL, "-s", "mgsm", "-r", 1, "-b", 0.01, "--langs", "en")
    assert call.code == 1
    assert call.out == ""
    assert re.search(r"^lna: no λ in .* at lo and \d+ at hi; lower --lo", call.err, re.MULTILINE)


@pytest.mark.parametrize(
    "flags",
    [("-r", "nan"), ("-r", 0), ("-r", 1.5), ("-r", -0.1), ("-b", "nan"), ("-b", 2), ("-b", 0), ("-l", "nan"),
     ("-l", -1),
     ("-l", "inf"), ("--langs", "en,xx"), ("--langs", ""), ("--langs", "en,en"), ("-s", "a/b"), ("-s", ".."),
     ("--model-name", "a/b"), ("-r", 1e-9)],
)  # fmt: skip
def test_rates_languages_and_names_that_cannot_be_are_wrong_usage(
    lna: Lna, counted: Layout, flags: tuple[str, object]
) -> None:
    before = contents(counted.root)
    given = {"-s": "mgsm", "-l": 0.1, "--model-path": "/ABS/PATH/TO/MODEL", **{flags[0]: flags[1]}}
    call = lna("identify", *(part for pair in given.items() for part in pair))
    assert_one_line(call, 2)
    assert contents(counted.root) == before


@pytest.mark.parametrize(
    "flags",
    [("--lo", 0.3, "--hi", 0.2), ("--hi", "nan"), ("--hi", "far"), ("--eps", 0), ("--eps", "nan"), ("--lo", -1)],
)
def test_ranges_that_cannot_be_are_wrong_usage(lna: Lna, counted: Layout, flags: tuple[str, object]) -> None:
    assert_one_line(lna("autosweep", *MODEL, "-s", "mgsm", *flags), 2)


@pytest.mark.parametrize(
    "flags",
    [("--classes", "typo"), ("--classes", ""), ("--text", "question"), ("--scale", "log"), ("--average", "mean"),
     ("--overlong", "drop"), ("-r", "nan"), ("-l", "nan"), ("--langs", "xx")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["ppl", "run"])
def test_choices_that_there_are_not_are_wrong_usage_before_the_model_is_loaded(
    lna: Lna, here: Path, command: str, flags: tuple[str, object]
) -> None:
    (here / "tiny-llama" / "model.safetensors").unlink()
    given = {"-l": 0.1, **{flags[0]: flags[1]}}
    call = lna(command, "--model-path", "tiny-llama", "-s", "mgsm", "-d", "datasets/mgsm.json",
               *(part for pair in given.items() for part in pair))  # fmt: skip
    assert_one_line(call, 2)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--no-such-flag",), ("no-such-command",), ("autosweep",), ("autosweep", *MODEL, "-s", "m", "-r", "x")],
)
def test_wrong_flags_are_exit_2_with_nothing_on_stdout(lna: Lna, arguments: tuple[str, ...]) -> None:
    call = lna(*arguments)
    assert call.code == 2
    assert "Traceback" not in call.err
    if arguments:
        assert call.out == ""


def test_a_missing_mask_is_one_line_and_exit_1(lna: Lna, here: Path) -> None:
    call = lna("ppl", "--model-path", "tiny-llama", "-r", "0.10", "-l", 0, "-s", "mgsm", "-d", "datasets/mgsm.json")
    assert_one_line(call, 1, "activation_masks/mgsm/0.1-0.0/mask.Llama-tiny-llama is not there", "lna identify")


@pytest.mark.parametrize(
    ("records", "named"),
    [
        ([], "is empty"),
        ([{"lang": "en", "instruction": "x"}], "record 1: the record has no 'answers'"),
        ([{"lang": "xx", "instruction": "x", "answers": []}], "unknown language 'xx'"),
        (small_records(["es"]), "no records in 'en'"),
        ([{"lang": "en", "instruction": "x", "answers": []}], "has an answer"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_one_line_and_exit_1(
    lna: Lna, here: Path, records: list[dict[str, object]], named: str
) -> None:
    write_corpus(here / "bad.json", records)
    assert_one_line(
        lna("activation", "--model-path", "tiny-llama", "-l", "en", "-d", "bad.json", "-s", "bad"), 1, named
    )
    assert not list(Path("activations").rglob("*.pt"))


def test_a_full_disk_is_one_line_and_exit_1_and_leaves_no_file(lna: Lna, here: Path) -> None:
    with full_disk("fsync"):
        call = lna("activation", "--model-path", "tiny-llama", "-l", "en", "-d", "datasets/mgsm.json", "-s", "mgsm")
    assert call.code == 1
    assert "the disk is full: free some space" in call.err.splitlines()[-1]
    assert contents(here / "activations") == {}


@pytest.mark.parametrize("path", ["/no/model", "../x", "~nobody-of-this-name/model"])
def test_a_model_that_is_nowhere_is_one_line_and_exit_1(lna: Lna, here: Path, path: str) -> None:
    call = lna("activation", "--model-path", path, "-l", "en", "-d", "datasets/mgsm.json", "-s", "mgsm")
    assert_one_line(call, 1, f"there is no model at {path}")


def test_debug_shows_the_traceback_and_only_for_that_call(lna: Lna, counted: Layout) -> None:
    from language_neurons_alignment.errors import MissingArtifactError

    with pytest.raises(MissingArtifactError):
        lna("autosweep", *MODEL, "-s", "other", "--debug")
    assert_one_line(lna("autosweep", *MODEL, "-s", "other"), 1)


def test_ctrl_c_is_exit_130_with_one_line(lna: Lna, counted: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("language_neurons_alignment.autosweep.autosweep", interrupted)
    assert_one_line(lna("autosweep", *MODEL, "-s", "mgsm"), 130, "interrupted", "the same command goes on")


COMMANDS = [str(command.name) for command in app.registered_commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_every_flag(lna: Lna, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    call = lna(command, "--help")
    assert (call.code, call.err) == (0, "")
    function = next(one.callback for one in app.registered_commands if one.name == command)
    assert function is not None
    expected = {"as_json": "--json", "debug": "--debug", "root": "--root"}
    if command in ("model", "plan"):  # which read and write no results
        del expected["root"]
    assert expected.keys() <= set(inspect.signature(function).parameters)
    for flag in expected.values():
        assert flag in call.out


def test_the_version_is_shown(lna: Lna) -> None:
    from language_neurons_alignment import __version__

    assert lna("--version").out == f"{__version__}\n"


def test_help_breaks_no_line_where_the_source_does() -> None:
    from language_neurons_alignment.cli.app import app

    told = [command.help for command in app.registered_commands]
    assert len(told) > 15
    assert any("\n\n" in one for one in told if one), "paragraphs stay"
    assert not any("\n" in one.replace("\n\n", "") for one in told if one)


@pytest.mark.parametrize("command", ["ppl", "evaluate", "force", "generate"])
def test_a_typo_in_do_is_told_before_weights_and_corpus_are_read(
    here: Path, lna: Lna, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("language_neurons_alignment._session.read_checkpoint", pytest.fail)
    monkeypatch.setattr("language_neurons_alignment._session.read_corpus", pytest.fail)
    named = ["-o", "a.json"] if command == "generate" else ["-s", "mgsm"]
    call = lna(
        command, "--model-path", here / "tiny-llama", "-d", "datasets/mgsm.json", *named, "-l", "0", "--do", "zeor fr"
    )
    assert call.code == 2
    assert "the step 'zeor fr' cannot be done: unknown operation 'zeor'" in call.err
