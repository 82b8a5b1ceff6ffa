"""What was counted: how much text each language has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...plots.axes import language_axis
from ...plots.charts import Bars, Panel, Series
from ..sections import FigureSection, single


@dataclass(frozen=True)
class CountedText:
    """How much text of a language was counted.

    Attributes:
        language: code.
        question_tokens: tokens of the prefixes, as often as they were counted.
        answer_tokens: tokens of the answers, on which probabilities rest.
        sequences: questions with an answer; None where the count files do not tell.
    """

    language: str
    question_tokens: int
    answer_tokens: int
    sequences: int | None = None


def corpus_section(texts: Sequence[CountedText]) -> FigureSection:
    """Tokens of each language, questions and answers apart."""
    nan = float("nan")
    panels = [
        Panel("tokens", (
            Series("answer tokens", tuple(float(one.answer_tokens) for one in texts), "specific"),
            Series("question tokens", tuple(float(one.question_tokens) for one in texts), "kept"),
        )),
    ]  # fmt: skip
    if any(one.sequences is not None for one in texts):
        counted = tuple(nan if one.sequences is None else float(one.sequences) for one in texts)
        panels.append(Panel("sequences", (Series("sequences", counted, "only"),)))
    chart = Bars(language_axis([one.language for one in texts]), tuple(panels), stacked=True)
    least = min(texts, key=lambda one: one.answer_tokens)
    return FigureSection(
        "corpus",
        "What was counted",
        "A neuron's activation probability is the share of a language's answer tokens on which it fires, so the "
        "answer tokens are what everything below rests on; question tokens are counted too and taken away. Languages "
        "need not have equally many tokens, but one with few has noisy probabilities: with n tokens, the standard "
        "error of a probability would be at most 0.5/√n if tokens were independent, and is more as they are not. A "
        "language that a tokenizer cuts into bytes has many tokens for the same text.",
        single(chart),
        f"The least text: {chart.x.names[texts.index(least)]}, {least.answer_tokens:,} answer tokens (a standard error "
        f"of at most {0.5 / max(least.answer_tokens, 1) ** 0.5:.4f}).",
    )
