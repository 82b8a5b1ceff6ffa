"""What a run needs, against loaded models, counted corpora, measured peaks, and the formulas by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from language_neurons_alignment._plan import corpus_tokens, measured_throughput, plan
from language_neurons_alignment.config import MapSettings
from language_neurons_alignment.corpus.encode import encode_groups, encode_texts
from language_neurons_alignment.corpus.records import Corpus, Record, read_corpus
from language_neurons_alignment.engines import EngineSettings, load_engine
from language_neurons_alignment.engines.checkpoint import load_config
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.loading import load_weights
from language_neurons_alignment.errors import EngineError, SettingsError, UnknownArchitectureError
from tests import plan_tables
from tests.tiny_models import save_tiny_model
from tests.workspace import SAYINGS

GIB = 2**30


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3", "mixtral"])
def test_planned_weights_are_the_bytes_of_the_loaded_model(kind: str, tmp_path: Path) -> None:
    path = str(save_tiny_model(kind, tmp_path / kind))
    loaded = load_weights(path, config=load_config(path, None), dtype=torch.bfloat16, revision=None)
    size = sum(one.numel() * one.element_size() for one in loaded.parameters())
    found = plan(path, dtype="bfloat16")
    assert found.memory[0].weights == found.weight_bytes == size


def test_planned_weights_are_those_of_a_real_model(smollm2: Path) -> None:
    found = plan(str(smollm2), dtype="bfloat16")
    size = (smollm2 / "model.safetensors").stat().st_size
    assert found.weight_bytes == 269_030_016  # measured: benchmarks/README.md
    assert 0.99 < size / plan(str(smollm2)).weight_bytes < 1.01


@pytest.mark.parametrize("name", plan_tables.CONFIGS)
def test_a_config_alone_tells_the_parameters_of_public_models(name: str, tmp_path: Path) -> None:
    assert plan_tables.planned(name, tmp_path).parameters == plan_tables.PARAMETERS[name]


def test_the_memory_of_mistral_is_that_of_the_formulas(tmp_path: Path) -> None:
    found = plan_tables.planned("Mistral-7B-v0.1", tmp_path, batch_tokens=1000, tensor_parallel_size=2)
    (one,) = found.memory
    assert one.weights == 7_241_732_096 * 2 // 2
    assert one.counts == 2 * 8 * 32 * 14336 // 2
    assert one.batch == 1000 * (4 * 14336 // 2 + 8 * 4096) * 2
    assert one.cache == 4096 * 2 * 32 * (8 // 2) * 128 * 2
    assert one.logits == 1000 * 32000 * (2 + 4)
    assert one.total == one.weights + one.counts + one.batch + one.cache + one.logits
    assert found.count_bytes == 10 * 2 * 8 * 32 * 14336


MEASURED_PEAKS = {"Mistral-7B-v0.1": 15.3, "Qwen2.5-32B": 64.2}
"""GiB while transformers counted and scored on an H200, batches of 16,384 tokens: benchmarks/README.md."""


@pytest.mark.parametrize("name", MEASURED_PEAKS)
def test_planned_memory_is_a_little_more_than_the_measured_peak(name: str, tmp_path: Path) -> None:
    found = plan_tables.planned(name, tmp_path, engine="transformers")
    assert found.batch_tokens == 16384
    assert 1.0 < found.memory[0].total / GIB / MEASURED_PEAKS[name] < 1.12


def test_a_model_fits_where_all_parts_are_smaller_than_the_share_that_is_usable(tmp_path: Path) -> None:
    found = plan_tables.planned("Llama-3.1-70B", tmp_path, cards=(24, 48, 80, 160, 8))
    assert [one.tensor_parallel_size for one in found.fits] == [8, 4, 2, 1, None]
    assert all(one.total <= 0.9 * one.gib * GIB for one in found.fits if one.tensor_parallel_size)
    for one in found.fits[:3]:
        half = next(m for m in found.memory if m.tensor_parallel_size == one.tensor_parallel_size // 2)  # type: ignore[operator]
        assert half.total > 0.9 * one.gib * GIB
    assert found.fits[-1].total == found.memory[-1].total


def test_transformers_takes_smaller_batches_on_a_smaller_device(tmp_path: Path) -> None:
    found = plan_tables.planned("Mistral-7B-v0.1", tmp_path, engine="transformers", cards=(14, 18, 80))
    assert [one.tensor_parallel_size for one in found.fits] == [None, 1, 1]
    assert found.fits[1].batch_tokens < found.fits[2].batch_tokens == 16384


def test_a_few_heads_of_keys_are_copied_where_more_devices_share_a_layer(tmp_path: Path) -> None:
    config = {**plan_tables.CONFIGS["Llama-3.1-70B"], "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    memory = {one.tensor_parallel_size: one.cache for one in plan(str(tmp_path), longest=1024).memory}
    assert memory[1] == 2 * memory[2]
    assert memory[2] == memory[4] == memory[8]


@pytest.mark.parametrize("text", ["instruction", "answer"])
def test_tokens_are_those_that_the_steps_count_and_score(made: Path, text: str) -> None:
    corpus = read_corpus(made / "corpus.json")
    engine = load_engine(EngineSettings(str(made / "tiny-llama"), "transformers", options={"device": "cpu"}))
    found = plan(
        str(made / "tiny-llama"),
        made / "corpus.json",
        map_settings=MapSettings(text=text, controls=2),
        max_new_tokens=9,
    )
    assert found.corpus is not None
    fed: list[int] = []
    full = prefix = scored = 0
    for language in corpus.languages:
        encoded = encode_groups(corpus.of_language(language), engine.tokenizer, max_length=2048)
        counts = engine.count(encoded.groups, progress=fed.append)
        full, prefix = full + counts.full.total_tokens, prefix + counts.prefix.total_tokens
        texts = encode_texts(corpus.of_language(language), engine.tokenizer, text=text, max_length=2048)
        scored += sum(len(one.tokens) for one in texts)
    assert (found.corpus.full, found.corpus.prefix) == (full, prefix)
    assert found.corpus.scored == scored
    assert found.corpus.fed < full
    assert found.corpus.shared
    generate, activation, ppl = found.steps
    assert activation.read == found.corpus.fed
    assert ppl.read == (1 + 3 * (1 + 2)) * scored
    assert (generate.read, generate.written) == (found.corpus.prompts, 9 * len(corpus.records))
    assert any("by the model's tokenizer" in one for one in found.assumed)


def test_time_is_tokens_by_throughput(made: Path) -> None:
    choices: dict[str, Any] = {"max_new_tokens": 10, "answer_tokens_per_second": 5.0}
    found = plan(str(made / "tiny-llama"), made / "corpus.json", tokens_per_second=100.0, **choices)
    generate, activation, ppl = found.steps
    assert generate.seconds == generate.read / 100 + generate.written / 5
    assert (activation.seconds, ppl.seconds) == (activation.read / 100, ppl.read / 100)
    alone = plan(str(made / "tiny-llama"), made / "corpus.json", max_new_tokens=10, tokens_per_second=100.0)
    assert alone.steps[0].seconds is None


def test_questions_alone_are_answered_and_the_answers_counted(tmp_path: Path, made: Path) -> None:
    asked = Corpus(tmp_path / "q.json", tuple(Record(code, SAYINGS[code][0], ()) for code in ("en", "fr")))
    found = plan(str(made / "tiny-llama"), asked, max_new_tokens=7)
    assert found.corpus is not None
    assert found.steps[1].read == found.corpus.prompts + 2 * 7


def test_without_a_tokenizer_bytes_are_taken_for_tokens_and_that_is_said(made: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((made / "tiny-llama" / "config.json").read_bytes())
    found = plan(str(tmp_path), made / "corpus.json")
    size = sum(
        len((one.instruction + answer).encode())
        for one in read_corpus(made / "corpus.json").records
        for answer in one.answers
    )
    assert found.corpus is not None
    assert found.corpus.full == pytest.approx(size / 2, rel=0.02)
    assert any("there is no tokenizer" in one for one in found.assumed)


def test_throughput_is_measured_on_texts_that_are_really_counted(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    count = TransformersEngine.count

    def counting(self: TransformersEngine, groups: Any, **more: Any) -> Any:
        found = count(self, groups, **more)
        counted.append(found.full.total_tokens)
        return found

    monkeypatch.setattr(TransformersEngine, "count", counting)
    settings = EngineSettings(str(made / "tiny-llama"), "transformers", options={"device": "cpu"})
    found = measured_throughput(settings, read_corpus(made / "corpus.json"))
    assert found > 100
    warm, timed = counted
    assert 400 <= timed < 1000
    assert warm < timed


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"tokens": 0}, "--tokens must be at least 1"),
        ({"tokens": 5, "corpus": Path("c.json")}, "a corpus and --tokens are given"),
        ({"measure": True}, "--measure counts some texts of a corpus"),
        ({"tokens_per_second": 0.0}, "--tokens-per-second must be a number above 0, got 0.0"),
        ({"answer_tokens_per_second": float("nan")}, "--answer-tokens-per-second must be a number above 0, got nan"),
        ({"batch_tokens": -1}, "--batch-tokens must be a number above 0, got -1"),
        ({"engine": "jax"}, "--engine must be one of auto, transformers, vllm"),
        ({"device": "tpu:0"}, "--device must be one of cpu, cuda, mps"),
        ({"max_new_tokens": 5}, "answers to the questions of a corpus"),
        ({"engine": "transformers", "tensor_parallel_size": 2}, "runs on one device"),
        ({"engine": "vllm", "tensor_parallel_size": 3}, "take one of 1, 2, 4"),
        ({"dtype": "int8"}, "--dtype 'int8' is not known"),
    ],
)
def test_settings_that_contradict_each_other(made: Path, choices: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        plan(str(made / "tiny-llama"), choices.pop("corpus", None), **choices)


def test_what_is_no_decoder_with_mlps(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2})
    )
    with pytest.raises(UnknownArchitectureError, match="does not tell the sizes of its layers"):
        plan(str(tmp_path))
    with pytest.raises(EngineError, match="there is no model at"):
        plan(str(tmp_path / "nowhere"))


def test_the_tables_of_the_documentation_are_those_that_the_command_makes() -> None:
    page = plan_tables.PAGE.read_text(encoding="utf-8")
    assert page[page.index(plan_tables.BEGIN) : page.index(plan_tables.END)] + plan_tables.END == plan_tables.tables()


def test_corpus_tokens_share_what_answers_share() -> None:
    class Letters:
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return [1, *map(ord, text)] if add_special_tokens else [*map(ord, text)]

        def decode(self, token_ids: list[int], **_: Any) -> str:
            return ""

        def __len__(self) -> int:
            return 256

    corpus = Corpus(Path("c.json"), (Record("en", "abc", ("d", "ef")), Record("fr", "x", ("y",))))
    found = corpus_tokens(corpus, Letters())
    assert (found.full, found.prefix, found.fed) == (5 + 6 + 3, 4 + 4 + 2, 4 + 1 + 2 + 3)
    assert (found.questions, found.prompts, found.scored) == (2, 6, 6)
