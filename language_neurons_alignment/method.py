"""Ways to find language neurons: what a mask's folder, and the description beside it, tell of its making."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import SettingsError

ENTROPY_LAMBDA, LAPE, EQUAL_N, MEAN_DIFFERENCE, RANDOM = METHODS = (
    "entropy-lambda",
    "lape",
    "equal-n",
    "mean-difference",
    "random",
)
DEFAULT_NEURONS = 400
"""Of equal-n, as published."""


@dataclass(frozen=True)
class Method:
    """A way to find language neurons, with what it has beside top rate, λ and bar.

    Attributes:
        name: one of `METHODS`.
        neurons: N, neurons per language: equal-n's (400 where None), or instead of a share of all neurons
            mean-difference's and random's.
        seed: of random.

    Raises:
        SettingsError: no such method, or a parameter that it does not have.
    """

    name: str = ENTROPY_LAMBDA
    neurons: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise SettingsError(f"--method must be one of {', '.join(METHODS)}; got {self.name!r}")
        if self.name == EQUAL_N and self.neurons is None:
            object.__setattr__(self, "neurons", DEFAULT_NEURONS)
        if self.neurons is not None and self.name in (ENTROPY_LAMBDA, LAPE):
            raise SettingsError(f"{self.name} selects a share of all neurons: give -r, not --neurons {self.neurons}")
        if self.neurons is not None and self.neurons < 1:
            raise SettingsError(f"--neurons must be at least 1, got {self.neurons}: give for example {DEFAULT_NEURONS}")
        if self.seed and self.name != RANDOM:
            raise SettingsError(f"{self.name} draws nothing: leave --mask-seed {self.seed} out")

    @property
    def has_rate(self) -> bool:
        """Whether a top rate decides how many neurons there are."""
        return self.neurons is None

    @property
    def has_lambda(self) -> bool:
        """Whether λ decides which neurons are taken, or as random's model of sizes how many."""
        return self.has_rate and self.name in (ENTROPY_LAMBDA, RANDOM)

    def check_lambda(self, lam: float | None) -> None:
        """Raise SettingsError unless λ is given exactly where it means something."""
        if self.has_lambda and lam is None:
            instead = "" if self.name == ENTROPY_LAMBDA else ", or --neurons to draw so many anywhere"
            raise SettingsError(f"the method {self.name} needs λ: give -l as `lna autosweep` prints it{instead}")
        if not self.has_lambda and lam is not None:
            raise SettingsError(f"the method {self.name} has no λ here: leave -l {lam!r} out")

    def folder(self, top_rate: float, lam: float | None) -> str:
        """The name of the folder of such a mask, and of what is made with it; numbers are written one way.

        <top_rate>-<λ>          entropy-lambda
        lape-<top_rate>         lape
        equal-n-<N>             equal-n
        mean-difference-<N>     mean-difference, or with <top_rate>
        random-<N>-seed<s>      random, or with <top_rate>-<λ>

        Raises:
            SettingsError: a λ that is missing, or one too many.
        """
        self.check_lambda(lam)
        size = repr(float(top_rate)) if self.neurons is None else str(self.neurons)
        if lam is not None:
            size += f"-{abs(float(lam))!r}"  # abs: −0.0 is 0.0
        if self.name == ENTROPY_LAMBDA:
            return size
        return f"{self.name}-{size}" + (f"-seed{self.seed}" if self.name == RANDOM else "")


DEFAULT_METHOD = Method()
