"""Do language neurons look like their language? Random neurons of each language beside matched random neurons.

    python benchmarks/neurons_seen.py --model gemma3-270m --root OUT

The neurons are found on the first half of the demo's questions and looked at on the second. Of each language 20 of its
specific neurons are drawn (all, where it has fewer), and as many neurons of no language, of the same layers and as
active. For each neuron:

    contexts   its 5 strongest contexts over all languages: share whose text lingua judges to be in the language, of
               those that it can judge
    tokens     the 10 tokens that it writes (`NeuronCard.writes`): share in the language (`token_languages`)

Intervals are over neurons drawn again (bootstrap).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import language_neurons_alignment as lna
from language_neurons_alignment._demo import FULL, HALF, QUESTIONS, demo_corpus, demo_model_path
from language_neurons_alignment._neuron_cards import NeuronCards, neuron_cards
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.autosweep import autosweep
from language_neurons_alignment.config import NeuronSettings, Selection
from language_neurons_alignment.core.interventions import matched_controls
from language_neurons_alignment.core.resampling import interval, resampling_weights
from language_neurons_alignment.corpus.language_id import identify_languages
from language_neurons_alignment.corpus.records import Corpus
from language_neurons_alignment.store.counts import load_answer_counts
from language_neurons_alignment.store.masks import open_mask

DRAWN, CONTEXTS, SEED = 20, 5, 0


def second_half() -> Corpus:
    """The questions that the neurons were not found on."""
    whole = demo_corpus(FULL)
    kept = [record for code in whole.languages for record in whole.of_language(code)[QUESTIONS[HALF] :]]
    return Corpus(whole.path, tuple(kept))


def shares(cards: NeuronCards, place: tuple[int, int], language: str) -> tuple[float, float]:
    """Of one neuron: the share of its strongest contexts that are judged to be in a language, and of its tokens."""
    card = cards[place]
    found = [context for one in card.languages.values() for context in one.contexts]
    strongest = sorted(found, key=lambda context: -context.activation)[:CONTEXTS]
    verdicts = [one for one in identify_languages([one.text for one in strongest], cards.languages) if one]
    judged = sum(one.language == language for one in verdicts) / len(verdicts) if verdicts else float("nan")
    return judged, sum(one.language == language for one in card.writes) / len(card.writes)


def mean_and_ends(values: list[float]) -> tuple[float, float, float]:
    """The mean over neurons and its 95 % interval."""
    known = torch.tensor([value for value in values if value == value], dtype=torch.float64)
    ends = interval(resampling_weights(len(known)) @ known / len(known))
    return float(known.mean()), float(ends.low), float(ends.high)


def main() -> None:
    """Find the neurons, draw, look, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--root", type=Path, default=Path("benchmarks/out/neurons_seen"))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("-r", "--top-rate", type=float, default=0.01)
    given = parser.parse_args()
    path, chosen = str(demo_model_path(given.model)), {"engine": "transformers", "dtype": given.dtype}
    begun = time.process_time()
    with lna.open_session(path, demo_corpus(HALF), HALF, root=given.root, **chosen) as session:
        languages = session.corpus.languages
        for language in languages:
            collect_activations(session, language)
        lam = autosweep(session.layout, languages, top_rate=given.top_rate).lam
        lna.identify.identify(session.layout, languages, Selection(given.top_rate, lam))
    with lna.open_session(path, second_half(), HALF, root=given.root, **chosen) as session:
        mask = open_mask(session.layout, top_rate=given.top_rate, lam=lam, checkpoint=session.checkpoint)
        counts = load_answer_counts(session.layout, languages)
        taken, activity = mask.tensor.any(dim=-1), counts.probability.mean(dim=-1)
        drawn: dict[str, list[tuple[int, int]]] = {}
        controls: dict[str, list[tuple[int, int]]] = {}
        generator = torch.Generator().manual_seed(SEED)
        for number, language in enumerate(mask.languages):
            specific = mask.neurons_of(language, ("specific",)).nonzero()
            some = specific[torch.randperm(len(specific), generator=generator)[:DRAWN]]
            if not len(some):
                continue
            wanted = torch.zeros_like(taken)
            wanted[some[:, 0], some[:, 1]] = True
            matched = matched_controls(wanted, activity=activity, eligible=~taken, seed=SEED + number)
            drawn[language] = [(int(layer), int(index)) for layer, index in some.tolist()]
            controls[language] = [(int(layer), int(index)) for layer, index in matched.nonzero().tolist()]
        places = sorted({place for one in (*drawn.values(), *controls.values()) for place in one})
        settings = NeuronSettings(contexts=CONTEXTS)
        cards = neuron_cards(session, places, top_rate=given.top_rate, lam=lam, settings=settings)
    print(f"{given.model}, λ {lam}, {len(places)} neurons, {cards.nbytes:,} bytes kept")
    print(f"{time.process_time() - begun:.0f} s of CPU time")
    print("language  neurons  contexts               control                tokens                 control")
    pooled: list[list[float]] = [[], [], [], []]
    for language in drawn:
        ours = [shares(cards, place, language) for place in drawn[language]]
        theirs = [shares(cards, place, language) for place in controls[language]]
        columns = [
            [one[0] for one in ours],
            [one[0] for one in theirs],
            [one[1] for one in ours],
            [one[1] for one in theirs],
        ]
        for whole, some in zip(pooled, columns, strict=True):
            whole += some
        cells = [f"{mean:5.1%} [{low:5.1%}, {high:5.1%}]" for mean, low, high in map(mean_and_ends, columns)]
        print(f"{language:8}  {len(ours):7}  {'  '.join(cells)}")
    cells = [f"{mean:5.1%} [{low:5.1%}, {high:5.1%}]" for mean, low, high in map(mean_and_ends, pooled)]
    print(f"{'all':8}  {len(pooled[0]):7}  {'  '.join(cells)}")


if __name__ == "__main__":
    main()
