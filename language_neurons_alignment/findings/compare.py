"""What training does to language neurons: a base model against others of its shape (paper figure 4, tables 2 to 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..core.class_profile import LanguageProfile, class_profile, language_profile
from ..core.groups import GroupMeans, english_groups, group_means, trained_groups
from ..core.training_path import TrainingPath, training_path
from ..frames import Columns, Framed
from ..store.table_file import save_tables
from ..version import __version__
from .comparable import caveats, check_comparable, distinct_names
from .model_neurons import ModelNeurons
from .pair import PairComparison, compare_pair


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
