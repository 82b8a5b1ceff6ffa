"""What a model's folder says without loading the model."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from language_neurons_alignment.errors import ArtifactError, IncompatibleError
from language_neurons_alignment.store import checkpoint
from language_neurons_alignment.store.checkpoint import Checkpoint, model_family, read_checkpoint
from tests.tiny_models import save_tiny_model

CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "model_type": "llama"}


def model_folder(folder: Path, config: Any = CONFIG, **layout: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, **layout), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        ("LlamaForCausalLM", "Llama"),
        ("MistralForCausalLM", "Mistral"),
        ("Qwen2ForCausalLM", "Qwen2"),
        ("Qwen3ForCausalLM", "Qwen3"),
        ("Gemma2ForCausalLM", "Gemma2"),
        ("Gemma3ForConditionalGeneration", "Gemma3"),
        ("Phi3ForCausalLM", "Phi3"),
        ("Olmo2ForCausalLM", "Olmo2"),
        ("GPTNeoXForCausalLM", "GPTNeoX"),
        ("OPTForCausalLM", "OPT"),
        ("BloomForCausalLM", "Bloom"),
        ("GPT2LMHeadModel", "GPT2"),
    ],
)
def test_the_family_is_the_architecture_without_what_it_is_for(tmp_path: Path, architecture: str, family: str) -> None:
    assert model_family(model_folder(tmp_path, {"architectures": [architecture]})) == family


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": None}])
def test_a_config_without_architecture_is_called_mistral(tmp_path: Path, config: dict[str, Any]) -> None:
    assert model_family(model_folder(tmp_path, config)) == "Mistral"


@pytest.mark.parametrize("path", ["/ABS/PATH/TO/MODEL", "nowhere", "some/hub-id", "a/b/c"])
def test_where_there_is_no_model_it_is_called_mistral_and_has_no_digests(path: str) -> None:
    found = read_checkpoint(path)
    assert (model_family(path), found.config_hash, found.weights_hash) == ("Mistral", "", "")


def test_the_digest_of_a_config_does_not_depend_on_formatting_or_versions(tmp_path: Path) -> None:
    plain = read_checkpoint(model_folder(tmp_path / "a"))
    other = {"transformers_version": "9.9", "_name_or_path": "x", **dict(reversed(list(CONFIG.items())))}
    assert read_checkpoint(model_folder(tmp_path / "b", other, indent=4)) == plain
    assert plain.config_hash


@pytest.mark.parametrize(
    "change", [{"hidden_size": 65}, {"rope_theta": 1.0}, {"architectures": ["MistralForCausalLM"]}]
)
def test_the_digest_of_a_config_tells_what_matters(tmp_path: Path, change: dict[str, Any]) -> None:
    plain = read_checkpoint(model_folder(tmp_path / "a"))
    assert read_checkpoint(model_folder(tmp_path / "b", {**CONFIG, **change})).config_hash != plain.config_hash


def test_the_digest_of_the_weights_tells_every_single_weight_of_a_small_model(tmp_path: Path) -> None:
    folder = save_tiny_model("llama", tmp_path / "model")
    before = read_checkpoint(str(folder))
    assert read_checkpoint(str(folder)) == before
    assert model_family(str(folder)) == "Llama"
    weights = load_file(folder / "model.safetensors")
    for name in (min(weights), max(weights)):
        changed = {key: value.clone() for key, value in weights.items()}
        changed[name].view(-1)[-1] += 1
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        after = read_checkpoint(str(folder))
        assert after.weights_hash != before.weights_hash
        assert after.config_hash == before.config_hash


def test_large_weights_are_sampled_and_training_still_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_WHOLE_BYTES", 1000)
    folder = model_folder(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(range(256)) * 50_000)
    before = read_checkpoint(folder).weights_hash
    weights.write_bytes(bytes(byte ^ 1 for byte in range(256)) * 50_000)
    assert read_checkpoint(folder).weights_hash != before
    weights.write_bytes(bytes(range(256)) * 50_000 + b"x")
    assert read_checkpoint(folder).weights_hash != before
    weights.write_bytes(bytes(range(256)) * 50_000)
    assert read_checkpoint(folder).weights_hash == before


def test_a_model_without_weights_has_no_digest_of_them(tmp_path: Path) -> None:
    assert read_checkpoint(model_folder(tmp_path)).weights_hash == ""


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "\x00"])
def test_a_damaged_config_is_an_error_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"config\.json is not a model's config"):
        model_family(str(tmp_path))


def test_weights_that_cannot_be_read_are_an_error_in_one_line(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(ArtifactError, match="cannot read the weights"):
        read_checkpoint(folder)


def test_a_home_folder_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model_folder(tmp_path / "models" / "x")
    assert model_family("~/models/x") == "Llama"


def test_a_hub_id_is_looked_up_in_the_local_cache_without_any_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--some--model" / "snapshots" / ("0" * 40)
    model_folder(snapshot)
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("0" * 40)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    assert model_family("some/model") == "Llama"
    assert model_family("some/other-model") == "Mistral"


KNOWN = Checkpoint("c1", "w1")


@pytest.mark.parametrize(
    ("other", "differs", "strictly"),
    [
        (Checkpoint("c1", "w1"), None, None),
        (Checkpoint("c2", "w1"), "config", "config"),
        (Checkpoint("c2", "w2"), "config", "config"),
        ({"config_hash": "c1", "weights_hash": "w2"}, "weights", "weights"),
        ({"config_hash": "c1", "weights_hash": None}, None, "weights"),
        ({}, None, "config"),
    ],
)
def test_models_differ_where_both_sides_know_or_strictly_where_one_does_not(
    other: Any, differs: str | None, strictly: str | None
) -> None:
    assert KNOWN.difference(other) == differs
    assert KNOWN.difference(other, unknown_differs=True) == strictly
    if differs is None:
        KNOWN.check_same(other, what="x was made from a model", remedy="make it again")
    else:
        with pytest.raises(
            IncompatibleError, match=f"^x was made from a model with other {differs} .*: make it again$"
        ):
            KNOWN.check_same(other, what="x was made from a model", remedy="make it again")


def test_the_tokenizer_is_known_by_what_decides_its_tokens(tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "m")
    path, settings = str(tmp_path / "m"), tmp_path / "m" / "tokenizer_config.json"
    before = read_checkpoint(path)
    assert before.tokenizer_hash
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "chat_template": "{{ messages }}", "name_or_path": "elsewhere"}))
    assert read_checkpoint(path) == before
    settings.write_text(json.dumps({**content, "add_bos_token": False}))
    assert read_checkpoint(path).difference(before) == "tokenizer"
    settings.write_text(json.dumps(content))
    tokenizer = tmp_path / "m" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"merges"', '"merges" ', 1))
    assert read_checkpoint(path).difference(before) == "tokenizer"
    assert read_checkpoint(path).weights_hash == before.weights_hash


def test_a_tokenizer_that_nobody_noted_does_not_differ() -> None:
    now, old = Checkpoint("c", "w", "t"), {"config_hash": "c", "weights_hash": "w"}
    for strict in (False, True):
        assert now.difference(old, unknown_differs=strict) is None
        assert now.difference({**old, "tokenizer_hash": "u"}, unknown_differs=strict) == "tokenizer"
    with pytest.raises(IncompatibleError, match="with other tokenizer than the one in use"):
        now.check_same(Checkpoint("c", "w", "u"), what="x", remedy="y")
