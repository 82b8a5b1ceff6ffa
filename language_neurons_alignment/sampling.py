"""How a model's answers are drawn: what decides an answer, with nothing left to the model's own config."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .errors import SettingsError


@dataclass(frozen=True)
class Sampling:
    """What decides an answer, besides the model and the prompt.

    Attributes:
        temperature: 0 is greedy, always the likeliest token; else logits are divided by it before a token is drawn.
        top_p: tokens are drawn from the smallest set of likeliest ones whose probabilities add up to this.
        max_new_tokens: an answer ends here at the latest.
        stop: an answer ends in front of the first of these strings.
        seed: what each answer's own seed is made from (`seed_for`).

    Nothing else applies: neither the temperature nor the penalties of a model's generation_config.json.

    Raises:
        SettingsError: NaN, out of range, or a choice that would do nothing.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SettingsError(
                f"--temperature must be a finite number of at least 0, got {self.temperature!r}: "
                "0 is greedy, 0.7 is usual for samples"
            )
        if not (math.isfinite(self.top_p) and 0 < self.top_p <= 1):
            raise SettingsError(f"--top-p must be above 0 and at most 1, got {self.top_p!r}: 1 leaves all tokens in")
        if self.greedy and self.top_p < 1:
            raise SettingsError(
                f"--top-p {self.top_p!r} would do nothing at --temperature 0, which always takes the likeliest token: "
                "give a --temperature above 0, for example 0.7, or leave --top-p out"
            )
        if self.max_new_tokens < 1:
            raise SettingsError(f"--max-new-tokens must be at least 1, got {self.max_new_tokens}")
        if not all(self.stop):
            raise SettingsError("--stop is an empty string, which stands everywhere: give the text to stop in front of")
        object.__setattr__(self, "temperature", float(self.temperature))
        object.__setattr__(self, "top_p", float(self.top_p))

    @property
    def greedy(self) -> bool:
        """Always the likeliest token."""
        return self.temperature == 0

    def plain(self) -> dict[str, Any]:
        """As it is stored, and read back."""
        return {**asdict(self), "stop": list(self.stop)}

    def check_answers(self, answers: int) -> None:
        """Raise SettingsError unless so many different answers can be drawn for one question."""
        if answers < 1:
            raise SettingsError(f"-n must be at least 1, got {answers}")
        if self.greedy and answers > 1:
            raise SettingsError(
                f"-n {answers} at --temperature 0 would be {answers} times the same answer: greedy decoding has one; "
                "give a --temperature above 0, for example 0.7"
            )

    def seed_for(self, tokens: Sequence[int], number: int) -> int:
        """The seed of the `number`-th answer to a prompt: a digest of (seed, prompt, number), in [0, 2⁶³).

        It depends on nothing else, so an answer is the same in whatever batch it is drawn, after a resumption, and
        whether it was asked for at first or added later.
        """
        content = repr((self.seed, number, tuple(map(int, tokens)))).encode()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


GREEDY = Sampling()
