"""Fields of settings that are also flags of the command line.

A dataclass field made with `flag` carries its option's names and help in its metadata, so that the name, meaning and
default of a setting stand once. `cli.options` turns the metadata into Typer options; nothing here imports Typer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Flag:
    """How a field is given on the command line.

    Attributes:
        names: the option's names, short ones first.
        help: what it decides.
        panel: heading under which `--help` lists it; None for the command's own options.
        metavar: name of the value in `--help`; None leaves it to Typer.
        choices: the values that there are, listed behind the help and completed by shells; the field checks its value.
        shown: what `--help` says of the default; True: its value; False: nothing.
        read: turns the text behind the flag into the value; None where Typer does so by the field's type.
        many: it may be given several times, and the field is a tuple.
    """

    names: tuple[str, ...]
    help: str
    panel: str | None = None
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    shown: str | bool = True
    read: Callable[[str], Any] | None = None
    many: bool = False


@dataclass(frozen=True)
class FlagPart:
    """Which fields of a settings class a command, or a larger settings class, offers as flags.

    Attributes:
        only: names of the fields, also of settings inside settings; None: all.
        shown: field → what `--help` says of its default here.
    """

    only: tuple[str, ...] | None = None
    shown: Mapping[str, str] = field(default_factory=dict)


def flag(default: Any, *names: str, **how: Any) -> Any:
    """A field with a command-line flag; `...` as default makes it required, and `how` is as in `Flag`.

    >>> @dataclass
    ... class Range:
    ...     lo: float = flag(0.0, "--lo", help="Smallest λ.")
    >>> Range().lo
    0.0
    """
    given = {} if default is ... else {"default": default}
    return field(**given, metadata={"flag": Flag(names, **how)})


def look(default: Any, *names: str, **how: Any) -> Any:
    """A field like `flag`'s that decides what a picture looks like and no result: settings are equal without it."""
    return field(default=default, repr=False, compare=False, metadata={"flag": Flag(names, **how)})


def flag_of(settings: type[Any], name: str, **changed: Any) -> Any:
    """The same field, with its flag, in another settings class; `default` and what is in `Flag` may be changed."""
    (same,) = (one for one in fields(settings) if one.name == name)
    default = changed.pop("default", same.default)
    given = {} if default is MISSING else {"default": default}
    told = {"flag": replace(same.metadata["flag"], **changed)}
    return field(**given, repr=same.repr, compare=same.compare, metadata=told)


def part(default: Any, *only: str, **shown: str) -> Any:
    """A field that holds other settings and offers some of their flags: those named, with texts for their defaults."""
    return field(default=default, metadata={"part": FlagPart((*only, *shown), shown)})


def split(text: str) -> tuple[str, ...]:
    """The names in "specific,related".

    >>> split("specific, related")
    ('specific', 'related')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())
