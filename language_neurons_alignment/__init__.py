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
    from .activation import Collected, collect_activations
    from .analysis import Neuron_Mask, Neuron_Prob
    from .answers.generation import Generated, generate
    from .autosweep import AutoSweep, quick_autosweep
    from .causal.evaluation.evaluate import Evaluated, evaluate
    from .causal.evaluation.settings import EvaluationSettings
    from .causal.forcing.force import Forced, force_languages
    from .causal.forcing.settings import ForcingSettings
    from .config import MapSettings, PipelineSettings, Selection, SweepRange
    from .core.interventions import Intervention
    from .core.perplexity_map import PerplexityMap
    from .corpus.records import Corpus, Record, read_corpus
    from .dataset.build import Built, SourceOptions, build_dataset
    from .dataset.check import Checked, check_dataset
    from .engines import load_engine
    from .errors import LNAError
    from .findings.analyze import Analysis, analysis_of
    from .findings.compare import Comparison, comparison_of
    from .findings.methods import MethodComparison, compare_methods
    from .findings.model_neurons import Choice, ModelNeurons, open_neurons
    from .findings.reporting import compose
    from .findings.stability.result import Stability
    from .findings.stability.settings import StabilitySettings
    from .findings.stability.stability import stability
    from .identify import Identification
    from .interventions.doing import Doing, intervene
    from .interventions.neuron_sets import NeuronSource, neuron_source
    from .means import AnswerMoments, answer_moments
    from .method import Method
    from .pipeline import PipelineResult, run_pipeline
    from .ppl import MapResult, perplexity_map
    from .sampling import Sampling
    from .session import Session, open_session, results_of

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
    # what the neurons tell, of one model and of several
    "open_neurons",
    "analysis_of",
    "comparison_of",
    "compare_methods",
    "compose",
    "stability",
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
    # neurons by hand, and what is done to them
    "Neuron_Prob",
    "Neuron_Mask",
    "intervene",
    "neuron_source",
    "NeuronSource",
    "Doing",
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
    "activation": ("collect_activations", "Collected"),
    "analysis": ("Neuron_Prob", "Neuron_Mask"),
    "answers.generation": ("generate", "Generated"),
    "autosweep": ("quick_autosweep", "AutoSweep"),
    "causal.evaluation.evaluate": ("evaluate", "Evaluated"),
    "causal.evaluation.settings": ("EvaluationSettings",),
    "causal.forcing.force": ("force_languages", "Forced"),
    "causal.forcing.settings": ("ForcingSettings",),
    "config": ("Selection", "SweepRange", "MapSettings", "PipelineSettings"),
    "core.interventions": ("Intervention",),
    "core.perplexity_map": ("PerplexityMap",),
    "corpus.records": ("Corpus", "Record", "read_corpus"),
    "dataset.build": ("build_dataset", "Built", "SourceOptions"),
    "dataset.check": ("check_dataset", "Checked"),
    "engines": ("load_engine",),
    "errors": ("LNAError",),
    "findings.analyze": ("analysis_of", "Analysis"),
    "findings.compare": ("comparison_of", "Comparison"),
    "findings.model_neurons": ("open_neurons", "ModelNeurons", "Choice"),
    "findings.reporting": ("compose",),
    "findings.stability.result": ("Stability",),
    "findings.stability.settings": ("StabilitySettings",),
    "findings.stability.stability": ("stability",),
    "identify": ("Identification",),
    "interventions.doing": ("intervene", "Doing"),
    "means": ("answer_moments", "AnswerMoments"),
    "interventions.neuron_sets": ("neuron_source", "NeuronSource"),
    "method": ("Method",),
    "findings.methods": ("compare_methods", "MethodComparison"),
    "pipeline": ("run_pipeline", "PipelineResult"),
    "ppl": ("perplexity_map", "MapResult"),
    "sampling": ("Sampling",),
    "session": ("open_session", "results_of", "Session"),
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
