"""What there is of a model, for a report: neurons, counted text, perplexity maps, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from ..config import CLASSES, TEXTS, MapSettings
from ..core.masks import to_mask_list
from ..core.perplexity_map import PerplexityMap
from ..errors import MissingArtifactError
from ..masks import StoredMask
from ..report.figures.corpus import CountedText
from ..report.model import Gap
from ..store.counts_file import load_origin
from ..store.layout import Layout, with_ending
from ..store.ppl_map import load_map
from .model_neurons import DEFAULT_CHOICE, Choice, ModelNeurons, open_neurons


@dataclass(frozen=True)
class Subject:
    """A model that is to be reported on.

    Attributes:
        layout: where its results lie.
        choice: which of its neurons.
        called: the model as the caller named it, for the commands that the report suggests.
        mask_only: read its mask and no counts.
    """

    layout: Layout
    choice: Choice = DEFAULT_CHOICE
    called: str = "MODEL"
    mask_only: bool = False


@dataclass(frozen=True)
class Evidence:
    """What there is of it.

    Attributes:
        neurons: its language neurons.
        texts: what was counted, per language; empty where the counts are not there.
        maps: finished perplexity maps of exactly these neurons, by the variant of classes and text.
        no_counts: what to say where counts are missing.
        no_maps: what to say where there is no such map.
        facts: where all this comes from.
    """

    neurons: ModelNeurons
    texts: tuple[CountedText, ...]
    maps: dict[str, PerplexityMap]
    no_counts: Gap
    no_maps: Gap
    facts: dict[str, str] = field(default_factory=dict)


def gather(subject: Subject) -> Evidence:
    """Read what there is of a model; where there are no counts, its mask alone.

    Raises:
        MissingArtifactError: neither counts nor a mask.
        LNAError: what is there cannot be used.
    """
    neurons = _neurons(subject)
    texts, counted = ((), {}) if neurons.found is None else _texts(neurons)
    maps, mapped, no_maps = _maps(subject, neurons)
    called = f"--model-path {subject.called} -s {subject.layout.dataset}"
    no_counts = Gap(
        "It needs the activation counts, and only a mask is there.", f"lna activation {called} -l LANGUAGE -d DATA"
    )
    return Evidence(neurons, texts, maps, no_counts, no_maps, {**_described(neurons), **counted, **mapped})


def _neurons(subject: Subject) -> ModelNeurons:
    """From counts if they are there, else from the mask; the error for neither names the counts, which come first."""
    if subject.mask_only:
        return open_neurons(subject.layout, subject.choice, mask_only=True)
    try:
        return open_neurons(subject.layout, subject.choice)
    except MissingArtifactError as no_counts:
        try:
            return open_neurons(subject.layout, subject.choice, mask_only=True)
        except MissingArtifactError:
            raise no_counts from None


def _texts(neurons: ModelNeurons) -> tuple[tuple[CountedText, ...], dict[str, str]]:
    """How much text was counted, and what its files say of their making where they all say the same."""
    texts, metas = [], []
    for language in neurons.languages:
        full, meta = load_origin(neurons.layout.activation(language))
        prefix, _ = load_origin(neurons.layout.activation(language, prefix=True))
        texts.append(CountedText(language, prefix, full - prefix, meta.get("sequences")))
        metas.append(meta)
    skipped = {"config_hash", "weights_hash", "language", "corpus_hash"}
    common = [key for key in metas[0] if key not in skipped and all(meta.get(key) == metas[0][key] for meta in metas)]
    return tuple(texts), {f"counts: {key.replace('_', ' ')}": str(metas[0][key]) for key in common}


def _maps(subject: Subject, neurons: ModelNeurons) -> tuple[dict[str, PerplexityMap], dict[str, str], Gap]:
    """The perplexity maps made from this very mask; why there is none."""
    rates = neurons.description.top_rate, neurons.description.lam
    layout = subject.layout
    mask = StoredMask(layout, layout.mask(*rates), neurons.languages, to_mask_list(neurons.mask), neurons.description)
    command = f"lna ppl --model-path {subject.called} -s {layout.dataset} -d DATA -r {rates[0]!r} -l {rates[1]!r}"
    maps, facts, gap = {}, {}, Gap("No perplexity map of these neurons is there.", command)
    for settings in _variants():
        path = layout.perplexity(*rates, variant=settings.variant)
        if not with_ending(path, ".json").is_file():
            continue
        found, made_from = load_map(path)
        todo = len(found.rows) * len(found.languages) - len(found.cells)
        if made_from.get("mask") != mask.digest_of(settings.classes):
            gap = Gap("The perplexity map that is there was made from another mask.", f"{command} --force")
        elif todo > 0:
            gap = Gap(f"The perplexity map is not finished: {todo} cells are missing.", command)
        else:
            maps[settings.variant] = found
            facts |= _map_facts(settings, made_from)
    return maps, facts, gap


def _variants() -> list[MapSettings]:
    """Every choice of classes and text that a map may be of, the default first."""
    classes = [chosen for size in range(1, len(CLASSES) + 1) for chosen in combinations(CLASSES, size)]
    every = [MapSettings(classes=chosen, text=text) for text in TEXTS for chosen in classes]
    return sorted(every, key=lambda settings: settings.variant != "")


def _map_facts(settings: MapSettings, made_from: dict[str, Any]) -> dict[str, str]:
    shown = {key: made_from[key] for key in ("engine", "dtype", "overlong_policy") if key in made_from}
    text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
    return {f"perplexity of {settings.text}, {' + '.join(settings.classes)} off": text}


def _described(neurons: ModelNeurons) -> dict[str, str]:
    """The mask's description, as a table tells it."""
    described, layout = neurons.description, neurons.layout
    facts = {
        "name in files": layout.model,
        "dataset": layout.dataset,
        "languages": " ".join(described.languages),
        "layers × neurons": f"{described.layers} × {described.d_mlp}",
        "top rate": repr(described.top_rate),
        "λ": f"{described.lam!r} ({neurons.lam_from})",
        "bar": "" if described.bar is None else repr(described.bar),
        "τ": "" if described.threshold is None else repr(described.threshold),
        "config digest": described.config_hash,
        "weights digest": described.weights_hash,
        "imported from": ", ".join((described.source or {}).values()),
        **{f"counts digest ({code})": digest for code, digest in described.counts.items()},
        "language_neurons_alignment": described.version,
    }
    return {name: value for name, value in facts.items() if value}
