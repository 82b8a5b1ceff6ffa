"""A hook of MkDocs: the page of the command line, every flag with its whole description, from the program itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from language_neurons_alignment.cli.app import app

PLACE = "<!-- every command -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the commands where a page has `PLACE`."""
    return markdown.replace(PLACE, "\n".join(_commands("lna", get_command(app)))) if PLACE in markdown else markdown


def _commands(name: str, command: Any) -> Iterator[str]:
    """Describe a command, and those below it."""
    if hasattr(command, "commands"):
        for below, one in command.commands.items():
            yield from _commands(f"{name} {below}", one)
        return
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"\n## {name}\n\n{_plain(command.help or '')}\n"
    yield f"```\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```\n"
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        argument = parameter.param_type_name == "argument"
        flags = parameter.name if argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
        _, said = parameter.get_help_record(context) or ("", "")
        panel = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "Options"
        panels.setdefault(panel, []).append(f"| `{flags}` | {_plain(' '.join(said.split()))} |")
    for panel, rows in panels.items():
        yield "\n".join([f"\n| {panel} | |", "|---|---|", *rows, ""])


def _plain(text: str) -> str:
    """Write a text so that Markdown changes nothing in it; what stands between backticks stays as it is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part.replace("|", "&#124;") if n % 2 else re.sub(r"([\[\]*_|<>$\\])", r"\\\1", part)
                   for n, part in enumerate(parts))  # fmt: skip
