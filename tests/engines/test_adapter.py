"""LoRA adapters on their base: live, merged and merged by hand are one model; what does not fit is refused."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.counts import LanguageCounts
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.perplexity import TextLikelihood
from language_neurons_alignment.corpus.encode import Prompt, PromptGroup, ScoredText
from language_neurons_alignment.engines.adapter import open_adapter
from language_neurons_alignment.engines.base import Engine
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.vllm.launch import check_options, lora_options
from language_neurons_alignment.errors import EngineError, LNAError, LNAWarning, MissingEngineError, SettingsError
from tests.adapters import load_plain, save_adapter, save_merged
from tests.engines.vllm_engines import needs_vllm, open_vllm
from tests.tiny_models import save_quietly, save_tiny_model, tiny_tokenizer

GROUPS = [PromptGroup(tuple(range(1, 6)), (tuple(range(1, 30)), (*range(1, 6), *range(40, 70))))]
TEXT = ScoredText(tuple(range(1, 30)))
MLP = {"target_modules": ["gate_proj", "up_proj", "down_proj", "q_proj", "v_proj"]}


def load(folder: Path, **options: Any) -> TransformersEngine:
    return TransformersEngine.load(folder, device="cpu", dtype="float32", **options)


def measured(engine: Engine) -> tuple[LanguageCounts, TextLikelihood]:
    """What a model counts and how likely it finds a text; the engine is closed."""
    try:
        return engine.count(GROUPS), engine.log_likelihood([TEXT])[0]
    finally:
        engine.close()


def refusal(base: Path, adapter: Path | str, **options: Any) -> str:
    with pytest.raises(LNAError) as refused:
        load(base, adapter=str(adapter), **options)
    said = str(refused.value)
    assert said.isprintable()
    assert len(said) < 700
    return said


def change(adapter: Path, to: Path, **values: Any) -> Path:
    """A copy of an adapter with other settings."""
    shutil.copytree(adapter, to)
    path = to / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")
    return to


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("adapter") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return save_adapter(base, base.parent / "lora", **MLP)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("adapter") / "tied", tie_word_embeddings=True)


class TestTransformers:
    def test_live_merged_and_merged_by_hand_are_one_model(self, base: Path, adapter: Path, tmp_path: Path) -> None:
        plain = measured(load(base))
        hand = measured(load(save_merged(base, adapter, tmp_path / "hand")))
        assert (plain[0].full.over_zero != hand[0].full.over_zero).any()
        for live in (False, True):
            counts, likelihood = measured(load(base, adapter=str(adapter), adapter_live=live))
            assert torch.equal(counts.full.over_zero, hand[0].full.over_zero)
            assert torch.equal(counts.prefix.over_zero, hand[0].prefix.over_zero)
            assert likelihood.nll == pytest.approx(hand[1].nll, abs=1e-3)

    @pytest.mark.parametrize(
        ("kind", "changes"),
        [
            ("phi3", {"target_modules": ["gate_up_proj", "down_proj"]}),
            ("gpt2", {"target_modules": ["c_fc", "c_proj"], "fan_in_fan_out": True}),
            ("opt", {"target_modules": ["fc1", "fc2"]}),
            ("llama", {**MLP, "use_dora": True}),
            ("llama", {**MLP, "use_rslora": True, "rank_pattern": {"down_proj": 7}}),
        ],
    )
    def test_live_and_merged_agree_wherever_the_matrices_are(
        self, tmp_path: Path, kind: str, changes: dict[str, Any]
    ) -> None:
        folder = save_tiny_model(kind, tmp_path / kind)
        adapter = save_adapter(folder, tmp_path / "lora", **changes)
        plain, merged = measured(load(folder)), measured(load(folder, adapter=str(adapter)))
        live = measured(load(folder, adapter=str(adapter), adapter_live=True))
        assert torch.equal(live[0].full.over_zero, merged[0].full.over_zero)
        assert (plain[0].full.over_zero != merged[0].full.over_zero).any()

    def test_a_live_adapter_s_neurons_are_silenced_and_come_back(self, base: Path, adapter: Path) -> None:
        engine = load(base, adapter=str(adapter), adapter_live=True)
        before = engine.count(GROUPS)
        identity = Intervention.identity(engine.model.layers, engine.model.d_mlp)
        with engine.intervene(Intervention(identity.scale * 0, identity.shift)):
            assert not engine.count(GROUPS).full.over_zero.any()
        assert torch.equal(engine.count(GROUPS).full.over_zero, before.full.over_zero)

    def test_live_and_merged_write_the_same_answer(self, base: Path, adapter: Path) -> None:
        answers = []
        for live in (False, True):
            engine = load(base, adapter=str(adapter), adapter_live=live)
            answers += engine.generate([Prompt((1, 5, 9))], sampling=Sampling(max_new_tokens=8))
            engine.close()
        assert answers[0].tokens == answers[1].tokens


class TestTied:
    """An adapter on one of two tied matrices leaves the other one as it was."""

    @pytest.mark.parametrize("live", [False, True])
    @pytest.mark.parametrize("changes", [{"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]}])
    def test_of_the_lm_head_changes_likelihoods_and_no_firing(
        self, tied: Path, tmp_path: Path, changes: dict[str, Any], live: bool
    ) -> None:
        settings = {"target_modules": ["v_proj"], **changes}
        adapter = save_adapter(tied, tmp_path / "lora", **settings)
        if "modules_to_save" in changes:  # of v_proj nothing: only the lm_head is other than before
            path = adapter / "adapter_model.safetensors"
            save_file({name: one * (0 if "lora" in name else 1) for name, one in load_file(path).items()}, path)
        plain, changed = measured(load(tied)), measured(load(tied, adapter=str(adapter), adapter_live=live))
        assert torch.equal(plain[0].full.over_zero, changed[0].full.over_zero)
        assert abs(plain[1].nll - changed[1].nll) > 1

    @pytest.mark.parametrize("live", [False, True])
    def test_of_the_embeddings_leaves_the_lm_head(self, tied: Path, tmp_path: Path, live: bool) -> None:
        adapter = save_adapter(tied, tmp_path / "lora", target_modules=["embed_tokens"])
        saved, model = load_file(adapter / "adapter_model.safetensors"), load_plain(tied)
        (first,) = (one for name, one in saved.items() if "lora_embedding_A" in name)
        (second,) = (one for name, one in saved.items() if "lora_embedding_B" in name)
        with torch.no_grad():
            embeddings = model.get_input_embeddings().weight + 2 * (second @ first).T  # α / r = 2
            tokens = torch.tensor(TEXT.tokens)
            logits = model(inputs_embeds=embeddings[tokens][None]).logits[0]
        expected = torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="sum")
        _, likelihood = measured(load(tied, adapter=str(adapter), adapter_live=live))
        assert likelihood.nll == pytest.approx(float(expected), abs=1e-2)

    @pytest.mark.parametrize("rows_of", ["embed_tokens", "lm_head"])
    def test_of_some_rows_is_what_peft_trained(self, tied: Path, tmp_path: Path, rows_of: str) -> None:
        """Of the embeddings' rows peft trains both uses, of the lm_head's this one alone."""
        adapter = save_adapter(tied, tmp_path / "lora", trainable_token_indices={rows_of: [3, 4]})
        (new,) = (one for name, one in load_file(adapter / "adapter_model.safetensors").items() if "tokens" in name)
        hand, other = load_plain(save_merged(tied, adapter, tmp_path / "hand")), tmp_path / "other"
        with torch.no_grad():
            if rows_of == "lm_head":
                hand.lm_head.weight = torch.nn.Parameter(hand.lm_head.weight.clone())
                hand.config.tie_word_embeddings = False
            matrix: Any = hand.get_submodule("lm_head" if rows_of == "lm_head" else "model.embed_tokens").weight
            matrix[[3, 4]] = new
        save_quietly(hand, other)
        tiny_tokenizer().save_pretrained(other)
        counts, likelihood = measured(load(other))
        for live in (False, True):
            found = measured(load(tied, adapter=str(adapter), adapter_live=live))
            assert torch.equal(found[0].full.over_zero, counts.full.over_zero)
            assert found[1].nll == pytest.approx(likelihood.nll, abs=1e-3)

    def test_of_some_rows_and_more_is_refused_by_name(self, tied: Path, tmp_path: Path) -> None:
        settings = {"trainable_token_indices": [3], "target_modules": ["lm_head", "v_proj"]}
        adapter = save_adapter(tied, tmp_path / "lora", **settings)
        assert "by trainable_token_indices and in another way, which is not supported" in refusal(tied, adapter)

    def test_adapters_that_keep_them_tied_are_refused_by_name(self, tied: Path, tmp_path: Path) -> None:
        adapter = save_adapter(tied, tmp_path / "lora", target_modules=["embed_tokens"], ensure_weight_tying=True)
        assert "ensure_weight_tying, which is not supported" in refusal(tied, adapter)


class TestRefused:
    def test_an_adapter_of_a_model_of_another_shape(self, adapter: Path, tmp_path: Path) -> None:
        other = save_tiny_model("llama", tmp_path / "base", intermediate_size=64)
        said = refusal(other, adapter)
        assert "does not fit the model" in said
        assert "size mismatch" in said
        assert "give the model that it was trained on" in said

    def test_an_adapter_whose_matrices_the_model_does_not_have(self, adapter: Path, tmp_path: Path) -> None:
        other = save_tiny_model("gpt2", tmp_path / "base")
        assert "not found in the base model" in refusal(other, adapter)

    def test_an_adapter_of_a_deeper_model(self, adapter: Path, tmp_path: Path) -> None:
        other = save_tiny_model("llama", tmp_path / "base", num_hidden_layers=2)
        assert "the model has no place for" in refusal(other, adapter)

    def test_an_adapter_of_a_shallower_model(self, adapter: Path, tmp_path: Path) -> None:
        other = save_tiny_model("llama", tmp_path / "base", num_hidden_layers=4)
        assert "the file lacks" in refusal(other, adapter)

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"peft_type": "IA3"}, "is of peft_type 'IA3'; expected 'LORA'"),
            ({"task_type": "SEQ_CLS"}, "is for the task 'SEQ_CLS'"),
            ({"layer_replication": [[0, 2], [1, 3]]}, "has layer_replication"),
            ({"alora_invocation_tokens": [5]}, "has alora_invocation_tokens [5]"),
            ({"arrow_config": {"top_k": 2}}, "has arrow_config"),
        ],
    )
    def test_other_kinds_of_adapters(
        self, base: Path, adapter: Path, tmp_path: Path, values: dict[str, Any], said: str
    ) -> None:
        assert said in refusal(base, change(adapter, tmp_path / "lora", **values))

    def test_what_is_no_adapter(self, base: Path, adapter: Path, tmp_path: Path) -> None:
        assert "there is no adapter at" in refusal(base, tmp_path / "nowhere")
        assert "a model of its own: give it as --model-path" in refusal(base, base)
        assert "so it is no adapter" in refusal(base, tmp_path)
        empty = change(adapter, tmp_path / "empty")
        (empty / "adapter_model.safetensors").unlink()
        assert "has no weights: expected adapter_model.safetensors" in refusal(base, empty)
        (empty / "adapter_model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 4\n")
        assert "git-lfs" in refusal(base, empty)

    def test_broken_weights_and_what_cannot_be_merged_say_what_to_do(
        self, base: Path, adapter: Path, tmp_path: Path
    ) -> None:
        broken = change(adapter, tmp_path / "nan")
        path = broken / "adapter_model.safetensors"
        save_file({name: one * float("nan") for name, one in load_file(path).items()}, path)
        assert "cannot be merged into the model" in refusal(base, broken)
        assert "hidden states, on a few tokens of text, became NaN" in refusal(base, broken, adapter_live=True)
        biased = save_adapter(base, tmp_path / "bias", lora_bias=True)
        assert refusal(base, biased).endswith("give --adapter-live, or the model that it was trained on")

    def test_experts_live(self, base: Path, adapter: Path, tmp_path: Path) -> None:
        changed = change(adapter, tmp_path / "lora", target_parameters=["mlp.experts.down_proj"])
        assert 'changes experts (["mlp.experts.down_proj"])' in refusal(base, changed, adapter_live=True)

    def test_live_without_an_adapter(self, base: Path) -> None:
        with pytest.raises(LNAError, match="--adapter-live does nothing without an adapter"):
            load(base, adapter_live=True)

    def test_without_peft_the_command_that_installs_it_is_named(
        self, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("language_neurons_alignment.engines.adapter.find_spec", lambda name: None)
        with pytest.raises(MissingEngineError, match=r"pip install 'language_neurons_alignment\[adapters\]'"):
            load(base, adapter=str(adapter))

    def test_peft_is_not_loaded_without_an_adapter(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "peft", None)
        load(base).close()


def test_settings_of_a_newer_peft_and_an_adapter_in_an_inner_folder_are_noted(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.warns(LNAWarning, match=r"settings that the installed peft does not know .* \(hocus_pocus\)"):
        open_adapter(str(change(adapter, tmp_path / "new", hocus_pocus=3, later=None)), base="base", live=False)
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(adapter, tmp_path / "base" / "checkpoint-9")
    with pytest.warns(LNAWarning, match="checkpoint-9 holds an adapter, which is not used"):
        load(tmp_path / "base").close()


def test_a_base_of_another_name_is_noted(base: Path, adapter: Path, tmp_path: Path) -> None:
    named = change(adapter, tmp_path / "lora", base_model_name_or_path="meta-llama/Llama-3.1-8B")
    with pytest.warns(LNAWarning, match=r"was trained on 'meta-llama/Llama-3.1-8B' and is put onto"):
        load(base, adapter=str(named)).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error", LNAWarning)
        load(base, adapter=str(adapter)).close()


def test_an_adapter_s_own_tokenizer_is_used(base: Path, adapter: Path, tmp_path: Path) -> None:
    own = change(adapter, tmp_path / "lora")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for one in messages %}{{ one.content }}{% endfor %}"
    tokenizer.save_pretrained(own)
    engine: Any = load(base, adapter=str(own))
    assert engine.tokenizer.chat_template == tokenizer.chat_template
    plain: Any = load(base, adapter=str(adapter))
    assert plain.tokenizer.chat_template is None


class TestLiveInVLLM:
    """What is checked before vLLM starts."""

    @pytest.mark.parametrize(("rank", "room"), [(4, 8), (8, 8), (9, 16), (300, 320)])
    def test_there_is_room_for_the_rank(self, adapter: Path, tmp_path: Path, rank: int, room: int) -> None:
        ranked = change(adapter, tmp_path / "lora", r=2, rank_pattern={"down_proj": rank})
        opened = open_adapter(str(ranked), base="base", live=True)
        assert lora_options(opened) == {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}

    @pytest.mark.parametrize(
        ("values", "said"),
        [({"use_dora": True}, "use_dora"), ({"modules_to_save": ["lm_head"]}, "modules_to_save"), ({"r": 999}, "rank")],
    )
    def test_what_it_does_not_compute_is_to_be_merged(
        self, adapter: Path, tmp_path: Path, values: dict[str, Any], said: str
    ) -> None:
        opened = open_adapter(str(change(adapter, tmp_path / "lora", **values)), base="base", live=True)
        with pytest.raises(EngineError, match=f"has {said}.*, which vLLM does not compute live: leave --adapter-live"):
            lora_options(opened)

    def test_embeddings_are_to_be_merged(self, tied: Path, tmp_path: Path) -> None:
        opened = open_adapter(
            str(save_adapter(tied, tmp_path / "lora", target_modules=["embed_tokens"])), base="tied", live=True
        )
        with pytest.raises(EngineError, match="matrices of the embeddings or the lm_head"):
            lora_options(opened)

    def test_vllm_s_own_options_for_adapters_have_flags(self) -> None:
        with pytest.raises(SettingsError, match="use --adapter and --adapter-live instead"):
            check_options({"enable-lora": "true"})


@needs_vllm
@pytest.mark.vllm
@pytest.mark.slow
class TestVLLM:
    @pytest.mark.parametrize("live", [False, True])
    def test_counts_and_likelihoods_are_those_of_the_merged_model_in_transformers(
        self, base: Path, adapter: Path, live: bool
    ) -> None:
        counts, likelihood = measured(load(base, adapter=str(adapter)))
        engine = open_vllm(base, apart=False, adapter=str(adapter), adapter_live=live)
        assert engine.provenance["adapter_mode"] == ("live" if live else "merged")
        found = measured(engine)
        assert torch.equal(found[0].full.over_zero, counts.full.over_zero)
        assert found[1].nll == pytest.approx(likelihood.nll, abs=1e-2)

    def test_a_merged_adapter_of_a_tied_lm_head(self, tied: Path, tmp_path: Path) -> None:
        adapter = save_adapter(tied, tmp_path / "lora", target_modules=["lm_head", "down_proj"])
        counts, likelihood = measured(load(tied, adapter=str(adapter)))
        found = measured(open_vllm(tied, apart=False, adapter=str(adapter)))
        assert torch.equal(found[0].full.over_zero, counts.full.over_zero)
        assert found[1].nll == pytest.approx(likelihood.nll, abs=1e-2)
