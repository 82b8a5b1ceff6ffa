"""Loading, limits, memory and economy of the transformers engine."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.corpus.encode import Prompt, PromptGroup, ScoredText
from language_neurons_alignment.engines import EngineSettings, load_engine
from language_neurons_alignment.engines.transformers import TransformersEngine, network
from language_neurons_alignment.engines.transformers.network import Head, token_losses
from language_neurons_alignment.errors import EngineError, LNAWarning, SettingsError
from tests.engines.contract import SHORT, assert_same_counts, groups_of
from tests.tiny_models import save_tiny_model


@pytest.fixture
def engine(tiny_llama: Path) -> TransformersEngine:
    return TransformersEngine.load(tiny_llama, device="cpu")


def test_a_scale_or_cap_of_logits_that_the_model_s_class_leaves_out_is_said(recwarn: pytest.WarningsRecorder) -> None:
    class Wrapper(nn.Module):
        """Its class makes logits with `own`, its text decoder's config names `named`."""

        def __init__(self, own: Callable[[torch.Tensor], torch.Tensor], **named: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lm_head, self.own = nn.Linear(4, 7, bias=False), own
            self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(**named))

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
            return SimpleNamespace(logits=self.own(self.lm_head(hidden)))

    def head_of(model: Any) -> Head:
        return network._head(model, model.lm_head, tokens, hidden)

    tokens, hidden = (
        torch.ones(1, 3, dtype=torch.long),
        torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)),
    )
    assert head_of(Wrapper(lambda logits: 0.5 * logits, logit_scale=0.5)).scale == 0.5
    assert head_of(Wrapper(lambda logits: logits)).softcap is None
    for cap in (1.0, 30.0, 1e4):  # the logits are about 1: far above the cap's effect, below, and below rounding
        assert head_of(Wrapper(Head(nn.Identity(), cap).finish, final_logit_softcapping=cap)).softcap == cap
    in_bfloat16 = Wrapper(lambda logits: 30 * torch.tanh(logits.bfloat16() / 30), final_logit_softcapping=30.0)
    assert head_of(in_bfloat16).softcap == 30
    assert not recwarn
    with pytest.warns(LNAWarning, match=r"of Wrapper names a scale \(0\.5\) .* applies none: likelihoods"):
        assert head_of(Wrapper(lambda logits: logits, logit_scale=0.5)).scale == 1
    for cap in (1.0, 30.0):
        with pytest.warns(LNAWarning, match="or a soft cap for its logits, but its class .* applies none"):
            assert head_of(Wrapper(lambda logits: logits, final_logit_softcapping=cap)).softcap is None
    with pytest.raises(EngineError, match="are not those of its lm_head"):
        head_of(Wrapper(lambda logits: 2 * logits, logit_scale=0.5))


