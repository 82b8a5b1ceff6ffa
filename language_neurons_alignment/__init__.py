"""Find the language neurons of a multilingual language model, deactivate them, and measure what that does.

    >>> import language_neurons_alignment as lna
    >>> model = lna.load("model", device="cpu")  # or a model in memory, with tokenizer=
    >>> counts = model.count({"en": ["Two doors."], "es": ["Dos puertas."], "sw": ["Milango miwili."]})
    >>> neurons = counts.find_neurons(lna.config.Selection(top_rate=0.1, bar=0.8))
    >>> with model.ablate(neurons["es"]):
    ...     answer = model.generate("Dos puertas", max_new_tokens=4)

Runs that keep their results in files, as the command line does, have a session (`lna.open_session`).

    >>> lna.config.Selection(top_rate=0.01, lam=0.109375).folder
    '0.01-0.109375'

Names are loaded when they are first used, so importing this package loads neither torch nor any engine. Settings are in
`lna.config`. The functions `autosweep` and `identify` are reached through their modules (`lna.autosweep.autosweep`):
a function cannot have the name of a public module beside it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import activation as activation
    from . import analysis as analysis
    from . import autosweep as autosweep
    from . import cli as cli
    from . import config as config
    from . import errors as errors
    from . import identify as identify
    from . import pipeline as pipeline
    from . import ppl as ppl
    from ._compare import compare as compare
    from ._dataset import build_dataset as build_dataset
    from ._dataset import check_dataset as check_dataset
    from ._evaluate import evaluate as evaluate
    from ._force import force_languages as force_languages
    from ._generate import generate as generate
    from ._interventions import intervene as intervene
    from ._interventions import neuron_source as neuron_source
    from ._lens import lens as lens
    from ._loaded import Model as Model
    from ._loaded import load as load
    from ._methods import compare_methods as compare_methods
    from ._neuron_cards import NeuronCards as NeuronCards
    from ._neuron_cards import neuron_card as neuron_card
    from ._neuron_cards import neuron_cards as neuron_cards
    from ._neurons import write_neurons as write_neurons
    from ._report import write_report as write_report
    from ._session import Session as Session
    from ._session import open_session as open_session
    from ._stability import stability as stability
    from .activation import collect_activations as collect_activations
    from .analysis import Neuron_Mask as Neuron_Mask
    from .analysis import Neuron_Prob as Neuron_Prob
    from .analysis import analyze as analyze
    from .analysis import open_neurons as open_neurons
    from .autosweep import quick_autosweep as quick_autosweep
    from .corpus.records import Corpus as Corpus
    from .corpus.records import Record as Record
    from .corpus.records import read_corpus as read_corpus
    from .engines import load_engine as load_engine
    from .errors import LNAError as LNAError
    from .identify import find_neurons as find_neurons
    from .pipeline import run_pipeline as run_pipeline
    from .ppl import perplexity_map as perplexity_map
    from .store.counts import AnswerCounts as AnswerCounts
    from .store.layout import results_of as results_of
    from .store.masks import Mask as Mask

_HOME = {
    name: module
    for module, names in {
        "_loaded": ("load", "Model"),
        "_session": ("open_session", "Session"),
        "store.layout": ("results_of",),
        "corpus.records": ("read_corpus", "Corpus", "Record"),
        "_dataset": ("build_dataset", "check_dataset"),
        "_generate": ("generate",),
        "activation": ("collect_activations",),
        "autosweep": ("quick_autosweep",),
        "identify": ("find_neurons",),
        "pipeline": ("run_pipeline",),
        "store.counts": ("AnswerCounts",),
        "store.masks": ("Mask",),
        "ppl": ("perplexity_map",),
        "_evaluate": ("evaluate",),
        "_force": ("force_languages",),
        "_methods": ("compare_methods",),
        "_lens": ("lens",),
        "_interventions": ("intervene", "neuron_source"),
        "engines": ("load_engine",),
        "analysis": ("open_neurons", "analyze", "Neuron_Prob", "Neuron_Mask"),
        "_compare": ("compare",),
        "_stability": ("stability",),
        "_neuron_cards": ("neuron_card", "neuron_cards", "NeuronCards"),
        "_neurons": ("write_neurons",),
        "_report": ("write_report",),
        "errors": ("LNAError",),
    }.items()
    for name in names
}
"""Each public name, and the module that defines it."""

_MODULES = ("activation", "analysis", "autosweep", "cli", "config", "errors", "identify", "pipeline", "ppl")

__all__ = ["__version__", *_HOME, *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load what is asked for (PEP 562)."""
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))})
