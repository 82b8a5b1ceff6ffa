"""What the package offers: a table of contents that is pinned here, so that it changes on purpose only."""

from __future__ import annotations

import importlib
import inspect

import pytest

import language_neurons_alignment as lna
from language_neurons_alignment import config, errors
from language_neurons_alignment.core import accuracy as accuracy_map
from language_neurons_alignment.core import perplexity as perplexity_map
from language_neurons_alignment.core import profiles
from language_neurons_alignment.core import selection as masks

EXPORTS = {
    "load", "Model", "AnswerCounts",
    "open_session", "Session", "results_of", "read_corpus", "Corpus", "Record", "build_dataset", "check_dataset",
    "generate", "collect_activations", "quick_autosweep", "find_neurons", "run_pipeline", "Mask", "Neuron_Prob",
    "Neuron_Mask",
    "neuron_card", "neuron_cards", "NeuronCards", "write_neurons",
    "perplexity_map", "evaluate", "force_languages", "compare_methods", "lens", "intervene", "neuron_source",
    "load_engine", "open_neurons", "analyze", "compare", "stability", "write_report", "LNAError",
}  # fmt: skip

SEED_MODULES = {"activation", "analysis", "autosweep", "cli", "config", "identify", "pipeline", "ppl"}
LATER_MODULES = {"errors"}


def test_the_exports_are_these_and_all_of_them_are_there() -> None:
    assert set(lna.__all__) == {"__version__"} | EXPORTS | SEED_MODULES | LATER_MODULES
    assert len(lna.__all__) == len(set(lna.__all__))
    for name in lna.__all__:
        assert getattr(lna, name) is not None


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_every_name_is_defined_once_where_the_package_says(name: str) -> None:
    value = getattr(lna, name)
    assert value.__name__ == name
    home = value.__module__.removeprefix("language_neurons_alignment.")
    assert lna._HOME[name] == home
    assert vars(importlib.import_module(value.__module__))[name] is value


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_every_name_says_what_it_is_in_one_sentence_first(name: str) -> None:
    told = inspect.getdoc(getattr(lna, name)) or ""
    assert told.splitlines()[0].endswith("."), "one sentence first"


def test_dir_shows_the_exports_and_nothing_foreign() -> None:
    for name in EXPORTS:
        getattr(lna, name)
    assert {name for name in dir(lna) if not name.startswith("__")} == set(lna.__all__) - {"__version__"}
    assert set(lna.__all__) <= set(dir(lna))
    assert not {"Any", "TYPE_CHECKING", "annotations", "import_module", "torch", "Path"} & set(dir(lna))


@pytest.mark.parametrize("module", sorted(SEED_MODULES | LATER_MODULES))
def test_the_modules_stay_importable_and_are_modules_whatever_was_imported_first(module: str) -> None:
    imported = importlib.import_module(f"language_neurons_alignment.{module}")
    assert inspect.ismodule(imported)
    assert getattr(lna, module) is imported


def test_the_steps_are_found_in_the_modules_of_their_names() -> None:
    from language_neurons_alignment.autosweep import autosweep, quick_autosweep
    from language_neurons_alignment.identify import identify

    assert lna.autosweep.autosweep is autosweep
    assert lna.identify.identify is identify
    assert lna.quick_autosweep is quick_autosweep


def test_what_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'neurons'"):
        _ = lna.neurons
    with pytest.raises(ImportError):
        from language_neurons_alignment import neurons  # noqa: F401 # pyright: ignore


def test_every_error_has_the_one_root_and_a_place_in_the_tree() -> None:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    kinds = [kind for kind in found if not issubclass(kind, Warning)]
    assert len(kinds) > 10
    for kind in kinds:
        assert issubclass(kind, lna.LNAError)
        assert kind.__name__ in (errors.__doc__ or "")
        assert str(kind("said in one line")) == "said in one line"


def test_choices_are_the_same_in_the_settings_and_in_the_core() -> None:
    assert config.CLASSES is masks.CLASSES
    assert config.MASK_CLASSES is profiles.MASK_CLASSES
    assert config.SCALES == perplexity_map.SCALES
    assert config.AVERAGES == perplexity_map.AVERAGES
    assert config.MEASURES == accuracy_map.MEASURES
