"""What training does to language neurons: a base model against others of its shape (paper figure 4, tables 2 to 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from .analysis import ModelNeurons
from .core.flow import ClassFlow, LanguageFlow, TrainingPath, class_flow, language_flow, training_path
from .core.frames import Columns, Framed
from .core.profiles import (
    GroupMeans,
    LanguageProfile,
    class_profile,
    english_groups,
    group_means,
    language_profile,
    trained_groups,
)
from .errors import IncompatibleError, SettingsError
from .store.files import save_tables
from .version import __version__

# ── Which models may be compared, what each is called, and what else than training may make them differ.


def distinct_names(models: Sequence[ModelNeurons]) -> tuple[str, ...]:
    """Each model's name; where two have the same, the folder of its results makes the difference."""
    plain = [one.layout.model for one in models]
    if len(set(plain)) == len(plain):
        return tuple(plain)
    places = [(one.layout.root.resolve(), one.layout.model, one.description.lam) for one in models]
    repeated = next((place[1] for place in places if places.count(place) > 1), None)
    if repeated:
        raise SettingsError(f"{repeated} is given twice, and a model equals itself: name each model once")
    return tuple(
        f"{name}@{one.layout.root.resolve().name}-{one.description.lam!r}"
        for name, one in zip(plain, models, strict=True)
    )


def check_comparable(models: Sequence[ModelNeurons], names: Sequence[str]) -> None:
    """Raise unless neurons of these models are the same ones by their place, and were chosen in the same way.

    The corpora need not be the same to the letter: answers are the models' own. λ may differ too: as in the paper, each
    model has the one of its own sweep.

    Raises:
        SettingsError: fewer than two models.
        IncompatibleError: what differs, and in which two models.
    """
    if len(models) < 2:
        raise SettingsError(f"a comparison needs at least two models, got {len(models)}: name a base and another")
    first = _comparable(models[0])
    for name, other in zip(names[1:], models[1:], strict=True):
        for what, seen in _comparable(other).items():
            if seen != first[what]:
                raise IncompatibleError(
                    f"{names[0]} and {name} cannot be compared: {what} {first[what]} and {seen}; {_REMEDY[what]}"
                )


_REMEDY = {
    "layers × neurons per layer": "a neuron is told by its place, so give models of one architecture and size",
    "dataset": "give results on the same questions",
    "languages": "identify both with the same --langs, in the same order",
    "top rate": "identify both at the same -r",
    "bar": "identify both with the same -b",
    "classes": "general neurons are in no mask, so give the counts of both, or compare both by --mask-only",
}


def _comparable(one: ModelNeurons) -> dict[str, str]:
    described = one.description
    return {
        "layers × neurons per layer": f"{described.layers} × {described.d_mlp}",
        "dataset": one.layout.dataset,
        "languages": ",".join(described.languages),
        "top rate": repr(described.top_rate),
        "bar": repr(described.bar),
        "classes": ", ".join(one.members),
    }


def caveats(named: Sequence[tuple[str, ModelNeurons]]) -> list[str]:
    """Differences in what the models were counted on, and models that do not differ at all."""
    (first, base), *others = named
    notes = []
    for name, other in others:
        differing = [
            code for code, tokens in base.prefix_tokens.items() if other.prefix_tokens.get(code, tokens) != tokens
        ]
        if differing:
            notes.append(
                f"{first} and {name} saw questions of different length in {', '.join(differing)}: other questions, "
                "another number of answers to them, or another tokenizer, so not all that differs comes from training"
            )
        lams = (base.description.lam, other.description.lam)
        if lams[0] != lams[1]:
            notes.append(
                f"{first} and {name} have λ {lams[0]:.6f} and {lams[1]:.6f}: part of what differs is λ's doing; "
                "compare with -l at one λ too"
            )
        if base.description.counts and base.description.counts == other.description.counts:
            notes.append(f"{first} and {name} have the same counts: nothing moved because nothing differs")
    return notes


# ── One model against another of its shape: neuron by neuron, language by language (paper figure 4, tables 2 and 4).


@dataclass(frozen=True)
class PairComparison:
    """One model against another.

    Attributes:
        before: name of the first.
        after: name of the second.
        classes: neurons by their class in both, per layer.
        languages: what each language's neurons lost, gained and kept, per layer.
        groups: mean change per language of specific and related neurons and of masks, for trained and other languages,
            or where none are named for English and the others.
    """

    before: str
    after: str
    classes: ClassFlow
    languages: LanguageFlow
    groups: GroupMeans

    def plain(self) -> dict[str, Any]:
        """As plain values, over all layers: flow, languages, groups."""
        languages, sets = self.languages.languages, self.languages.sets
        numbers = {
            name: getattr(self.languages, name).sum(dim=0) for name in ("before", "after", "kept", "gained", "lost")
        }
        numbers |= {"jaccard": self.languages.jaccard, "retained": self.languages.retained}
        return {
            "from": self.before,
            "to": self.after,
            "flow": {
                state: dict(zip(self.classes.states, row, strict=True))
                for state, row in zip(self.classes.states, self.classes.total.tolist(), strict=True)
            },
            "languages": {
                code: {
                    name: {set_name: values[k, s].item() for s, set_name in enumerate(sets)}
                    for name, values in numbers.items()
                }
                for k, code in enumerate(languages)
            },
            "groups": self.groups.columns(),
        }


