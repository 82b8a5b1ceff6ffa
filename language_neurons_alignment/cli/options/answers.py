"""How a model writes its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ...sampling import GREEDY, Sampling


@dataclass(frozen=True)
class Decoding:
    """How a model writes its answers."""

    temperature: Annotated[
        float,
        typer.Option("--temperature", help="0: always the likeliest token (greedy).", rich_help_panel="Answers"),
    ] = GREEDY.temperature
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", help="Draw from the likeliest tokens that make up this probability.", rich_help_panel="Answers"
        ),
    ] = GREEDY.top_p
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", help="An answer ends here at the latest.", rich_help_panel="Answers")
    ] = GREEDY.max_new_tokens
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop",
            metavar="TEXT",
            help=r"End an answer in front of this text; may be given several times. \n is a line break.",
            show_default="nothing",
            rich_help_panel="Answers",
        ),
    ] = None
    seed: Annotated[
        int, typer.Option("--seed", help="Of sampled answers, and of controls.", rich_help_panel="Answers")
    ] = GREEDY.seed

    def sampling(self) -> Sampling:
        """As the use-cases take it."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            stop=tuple(text.replace("\\n", "\n") for text in self.stop or ()),
            seed=self.seed,
        )


@dataclass(frozen=True)
class Answers(Decoding):
    """How many answers a model writes, and how."""

    answers: Annotated[
        int, typer.Option("-n", "--answers", help="Answers per question.", rich_help_panel="Answers")
    ] = 1

    def sampling(self) -> Sampling:
        """As the use-cases take it, and refused here where so many answers cannot differ."""
        chosen = super().sampling()
        chosen.check_answers(self.answers)
        return chosen
