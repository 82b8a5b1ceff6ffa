"""An import-linter contract that lists the libraries a room may use.

import-linter's own contracts name what is forbidden, so whatever nobody thought of is allowed. Here a room names what
it may use, and everything else is a violation. The contract of floors decides about our own modules. Both are in
pyproject.toml, under `[tool.importlinter]`.
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
        "html",
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
    """The modules of `rooms`, except those of `except_rooms`, use the libraries in `may_import` and no others.

    `may_import` takes top-level packages and the groups `pure` and `stdlib`; `never` removes single ones again.
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
        if target == ROOT or target.startswith(f"{ROOT}."):  # the contract of floors decides
            return True
        top = target.split(".")[0]
        names = set().union(*(GROUPS.get(name, {name}) for name in self.may_import))  # type: ignore[attr-defined]
        return top in names - set(self.never or [])  # type: ignore[call-overload]
