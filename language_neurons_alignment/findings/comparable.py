"""Which models may be compared, what each is called, and what else than training may make them differ."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import IncompatibleError, SettingsError
from .model_neurons import ModelNeurons


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
