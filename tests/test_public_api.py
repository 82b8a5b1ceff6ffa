"""What the package offers: a table of contents that is pinned here, so that it changes on purpose only."""

from __future__ import annotations

import importlib
import inspect

import pytest

import language_neurons_alignment as lna
from language_neurons_alignment import config, errors
from language_neurons_alignment import config as evaluation
from language_neurons_alignment.core import accuracy as accuracy_map
from language_neurons_alignment.core import perplexity as perplexity_map
from language_neurons_alignment.core import selection as masks

EXPORTS = {
    "__version__", "open_session", "results_of", "generate", "Generated", "Sampling",
    "collect_activations", "quick_autosweep", "perplexity_map",
    "run_pipeline", "Corpus", "Record", "read_corpus", "Session", "Selection", "SweepRange", "MapSettings",
    "PipelineSettings", "Collected", "AutoSweep", "Identification", "PerplexityMap", "MapResult", "PipelineResult",
    "Neuron_Prob", "Neuron_Mask", "Intervention", "answer_moments", "AnswerMoments", "load_engine", "LNAError",
    "build_dataset", "check_dataset", "SourceOptions", "Built", "Checked",
    "evaluate", "Evaluated", "EvaluationSettings",
    "intervene", "Doing", "neuron_source", "NeuronSource",
    "force_languages", "Forced", "ForcingSettings",
    "open_neurons", "ModelNeurons", "Choice", "analyze", "Analysis", "compare", "Comparison", "write_report",
    "Method", "MethodComparison", "compare_methods", "stability", "StabilitySettings", "Stability",
    "WrittenReport",
}  # fmt: skip

SEED_MODULES = {"activation", "analysis", "autosweep", "cli", "config", "identify", "pipeline", "ppl"}
LATER_MODULES = {"errors"}


def test_the_exports_are_these_and_all_of_them_are_there() -> None:
    assert set(lna.__all__) == EXPORTS | SEED_MODULES | LATER_MODULES
    assert len(lna.__all__) == len(set(lna.__all__))
    for name in lna.__all__:
        assert getattr(lna, name) is not None
    assert set(lna.__all__) <= set(dir(lna))
    for name in EXPORTS - {"__version__"}:
        assert getattr(lna, name).__name__ == name


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
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(kinds) > 10
    for kind in kinds:
        assert issubclass(kind, lna.LNAError)
        assert kind.__name__ in (errors.__doc__ or "")
        assert str(kind("said in one line")) == "said in one line"


def test_choices_are_the_same_in_the_settings_and_in_the_core() -> None:
    assert config.CLASSES == masks.CLASSES
    assert config.MASK_CLASSES == masks.MASK_CLASSES
    assert config.SCALES == perplexity_map.SCALES
    assert config.AVERAGES == perplexity_map.AVERAGES
    assert evaluation.MEASURES == accuracy_map.MEASURES
