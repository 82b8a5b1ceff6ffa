"""Sets of neurons by name: their algebra, files, and what does not belong to the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment._interventions import NeuronSource
from language_neurons_alignment._operations import Steps
from language_neurons_alignment.core.selection import to_mask_list
from language_neurons_alignment.errors import ArtifactError, IncompatibleError, MissingArtifactError, SettingsError
from tests.neuron_sets import NOWHERE, mask_of, model_of, source_of

SHAPE = (2, 5)
MODEL = model_of(SHAPE)
Place = tuple[int, int]
places = st.sets(st.tuples(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1)))


def tensor(chosen: set[Place]) -> torch.Tensor:
    neurons = torch.zeros(SHAPE, dtype=torch.bool)
    for place in chosen:
        neurons[place] = True
    return neurons


def of(source: NeuronSource, neurons: str) -> set[Place]:
    """The places that a set names."""
    steps = Steps.parse(f"zero {neurons}")
    found = source.opened(steps).neurons(steps.steps[0].terms, MODEL)
    assert found.shape == SHAPE
    return {(layer, neuron) for layer, neuron in found.nonzero().tolist()}


@given(st.dictionaries(st.sampled_from(["en", "fr", "de"]), places, min_size=3), st.data())
def test_unions_and_differences_are_those_of_sets_from_left_to_right(
    sets: dict[str, set[Place]], data: st.DataObject
) -> None:
    source = source_of(**{language: tensor(chosen) for language, chosen in sets.items()})
    first, *rest = data.draw(st.lists(st.sampled_from(sorted(sets)), min_size=1, max_size=6))
    text, expected = first, set(sets[first])
    for language in rest:
        sign = data.draw(st.sampled_from("+-"))
        text += f" {sign} {language}"
        expected = expected | sets[language] if sign == "+" else expected - sets[language]
    assert of(source, text) == expected


@given(places, places, places)
def test_classes_of_a_language_are_parts_of_its_mask(en: set[Place], fr: set[Place], de: set[Place]) -> None:
    source = source_of(en=tensor(en), fr=tensor(fr), de=tensor(de))
    assert of(source, "fr:specific") == fr - en - de
    assert of(source, "fr:related") == fr & (en | de)
    assert of(source, "fr:specific + fr:related") == of(source, "fr") == fr
    assert of(source, "fr - fr") == set()
    assert of(source, "fr + en") == of(source, "en + fr")


def test_a_language_without_classes_has_those_that_were_chosen() -> None:
    mask = mask_of(en=tensor({(0, 0), (0, 1)}), fr=tensor({(0, 1), (1, 2)}))
    assert of(NeuronSource.open(NOWHERE, mask=mask, classes=["specific"]), "fr") == {(1, 2)}
    assert of(NeuronSource.open(NOWHERE, mask=mask, classes=["related"]), "fr + en:specific") == {(0, 0), (0, 1)}
    with pytest.raises(SettingsError, match="--classes"):
        NeuronSource.open(NOWHERE, mask=mask, classes=["typo"])
    with pytest.raises(SettingsError, match="names no class"):
        NeuronSource.open(NOWHERE, mask=mask, classes=[])


def test_the_languages_are_those_of_the_mask() -> None:
    with pytest.raises(SettingsError, match="has no neurons of sw: choose from en, fr"):
        of(source_of(en=tensor(set()), fr=tensor(set())), "sw")
    with pytest.raises(SettingsError, match=r"only a mask has .* pass its λ with -l"):
        of(NeuronSource.open(NOWHERE), "fr")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.json", "[[0, 4], [1, 0], [0, 4]]"),
        ("n.csv", "layer,neuron\n0,4\n1,0\n"),
        ("n.csv", "\ufeffneuron, layer, language\r\n4, 0, fr\r\n0, 1, de\r\n"),
    ],
)
def test_a_file_lists_neurons(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    source = source_of(fr=tensor({(1, 1), (0, 4)}))
    assert of(source, f"@{tmp_path / name}") == {(0, 4), (1, 0)}
    assert of(source, f"fr + @{tmp_path / name}") == {(0, 4), (1, 0), (1, 1)}
    assert of(source, f"fr - @{tmp_path / name}") == {(1, 1)}


@pytest.mark.parametrize(("name", "text"), [("n.json", "[]"), ("n.csv", "layer,neuron\n")])
def test_a_list_may_be_empty(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert of(source_of(), f"@{tmp_path / name}") == set()


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("n.json", "[[0, 1", "cannot be read as neurons"),
        ("n.json", '{"0": [1]}', "which is no neuron"),
        ("n.json", "[[0, 1, 2]]", r"'\[0, 1, 2\]', which is no neuron"),
        ("n.json", "[[0, 1.5]]", "which is no neuron"),
        ("n.json", "[[0, true]]", "which is no neuron"),
        ("n.json", "[[0, -1]]", "which is no neuron"),
        ("n.json", "[[0, 99999999999999999999]]", "which is no neuron"),
        ("n.csv", "0,1\n", "its header is 0,1"),
        ("n.csv", "", "its header is missing"),
        ("n.csv", "layer,neuron\n0\n", "cannot be read as neurons"),
        ("n.csv", "layer,neuron\n0,x\n", "cannot be read as neurons"),
        ("n.csv", "layer,neuron\n-1,2\n", "which is no neuron"),
    ],
)
def test_a_file_that_lists_no_neurons_is_refused(tmp_path: Path, name: str, text: str, named: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=named):
        of(source_of(), f"@{tmp_path / name}")


def test_neurons_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    for place, named in (([2, 0], "neuron 0 of layer 2"), ([0, 5], "neuron 5 of layer 0")):
        (tmp_path / "n.json").write_text(json.dumps([[0, 0], place]))
        with pytest.raises(IncompatibleError, match=rf"{named}, nowhere has layers 0..1 and neurons 0..4"):
            of(source_of(), f"@{tmp_path / 'n.json'}")
    with pytest.raises(MissingArtifactError, match=r"none\.csv is not there"):
        of(source_of(), f"@{tmp_path / 'none.csv'}")
    (tmp_path / "n.json").write_text("[]")
    with pytest.raises(SettingsError, match="lists neurons of no language: leave #fr out"):
        of(source_of(), f"@{tmp_path / 'n.json'}#fr")


def test_a_mask_file_is_a_set_for_each_of_its_languages(tmp_path: Path) -> None:
    path = tmp_path / "mask.Other-model"
    en, fr = tensor({(0, 0), (1, 1)}), tensor({(1, 1), (1, 4)})
    torch.save(to_mask_list(torch.stack([en] * 3 + [fr] * 7, dim=-1)), path)
    source = source_of(fr=tensor({(0, 3)}))
    assert of(source, f"@{path}#fr + fr") == {(1, 1), (1, 4), (0, 3)}
    assert of(source, f"@{path}#ru") == {(0, 0), (1, 1)}
    with pytest.raises(SettingsError, match=f"10 languages: name one, @{path}#en"):
        of(source, f"@{path}")
    with pytest.raises(SettingsError, match="has no neurons of it"):
        of(source, f"@{path}#it")
    torch.save(to_mask_list(fr.unsqueeze(-1)), path)
    assert of(source, f"@{path}") == {(1, 1), (1, 4)}
    torch.save(to_mask_list(torch.ones(2, 9, 1, dtype=torch.bool)), path)
    with pytest.raises(ArtifactError, match="another model's mask"):
        of(source, f"@{path}")
