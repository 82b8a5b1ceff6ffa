"""Data sets from the Hugging Face hub, by the library `datasets`, which is loaded when it is needed."""

from __future__ import annotations

from typing import Any

from ..errors import CorpusError, MissingPackageError
from .tables import Row


def hub_rows(name: str, config: str, split: str, *, revision: str | None = None) -> list[Row]:
    """All rows of one configuration and split.

    Args:
        name: the data set's id, "juletxara/mgsm".
        config: its configuration, usually a language.
        split: "test", …
        revision: branch, tag or commit; None: the newest.

    Raises:
        MissingPackageError: `datasets` is not installed.
        CorpusError: it cannot be fetched: no network, not there, terms not accepted.
    """
    library = _library(name)
    try:
        loaded = library.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(
            f"cannot fetch {name} ({config}, {split}) from the hub: {_reason(error)}; check the network, accept the "
            "data set's terms and `hf auth login` where it asks for that, or give its files with --from DIR"
        ) from error
    return [(dict(row), f"{name} ({config}, {split}), row {number}") for number, row in enumerate(loaded, start=1)]


def hub_configs(name: str, *, revision: str | None = None) -> list[str]:
    """The configurations that a data set has.

    Raises:
        MissingPackageError: `datasets` is not installed.
        CorpusError: it cannot be asked.
    """
    library = _library(name)
    try:
        return list(library.get_dataset_config_names(name, revision=revision))
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(
            f"cannot ask the hub for {name}: {_reason(error)}; check the network, or give its files with --from DIR"
        ) from error


def _library(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        datasets = None
    if not hasattr(datasets, "load_dataset"):  # a folder datasets/, as this toolkit's users have it
        raise MissingPackageError.of("datasets", purpose=f"fetching {name} from the hub", extra="data")
    return datasets


def _reason(error: Exception) -> str:
    """The first line: what comes after it is a stack of advice for other cases."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
