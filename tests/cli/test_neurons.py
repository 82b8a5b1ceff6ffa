"""`lna neurons` and `lna neuron`: what they print, as tables and as JSON."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Lna


def at(work: Path) -> list[object]:
    """The options that name the small run."""
    place = ["--model-path", work / "tiny-llama", "-s", "small", "-d", work / "corpus.json", "--root", work / "out"]
    return [*place, "-r", 0.1, "--device", "cpu"]


def test_one_neuron_as_json_and_for_people(lna: Lna, work: Path) -> None:
    found = lna("neuron", "1.20", *at(work), "-k", 2, "--json")
    assert found.code == 0, found.err
    assert set(found.json) == {"layer", "index", "class", "languages", "promotes", "suppresses"}
    assert (found.json["layer"], found.json["index"]) == (1, 20)
    assert set(found.json["languages"]) == {"en", "es", "sw"}
    contexts = found.json["languages"]["es"]["contexts"]
    assert len(contexts) == 2
    assert set(contexts[0]) == {"record", "answer", "position", "token", "activation"}
    assert contexts[0]["activation"] >= contexts[1]["activation"]
    assert set(found.json["promotes"][0]) == {"token", "logit"}
    shown = lna("neuron", "1.20", *at(work), "--langs", "es", "--tokens", 3)
    assert shown.lines[0].startswith("neuron 1.20:")
    assert any(line.startswith("Spanish: fires on ") for line in shown.lines)


def test_the_page_and_its_files_are_named_and_what_cannot_be_is_one_line(lna: Lna, work: Path) -> None:
    found = lna("neurons", *at(work), "--top", 1, "-k", 1, "--json")
    assert found.code == 0, found.err
    assert Path(found.json["page"]).is_file()
    assert all(Path(file).is_file() for file in found.json["files"])
    assert found.json["bytes_kept"] > 0
    for wrong, said in (
        (["neuron", "1-20", *at(work)], "a neuron is LAYER.INDEX"),
        (["neuron", "7.1", *at(work)], "there is no neuron 7.1"),
        (["neurons", *at(work)[:-2], "--engine", "vllm"], "give --engine transformers"),
        (["neurons", *at(work), "-k", 0], "-k must be from 1 to 1000, got 0"),
    ):
        refused = lna(*wrong)
        assert refused.code == 2
        assert said in refused.err
