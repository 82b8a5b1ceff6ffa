"""Where results lie: the paths that users were promised.

`Layout` knows every path of one model's results on one dataset; `results_of` finds it from a model's path. Nothing
here needs torch.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..config import DEFAULT_SELECTION, ENTROPY_LAMBDA, Selection
from ..errors import SettingsError, unseen_in
from ..languages import DEFAULT_LANGUAGES, LONGEST_CODE, code_or_name, in_default_order
from .checkpoint import UNKNOWN, Checkpoint, model_family, read_checkpoint

_LONGEST_NAME = 160
"""Bytes of the names of several models in one file name; longer ones are shortened to a digest."""
_LONGEST_FILE_NAME, _LONGEST_PATH = 255, 4095
"""Bytes that systems allow for a file's name and for a whole path."""
_TEMPORARY = "..12345678.part"
"""What is put around a file's name while it is written."""
_LONGEST_MODEL_NAME = _LONGEST_FILE_NAME - len(f"prefix.activation.{'x' * LONGEST_CODE}..pt{_TEMPORARY}")
"""Bytes of a model's name that leave room for the rest of the longest name of a count file."""
_LONGEST_RESULT_NAME = _LONGEST_FILE_NAME - len(f".cells.new.jsonl{_TEMPORARY}")
"""Bytes of the name of a map or table that leave room for its endings."""
DATASET_NAME = "the name of the dataset (-s)"
_SIZE = re.compile(r"\d[MBmb]\b")
"""A number of parameters: a folder that says it is named as its model is."""
_SHOWN = 60
"""Characters of a name in a message."""


