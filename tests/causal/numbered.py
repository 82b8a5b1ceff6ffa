"""The planted model, whose last word in each language ends in a number: a model with answers to evaluate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from language_neurons_alignment._session import Session, open_session
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.autosweep import autosweep
from language_neurons_alignment.config import Sampling, Selection
from language_neurons_alignment.identify import identify
from tests.planted import D_MLP, LAYERS, WORDS, PlantedModel, planted_records

TARGET = 12
"""No number that the model says where it has no language (`planted.NOISE`)."""
ASKED = ("en", "es", "fr")
SHORT = Sampling(max_new_tokens=14)
_LAST = {text.split()[-1]: f"{text.split()[-1]}={TARGET}" for text in WORDS.values()}


@dataclass(frozen=True)
class Numbered:
    """A folder with the model, a corpus with targets, counts and the mask; and the mask's rates."""

    folder: Path
    top_rate: float
    lam: float

    @classmethod
    def make(cls, folder: Path) -> Numbered:
        """Save the model and the corpus, count, and find the neurons."""
        truth = PlantedModel.save(folder / "planted")
        path = folder / "planted" / "tokenizer.json"
        saved = json.loads(path.read_text(encoding="utf-8"))
        words = saved["model"]["vocab"]
        saved["model"]["vocab"] = {_LAST.get(word, word): number for word, number in words.items()}
        path.write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")
        (folder / "corpus.json").write_text(json.dumps(numbered_records(), ensure_ascii=False), encoding="utf-8")
        made = cls(folder, len(truth.planted) / (LAYERS * D_MLP), 0.0)
        with made.open() as session:
            for language in session.corpus.languages:
                collect_activations(session, language)
            lam = autosweep(session.layout, session.corpus.languages, top_rate=made.top_rate).lam
            identify(session.layout, session.corpus.languages, Selection(made.top_rate, lam))
        return cls(folder, made.top_rate, lam)

    def at(self, folder: Path) -> Numbered:
        """The same in a copy."""
        return Numbered(folder, self.top_rate, self.lam)

    def open(self, **choices: Any) -> Session:
        """A session of it."""
        given = {"root": self.folder, "device": "cpu", **choices}
        return open_session(str(self.folder / "planted"), self.folder / "corpus.json", "words", **given)


def numbered_records() -> list[dict[str, Any]]:
    """The planted corpus, the same questions in every language, each with its target."""
    return [
        {
            **record,
            "id": f"q{number % 6}",
            "instruction": _say(record["instruction"]),
            "answers": [{"generated": f" {_say(one['generated'])}"} for one in record["answers"]],
            "target": str(TARGET),
        }
        for number, record in enumerate(planted_records())
    ]


def _say(text: str) -> str:
    return " ".join(_LAST.get(word, word) for word in text.split())
