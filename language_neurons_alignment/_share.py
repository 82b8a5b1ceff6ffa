"""Results on the Hugging Face hub: counts, masks and maps of one model go there, and come back checked."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ._check import DAMAGED, ORPHANED, STALE, RootCheck, check_root
from .errors import ArtifactError, ConflictError, IncompatibleError, MissingArtifactError
from .store.counts import load_origin
from .store.files import atomic_file, digest_of_bytes, read_json, unwritable, write_text
from .store.hub import download, latest, upload
from .store.layout import Layout
from .store.masks import load_description
from .store.neutral import save_neutral
from .version import __version__

MANIFEST, CARD = "lna_results.json", "README.md"
"""The list of the results with their digests, and the card, at the root of a repository."""

_RESULTS = ("activations", "activation_masks", "ppl_maps")
_TEXTS = "answers"
_PLAIN = re.compile(r"[^/\\\0]+")


@dataclass(frozen=True)
class Commit:
    """What `push` puts into a repository.

    Attributes:
        files: paths in the repository, sorted.
        url: of the commit; None where none was made (`dry_run`).
    """

    repo: str
    files: tuple[str, ...]
    private: bool
    url: str | None


@dataclass(frozen=True)
class Pulled:
    """What `pull` fetched: new files, and those that were there already with the same content."""

    repo: str
    revision: str
    dataset: str
    model: str
    files: tuple[Path, ...]
    there: int


def push(
    layout: Layout,
    repo: str,
    *,
    private: bool = True,
    answers: bool = False,
    dry_run: bool = False,
    announce: Callable[[tuple[str, ...]], None] = lambda _files: None,
) -> Commit:
    """Send one model's counts, masks and maps on a dataset to the hub, as a data set with a card.

    Count files and masks go with a copy in safetensors. What is sent is checked first, as `lna check` does.

    Args:
        layout: whose results.
        repo: OWNER/NAME; made if it is not there.
        private: whether a repository that is made is.
        answers: also send the model's answers, which are texts.
        dry_run: send nothing.
        announce: called with the paths of the commit before anything is sent.

    Raises:
        MissingArtifactError: there are no results.
        ArtifactError: results are damaged, or the hub cannot be reached.
        SettingsError: no such name, or no token.
    """
    found = _files_of(layout, (*_RESULTS, _TEXTS) if answers else _RESULTS)
    if not found:
        raise MissingArtifactError(
            f"no results of {layout.model} on {layout.dataset} in {layout.root}: run `lna run`, or give its --root"
        )
    with _stage() as stage:
        for path in found:
            target = stage / path.relative_to(layout.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        _check_sound(check_root(stage), stage, "the results to send", "make them again, or run `lna check`")
        staged = {path.relative_to(stage).as_posix(): path for path in sorted(stage.rglob("*")) if path.is_file()}
        digests = {where: digest_of_bytes(path.read_bytes()) for where, path in staged.items()}
        named = {"version": __version__, "dataset": layout.dataset, "model": layout.model}
        write_text(stage / MANIFEST, json.dumps({**named, "files": digests}, indent=1) + "\n")
        for where in list(staged):
            copy = save_neutral(stage / where)
            if copy is not None:
                staged[copy.relative_to(stage).as_posix()] = copy
        write_text(stage / CARD, card(Layout(stage, layout.dataset, layout.model), repo))
        staged.update({MANIFEST: stage / MANIFEST, CARD: stage / CARD})
        files = tuple(sorted(staged))
        announce(files)
        message = f"Results of {layout.model} on {layout.dataset} (lna {__version__})"
        url = None if dry_run else upload(repo, staged, private=private, message=message)
    return Commit(repo, files, private, url)


def pull(repo: str, root: Path, *, revision: str | None = None, overwrite: bool = False) -> Pulled:
    """Fetch results from the hub into a root.

    They are a stranger's: only files of results are taken, each must have the digest that the repository's list says,
    and all are read as `lna check` reads them, without running any code in them, before any of them comes into `root`.

    Raises:
        MissingArtifactError: no such repository, or no results in it.
        ArtifactError: files are damaged, or the hub cannot be reached.
        ConflictError: other results are in the way, and not `overwrite`.
    """
    commit = latest(repo, revision)
    with _stage() as stage:
        path = download(repo, MANIFEST, stage, revision=commit)
        listed = read_json(path, _is_manifest, command=f"lna pull {repo}")
        assert listed is not None
        for where, digest in listed["files"].items():
            fetched = download(repo, where, stage, revision=commit)
            if fetched.is_symlink() or digest_of_bytes(fetched.read_bytes()) != digest:
                raise IncompatibleError(
                    f"{repo}: {where} is not what its {MANIFEST} lists: ask its owner to push again"
                )
        shutil.rmtree(stage / ".cache", ignore_errors=True)
        _check_sound(check_root(stage), stage, f"the results in {repo}", "ask its owner to check them")
        new = {root / where: stage / where for where in listed["files"]}
        same = {path for path, one in new.items() if path.is_file() and path.read_bytes() == one.read_bytes()}
        other = sorted(path for path in new.keys() - same if path.exists())
        if other and not overwrite:
            raise ConflictError(
                f"{other[0]} is there with other content ({len(other)} files): give another --root, or --force"
            )
        for path, one in new.items():
            if path not in same:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(path) as file:
                    file.write(one.read_bytes())
    return Pulled(repo, commit, listed["dataset"], listed["model"], tuple(sorted(new.keys() - same)), len(same))


@contextmanager
def _stage() -> Iterator[Path]:
    """Give a temporary folder; what cannot be written there is told in one line."""
    try:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
    except OSError as error:
        raise unwritable(Path(error.filename or tempfile.gettempdir()), error) from error


def card(layout: Layout, repo: str) -> str:
    """Write what a repository holds, for people; the licence is its owner's to add."""
    origins = {language: load_origin(layout.activation(language)) for language in layout.counted_languages()}
    tokens = [
        f"| {language} | {number:,} | `{made.get('corpus_hash', '')}` |" for language, (number, made) in origins.items()
    ]
    made: dict[str, Any] = next((made for _, made in origins.values()), {})
    masks = []
    for path in sorted((layout.root / "activation_masks" / layout.dataset).glob(f"*/mask.{layout.model}")):
        described = load_description(path)
        if described is not None:
            made = made or described.plain()
            neurons = ", ".join(f"{language} {number}" for language, number in described.neurons.items())
            masks.append(
                f"| `{path.parent.name}` | {described.method} | {described.top_rate} | {described.lam} | {neurons} |"
            )
    known = {
        "config": made.get("config_hash"),
        "weights": made.get("weights_hash"),
        "tokenizer": made.get("tokenizer_hash"),
    }
    engine = [f"{name} {made[name]}" for name in ("engine", "transformers", "vllm", "torch", "dtype") if name in made]
    parts = [
        "---\ntags:\n- language-neurons\n- interpretability\n---",
        f"# Language neurons of {layout.model} on {layout.dataset}",
        "Results of [language_neurons_alignment](https://pypi.org/project/language_neurons_alignment/) "
        f"{made.get('version', __version__)}. No licence is given here: the owner of this repository adds one.",
        f"    lna pull {repo}\n    lna analyze --model-path MODEL --model-name NAME -s {layout.dataset}",
        f"Results are named `{layout.model}`, which is NAME and the last part of MODEL's path.",
        "## Model\n\n" + "\n".join(f"- digest of the {what}: `{digest}`" for what, digest in known.items() if digest),
        "- computed with " + ", ".join(engine) if engine else "",
        "## Counts\n\n| language | tokens | digest of its texts |\n|---|---|---|\n" + "\n".join(tokens)
        if tokens
        else "",
        "## Masks\n\n| folder | method | top rate | λ | neurons |\n|---|---|---|---|---|\n" + "\n".join(masks)
        if masks
        else "",
        "Beside each count file and mask lies its content as safetensors: tensors as they are stored; of a mask, the "
        "(layer, neuron) places of each language.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _files_of(layout: Layout, kinds: tuple[str, ...]) -> list[Path]:
    """The files of one model; those of models whose names begin with its name are left out."""
    model, folder = re.escape(layout.model), layout.root
    own = re.compile(
        rf"(prefix\.)?(activation|blocks|moments)\.[^.]+\.{model}\.pt|autosweep\.{model}\.json|mask\.{model}(\.json)?|"
        rf"answers\.{model}\.json|ppl\.{model}.*\.(json|jsonl|csv|png)"
    )
    found = [
        path
        for kind in kinds
        for path in sorted((folder / kind / layout.dataset).rglob("*"))
        if path.is_file() and own.fullmatch(path.name)
    ]
    masks = (folder / "activation_masks" / layout.dataset).glob("*/mask.*")
    others = {path.name.removeprefix("mask.") for path in masks if path.suffix != ".json"}
    longer = tuple(f"ppl.{one}" for one in others if one.startswith(layout.model) and one != layout.model)
    return [path for path in found if not (longer and path.name.startswith(longer))]


def _is_manifest(content: Any) -> bool:
    """Whether this lists files of results, each in a folder of its kind, and nothing outside."""
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict) or not content["files"]:
        return False
    names = [content.get("dataset"), content.get("model")]
    return all(isinstance(one, str) and one for one in names) and all(
        isinstance(digest, str)
        and (parts := PurePosixPath(where).parts)
        and parts[0] in (*_RESULTS, _TEXTS)
        and len(parts) >= 3
        and all(_PLAIN.fullmatch(one) and not one.startswith(".") for one in parts)
        and "/".join(parts) == where
        for where, digest in content["files"].items()
    )


def _check_sound(found: RootCheck, stage: Path, what: str, remedy: str) -> None:
    wrong = [one for one in found.findings if one.kind in (DAMAGED, STALE, ORPHANED)]
    if wrong or not found.checked:
        said = f"{wrong[0].kind}: {wrong[0].what}".replace(f"{stage}/", "") if wrong else "none can be read"
        raise ArtifactError(f"{what} are not in order ({said}): {remedy}")
