"""Every error that this package raises on purpose.

    LNAError                         exit 1: explained in one line
    ├── SettingsError                exit 2: a value that the caller chose cannot be used
    ├── CorpusError                  a dataset file, a record or a sequence cannot be used
    ├── ArtifactError                a stored file cannot be read or written
    │   ├── MissingArtifactError     it is not there
    │   └── ConflictError            something else stands in its place
    ├── IncompatibleError            results that do not belong together
    ├── SweepError                   no λ in the range does what AutoSweep looks for
    ├── MissingPackageError          an optional package that a step needs is not installed
    ├── ShardError                   jobs for the shards of a corpus cannot be submitted, or failed
    └── EngineError                  a model cannot be run as asked
        ├── MissingEngineError       the engine, or a package that it needs, is not installed
        ├── UnknownArchitectureError the model's neuron site is not known
        ├── TallyError               the tokens counted are not the tokens of the corpus
        └── SilentHookError          a hook that had to fire never did

A message says, in one line: what failed; what was seen; what was expected; what to do next. `visible` makes text from
outside harmless in it.
"""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\xad"  # control characters and the soft hyphen
    "\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb"  # order, widths, lines
    "\\ud800-\\udfff\\U000e0000-\\U000e0fff]"  # halves of characters, tags
)
"""Characters that steer a terminal or cannot be seen; not the joiners that scripts and emoji are written with."""


def visible(text: str, *, keep: str = "\n\t") -> str:
    r"""The text with control characters, and others that cannot be seen, as escapes; those in `keep` stay.

    A terminal obeys control characters: they colour, hide and overwrite lines, name links, and set the clipboard.

    >>> print(visible("\x1b[31mred\x07 \u202eback"))
    \x1b[31mred\x07 \u202eback
    """

    def escape(found: re.Match[str]) -> str:
        one = found[0]
        return one if one in keep else ascii(one)[1:-1]

    return _UNSEEN.sub(escape, text)


def unseen_in(text: str) -> str:
    """The first character of a text that `visible` escapes, escaped; "" where there is none."""
    found = _UNSEEN.search(text)
    return ascii(found[0])[1:-1] if found else ""


class LNAError(Exception):
    """The root of every error that the toolkit raises on purpose.

    >>> from language_neurons_alignment.config import Selection
    >>> try:
    ...     Selection(top_rate=2)
    ... except LNAError as error:
    ...     print(error)
    the top rate (-r) must be above 0 and at most 1, got 2: give for example 0.01
    """


class SettingsError(LNAError, ValueError):
    """A value that the caller chose cannot be used (a rate that is not a rate, an unknown language)."""


class CorpusError(LNAError):
    """A dataset file, a record in it, or a token sequence made from it cannot be used."""


class ArtifactError(LNAError):
    """A stored file cannot be read or written: torn, of another kind, no space, no permission."""


class MissingArtifactError(ArtifactError, FileNotFoundError):
    """A stored file that a step needs is not there."""

    def __str__(self) -> str:  # FileNotFoundError formats itself from errno; ours is the message alone
        return str(self.args[0]) if self.args else ""


class ConflictError(ArtifactError):
    """A file made from other inputs or settings stands where this result belongs."""


class IncompatibleError(LNAError):
    """Results that do not belong together: other shapes, other models, other languages."""


class SweepError(LNAError):
    """AutoSweep found no λ in the range for which no selected neuron belongs to every language."""


class MissingPackageError(LNAError):
    """An optional package that a step needs is not installed."""

    @classmethod
    def of(cls, package: str, *, purpose: str, extra: str) -> MissingPackageError:
        """The error that names the package, what it is for, and the command that installs it."""
        return cls(
            f"{purpose} needs the package {package}, which is not installed: "
            f"pip install 'language_neurons_alignment[{extra}]'"
        )


class ShardError(LNAError):
    """Jobs for the shards of a corpus cannot be submitted, or failed."""


class EngineError(LNAError):
    """A model cannot be loaded, or cannot be run as asked."""


class MissingEngineError(EngineError):
    """The engine asked for, or a package that it needs, is not installed."""


class UnknownArchitectureError(EngineError):
    """The model's architecture has no known neuron site, so its numbers would be silently wrong."""


class TallyError(EngineError):
    """The engine counted other tokens than the corpus holds: some missing, some twice."""


class SilentHookError(EngineError):
    """A counting or intervening hook that had to fire never did."""


class LNAWarning(UserWarning):
    """What a person should know although nothing failed; the command line prints it as a line on stderr."""
