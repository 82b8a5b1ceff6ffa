"""A run described by one file, YAML or TOML: the flags of `lna run` without their dashes, and their values.

    model-path: ./Mistral-7B-v0.1
    data: datasets/mgsm.json
    dataset: mgsm
    langs: [en, es, no]
    controls: 5

A value is read as the text that would stand behind the flag, so `no` is Norwegian and not false, and 1e-3 is a number.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import SettingsError

Value = str | list[str]
"""What stands behind a flag, once or several times."""

_NOTHING = ("", "~", "null")
"""How YAML writes that there is no value."""
_ENDINGS = (".yaml", ".yml", ".toml")


def read_run_file(path: Path) -> dict[str, Value]:
    """Read the keys of a run file and their values.

    Raises:
        SettingsError: no such file, neither YAML nor TOML, a key that is there twice, or a value that is neither one
            value nor a list of values.
    """
    if path.suffix not in _ENDINGS:
        raise SettingsError(f"the run file {path} must end in {', '.join(_ENDINGS)}: rename it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"cannot read the run file {path}: {reason}; give a file of flags and values") from error
    return _read_toml(text, path) if path.suffix == ".toml" else _read_yaml(text, path)


def check_keys(path: Path, keys: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Raise SettingsError for a key that is none of `known` (flag → option), or two keys of one option."""
    seen: dict[str, str] = {}
    for key in keys:
        if key not in known:
            near = get_close_matches(key.lower(), known, n=1)
            instead = f"did you mean {near[0]}?" if near else "its keys are the flags of `lna run` without their dashes"
            raise SettingsError(f"{path}: there is no {key!r}; {instead}")
        if known[key] in seen:
            raise SettingsError(f"{path}: {seen[known[key]]} and {key} are one flag: give one of them")
        seen[known[key]] = key


def save_run_file(path: Path, values: Mapping[str, Any]) -> None:
    """Write what a run was told as YAML, which `read_run_file` reads back."""
    import yaml

    from .files import write_text  # here: it needs torch

    text = yaml.safe_dump(dict(values), sort_keys=False, default_flow_style=False, width=math.inf)
    write_text(path, "# lna run -c, from the folder in which the run was started\n" + text)


def _read_yaml(text: str, path: Path) -> dict[str, Value]:
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise SettingsError(f"{path}{where}: not valid YAML ({reason})") from error
    except RecursionError as error:
        raise _no_value(path, "brackets within brackets", "expected `flag: value` on each line") from error
    if not isinstance(root, yaml.MappingNode):
        raise _no_value(path, "no flags", "expected `flag: value` on each line")
    found: dict[str, Value] = {}
    for key, node in root.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "a key"
        if name in found:
            raise SettingsError(f"{path}, line {key.start_mark.line + 1}: {name} is there twice: give it once")
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(one, yaml.ScalarNode) for one in nodes):
            raise _no_value(f"{path}, line {key.start_mark.line + 1}", name)
        texts = [one.value for one in nodes]
        if any(one.style is None and one.value in _NOTHING for one in nodes):
            raise _no_value(f"{path}, line {key.start_mark.line + 1}", name)
        found[name] = texts if isinstance(node, yaml.SequenceNode) else texts[0]
    return found


def _read_toml(text: str, path: Path) -> dict[str, Value]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # pyright: ignore[reportMissingImports]
    try:
        root = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: not valid TOML ({error})") from error
    if not root:
        raise _no_value(path, "no flags", "expected `flag = value` on each line")

    def shown(value: Any, name: str) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, str | int | float):
            raise _no_value(path, name)
        return str(value)

    return {
        name: [shown(one, name) for one in value] if isinstance(value, list) else shown(value, name)
        for name, value in root.items()
    }


def _no_value(
    where: object, name: str, expected: str = "give one value, or a list, or leave the line out"
) -> SettingsError:
    return SettingsError(f"{where}: {name} has no value that could stand behind a flag: {expected}")
