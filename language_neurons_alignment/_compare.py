"""What training changes about language neurons: a base model compared with others of the same shape.

A neuron is identified by its layer and index, so models of one architecture can be compared neuron by neuron: which
changed their class, and which joined or left a language (the paper's figure 4 and its tables 2 to 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from .analysis import ModelNeurons, english_means
from .core.flow import ClassFlow, LanguageFlow, TrainingPath, class_flow, language_flow, training_path
from .core.frames import Columns, Framed
from .core.profiles import GroupMeans, class_profile, english_groups, group_means, language_profile, trained_groups
from .errors import IncompatibleError, SettingsError
from .store.files import Json, save_tables
from .version import __version__


@dataclass(frozen=True)
class PairComparison:
    """One model against another.

    Attributes:
        languages: the neurons that each language lost, gained and kept, per layer.
        groups: mean change per language of specific and related neurons and of masks, for trained and other languages;
            if no trained languages are named, for English and the others.
    """

    before: str
    after: str
    classes: ClassFlow
    languages: LanguageFlow
    groups: GroupMeans

    def plain(self) -> Json:
        """Flow, languages and groups as plain values, summed over layers."""
        flow, states = self.languages, self.classes.states
        numbers = {name: getattr(flow, name).sum(dim=0) for name in ("before", "after", "kept", "gained", "lost")}
        numbers |= {"jaccard": flow.jaccard, "retained": flow.retained}
        rows = zip(states, self.classes.total.tolist(), strict=True)
        languages = {
            code: {name: dict(zip(flow.sets, values[k].tolist(), strict=True)) for name, values in numbers.items()}
            for k, code in enumerate(flow.languages)
        }
        return {
            "from": self.before,
            "to": self.after,
            "flow": {state: dict(zip(states, row, strict=True)) for state, row in rows},
            "languages": languages,
            "groups": self.groups.columns(),
        }


@dataclass(frozen=True)
class Comparison:
    """Models of one shape on one dataset.

    Attributes:
        models: in the order given; the first is the base.
        pairs: the base against each of the others.
        steps: each model against the next, along the training; for two models the same as `pairs`.
        means: for each model, the mean number of neurons of English and of the others.
        notes: other reasons than training for which the models may differ, and what a reader must know of each.
    """

    models: tuple[ModelNeurons, ...]
    names: tuple[str, ...]
    pairs: tuple[PairComparison, ...]
    steps: tuple[PairComparison, ...]
    path: TrainingPath
    means: tuple[GroupMeans, ...]
    trained: tuple[str, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...] = ()

    def tables(self) -> dict[str, Columns]:
        """The tables, by the names of their files; rows about a pair begin with its two names."""
        named = [({"from": pair.before, "to": pair.after}, pair) for pair in (*self.pairs, *self.steps[1:])]
        models = [({"model": name}, means) for name, means in zip(self.names, self.means, strict=True)]
        return {
            "classes": _stacked([(label, pair.classes) for label, pair in named]),
            "languages": _stacked([(label, pair.languages) for label, pair in named]),
            "groups": _stacked([(label, pair.groups) for label, pair in named]),
            "path": self.path.columns(),
            "means": _stacked(models),
        }

    def plain(self) -> Json:
        """The results as plain values, summed over layers; the CSV files have every layer."""
        return {
            "models": [
                {"name": name, "lam_from": one.lam_from, "classes": dict(zip(self.path.classes, row, strict=True))}
                | {"made_from": one.description.plain()}
                for name, one, row in zip(self.names, self.models, self.path.totals.tolist(), strict=True)
            ],
            "trained": list(self.trained),
            "notes": list(self.notes),
            "pairs": [pair.plain() for pair in self.pairs],
            "steps": [step.plain() for step in self.steps],
            "version": __version__,
        }


def compare(models: Sequence[ModelNeurons], *, trained: Sequence[str] = ()) -> Comparison:
    """Compare a base model with others and write a JSON file and one CSV file per table.

    >>> import language_neurons_alignment as lna
    >>> counted, languages = {}, ("en", "es", "fr")
    >>> for name in ("base", "trained"):  # here, the same model twice
    ...     with lna.open_session("model", "corpus.json", "toy", model_name=name) as session:
    ...         counted[name] = [lna.collect_activations(session, code) for code in languages]
    >>> layouts = [lna.results_of("model", "toy", model_name=name) for name in counted]
    >>> selection = lna.config.Selection(0.1, 0.0, 0.8, languages=languages)
    >>> found = compare([lna.open_neurons(layout, selection) for layout in layouts])
    >>> found.names, found.pairs[0].languages.lost.sum().item()
    (('base-model', 'trained-model'), 0)
    >>> found.notes[0]
    'base-model and trained-model have the same counts, so nothing changed'

    Args:
        models: the base, then the others, in the order of training.
        trained: languages that the models were trained on.

    Raises:
        SettingsError: fewer than two models, one given twice, or a trained language that is not compared.
        IncompatibleError: models of different shapes, datasets, languages or rates.
    """
    found = comparison_of(models, trained=trained)
    base, lams = models[0].layout, {one.description.lam for one in models}
    given = all(one.lam_from == "given" for one in models) and len(lams) == 1
    rates = f"{models[0].description.top_rate!r}-{repr(lams.pop()) if given else 'own'}"
    path = base.comparison(found.names[1:], rates)
    return replace(found, files=tuple(save_tables(path, found.plain(), found.tables())))


def comparison_of(models: Sequence[ModelNeurons], *, trained: Sequence[str] = ()) -> Comparison:
    """Compare opened neurons; nothing is written."""
    names = _distinct_names(models)
    _check_comparable(models, names)
    languages = models[0].languages
    groups = trained_groups(languages, trained) if trained else english_groups(languages)
    profiles = [class_profile(one.members, widths=one.description.widths) for one in models]
    by_language = [language_profile(one.mask, members=one.members, languages=languages) for one in models]
    named = list(zip(names, models, strict=True))
    pairs = tuple(_compare_pair(named[0], other, groups) for other in named[1:])
    steps = (pairs[0], *(_compare_pair(one, other, groups) for one, other in pairwise(named[1:])))
    return Comparison(
        models=tuple(models),
        names=names,
        pairs=pairs,
        steps=steps,
        path=training_path(names, profiles, by_language),
        means=tuple(english_means(profile) for profile in by_language),
        trained=tuple(trained),
        notes=(*_other_differences(named), *(f"{name}: {note}" for name, one in named for note in one.notes)),
    )


def _compare_pair(
    one: tuple[str, ModelNeurons], other: tuple[str, ModelNeurons], groups: dict[str, tuple[str, ...]]
) -> PairComparison:
    """Compare two named models; changes are averaged over groups of languages."""
    (before, base), (after, later) = one, other
    flow = language_flow(base.mask, later.mask, languages=base.languages)
    change = (flow.after - flow.before).sum(dim=0)
    means = group_means(change, languages=base.languages, classes=flow.sets, groups=groups)
    classes = class_flow(base.members, later.members, widths=base.description.widths)
    return PairComparison(before, after, classes, flow, means)


def _distinct_names(models: Sequence[ModelNeurons]) -> tuple[str, ...]:
    """The models' names; if two are the same, each with the folder of its results and its λ."""
    plain = [one.layout.model for one in models]
    if len(set(plain)) == len(plain):
        return tuple(plain)
    places = [(one.layout.root.resolve(), one.layout.model, one.description.lam) for one in models]
    repeated = next((place[1] for place in places if places.count(place) > 1), None)
    if repeated:
        raise SettingsError(f"{repeated} is given twice, and a model equals itself: name each model once")
    return tuple(f"{name}@{root.name}-{lam!r}" for root, name, lam in places)


