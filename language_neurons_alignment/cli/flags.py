"""Groups of flags: a dataclass whose fields are flags, spread into the commands that take it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a dataclass type are replaced by that dataclass's fields.

        @dataclass                                   lna run --lo 0 --hi 0.2 …
        class Search:
            lo: Annotated[float, Option("--lo")]     def run(search: Search) -> None: …
            hi: Annotated[float, Option("--hi")]

    Typer reads flags off a function's signature, so what it is shown is the signature with the fields in place.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    shown: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            groups[name] = hints[name]
            shown += _fields(hints[name])
        else:
            shown.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        command(**given)

    flat.__signature__ = inspect.Signature(shown)  # pyright: ignore[reportAttributeAccessIssue]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return flat


def help_of(command: Callable[..., None]) -> str:
    """A command's docstring, each paragraph on one line: Typer would keep its line breaks in any terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (inspect.getdoc(command) or "").split("\n\n"))


def _fields(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]
