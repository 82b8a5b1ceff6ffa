"""Where results lie: the paths that users were promised (SPEC 2, 5, 6)."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import DEFAULT_SELECTION, ENTROPY_LAMBDA, Selection
from ..errors import SettingsError
from .checkpoint import model_family

# ── What every step that runs a model is given: a model, a corpus, and a place for results.


def results_of(model_path: str, dataset: str, *, model_name: str | None = None, root: str | Path = ".") -> Layout:
    """Where a model's results lie, for steps that need no model; found under another name too (`find_layout`)."""
    return find_layout(Path(root), dataset, model_name or model_family(model_path), model_tag(model_path))


def results_name(model_path: str, model_name: str | None = None) -> str:
    """`<Name>-<tag>`, as in file names (SPEC 2)."""
    return f"{model_name or model_family(model_path)}-{model_tag(model_path)}"


_LONGEST_NAME = 160
"""File systems allow 255 bytes; endings need some."""


@dataclass(frozen=True)
class Layout:
    """The paths of one model's results on one dataset.

    Attributes:
        root: the folder under which all outputs lie.
        dataset: name of the dataset (`-s`).
        model: `<Name>-<tag>`, as in file names.
        selection: the method that finds the neurons, with the values that only it has: masks, and what is made with
            them, lie in folders of its name.
    """

    root: Path
    dataset: str
    model: str
    selection: Selection = DEFAULT_SELECTION

    def __post_init__(self) -> None:
        for name, what, example in (
            (self.dataset, "dataset (-s)", "mgsm"),
            (self.model, "model (--model-name)", "Llama"),
        ):
            if name in ("", "..") or name != Path(name).name:
                raise SettingsError(
                    f"the name of the {what} must be a plain name without folders, got {name!r}: for example {example}"
                )

    def by(self, selection: Selection) -> Layout:
        """The same model's results on the same dataset, by another method."""
        return replace(self, selection=selection.of_method())

    def activation(self, language: str, *, prefix: bool = False) -> Path:
        """The count file of a language, over whole texts or over prefixes."""
        name = f"{'prefix.' if prefix else ''}activation.{language}.{self.model}.pt"
        return self.root / "activations" / self.dataset / name

    def blocks(self, language: str, *, prefix: bool = False) -> Path:
        """The file of a language's counts in blocks of the corpus, over whole texts or over prefixes."""
        name = f"{'prefix.' if prefix else ''}blocks.{language}.{self.model}.pt"
        return self.root / "activations" / self.dataset / name

    def moments(self, language: str, *, prefix: bool = False) -> Path:
        """The file of a language's activation moments, over whole texts or over prefixes; beside its counts."""
        name = f"{'prefix.' if prefix else ''}moments.{language}.{self.model}.pt"
        return self.root / "activations" / self.dataset / name

    def answers(self) -> Path:
        """The corpus that this model wrote the answers of, where the dataset has questions alone."""
        return self.root / "answers" / self.dataset / f"answers.{self.model}.json"

    def mask(self, top_rate: float, lam: float | None) -> Path:
        """The mask file at a top rate and λ; its description lies beside it with the ending .json."""
        return self._rated("activation_masks", top_rate, lam) / f"mask.{self.model}"

    def perplexity(self, top_rate: float, lam: float | None, *, variant: str = "") -> Path:
        """The perplexity map's path without its ending; `variant` names a choice of classes or text."""
        return self._rated("ppl_maps", top_rate, lam) / f"ppl.{self.model}{variant}"

    def evaluation(self, top_rate: float, lam: float | None, *, variant: str = "") -> Path:
        """The evaluation's path without its ending; `variant` names a choice of classes or of what is done."""
        return self._rated("evaluations", top_rate, lam) / f"evaluate.{self.model}{variant}"

    def methods(self, top_rate: float, lam: float | None, *, variant: str = "") -> Path:
        """The path, without its ending, of the comparison of methods at these rates; `variant` as of `perplexity`."""
        return self._rated("methods", top_rate, lam) / f"methods.{self.model}{variant}"

    def forcing(self, top_rate: float, lam: float | None, *, variant: str = "") -> Path:
        """The forcing table's path without its ending; `variant` names a choice of classes or of what is done."""
        return self._rated("forcings", top_rate, lam) / f"force.{self.model}{variant}"

    def analysis(self, top_rate: float, lam: float | None) -> Path:
        """The analysis's path without its ending; its tables stand beside it."""
        return self._rated("analysis", top_rate, lam) / f"analysis.{self.model}"

    def stability(self, top_rate: float, lam: str, *, other: str = "") -> Path:
        """The path, without its ending, of the stability of this model's neurons; `lam` is λ, or how it is found."""
        name = f"stability.{self.model}{f'..{other}' if other else ''}"
        return self.root / "stability" / self.dataset / f"{float(top_rate)!r}-{lam}" / name

    def comparison(self, others: Sequence[str], rates: str) -> Path:
        """The path, without its ending, of this model's comparison with others, at rates that are written in a word."""
        return self.root / "comparisons" / self.dataset / rates / f"compare.{self._with(others)}"

    def report(self, top_rate: float, lam: float | None, *, others: Sequence[str] = ()) -> Path:
        """The path, without its ending, of the report on this model and others; a folder so named has its pictures."""
        return self._rated("reports", top_rate, lam) / f"report.{self._with(others)}"

    def lambdas(self, top_rate: float) -> list[float]:
        """The λ, ascending, at which this model has a mask of this top rate and of the layout's method."""
        parent = self.root / "activation_masks" / self.dataset
        folders = parent.iterdir() if parent.is_dir() and self.selection.has_lambda else ()
        found = [(self._rates(folder.name), folder / f"mask.{self.model}") for folder in folders]
        return sorted({rates[1] for rates, mask in found if rates and rates[0] == top_rate and mask.is_file()})

    def one_lambda(self, top_rate: float) -> float | None:
        """The λ of the one mask of this top rate and of the layout's method; None where there is none.

        Raises:
            SettingsError: several masks.
        """
        found = self.lambdas(top_rate)
        if len(found) > 1:
            raise SettingsError(
                f"{self.model} has {len(found)} masks of top rate {top_rate!r} on {self.dataset}, at λ "
                f"{', '.join(map(repr, found))}: choose one with -l"
            )
        return found[0] if found else None

    def _rates(self, folder: str) -> tuple[float, float] | None:
        """(top rate, λ) of the name of a folder of the layout's method, or None."""
        if self.selection.method == ENTROPY_LAMBDA:
            return _rates(folder)
        start, end = f"{self.selection.method}-", f"-seed{self.selection.seed}"
        return _rates(folder[len(start) : -len(end)]) if folder.startswith(start) and folder.endswith(end) else None

    def _with(self, others: Sequence[str]) -> str:
        """The name of this model and others together."""
        name = "..".join([self.model, *others])
        if len(name) <= _LONGEST_NAME:
            return name
        digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
        return f"{len(others) + 1}-models-{digest}"

    def _rated(self, kind: str, top_rate: float, lam: float | None) -> Path:
        """The method's folder; `<top_rate>-<λ>` is written one way, and found by value whichever way it was written."""
        parent = self.root / kind / self.dataset
        written = parent / self.selection.at(top_rate, lam).folder
        if self.selection.method != ENTROPY_LAMBDA or written.exists() or not parent.is_dir():
            return written
        same = [folder for folder in sorted(parent.iterdir()) if _rates(folder.name) == (top_rate, lam)]
        return same[0] if same else written


