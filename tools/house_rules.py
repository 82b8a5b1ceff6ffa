"""Two import-linter contracts that say HOUSE's table of rooms as an allow-list.

import-linter's own contracts name what is forbidden, so whatever nobody thought of is allowed. Here a room names what
it may import, and all else is a violation. The table stands in pyproject.toml, under `[tool.importlinter]`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

ROOT = "language_neurons_alignment"

# Standard modules that only compute: no files, no network, no logging, no global state.
PURE = frozenset(
    {
        "__future__",
        "abc",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "itertools",
        "math",
        "numbers",
        "operator",
        "string",
        "textwrap",
        "types",
        "typing",
        "unicodedata",
        "warnings",
    }
)
GROUPS = {"pure": PURE, "stdlib": frozenset(sys.stdlib_module_names)}


def _inside(module: str, room: str) -> bool:
    """Whether `module` is the room (`core`, `engines.vllm*`) or lies in it."""
    return fnmatchcase(module, f"{ROOT}.{room}") or fnmatchcase(module, f"{ROOT}.{room}.*")


def _in_any(module: str, rooms: Iterable[str]) -> bool:
    return any(_inside(module, room) for room in rooms)


class OnlyContract(Contract):
    """The modules of `rooms`, less `except_rooms`, import each other and what `may_import` lists, and nothing else.

    `may_import` takes rooms, top-level packages, and the groups `pure` and `stdlib`; `never` takes away from it again.
    """

    rooms = fields.ListField(subfield=fields.StringField())
    may_import = fields.ListField(subfield=fields.StringField())
    except_rooms = fields.ListField(subfield=fields.StringField(), required=False)
    never = fields.ListField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Compare each import out of the rooms with the list."""
        lines = [line for module in sorted(self._modules(graph)) for line in self._violations(graph, module)]
        return ContractCheck(kept=not lines, metadata={"lines": lines})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line a violation: file, line, what is imported."""
        for line in check.metadata["lines"]:
            output.print_error(line, bold=False)

    def _modules(self, graph: ImportGraph) -> set[str]:
        spared = self.except_rooms or []
        return {m for m in graph.modules if _in_any(m, self.rooms) and not _in_any(m, spared)}  # type: ignore[arg-type]

    def _violations(self, graph: ImportGraph, module: str) -> list[str]:
        found: list[str] = []
        for target in sorted(graph.find_modules_directly_imported_by(module)):
            if not self._allowed(module, target):
                details = graph.get_import_details(importer=module, imported=target)
                where = ", ".join(str(d["line_number"]) for d in details)
                found.append(f"{module} (line {where}) imports {target}, which this room may not")
        return found

    def _allowed(self, module: str, target: str) -> bool:
        if _in_any(target, self.rooms) and not _in_any(target, self.except_rooms or []):  # type: ignore[arg-type]
            return True
        if target == ROOT:  # the package itself: its version, its table of contents
            return True
        if target.startswith(f"{ROOT}."):
            return _in_any(target, self.may_import)  # type: ignore[arg-type]
        top = target.split(".")[0]
        names = set().union(*(GROUPS.get(name, {name}) for name in self.may_import))  # type: ignore[attr-defined]
        return top in names - set(self.never or [])  # type: ignore[call-overload]


class HousedContract(Contract):
    """Every module of the package lies in one of `rooms`: a new one is either given a room or a row of its own."""

    rooms = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look for modules of the package outside every room."""
        ours = {m for m in graph.modules if m.startswith(f"{ROOT}.")}
        homeless = sorted(m for m in ours if not _in_any(m, self.rooms))  # type: ignore[arg-type]
        return ContractCheck(kept=not homeless, metadata={"homeless": homeless})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line a module."""
        for module in check.metadata["homeless"]:
            output.print_error(
                f"{module} has no room; give it a row in pyproject.toml and docs/house-rules.md", bold=False
            )
