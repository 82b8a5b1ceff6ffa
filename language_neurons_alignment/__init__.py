"""Find the language neurons of a multilingual language model, deactivate them, and map what it does to perplexity.

The table of contents. Everything in it is loaded when it is first used, so importing this package loads neither torch
nor any engine. A step lives in the module of its name, with its function (`autosweep.autosweep`, `identify.identify`):
a function cannot stand here under its module's own name, for whichever was imported last would win.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import activation, analysis, autosweep, cli, config, errors, identify, pipeline, ppl
    from ._compare import Comparison, compare
    from ._dataset import Built, Checked, build_dataset, check_dataset
    from ._evaluate import Evaluated, evaluate
    from ._force import Forced, force_languages
    from ._generate import Generated, generate
    from ._interventions import NeuronSource, intervene, neuron_source
    from ._methods import MethodComparison, compare_methods
    from ._report import WrittenReport, write_report
    from ._session import Session, open_session
    from ._stability import Stability, StabilitySettings, stability
    from .activation import Collected, collect_activations
    from .analysis import Analysis, Choice, ModelNeurons, Neuron_Mask, Neuron_Prob, analyze, open_neurons
    from .autosweep import AutoSweep, quick_autosweep
    from .config import (
        EvaluationSettings,
        ForcingSettings,
        MapSettings,
        Method,
        PipelineSettings,
        Sampling,
        Selection,
        SweepRange,
    )
    from .core.interventions import Intervention
    from .core.perplexity import PerplexityMap
    from .corpus.records import Corpus, Record, read_corpus
    from .engines import load_engine
    from .errors import LNAError
    from .identify import Identification
    from .pipeline import PipelineResult, run_pipeline
    from .ppl import MapResult, perplexity_map
    from .sources.source import SourceOptions
    from .store.counts import AnswerMoments, answer_moments
    from .store.layout import results_of

__all__ = [
    "__version__",
    # the steps, and all of them in a row
    "open_session",
    "results_of",
    "generate",
    "collect_activations",
    "quick_autosweep",
    "perplexity_map",
    "evaluate",
    "force_languages",
    "run_pipeline",
    # a corpus, made and checked
    "build_dataset",
    "check_dataset",
    # analysis of one model and of several
    "open_neurons",
    "analyze",
    "compare",
    "compare_methods",
    "stability",
    "write_report",
    # what they are given
    "Corpus",
    "Record",
    "read_corpus",
    "Session",
    "Selection",
    "SweepRange",
    "MapSettings",
    "EvaluationSettings",
    "ForcingSettings",
    "PipelineSettings",
    "SourceOptions",
    "Sampling",
    "Choice",
    "Method",
    # what they give back
    "Built",
    "Checked",
    "Generated",
    "Collected",
    "AutoSweep",
    "Identification",
    "PerplexityMap",
    "MapResult",
    "Evaluated",
    "Forced",
    "PipelineResult",
    "ModelNeurons",
    "Analysis",
    "Comparison",
    "MethodComparison",
    "StabilitySettings",
    "Stability",
    "WrittenReport",
    # neurons by hand, and what is done to them
    "Neuron_Prob",
    "Neuron_Mask",
    "intervene",
    "neuron_source",
    "NeuronSource",
    "Intervention",
    "answer_moments",
    "AnswerMoments",
    "load_engine",
    # every error's root
    "LNAError",
    # the modules
    "activation",
    "analysis",
    "autosweep",
    "cli",
    "config",
    "errors",
    "identify",
    "pipeline",
    "ppl",
]

_NAMES = {
    "_compare": (
        "Comparison",
        "compare",
    ),
    "_dataset": (
        "Built",
        "Checked",
        "build_dataset",
        "check_dataset",
    ),
    "_evaluate": (
        "Evaluated",
        "evaluate",
    ),
    "_force": (
        "Forced",
        "force_languages",
    ),
    "_generate": (
        "Generated",
        "generate",
    ),
    "_interventions": (
        "Doing",
        "NeuronSource",
        "intervene",
        "neuron_source",
    ),
    "_methods": (
        "MethodComparison",
        "compare_methods",
    ),
    "_report": (
        "WrittenReport",
        "write_report",
    ),
    "_session": (
        "Session",
        "open_session",
    ),
    "_stability": (
        "Stability",
        "StabilitySettings",
        "stability",
    ),
    "activation": (
        "Collected",
        "collect_activations",
    ),
    "analysis": (
        "Analysis",
        "Choice",
        "ModelNeurons",
        "Neuron_Mask",
        "Neuron_Prob",
        "analyze",
        "open_neurons",
    ),
    "autosweep": (
        "AutoSweep",
        "quick_autosweep",
    ),
    "config": (
        "EvaluationSettings",
        "ForcingSettings",
        "MapSettings",
        "Method",
        "PipelineSettings",
        "Sampling",
        "Selection",
        "SweepRange",
    ),
    "core.interventions": ("Intervention",),
    "core.perplexity": ("PerplexityMap",),
    "corpus.records": (
        "Corpus",
        "Record",
        "read_corpus",
    ),
    "engines": ("load_engine",),
    "errors": ("LNAError",),
    "identify": ("Identification",),
    "pipeline": (
        "PipelineResult",
        "run_pipeline",
    ),
    "ppl": (
        "MapResult",
        "perplexity_map",
    ),
    "sources.source": ("SourceOptions",),
    "store.counts": (
        "AnswerMoments",
        "answer_moments",
    ),
    "store.layout": ("results_of",),
}
"""What each module has of this; a name of `__all__` that is in none is a module itself."""

_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load what is asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _HOME:
        return import_module(f".{name}", __name__)
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
