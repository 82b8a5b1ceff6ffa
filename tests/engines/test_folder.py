"""Model folders: what is refused in one line, and what lies beside a model and is named."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, processors

from language_neurons_alignment.corpus.encode import encode_groups, encode_prompts, encode_texts
from language_neurons_alignment.corpus.records import Record
from language_neurons_alignment.engines.checkpoint import layer_widths, load_config, load_tokenizer
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import EngineError, LNAError, LNAWarning
from language_neurons_alignment.store.checkpoint import read_checkpoint
from language_neurons_alignment.store.layout import results_name
from tests.tiny_models import save_tiny_model, tiny_tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 4\n"
PAGE = b"<!DOCTYPE html><html><title>Log in</title></html>"
ADAPTER = {"base_model_name_or_path": "meta-llama/Llama-2-7b-hf", "peft_type": "LORA"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("folder") / "tiny")


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


def load(model: Path) -> TransformersEngine:
    return TransformersEngine.load(model, device="cpu")


def refusal(path: Path, act: Callable[[Path], Any] = load) -> str:
    """What is said of it, which is one line."""
    with pytest.raises(LNAError) as refused:
        act(path)
    said = str(refused.value)
    assert said.isprintable()
    assert len(said) < 700
    return said


def notes(model: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load(model).close()
    return [str(one.message) for one in said if issubclass(one.category, LNAWarning)]


def shard(model: Path, *names: str) -> None:
    """An index in place of the weights' file, and a file for each of these names."""
    (model / "model.safetensors").rename(model / names[0])
    for name in names[1:]:
        save_file({"x": torch.zeros(1)}, model / name)