class TestLoading:
    def test_by_the_name_of_the_engine(self, tiny_llama: Path) -> None:
        settings = EngineSettings(str(tiny_llama), engine="transformers", options={"device": "cpu", "batch_tokens": 7})
        engine = load_engine(settings)
        assert engine.model.architecture == "LlamaForCausalLM"
        assert engine.provenance["engine"] == "transformers"
        assert engine.provenance["batch_tokens"] == 7
        assert all(isinstance(value, str | int | float | bool) for value in engine.provenance.values())

    @pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
    def test_the_model_s_own_precision_is_the_default(self, tmp_path: Path, stored: torch.dtype) -> None:
        folder = save_tiny_model("llama", tmp_path / "model", dtype=stored)
        name = str(stored).removeprefix("torch.")
        engine = TransformersEngine.load(folder, device="cpu")
        assert (engine.model.dtype, engine.provenance["dtype"]) == (name, name)
        assert {parameter.dtype for parameter in engine._network.decoder.parameters()} == {stored}
        assert TransformersEngine.load(folder, device="cpu", dtype="bfloat16").model.dtype == "bfloat16"

    def test_nothing_is_printed(self, tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
        TransformersEngine.load(tiny_llama, device="cpu")
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"device": "tpu9"}, "--device 'tpu9' is not a device: use auto, cpu"),
            ({"device": "cuda:99"}, "no such device here .* use --device auto or cpu"),
            ({"device": "cpu", "dtype": "int4"}, "--dtype 'int4' is not known: use auto, float32"),
            ({"device": "cpu", "batch_tokens": 0}, "--batch-tokens 0: a batch needs at least 1 token"),
        ],
    )
    def test_settings_that_cannot_be(self, tiny_llama: Path, options: dict, says: str) -> None:
        with pytest.raises(SettingsError, match=says):
            TransformersEngine.load(tiny_llama, **options)

    def test_a_path_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"no model at .*/nowhere: the path does not exist"):
            TransformersEngine.load(tmp_path / "nowhere", device="cpu")

    @pytest.mark.parametrize(
        ("gone", "what"),
        [("config.json", "the config"), ("tokenizer*", "the tokenizer"), ("model.safetensors", "the weights")],
    )
    def test_a_folder_with_a_part_missing(self, tmp_path: Path, gone: str, what: str) -> None:
        folder = save_tiny_model("llama", tmp_path / "model")
        for file in folder.glob(gone):
            file.unlink()
        with pytest.raises(EngineError, match=f"cannot load {what} of .*model") as caught:
            TransformersEngine.load(folder, device="cpu")
        assert "\n" not in str(caught.value)

    def test_torn_weights(self, tmp_path: Path) -> None:
        folder = save_tiny_model("llama", tmp_path / "model")
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
        with pytest.raises(EngineError, match="cannot load the weights"):
            TransformersEngine.load(folder, device="cpu")

    def test_a_weight_that_is_missing_is_never_made_up(self, tmp_path: Path) -> None:
        folder = save_tiny_model("llama", tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        del weights["model.layers.1.mlp.gate_proj.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(EngineError, match=r"1 are missing .*layers\.1\.mlp\.gate_proj.* would have been random"):
            TransformersEngine.load(folder, device="cpu")


class TestLimits:
    def test_sequences_longer_than_the_model_allows(self, engine: TransformersEngine) -> None:
        for run in (
            lambda: engine.count([PromptGroup((1,), ((1,) * 2049, (1,) * 3000))]),
            lambda: engine.log_likelihood([ScoredText((1,) * 2049), ScoredText((1,) * 3000)]),
        ):
            with pytest.raises(EngineError, match=r"2 sequences .* up to 3000 tokens, at most 2048 .*--overlong"):
                run()

    def test_the_longest_sequence_that_the_model_allows_is_fine(self, tmp_path: Path) -> None:
        folder = save_tiny_model("opt", tmp_path / "opt", max_position_embeddings=64)
        engine = TransformersEngine.load(folder, device="cpu")
        counts = engine.count([PromptGroup((5,) * 10, ((5,) * 64,))])
        assert (engine.model.max_length, counts.full.total_tokens) == (64, 64)

    def test_tokens_that_the_model_does_not_know(self, engine: TransformersEngine) -> None:
        with pytest.raises(EngineError, match="gives token 320, but the model knows 320 tokens only"):
            engine.count([PromptGroup((1,), ((1, 320),))])

    @pytest.mark.parametrize(
        ("error", "says"),
        [
            (torch.OutOfMemoryError("CUDA out of memory."), "CUDA ran out of memory .*2048: try --batch-tokens 1024"),
            (RuntimeError("MPS backend out of memory (…)"), "MPS ran out of memory .*2048: try --batch-tokens 1024"),
        ],
    )
    def test_memory_that_runs_out(
        self, engine: TransformersEngine, error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(**_: object) -> None:
            raise error

        monkeypatch.setattr(engine._network.decoder, "forward", fail)
        with pytest.raises(EngineError, match=says):
            engine.count([PromptGroup((1,), ((1, 2),))])
        with pytest.raises(EngineError, match=says):
            engine.log_likelihood([ScoredText((1, 2))])

    def test_an_error_of_another_kind_stays_what_it_is(
        self, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(**_: object) -> None:
            raise RuntimeError("something else")

        monkeypatch.setattr(engine._network.decoder, "forward", fail)
        with pytest.raises(RuntimeError, match="something else"):
            engine.count([PromptGroup((1,), ((1, 2),))])

    def test_closing_gives_the_model_back(self, engine: TransformersEngine) -> None:
        decoder = weakref.ref(engine._network.decoder)
        engine.close()
        engine.close()
        gc.collect()
        assert decoder() is None
        with pytest.raises(EngineError, match="closed"):
            engine.count([])


def many_answers(prompts: int, answers: int, *, prompt: int = 60, answer: int = 20) -> list[PromptGroup]:
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> tuple[int, ...]:
        length += int(torch.randint(-length // 4, length // 4, (), generator=generator))
        return tuple(torch.randint(4, 300, (length,), generator=generator).tolist())

    prefixes = [tokens(prompt) for _ in range(prompts)]
    return [PromptGroup(prefix, tuple(prefix + tokens(answer) for _ in range(answers))) for prefix in prefixes]


def fed(engine: TransformersEngine, run: Callable[[], object]) -> list[int]:
    """Token positions that reach the embedding in each forward, padding included."""
    seen = []
    embedding = engine._network.decoder.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].numel()))
    run()
    handle.remove()
    return seen


class TestEconomy:
    def test_ten_answers_per_prompt_feed_at_most_40_percent_of_separate_passes(
        self, engine: TransformersEngine
    ) -> None:
        groups = many_answers(6, 10)
        separate = sum(group.full_tokens + group.prefix_tokens for group in groups)
        assert sum(fed(engine, lambda: engine.count(groups))) <= 0.4 * separate

    def test_batches_keep_to_the_budget(self, tiny_llama: Path) -> None:
        engine = TransformersEngine.load(tiny_llama, device="cpu", batch_tokens=256)
        groups = [*many_answers(4, 10), *many_answers(20, 1)]
        assert max(fed(engine, lambda: engine.count(groups))) <= 256
        texts = [ScoredText(full) for group in groups for full in group.full]
        assert max(fed(engine, lambda: engine.log_likelihood(texts))) <= 256

    def test_the_lm_head_never_runs_while_counting_and_only_where_a_token_is_scored(
        self, engine: TransformersEngine
    ) -> None:
        seen = []
        engine._network.head.projection.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[0]))
        engine.count(groups_of(engine.tokenizer))
        assert seen == []
        engine.log_likelihood([ScoredText((1, 5, 6, 7, 8), start=3), ScoredText((1, 5, 6))])
        assert sum(seen) == 2 + 2

    def test_logits_exist_a_few_at_a_time(self, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = [ScoredText(full) for group in groups_of(engine.tokenizer) for full in group.full]
        expected, seen = engine.log_likelihood(texts), []
        monkeypatch.setattr("language_neurons_alignment.engines.transformers.network.LOGITS", {"cpu": 7 * 320 + 319})
        engine._network.head.projection.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[0]))
        some = engine.log_likelihood(texts)
        assert max(seen) == 7
        assert [x.nll for x in some] == pytest.approx([x.nll for x in expected], rel=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.3, 2.0)])
    def test_losses_are_the_same_however_few_logits_are_read_at_a_time(
        self, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, scale: float, softcap: float | None
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        head = Head(torch.nn.Linear(16, 5003, bias=False, dtype=dtype), softcap, scale)
        hidden = torch.randn(200, 16, generator=generator).to(dtype)
        targets = torch.randint(5003, (200,), generator=generator)
        with torch.inference_mode():
            whole = head(hidden).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
            ours = []
            for rows in (1, 3, 200):
                monkeypatch.setattr(network, "_CACHED_LOGITS", {"cpu": rows * 5003})
                ours.append(token_losses(hidden, targets, head))
        assert torch.equal(ours[0], ours[1])
        assert torch.equal(ours[0], ours[2])
        torch.testing.assert_close(ours[0], -whole)

    def test_memory_does_not_grow_with_the_corpus(self, tiny_llama: Path) -> None:
        engine = TransformersEngine.load(tiny_llama, device="cpu", batch_tokens=256)
        small, large = many_answers(3, 4), many_answers(15, 4)

        def peak(groups: list[PromptGroup]) -> int:
            seen: list[int] = []
            engine.count(groups, progress=lambda _: seen.append(live_bytes()))
            return max(seen)

        before = peak(small)
        assert peak(large) <= before + 600_000  # one batch may be fuller; 15 prompts' caches would be 2 MB

    @pytest.mark.parametrize("allowed", [True, False])
    def test_cudnn_s_attention_is_off_while_the_model_runs_and_as_it_was_afterwards(
        self, engine: TransformersEngine, allowed: bool
    ) -> None:
        """It plans anew for each new shape, so answers take longer; what is asked is a switch that CPUs have too."""
        seen: list[bool] = []
        engine._network.decoder.register_forward_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
        group = groups_of(engine.tokenizer, SHORT)[0]
        torch.backends.cuda.enable_cudnn_sdp(allowed)
        try:
            engine.count([group])
            engine.log_likelihood([ScoredText(group.full[0])])
            engine.generate([Prompt(group.prefix)], sampling=Sampling(max_new_tokens=2))
            assert torch.backends.cuda.cudnn_sdp_enabled() is allowed
        finally:
            torch.backends.cuda.enable_cudnn_sdp(True)
        assert len(seen) >= 4
        assert not any(seen)

    def test_progress_adds_up_to_the_tokens_of_the_texts_that_are_scored(self, engine: TransformersEngine) -> None:
        done: list[int] = []
        engine.log_likelihood(
            [ScoredText((1, 5, 6, 7)), ScoredText((1, 5, 6), start=2), ScoredText((1,))], progress=done.append
        )
        assert sum(done) == 4 + 3

    def test_equal_answers_are_computed_once_and_counted_each(self, engine: TransformersEngine) -> None:
        group = many_answers(1, 1)[0]
        thrice = PromptGroup(group.prefix, group.full * 3)
        assert sum(fed(engine, lambda: engine.count([thrice]))) == len(group.full[0])
        one, three = engine.count([group]), engine.count([thrice])
        assert_same_counts(three, one + one + one, exact=True)


def live_bytes() -> int:
    """The memory of all tensors that exist."""
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.layout == torch.strided:  # other tests leave sparse ones
            with suppress(RuntimeError):  # … and such as have no memory
                storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


def test_softcapped_logits_are_in_float32() -> None:
    head = Head(torch.nn.Linear(2, 3, bias=False).to(torch.bfloat16), softcap=0.5)
    hidden = torch.ones(1, 2, dtype=torch.bfloat16) * 100
    logits = head(hidden)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, 0.5 * torch.tanh(head.projection(hidden).float() / 0.5))