def compare_pair(
    one: tuple[str, ModelNeurons], other: tuple[str, ModelNeurons], groups: dict[str, tuple[str, ...]]
) -> PairComparison:
    """What happened to each neuron's class and to each language's neurons between two models.

    Args:
        one: name and neurons of the first.
        other: of the second.
        groups: of languages, whose changes are averaged.
    """
    (before, base), (after, later) = one, other
    flow = language_flow(base.mask, later.mask, languages=base.languages)
    change = (flow.after - flow.before).sum(dim=0)
    means = group_means(change, languages=base.languages, classes=flow.sets, groups=groups)
    return PairComparison(before, after, class_flow(base.members, later.members), flow, means)


@dataclass(frozen=True)
class Comparison:
    """Models of one shape on one dataset.

    Attributes:
        models: in the order given; the first is the base.
        names: theirs, no two alike.
        pairs: the base against each of the others.
        steps: each against the next: the way a training went. With two models the same as `pairs`.
        path: all class profiles side by side.
        means: per model, the mean number of neurons of English and of the others.
        trained: languages that the models were trained on, as the caller says.
        notes: what else than training may have made a difference.
    """

    models: tuple[ModelNeurons, ...]
    names: tuple[str, ...]
    pairs: tuple[PairComparison, ...]
    steps: tuple[PairComparison, ...]
    path: TrainingPath
    means: tuple[GroupMeans, ...]
    trained: tuple[str, ...]
    notes: tuple[str, ...]

    def tables(self) -> dict[str, Columns]:
        """The results by the names that their files have; the rows of a pair begin with its two names."""
        named = [({"from": pair.before, "to": pair.after}, pair) for pair in (*self.pairs, *self.steps[1:])]
        models = [({"model": name}, means) for name, means in zip(self.names, self.means, strict=True)]
        return {
            "classes": _stacked([(label, pair.classes) for label, pair in named]),
            "languages": _stacked([(label, pair.languages) for label, pair in named]),
            "groups": _stacked([(label, pair.groups) for label, pair in named]),
            "path": self.path.columns(),
            "means": _stacked(models),
        }

    def plain(self) -> dict[str, Any]:
        """The results as plain values, over all layers; layer by layer they are in the CSV files."""
        return {
            "models": [
                {"name": name, "lam_from": one.lam_from, "classes": dict(zip(self.path.classes, row, strict=True))}
                | {"made_from": asdict(one.description)}
                for name, one, row in zip(self.names, self.models, self.path.totals.tolist(), strict=True)
            ],
            "trained": list(self.trained),
            "notes": list(self.notes),
            "pairs": [pair.plain() for pair in self.pairs],
            "steps": [step.plain() for step in self.steps],
            "version": __version__,
        }


def compare(models: Sequence[ModelNeurons], *, trained: Sequence[str] = ()) -> tuple[Comparison, list[Path]]:
    """Compare a base model with others and store what comes out: a JSON file and a CSV file for each table.

    Args:
        models: the base, then the others; along a training in its order.
        trained: languages that the training was on.

    Raises:
        SettingsError: fewer than two models, one given twice, or a trained language that is not compared.
        IncompatibleError: models of other shapes, datasets, languages or rates.
    """
    found = comparison_of(models, trained=trained)
    base, lams = models[0].layout, {one.description.lam for one in models}
    given = all(one.lam_from == "given" for one in models) and len(lams) == 1
    rates = f"{models[0].description.top_rate!r}-{lams.pop()!r}" if given else f"{models[0].description.top_rate!r}-own"
    path = base.comparison(found.names[1:], rates)
    return found, save_tables(path, found.plain(), found.tables())


def comparison_of(models: Sequence[ModelNeurons], *, trained: Sequence[str] = ()) -> Comparison:
    """Compare neurons that are at hand; nothing is written."""
    names = distinct_names(models)
    check_comparable(models, names)
    languages = models[0].languages
    groups = trained_groups(languages, trained) if trained else english_groups(languages)
    profiles = [class_profile(one.members) for one in models]
    by_language = [language_profile(one.mask, members=one.members, languages=languages) for one in models]
    named = list(zip(names, models, strict=True))
    pairs = tuple(compare_pair(named[0], other, groups) for other in named[1:])
    steps = (pairs[0], *(compare_pair(one, other, groups) for one, other in pairwise(named[1:])))
    return Comparison(
        models=tuple(models),
        names=names,
        pairs=pairs,
        steps=steps,
        path=training_path(names, profiles, by_language),
        means=tuple(_english_means(profile) for profile in by_language),
        trained=tuple(trained),
        notes=tuple(caveats(named)),
    )


def _english_means(profile: LanguageProfile) -> GroupMeans:
    return group_means(
        profile.per_language,
        languages=profile.languages,
        classes=profile.classes,
        groups=english_groups(profile.languages),
    )


def _stacked(labelled: Sequence[tuple[dict[str, str], Framed]]) -> Columns:
    """Tables of one kind below each other, each row with its table's labels in front."""
    columns: Columns = {}
    for labels, table in labelled:
        content = table.columns()
        rows = len(next(iter(content.values())))
        for name, values in ({key: [label] * rows for key, label in labels.items()} | content).items():
            columns.setdefault(name, []).extend(values)
    return columns