_REMEDY = {
    "layers × neurons per layer": "neurons are compared by index, so give models of one architecture and size",
    "dataset": "give results on the same questions",
    "languages": "identify both with the same --langs, in the same order",
    "top rate": "identify both at the same -r",
    "bar": "identify both with the same -b",
    "classes": "a mask does not contain general neurons, so give the counts of both, or compare both by --mask-only",
}


def _check_comparable(models: Sequence[ModelNeurons], names: Sequence[str]) -> None:
    """Raise unless the models have the same shape and their neurons were selected alike; each may have its own λ."""
    if len(models) < 2:
        raise SettingsError(f"a comparison needs at least two models, got {len(models)}: name a base and another")
    first = _comparable(models[0])
    for name, other in zip(names[1:], models[1:], strict=True):
        for what, seen in _comparable(other).items():
            if seen != first[what]:
                raise IncompatibleError(
                    f"{names[0]} and {name} cannot be compared: {what} {first[what]} and {seen}; {_REMEDY[what]}"
                )


def _comparable(one: ModelNeurons) -> dict[str, str]:
    described = one.description
    return {
        "layers × neurons per layer": described.size if described.widths is None else f"{[*described.widths]}",
        "dataset": one.layout.dataset,
        "languages": ",".join(described.languages),
        "top rate": repr(described.top_rate),
        "bar": repr(described.bar),
        "classes": ", ".join(one.members),
    }


def _other_differences(named: Sequence[tuple[str, ModelNeurons]]) -> list[str]:
    """Differences that do not come from training, and models that do not differ at all."""
    (first, base), *others = named
    notes = []
    for name, other in others:
        if differing := _different_questions(base, other):
            notes.append(
                f"{first} and {name} saw questions of different length in {', '.join(differing)}: different questions, "
                "another number of answers per question, or another tokenizer, so not every difference comes from "
                "training"
            )
        lam, its = base.description.lam, other.description.lam
        if lam != its:
            notes.append(
                f"{first} and {name} have λ {lam:.6f} and {its:.6f}: λ causes part of the difference; "
                "compare them at one λ too (-l)"
            )
        if base.description.counts and base.description.counts == other.description.counts:
            notes.append(f"{first} and {name} have the same counts, so nothing changed")
    return notes


def _different_questions(base: ModelNeurons, other: ModelNeurons) -> list[str]:
    """Languages with another number of question tokens; none where a model is known by its mask alone."""
    if base.counts is None or other.counts is None:
        return []
    pairs = zip(base.languages, base.counts.prefix_tokens.tolist(), other.counts.prefix_tokens.tolist(), strict=True)
    return [code for code, one, two in pairs if one != two]


def _stacked(labelled: Sequence[tuple[dict[str, str], Framed]]) -> Columns:
    """Tables of one kind below each other, each row with the labels of its table in front."""
    columns: Columns = {}
    for labels, table in labelled:
        content = table.columns()
        rows = len(next(iter(content.values())))
        for name, values in ({key: [label] * rows for key, label in labels.items()} | content).items():
            columns.setdefault(name, []).extend(values)
    return columns