@dataclass(frozen=True)
class Layout:
    """The paths of one model's results on one dataset.

        >>> layout = Layout(Path("out"), "mgsm", "Llama-my-model")
        >>> layout.activation("fr").as_posix()
        'out/activations/mgsm/activation.fr.Llama-my-model.pt'
        >>> layout.mask(0.01, 0.109375).as_posix()
        'out/activation_masks/mgsm/0.01-0.109375/mask.Llama-my-model'

    Attributes:
        model: `<Name>-<tag>`, as in file names.
        selection: the method that finds the neurons, with the values that only it has; masks, and what is made with
            them, lie in folders of its name.
    """

    root: Path
    dataset: str
    model: str
    selection: Selection = DEFAULT_SELECTION

    def __post_init__(self) -> None:
        check_name(self.dataset, DATASET_NAME, example="mgsm")
        check_name(self.model, "the name of the model (--model-name)", example="Llama", longest=_LONGEST_MODEL_NAME)
        _check_root(self.root)

    @property
    def title(self) -> str:
        """The model's name in titles: its tag alone where that repeats the name before it, or says the model's size.

        >>> [Layout(Path(), "x", name).title for name in ("Gemma3-gemma-3-270m", "Llama-SmolLM2-135M", "Llama-aligned")]
        ['gemma-3-270m', 'SmolLM2-135M', 'Llama-aligned']
        """
        name, _, tag = self.model.partition("-")
        letters = ["".join(filter(str.isalnum, one)).lower() for one in (name, tag)]
        return tag if tag and (letters[0] in letters[1] or _SIZE.search(tag)) else self.model

    def by(self, selection: Selection) -> Layout:
        """Return the same model's results on the same dataset, by another method."""
        return replace(self, selection=selection.of_method())

    def activation(self, language: str, *, prefix: bool = False) -> Path:
        """The count file of a language, over whole texts or over prefixes."""
        return self._counted("activation", language, prefix)

    def blocks(self, language: str, *, prefix: bool = False) -> Path:
        """The file of a language's counts in blocks of the corpus, over whole texts or over prefixes."""
        return self._counted("blocks", language, prefix)

    def moments(self, language: str, *, prefix: bool = False) -> Path:
        """The file of a language's activation moments, over whole texts or over prefixes."""
        return self._counted("moments", language, prefix)

    def counted_languages(self) -> tuple[str, ...]:
        """The codes of the languages that have count files, sorted."""
        pattern = re.compile(rf"activation\.([^.]+)\.{re.escape(self.model)}\.pt")
        folder = self.activation("").parent
        names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
        return tuple(sorted({code_or_name(found[1]) for name in names if (found := pattern.fullmatch(name))}))

    def languages(self) -> tuple[str, ...]:
        """The languages that have count files, in the default order; where none has, the ten of the paper."""
        return in_default_order(self.counted_languages()) or DEFAULT_LANGUAGES

    def sweeps(self) -> Path:
        """The λ that AutoSweep found in the counts, without ending."""
        return self.activation("").parent / f"autosweep.{self.model}"

    def spelling(self, language: str) -> str:
        """How the count files of a language write it: its code, or what an earlier version took for it."""
        return self.activation(language).name.removeprefix("activation.").removesuffix(f".{self.model}.pt")

    def replacing(self) -> Path:
        """The file that is there while a run of all steps replaces its results (`store.replacing`)."""
        return self.activation("").parent / f"run.{self.model}.replacing.json"

    def merging(self) -> Path:
        """The file that is there while shards are merged anew, in place of existing counts."""
        return self.activation("").parent / f"merge.{self.model}.replacing.json"

    def answers(self) -> Path:
        """The corpus with this model's answers, where the dataset has only questions."""
        return self.root / "answers" / self.dataset / f"answers.{self.model}.json"

    def mask(self, top_rate: float, lam: float | None) -> Path:
        """The mask file of a top rate and λ; its description lies beside it with the ending .json."""
        return self._rated("activation_masks", top_rate, lam) / f"mask.{self.model}"

    def perplexity(self, top_rate: float, lam: float | None, *, variant: str = "") -> Path:
        """The perplexity map, without its ending; `variant` names a choice of classes, text or steps."""
        return self._rated("ppl_maps", top_rate, lam) / self._fitting(f"ppl.{self.model}{variant}")

    def evaluation(self, top_rate: float, lam: float | None, *, variant: str = "") -> Path:
        """The evaluation, without its ending; `variant` names a choice of classes or steps."""
        return self._rated("evaluations", top_rate, lam) / self._fitting(f"evaluate.{self.model}{variant}")

    def methods(self, top_rate: float, lam: float | None, *, variant: str = "") -> Path:
        """The comparison of methods, without its ending; `variant` as in `perplexity`."""
        return self._rated("methods", top_rate, lam) / self._fitting(f"methods.{self.model}{variant}")

    def forcing(self, top_rate: float, lam: float | None, *, variant: str = "") -> Path:
        """The forcing table, without its ending; `variant` names a choice of classes or steps."""
        return self._rated("forcings", top_rate, lam) / self._fitting(f"force.{self.model}{variant}")

    def lens(self, text: str, *, variant: str = "") -> Path:
        """What the logit lens reads from these texts, without its ending; `variant` names the change that was made."""
        return self.root / "lenses" / self.dataset / text / self._fitting(f"lens.{self.model}{variant}")

    def analysis(self, top_rate: float, lam: float | None) -> Path:
        """The analysis, without its ending; its tables lie beside it."""
        return self._rated("analysis", top_rate, lam) / f"analysis.{self.model}"

    def neurons(self, top_rate: float, lam: float | None, *, variant: str = "") -> Path:
        """The page of neurons, without its ending; `variant` names a choice of classes."""
        return self._rated("neurons", top_rate, lam) / self._fitting(f"neurons.{self.model}{variant}")

    def stability(self, top_rate: float, lam: str, *, other: str = "") -> Path:
        """The stability of this model's neurons, without its ending; `lam` is λ, or how it is found."""
        name = f"stability.{self.model}{f'..{other}' if other else ''}"
        return self.root / "stability" / self.dataset / f"{float(top_rate)!r}-{lam}" / self._fitting(name)

    def comparison(self, others: Sequence[str], rates: str) -> Path:
        """The comparison of this model with others, without its ending; `rates` is the name of a folder."""
        return self.root / "comparisons" / self.dataset / rates / f"compare.{self._with(others)}"

    def report(self, top_rate: float, lam: float | None, *, others: Sequence[str] = ()) -> Path:
        """The report on this model and others, without its ending; its pictures lie in a folder of the same name."""
        return self._rated("reports", top_rate, lam) / f"report.{self._with(others)}"

    def lambdas(self, top_rate: float) -> list[float]:
        """Every λ, ascending, at which this model has a mask of this top rate and of the layout's method."""
        parent = self.root / "activation_masks" / self.dataset
        folders = parent.iterdir() if parent.is_dir() and self.selection.has_lambda else ()
        masked = [folder.name for folder in folders if (folder / f"mask.{self.model}").is_file()]
        return sorted({rates[1] for name in masked if (rates := self._rates_of(name)) and rates[0] == top_rate})

    def _fitting(self, name: str) -> str:
        """The name of a map or table, if it leaves room for its endings."""
        length = len(name.encode())
        if length > _LONGEST_RESULT_NAME:
            raise SettingsError(
                f"the results' name {_shown(name)} has {length} bytes, {len(self.model.encode())} of them the model's, "
                f"and there is room for {_LONGEST_RESULT_NAME}: choose a shorter --model-name or model folder"
            )
        return name

    def _rates_of(self, folder: str) -> tuple[float, float] | None:
        """Read (top rate, λ) off the name of a folder of the layout's method, or None."""
        if self.selection.method == ENTROPY_LAMBDA:
            return rates_of(folder)
        start, end = f"{self.selection.method}-", f"-seed{self.selection.seed}"
        return rates_of(folder[len(start) : -len(end)]) if folder.startswith(start) and folder.endswith(end) else None

    def _counted(self, kind: str, language: str, prefix: bool) -> Path:
        """A file that counting writes."""
        folder, start = self.root / "activations" / self.dataset, f"{'prefix.' if prefix else ''}{kind}."
        path = folder / f"{start}{code_or_name(language)}.{self.model}.pt"
        if not language or path.exists():
            return path
        return self._older_spelling(folder, start, path) or path

    def _older_spelling(self, folder: Path, start: str, path: Path) -> Path | None:
        """The file of the same language as `path` under another code ("zh-CN"), as earlier versions named it."""
        code = path.name.removeprefix(start).removesuffix(f".{self.model}.pt")
        pattern = re.compile(rf"{re.escape(start)}([^.]+)\.{re.escape(self.model)}\.pt")
        names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
        same = sorted(name for name in names if (found := pattern.fullmatch(name)) and code_or_name(found[1]) == code)
        if len(same) > 1:
            raise SettingsError(
                f"{folder} has {' and '.join(same)}, both for the same language: rename the right one to {path.name}"
            )
        return folder / same[0] if same else None

    def _with(self, others: Sequence[str]) -> str:
        """Return the names of this model and others in one, shortened to a digest where they are long."""
        name = "..".join([self.model, *others])
        if len(name.encode()) <= _LONGEST_NAME:
            return name
        digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
        return f"{len(others) + 1}-models-{digest}"

    def _rated(self, kind: str, top_rate: float, lam: float | None) -> Path:
        """The folder of a method's rates; an existing `<top_rate>-<λ>` is found by value, however it was written."""
        parent = self.root / kind / self.dataset
        written = parent / self.selection.at(top_rate, lam).folder
        if self.selection.method != ENTROPY_LAMBDA or written.exists() or not parent.is_dir():
            return written
        same = [folder for folder in sorted(parent.iterdir()) if rates_of(folder.name) == (top_rate, lam)]
        return same[0] if same else written