class TestRefused:
    @pytest.mark.parametrize("name", ["m.gguf", "m.bin"])
    def test_a_gguf_file_is_read_as_one_whatever_its_name(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"GGUF\x03\0\0\0")
        said = refusal(tmp_path / name)
        assert (
            said
            == f"cannot read the GGUF file {tmp_path / name}: it ends in the middle of its metadata; download it again"
        )

    def test_a_relative_gguf_path_that_looks_like_a_hub_id_is_not_looked_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("models").mkdir()
        Path("models/m.gguf").write_bytes(b"GGUF\x03\0\0\0")
        assert refusal(Path("models/m.gguf")).startswith("cannot read the GGUF file models/m.gguf: it ends")

    def test_a_folder_with_several_gguf_files_is_told_which_also_beside_a_config(self, tmp_path: Path) -> None:
        for name in ("q4.gguf", "q8.gguf"):
            (tmp_path / name).write_bytes(b"GGUF")
        (tmp_path / "notes.gguf").write_text("no such file")
        said = f"holds 2 GGUF files (q4.gguf, q8.gguf): give one of them, such as {tmp_path / 'q4.gguf'}"
        assert refusal(tmp_path) == f"{tmp_path} has no config.json and {said}"
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        assert refusal(tmp_path) == f"{tmp_path} has no model.safetensors and no pytorch_model.bin, and {said}"

    def test_a_folder_with_a_gguf_file_alone_is_told_what_it_holds(self, tmp_path: Path) -> None:
        (tmp_path / "q4.gguf").write_bytes(b"GGUF")
        said = f"{tmp_path} has no config.json and holds a GGUF model: give the file itself, {tmp_path / 'q4.gguf'}"
        assert refusal(tmp_path) == said

    @pytest.mark.parametrize(
        ("content", "kind"), [(b"{}", "JSON"), (PAGE, "a web page"), (POINTER, "git-lfs"), (b"", "an empty file")]
    )
    def test_another_file_is_no_folder(self, tmp_path: Path, content: bytes, kind: str) -> None:
        (tmp_path / "config.json").write_bytes(content)
        said = refusal(tmp_path / "config.json")
        assert kind in said
        assert "expected a model folder" in said

    def test_an_adapter_is_told_its_base_model_and_what_to_do(self, tmp_path: Path) -> None:
        change(tmp_path / "adapter_config.json", **ADAPTER)
        (tmp_path / "adapter_model.safetensors").write_bytes(b"")
        said = refusal(tmp_path)
        assert f"{tmp_path} is an adapter (LoRA) of the model 'meta-llama/Llama-2-7b-hf', not a model: give" in said
        assert "--adapter" in said

    def test_an_adapter_beside_a_model_is_refused_since_peft_would_load_it(self, model: Path) -> None:
        change(model / "adapter_config.json", **ADAPTER)
        assert "where the package peft is installed, the adapter would be loaded on top" in refusal(model)

    @pytest.mark.parametrize(("names", "holds"), [([], "nothing"), (["readme.md"], "readme.md")])
    def test_a_folder_without_a_model_is_told_what_it_holds(self, tmp_path: Path, names: list[str], holds: str) -> None:
        for name in names:
            (tmp_path / name).touch()
        assert f"there is no config.json in it (it holds {holds})" in refusal(tmp_path)

    def test_the_maker_s_own_format_is_recognised(self, tmp_path: Path) -> None:
        (tmp_path / "params.json").write_text("{}")
        assert "maker's own format (params.json)" in refusal(tmp_path)

    @pytest.mark.parametrize(
        "text",
        [
            '{"architectures": [null], "model_type": "llama"}',
            '{"architectures": 3, "model_type": "llama"}',
            '{"architectures": "LlamaForCausalLM\\u0000", "model_type": "llama"}',
            '{"architectures": ["../../Llama"], "model_type": "llama"}',
            '{"architectures": [["LlamaForCausalLM"]], "model_type": "llama"}',
            '{"architectures": {"a": 1}, "model_type": "llama"}',
            '["llama"]',
            "null",
            "3",
            "",
            "\0" * 50,
            "[" * 100_000,
            '{"a":' * 100_000,
            POINTER.decode(),
            PAGE.decode(),
        ],
        ids=lambda text: text[:30],
    )
    def test_a_malformed_config_gives_one_line_that_names_the_file(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text)
        assert "config.json" in refusal(tmp_path, lambda path: results_name(str(path)))
        if "../" not in text and "LlamaForCausalLM" not in text:
            assert "config.json" in refusal(tmp_path, lambda path: layer_widths(str(path)))

    @pytest.mark.parametrize("value", [None, 3, ["llama"], {}, "", "no-such-model"])
    def test_a_malformed_model_type_gives_one_line(self, model: Path, value: Any) -> None:
        change(model / "config.json", model_type=value)
        assert "model" in refusal(model, lambda path: load_config(str(path), None))

    @pytest.mark.parametrize("value", [None, "three", 0, -1, True, [3]])
    @pytest.mark.parametrize("key", ["num_hidden_layers", "intermediate_size"])
    def test_a_malformed_size_gives_one_line(self, model: Path, key: str, value: Any) -> None:
        change(model / "config.json", **{key: value})
        refusal(model)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"model": 3}', "\0", "version https://git-lfs"])
    def test_a_malformed_tokenizer_gives_one_line(self, model: Path, text: str) -> None:
        (model / "tokenizer.json").write_text(text)
        assert "cannot load the tokenizer" in refusal(model)

    @pytest.mark.parametrize("eos", ["</s>", [2, "</s>"], True, 2.5])
    def test_end_tokens_that_are_none_are_refused_not_passed_over(self, model: Path, eos: Any) -> None:
        change(model / "generation_config.json", eos_token_id=eos)
        assert "generation_config.json" in refusal(model)

    def test_a_generation_config_that_cannot_be_read_is_not_taken_for_none(self, model: Path) -> None:
        (model / "generation_config.json").write_text("{")
        assert "generation_config.json" in refusal(model)

    @pytest.mark.parametrize(
        ("content", "kind"),
        [(POINTER, "git lfs pull"), (PAGE, "a web page"), (b"", "an empty file"), (b"\0" * 99, "zero bytes")],
    )
    def test_weights_that_are_none_are_told_what_they_are(self, model: Path, content: bytes, kind: str) -> None:
        (model / "model.safetensors").write_bytes(content)
        said = refusal(model)
        assert "model.safetensors holds no weights: it is" in said
        assert kind in said

    def test_an_index_that_names_missing_files_gives_their_number(self, model: Path) -> None:
        shard(model, "model-1.safetensors")
        files = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}
        change(model / "model.safetensors.index.json", weight_map=files)
        assert "lacks 2 of the 3 weight files that its index names (model-2.safetensors, …)" in refusal(model)

    @pytest.mark.parametrize("weight_map", [None, 3, [], {"a": None}, {"a": 3}, {"a": "../x.safetensors"}])
    def test_a_malformed_index_gives_one_line(self, model: Path, weight_map: Any) -> None:
        shard(model, "model-1.safetensors")
        change(model / "model.safetensors.index.json", weight_map=weight_map)
        assert "model.safetensors.index.json" in refusal(model)

    def test_a_folder_without_weights_says_what_else_it_has(self, model: Path) -> None:
        (model / "model.safetensors").rename(model / "consolidated.safetensors")
        said = refusal(model)
        assert "no model.safetensors and no pytorch_model.bin but consolidated.safetensors, which" in said