def find_layout(root: Path, dataset: str, name: str, tag: str) -> Layout:
    """The layout of a model's results, by the name given; where only another name has results, by that one.

    The tag is what tells models apart. A workflow that counts under the family read from the config and sweeps under
    a name typed by hand still means the same files.
    """
    wanted = Layout(root, dataset, f"{name}-{tag}")
    folder = root / "activations" / dataset
    if not folder.is_dir() or any(folder.glob(f"activation.*.{glob.escape(wanted.model)}.pt")):
        return wanted
    pattern = re.compile(rf"activation\.[^.]+\.(\w+)-{re.escape(tag)}\.pt")
    others = {found[1] for path in folder.iterdir() if (found := pattern.fullmatch(path.name))}
    return Layout(root, dataset, f"{others.pop()}-{tag}") if len(others) == 1 else wanted


def layout_of_mask(path: Path) -> tuple[Layout, float, float]:
    """The layout, top rate and λ of a mask file, read off its path.

    Raises:
        SettingsError: it does not lie at `…/activation_masks/<dataset>/<top_rate>-<λ>/mask.<Name>-<tag>`.
    """
    whole = path.absolute()
    rates = _rates(whole.parent.name)
    if not (rates and whole.name.startswith("mask.") and whole.parents[2].name == "activation_masks"):
        raise SettingsError(
            f"{path} is not at …/activation_masks/<dataset>/<top rate>-<λ>/mask.<Name>-<tag>, which tells what it is "
            "of: bring it there with `lna import-mask`"
        )
    return Layout(whole.parents[3], whole.parents[1].name, whole.name.removeprefix("mask.")), *rates


def with_ending(path: Path, ending: str) -> Path:
    """Add an ending to a name that may itself hold dots (`Path.with_suffix` would cut a model's version number)."""
    return path.with_name(path.name + ending)


def model_tag(model_path: str) -> str:
    """The last part of a model's path or hub id."""
    tag = Path(model_path).name
    if tag in ("", ".."):
        tag = Path(model_path).resolve().name
    if not tag or not model_path:
        raise SettingsError(
            f"the model path {model_path!r} has no last part to name results by: give a folder or a hub id"
        )
    return tag


def _rates(folder: str) -> tuple[float, float] | None:
    """(top rate, λ) of a folder's name, or None; exponents may hold a minus of their own ("1e-05-0.1")."""
    for position, character in enumerate(folder):
        if character == "-":
            try:
                return float(folder[:position]), float(folder[position + 1 :])
            except ValueError:
                continue
    return None