def check_name(name: str, what: str, *, example: str, longest: int = _LONGEST_FILE_NAME) -> None:
    """Raise SettingsError unless a name can be a part of paths: plain, visible, without folders, not too long."""
    if name in ("", "..") or name != Path(name).name:
        raise SettingsError(f"{what} must be a plain name without folders, got {_shown(name)}: for example {example}")
    unseen = unseen_in(name)
    if unseen:
        raise SettingsError(
            f"{what} must have visible characters only, got {unseen} in {_shown(name)}: for example {example}"
        )
    length = len(name.encode())
    if length > longest:
        raise SettingsError(
            f"{what} has {length} bytes, and files that are named by it leave room for {longest}, got {_shown(name)}: "
            f"choose a shorter name, for example {example}"
        )


def _check_root(root: Path) -> None:
    """Raise SettingsError where no file can lie under a folder."""
    if "\0" in str(root):
        raise SettingsError(
            f"the folder for results {_shown(str(root))} contains a NUL character: choose another --root"
        )
    longest = _LONGEST_PATH - 3 * _LONGEST_FILE_NAME  # results lie two folders deeper
    length, part = len(os.fsencode(root.absolute())), max((len(os.fsencode(one)) for one in root.parts), default=0)
    if length > longest or part > _LONGEST_FILE_NAME:
        raise SettingsError(
            f"the folder for results {_shown(str(root))} has a path of {length} bytes and a name of {part} in it; "
            f"there is room for {longest} and {_LONGEST_FILE_NAME}: choose a shorter --root"
        )


def _shown(name: str) -> str:
    """A name in a message, shortened if it is long."""
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")


def results_of(
    model_path: str,
    dataset: str,
    *,
    model_name: str | None = None,
    root: str | Path = ".",
    checkpoint: Checkpoint | None = None,
    adapter: str | None = None,
) -> Layout:
    """Find a model's results, also where they lie under another name than the one given (`find_layout`).

    >>> results_of("/models/my-model", "mgsm", model_name="Llama").activation("fr").as_posix()
    'activations/mgsm/activation.fr.Llama-my-model.pt'

    Args:
        model_path: folder or hub id; only its last part is needed.
        dataset: name of the dataset.
        model_name: as in file names; None: the family in the model's config.
        root: folder under which results lie.
        checkpoint: the model on disk, where it has been read already.
        adapter: folder or hub id of a LoRA adapter of this model; results are named by its last part then.
    """
    name, tag = model_name or model_family(model_path), _tag(model_path, model_name, adapter)
    read = partial(read_checkpoint, model_path, adapter=adapter)
    return find_layout(Path(root), dataset, name, tag, checkpoint=lambda: checkpoint or read())