class TestNamed:
    def test_an_ordinary_folder_gives_no_note(self, model: Path) -> None:
        assert notes(model) == []

    def test_two_matrices_where_the_config_ties_them_are_named(self, tmp_path: Path) -> None:
        folder = save_tiny_model("llama", tmp_path / "m", tie_word_embeddings=True)
        file = folder / "model.safetensors"
        weights = load_file(file)
        save_file({**weights, "lm_head.weight": 2 * weights["model.embed_tokens.weight"]}, file, {"format": "pt"})
        with pytest.warns(LNAWarning, match="embeddings and lm_head are one matrix, and its weights hold two"):
            TransformersEngine.load(folder, device="cpu").close()

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "c.00.pth", "adapter_model.safetensors", "m.gguf"])
    def test_weights_beside_those_that_are_read(self, model: Path, name: str) -> None:
        torch.save({"x": torch.zeros(1)}, model / name)
        [said] = notes(model)
        assert said == f"{model} has several sets of weights: model.safetensors is read, {name} is not"

    def test_an_index_beside_the_whole_weights_which_vllm_would_prefer(self, model: Path) -> None:
        save_file({"x": torch.zeros(1)}, model / "model-1.safetensors")
        change(model / "model.safetensors.index.json", weight_map={"x": "model-1.safetensors"})
        assert "model.safetensors is read, model-1.safetensors is not" in notes(model)[0]

    def test_code_of_the_model_s_own(self, model: Path) -> None:
        (model / "modeling_x.py").write_text("raise SystemExit('run')")
        change(model / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})
        [said] = notes(model)
        assert "config.json names code of its own (auto_map; modeling_x.py): it is not run" in said

    def test_settings_of_answers_that_are_not_used(self, model: Path) -> None:
        change(model / "generation_config.json", temperature=0.6, do_sample=True, repetition_penalty=1.05)
        [said] = notes(model)
        assert "temperature 0.6" in said
        assert said.endswith("only its end tokens are used")

    def test_a_chat_template_that_takes_the_place_of_another(self, model: Path) -> None:
        change(model / "tokenizer_config.json", chat_template="one")
        (model / "chat_template.jinja").write_text("two")
        assert load_tokenizer(str(model), None).chat_template == "two"
        [said] = notes(model)
        assert "chat_template.jinja is used as the chat template, not the other one" in said

    def test_added_tokens_that_the_tokenizer_does_not_have(self, model: Path) -> None:
        change(model / "added_tokens.json", France=300)
        assert "added_tokens.json adds tokens that tokenizer.json does not have ('France'): in use" in notes(model)[0]

    def test_a_tokenizer_of_another_size(self, model: Path) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens([AddedToken(f"<{n}>") for n in range(100)])
        tokenizer.save_pretrained(model)
        assert any("has 367 tokens and the model 320" in said for said in notes(model))

    def test_a_file_by_which_vllm_alone_would_quantize(self, model: Path) -> None:
        change(model / "quantize_config.json", bits=4)
        assert "quantize_config.json is not read by transformers" in notes(model)[0]

    def test_mistral_s_tokenizer_file_is_not_used_although_its_package_is_installed(self, tmp_path: Path) -> None:
        model = save_tiny_model("mistral", tmp_path / "m")
        before = load_tokenizer(str(model), None).encode("abc the")
        vocabulary = [{"rank": n, "token_bytes": "", "token_str": ""} for n in range(256)]
        change(model / "tekken.json", vocab=vocabulary, config={"pattern": ".", "num_vocab_tokens": 256})
        assert load_tokenizer(str(model), None).encode("abc the") == before
        assert "tekken.json is not read: tokenizer.json is" in notes(model)[0]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("tokenizer.json", ("model", "vocab", "?")),
        ("tokenizer.json", ("added_tokens", 3, "id")),
        ("tokenizer_config.json", ("added_tokens_decoder", "2147483648")),
    ],
)
def test_a_token_s_number_beyond_every_vocabulary_is_refused_before_memory_is_taken(
    model: Path, name: str, place: tuple[Any, ...]
) -> None:
    file = model / name
    content = json.loads(file.read_text())
    inner = content
    for key in place[:-1]:
        inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner[key]
    inner[place[-1]] = {"content": "?"} if name == "tokenizer_config.json" else 2**31
    file.write_text(json.dumps(content))
    said = refusal(model, lambda path: load_tokenizer(str(path), None))
    assert re.search(rf"{name} gives the token '(\?|<unk>)' the number 2,147,483,648, expected one below", said)


def test_long_numbers_that_are_texts_are_no_numbers_of_tokens(model: Path) -> None:
    change(model / "tokenizer_config.json", note="2147483648", model_max_length=10**30)
    assert load_tokenizer(str(model), None).encode("a")


def test_a_tokenizer_on_disk_that_appends_eos_changes_no_answer_no_count_and_no_score(model: Path) -> None:
    records = [Record("en", "abc the", (" a", "é 1"))]

    def seen() -> tuple[Any, ...]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LNAWarning)
            engine = load(model)
            choices = {"max_length": 99}
            return (
                encode_prompts(records, [(0, 0)], engine.tokenizer, ends=engine.model.end_tokens),
                encode_groups(records, engine.tokenizer, **choices),
                [encode_texts(records, engine.tokenizer, text=text, **choices) for text in ("instruction", "full")],
            )

    before = seen()
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.save_pretrained(model)
    assert load_tokenizer(str(model), None).encode("a")[-1] == 2
    assert seen() == before


def test_digests_are_as_before_for_a_folder_with_files_beside(model: Path) -> None:
    before = read_checkpoint(str(model))
    change(model / "quantize_config.json", bits=4)
    (model / "array.npy").write_bytes(np.zeros(3).tobytes())
    assert read_checkpoint(str(model)) == before
    with pytest.raises(EngineError, match="does not exist"):
        load_config("/no/such/model", None)
