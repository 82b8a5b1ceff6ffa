"""The language neurons of one model, opened and analysed: classes, layers, languages, stages and the λ path.

`open_neurons` finds a model's language neurons again from its counts, or reads them from a mask file. `analyze`
computes every table about them and writes a JSON file and one CSV file per table. `Neuron_Prob` and `Neuron_Mask` give
the tensors themselves, under the names that the paper's code uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from .autosweep import autosweep
from .config import DEFAULT_BAR, DEFAULT_RANGE, DEFAULT_SELECTION, FIRST_END, Selection, SweepRange
from .core import profiles
from .core.find import notes_on_masks
from .core.frames import Framed
from .core.lambda_path import LambdaPath, lambda_path
from .core.routing import ExpertShares, RoutingProfile, expert_shares, routing_profile
from .core.segmentation import Segmentation, segment_profile
from .core.selection import NeuronStatistics, neuron_statistics
from .errors import ConflictError, MissingArtifactError
from .identify import Identification, find_neurons
from .languages import DEFAULT_LANGUAGES, parse_languages
from .store.counts import AnswerCounts, load_answer_counts
from .store.files import Json, save_tables
from .store.lambdas import one_lambda, with_found_lambda
from .store.layout import Layout, layout_of_mask, results_of
from .store.masks import REPLACE, Mask, MaskDescription, check_replaceable, load_description
from .version import __version__

_PAST = 1.25
"""How far the λ path reaches, at least, as a multiple of λ."""


@dataclass(frozen=True)
class Neuron_Prob:
    """Activation probabilities of every neuron and language.

        p[l, i, k] = (c_full − c_prefix) / (t_full − t_prefix)

    >>> probability = torch.tensor([[[0.9, 0.0], [0.8, 0.7], [0.1, 0.2]]])  # one layer, three neurons, two languages
    >>> Neuron_Prob(("en", "fr"), probability).statistics(bar=0.5).languages_above.tolist()
    [[1, 2, 0]]
    """

    languages: tuple[str, ...]
    probability: Float32[Tensor, "layer neuron lang"]
    widths: tuple[int, ...] | None = None  # of the layers where they differ

    @classmethod
    def load(
        cls,
        model_name: str,
        model_path: str,
        dataset: str,
        *,
        langs: str | Iterable[str] = DEFAULT_LANGUAGES,
        root: str | Path = ".",
    ) -> Neuron_Prob:
        """Read the count files of a model on a dataset."""
        layout = results_of(model_path, dataset, model_name=model_name, root=root)
        counts = load_answer_counts(layout, parse_languages(langs))
        return cls(counts.languages, counts.probability, counts.widths)

    def statistics(self, *, bar: float = 0.95) -> NeuronStatistics:
        """Compute entropy, peak and membership of every neuron."""
        return neuron_statistics(self.probability, bar=bar, widths=self.widths)


class Neuron_Mask(Mask):
    """A `Mask`, under the name that the paper's code uses.

    >>> torch.save([[torch.tensor([0, 2])], [torch.tensor([2])]], "mask")  # two languages, one layer
    >>> Neuron_Mask.load("mask", d_mlp=3, langs="en,fr").mask.sum(dim=(0, 1)).tolist()
    [2, 1]
    """

    @property
    def mask(self) -> Bool[Tensor, "layer neuron lang"]:
        """The tensor."""
        return self.tensor


@dataclass(frozen=True)
class ModelNeurons:
    """The language neurons of one model.

    Attributes:
        members: the classes by name. A mask alone contains only specific and related neurons.
        lam_from: where λ comes from: "given", "mask" or "autosweep".
        found: the identification; None for a mask alone.
        counts: the counts of all languages; None for a mask alone.
    """

    layout: Layout
    description: MaskDescription
    mask: Bool[Tensor, "layer neuron lang"]
    members: profiles.ClassMembers
    lam_from: str
    found: Identification | None
    counts: AnswerCounts | None

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes, in the order of the mask's last axis."""
        return tuple(self.description.languages)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about counts and masks that a reader must know."""
        if self.found is not None:
            return self.found.notes
        return (*self.description.lambda_notes(), *notes_on_masks(self.description.neurons))

    def languages_above(self) -> profiles.LanguagesAbove | None:
        """Count neurons by the number of languages in which they are above τ; None for a mask alone."""
        if self.found is None:
            return None
        counted = {"languages": len(self.languages), "widths": self.description.widths}
        return profiles.count_languages_above(self.found.statistics.languages_above, self.found.selected, **counted)


def open_neurons(
    where: Layout | str | Path, selection: Selection = DEFAULT_SELECTION, *, mask_only: bool = False
) -> ModelNeurons:
    """Open the language neurons of one model: found again from its counts, or read from its mask.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    >>> neurons = open_neurons(session.layout, Selection(0.1, 0.0, 0.8, languages=("en", "es", "fr")))
    >>> neurons.languages, neurons.lam_from
    (('en', 'es', 'fr'), 'given')

    Args:
        where: where the model's results are (`results_of`); or its mask file,
            `…/activation_masks/<dataset>/<top_rate>-<λ>/mask.<Name>-<tag>`.
        selection: which neurons. A value of None is that of the only mask at this top rate; without a mask, λ is
            AutoSweep's, the bar is the default, and the languages are those counted. Not used with a mask file, whose
            path contains top rate and λ.
        mask_only: read the mask file and nothing else, for example for an imported mask.

    Raises:
        SettingsError: several masks and no λ to choose one, or a mask file in another place.
        CorpusError: a language has no answer token, and the selection does not skip it.
        MissingArtifactError: no counts; with `mask_only`, no mask.
        ConflictError: the stored mask was made from other counts, languages or another bar.
        SweepError, ArtifactError, IncompatibleError: from AutoSweep, and from reading counts and masks.
    """
    if isinstance(where, Layout):
        layout, lam, lam_from = where, selection.lam, "given"
        if lam is None:
            lam, lam_from = one_lambda(layout, selection), "mask"
    else:
        layout, top_rate, lam = layout_of_mask(Path(where))
        selection, lam_from = Selection(top_rate), "mask"
    if mask_only:
        if lam is None:
            raise MissingArtifactError(
                f"{layout.model} has no mask of top rate {selection.top_rate!r} on {layout.dataset}: make one with "
                "`lna identify`, or import one with `lna import-mask`"
            )
        return _from_mask(layout, layout.mask(selection.top_rate, lam), lam_from)
    stored = None if lam is None else layout.mask(selection.top_rate, lam)
    described = load_description(stored) if stored is not None and stored.is_file() else None  # alone it is half a mask
    languages = selection.languages or (tuple(described.languages) if described else layout.languages())
    bar = selection.bar or (described.bar if described else None) or DEFAULT_BAR
    counts = load_answer_counts(layout, languages, skip_empty=selection.skip_empty)
    chosen = replace(selection, lam=lam, bar=bar)
    if lam is not None or selection.search == DEFAULT_RANGE:  # another range is asked to be searched
        chosen = with_found_lambda(layout, chosen, languages)
    if chosen.lam is None:
        rates = {"top_rate": selection.top_rate, "bar": bar, "search": selection.search}
        chosen = replace(chosen, lam=autosweep(layout, languages, **rates, counts=counts).lam)
    if lam is None:
        lam_from = "autosweep"
    if described is not None and described.searched_to is not None:
        chosen = replace(chosen, search=SweepRange(hi=described.searched_to))
    found = find_neurons(layout, counts, chosen)
    if found.path.exists():
        _check_stored(found)
    return ModelNeurons(
        layout, found.description, found.mask, profiles.class_members(found.classes), lam_from, found, counts
    )


def _from_mask(layout: Layout, path: Path, lam_from: str) -> ModelNeurons:
    stored = Mask.load(path)
    if stored.description is None:
        raise MissingArtifactError(
            f"{path} has no description beside it, so its languages and its model's shape are unknown: "
            "import it with `lna import-mask`"
        )
    return ModelNeurons(
        layout, stored.description, stored.tensor, profiles.mask_members(stored.tensor), lam_from, None, None
    )


def _check_stored(found: Identification) -> None:
    """Raise ConflictError unless the stored mask, which other steps use, contains the neurons that were found."""
    stored, ours = Mask.load(found.path).tensor, found.mask
    alike = stored.shape[::2] == ours.shape[::2]  # a mask without description is only as wide as its neurons need
    if not (alike and torch.equal(stored.nonzero(), ours.nonzero())):
        check_replaceable(found.path, found.description)
        raise ConflictError(
            f"the neurons of {found.path} differ from those that its counts give: {REPLACE}, or use another --root"
        )


@dataclass(frozen=True)
class Analysis:
    """The tables about one model's language neurons. Each has a `.to_frame()`.

    Attributes:
        languages: specific and related neurons per language and layer.
        means: the mean over languages, English apart.
        sharing: the sets of languages that neurons belong to.
        above: neurons by the number of languages in which they are above τ; None for a mask alone.
        path: the histogram over λ; None for a mask alone.
        experts, routing: the experts of a mixture by language, and how far the routers send it from English; None
            where the model is no mixture, or for a mask alone.
    """

    neurons: ModelNeurons
    classes: profiles.ClassProfile
    languages: profiles.LanguageProfile
    means: profiles.GroupMeans
    overlap: profiles.Overlap
    sharing: profiles.Sharing
    stages: Segmentation
    above: profiles.LanguagesAbove | None
    path: LambdaPath | None
    experts: ExpertShares | None = None
    routing: RoutingProfile | None = None
    files: tuple[Path, ...] = ()

    def tables(self) -> dict[str, Framed]:
        """The tables, by the names of their files."""
        every = {
            "classes": self.classes,
            "languages": self.languages,
            "means": self.means,
            "overlap": self.overlap,
            "sets": self.sharing,
            "stages": self.stages,
            "above": self.above,
            "lambda_path": self.path,
            "experts": self.experts,
            "routing": self.routing,
        }
        return {name: table for name, table in every.items() if table is not None}

    def plain(self) -> Json:
        """The results as plain values; for the λ path, which can have many thousand pieces, its range and length."""
        tables = {name: table.columns() for name, table in self.tables().items() if name != "lambda_path"}
        path = None
        if self.path is not None:
            lo, hi = self.path.edges[[0, -1]].tolist()
            path = {"lo": lo, "hi": hi, "pieces": len(self.path.appear)}
        stages, neurons = self.stages, self.neurons
        return {
            "model": neurons.layout.model,
            "dataset": neurons.layout.dataset,
            "made_from": neurons.description.plain(),
            "lam_from": neurons.lam_from,
            "classes": self.classes.totals(),
            "stages": {"lowest_bic": stages.best, "supported": stages.supported(), "classes": stages.classes},
            "lambda_path": path,
            "notes": list(neurons.notes),
            "tables": tables,
            "version": __version__,
        }


def analyze(
    where: Layout | str | Path, selection: Selection = DEFAULT_SELECTION, *, mask_only: bool = False
) -> Analysis:
    """Analyse a model's language neurons and write a JSON file and one CSV file per table.

    >>> import language_neurons_alignment as lna
    >>> with lna.open_session("model", "corpus.json", "toy") as session:
    ...     counted = [lna.collect_activations(session, code) for code in ("en", "es", "fr")]
    >>> found = analyze(session.layout, Selection(0.1, 0.0, 0.8, languages=("en", "es", "fr")))
    >>> list(found.classes.to_frame().columns)
    ['layer', 'specific', 'related', 'general', 'unassigned']
    >>> print(found.files[1].as_posix())
    analysis/toy/0.1-0.0/analysis.Llama-model.classes.csv

    Args:
        where: where the model's results are, or its mask file, as for `open_neurons`.
        selection: which neurons; its search range is also the range of the λ path, which reaches past λ*.
        mask_only: read the mask file and nothing else.

    Raises:
        LNAError: as `open_neurons`.
    """
    found = analysis_of(open_neurons(where, selection, mask_only=mask_only), search=selection.search)
    description = found.neurons.description
    path = found.neurons.layout.analysis(description.top_rate, description.lam)
    tables = {name: table.columns() for name, table in found.tables().items()}
    return replace(found, files=tuple(save_tables(path, found.plain(), tables)))


def analysis_of(neurons: ModelNeurons, *, search: SweepRange = DEFAULT_RANGE) -> Analysis:
    """Compute every table about opened neurons; nothing is written."""
    languages, mask, path = neurons.languages, neurons.mask, None
    routed = neurons.counts.routing if neurons.counts is not None else ()
    experts = expert_shares(routed, languages=languages) if routed else None
    classes = profiles.class_profile(neurons.members, widths=neurons.description.widths)
    by_language = profiles.language_profile(mask, members=neurons.members, languages=languages)
    if neurons.found is not None:
        statistics, top_rate = neurons.found.statistics, neurons.description.top_rate
        path = lambda_path(statistics, top_rate=top_rate, lo=search.lo, hi=_path_end(neurons, search))
    return Analysis(
        neurons=neurons,
        classes=classes,
        languages=by_language,
        means=english_means(by_language),
        overlap=profiles.language_overlap(mask, languages=languages),
        sharing=profiles.language_sets(mask, languages=languages),
        stages=segment_profile(classes),
        above=neurons.languages_above(),
        path=path,
        experts=experts,
        routing=None if experts is None else routing_profile(experts),
    )


def _path_end(neurons: ModelNeurons, search: SweepRange) -> float:
    """Where the λ path ends: at the search range's end, or as far past λ and the largest λ with appear[K] = 0."""
    known = (neurons.description.lam, neurons.description.largest_lam)
    reached = [lam for lam in known if lam is not None and math.isfinite(lam)]
    return max(FIRST_END if search.hi is None else search.hi, _PAST * max(reached))


def english_means(profile: profiles.LanguageProfile) -> profiles.GroupMeans:
    """Average the neurons per language: English, and the others."""
    groups = profiles.english_groups(profile.languages)
    return profiles.group_means(
        profile.per_language, languages=profile.languages, classes=profile.classes, groups=groups
    )