def results_name(model_path: str, model_name: str | None = None, *, adapter: str | None = None) -> str:
    """Return `<Name>-<tag>`, the model's name in file names; with an adapter the tag is the adapter's.

    >>> results_name("/models/base", "Llama", adapter="/adapters/aligned")
    'Llama-aligned'
    """
    if model_name is not None:
        check_name(model_name, "the model's name (--model-name)", example="Llama")
    tag = _tag(model_path, model_name, adapter)
    return f"{model_name or model_family(model_path)}-{tag}"


def _tag(model_path: str, model_name: str | None, adapter: str | None) -> str:
    """The last part of the path that tells a model from others."""
    if adapter is None:
        return model_tag(model_path)
    tag = model_tag(adapter)
    if tag == model_tag(model_path) and model_name is None:
        raise SettingsError(
            f"the adapter and the model have the same last part of their paths, {_shown(tag)}, which names the results "
            "of both: give another --model-name to those of the adapter, or rename its folder"
        )
    return tag


def find_layout(
    root: Path, dataset: str, name: str, tag: str, *, checkpoint: Callable[[], Checkpoint] = lambda: UNKNOWN
) -> Layout:
    """Return the layout under the name given, or, where only one other name has results of this model, under that.

    The tag tells models apart, and a name typed by hand means the same files as the family in the config. In
    `Llama-big-x`, though, the tag may be `x` or `big-x`: such a name counts where its counts come from this model.
    """
    wanted = Layout(root, dataset, f"{name}-{tag}")
    folder = wanted.activation("").parent
    if not folder.is_dir() or wanted.counted_languages():
        return wanted
    pattern = re.compile(rf"activation\.[^.]+\.(.+)-{re.escape(tag)}\.pt")
    named = {found[1]: path for path in folder.iterdir() if (found := pattern.fullmatch(path.name))}
    others = [other for other, path in named.items() if "-" not in other or _counted_on(path, checkpoint())]
    return Layout(root, dataset, f"{others[0]}-{tag}") if len(others) == 1 else wanted


def _counted_on(path: Path, checkpoint: Checkpoint) -> bool:
    """Whether a count file says that it comes from this model."""
    from .counts import load_origin  # here: `counts` needs this module, and torch

    known = bool(checkpoint.config_hash)
    return known and checkpoint.difference(load_origin(path)[1], unknown_differs=True) is None


def layout_of_mask(path: Path) -> tuple[Layout, float, float]:
    """Read the layout, top rate and λ off a mask file's path."""
    whole = path.absolute()
    rates = rates_of(whole.parent.name)
    if not (rates and whole.name.startswith("mask.") and whole.parents[2].name == "activation_masks"):
        raise SettingsError(
            f"{path} is not at …/activation_masks/<dataset>/<top rate>-<λ>/mask.<Name>-<tag>, which tells its model "
            "and rates: bring it there with `lna import-mask`"
        )
    return Layout(whole.parents[3], whole.parents[1].name, whole.name.removeprefix("mask.")), *rates


def with_ending(path: Path, ending: str) -> Path:
    """Add an ending to a name that may itself hold dots (`Path.with_suffix` would cut a model's version number).

    >>> with_ending(Path("ppl.Mistral-7B-v0.1"), ".json").name
    'ppl.Mistral-7B-v0.1.json'
    """
    return path.with_name(path.name + ending)


def model_tag(model_path: str) -> str:
    """Return the last part of a model's path or hub id."""
    if "\0" in model_path:
        raise SettingsError(f"the model path {_shown(model_path)} contains a NUL character: give a folder or a hub id")
    tag = Path(model_path).name
    if tag in ("", ".."):
        tag = Path(model_path).resolve().name
    if not tag or not model_path:
        raise SettingsError(
            f"the model path {model_path!r} has no last part to name results by: give a folder or a hub id"
        )
    check_name(tag, "the last part of the model path, which names results,", example="Mistral-7B-v0.1")
    return tag


def rates_of(folder: str) -> tuple[float, float] | None:
    """Read (top rate, λ) off a folder's name, or None; exponents may hold a minus of their own ("1e-05-0.1")."""
    for position, character in enumerate(folder):
        if character == "-":
            try:
                return float(folder[:position]), float(folder[position + 1 :])
            except ValueError:
                continue
    return None
