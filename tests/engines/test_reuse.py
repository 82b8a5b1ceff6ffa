"""Likelihoods that start from kept states are those of whole forwards, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.perplexity import TextLikelihood
from language_neurons_alignment.corpus.encode import ScoredText
from language_neurons_alignment.engines.transformers import TransformersEngine, loading
from language_neurons_alignment.engines.transformers.reuse import best_starts
from language_neurons_alignment.engines.transformers.sites import decoder_layers
from language_neurons_alignment.errors import SilentHookError
from tests.engines.contract import scored_texts
from tests.tiny_models import save_tiny_model

FAMILIES = (
    "llama",
    "gemma2",  # windows, capped scores and logits
    "gemma3_text",  # windows in every second layer
    "gpt2",  # positions are added to embeddings
    "falcon",  # attention and MLP in parallel; a layer gives a tuple
    "opt",
    "bloom",
    "cohere",
    "mixtral",
    "deepseek_v3-dense",  # experts in some layers
    pytest.param("llama4_text", marks=pytest.mark.slow),  # experts that are not told whom the router chose
    "gemma3n_text",  # a state of four streams, and inputs for each layer
    "qwen3_5_text",  # linear attention, which runs without any cache
    "phi3-longrope",  # batches of short and of long texts
)

Score = Callable[[], list[TextLikelihood]]


def loaded(kind: str, folder: Path, *, batch_tokens: int = 128, **changes: object) -> TransformersEngine:
    return TransformersEngine.load(save_tiny_model(kind, folder / kind, **changes), batch_tokens=batch_tokens)  # type: ignore[arg-type]


def texts_for(engine: TransformersEngine) -> list[ScoredText]:
    longest = min(200, engine.model.max_length)
    fitting = (text for text in scored_texts(engine.tokenizer) if 1 < len(text.tokens) <= longest)
    return list({text.tokens: text for text in fitting}.values())


def tokens_of(texts: Sequence[ScoredText]) -> int:
    return sum(len(text.tokens) for text in texts)


def off_from(engine: TransformersEngine, first: int, *, seed: int = 0) -> Intervention:
    """A third of the neurons at zero, from a layer on."""
    layers, d_mlp = engine.model.layers, engine.model.d_mlp
    neurons = torch.rand(layers, d_mlp, generator=torch.Generator().manual_seed(seed)) < 0.3
    for layer, width in enumerate(engine.model.layer_widths):
        neurons[layer, width:] = False
    neurons[:first] = False
    return Intervention.zero(neurons)


def under_each(
    engine: TransformersEngine, changes: Sequence[Intervention | None], texts: Sequence[ScoredText]
) -> list[list[TextLikelihood]]:
    results = []
    for change in changes:
        with nullcontext() if change is None else engine.intervene(change):
            results.append(engine.log_likelihood(texts))
    return results


@contextmanager
def counted_layers(engine: TransformersEngine) -> Iterator[list[int]]:
    """How often each decoder layer really computed: how often its attention or whatever it has inside ran."""
    layers = decoder_layers(engine._network.decoder)
    computed = [0] * len(layers)

    def count(index: int) -> None:
        computed[index] += 1

    with ExitStack() as stack:
        for index, layer in enumerate(layers):
            inside = next(iter(layer.children()))
            hook = inside.register_forward_hook(lambda _m, _i, _o, index=index: count(index))
            stack.callback(hook.remove)
        yield computed


@pytest.mark.parametrize("kind", FAMILIES)
def test_likelihoods_are_those_of_whole_forwards_bit_for_bit(kind: str, tmp_path: Path) -> None:
    engine = loaded(kind, tmp_path)
    texts = texts_for(engine)
    layers = engine.model.layers
    changes = [off_from(engine, first, seed=seed) for seed in (0, 1) for first in range(layers)]
    conditions = [None, *changes, None]
    plain = under_each(engine, conditions, texts)
    assert len({some[0].nll for some in plain}) == 1 + len(changes), "each change must change something"
    with engine.reuse(changes, tokens=tokens_of(texts)):
        with counted_layers(engine) as computed:
            assert under_each(engine, conditions, texts) == plain
        assert under_each(engine, conditions[::-1], texts) == plain[::-1], "in any order"
        others = [ScoredText(text.tokens[1:]) for text in texts if len(text.tokens) > 2]
        mixed = under_each(engine, conditions, others)
    assert computed[0] < computed[-1], "the first layers ran less often"
    assert mixed == under_each(engine, conditions, others), "also of texts that nobody announced"
    assert under_each(engine, [None], texts)[0] == plain[0], "nothing is left of it"
    assert not any("forward" in vars(layer) for layer in decoder_layers(engine._network.decoder))


def test_layers_run_as_often_as_they_must(tmp_path: Path) -> None:
    engine = loaded("llama", tmp_path, batch_tokens=10**6, num_hidden_layers=6)
    texts = texts_for(engine)
    changes = [off_from(engine, first) for first in (0, 2, 4, 4)]
    with engine.reuse(changes, tokens=tokens_of(texts)), counted_layers(engine) as computed:
        under_each(engine, [None, *changes], texts)
        assert computed == [2, 2, 3, 3, 5, 5]
        # a run that was cut off: nothing undisturbed runs, and each change keeps what it can
        under_each(engine, changes[1:], texts[:2])
        assert computed == [3, 3, 5, 5, 8, 8]


def test_a_language_without_neurons_runs_no_layer_again(tmp_path: Path) -> None:
    engine = loaded("llama", tmp_path, batch_tokens=10**6)
    texts, nothing = texts_for(engine), Intervention.identity(engine.model.layers, engine.model.d_mlp)
    with engine.reuse([nothing, off_from(engine, 2)], tokens=tokens_of(texts)), counted_layers(engine) as computed:
        plain, same = under_each(engine, [None, nothing], texts)
        assert same == plain
        assert computed == [1, 1, 1]


def test_an_intervention_in_force_before_is_what_states_are_kept_under(tmp_path: Path) -> None:
    engine = loaded("llama", tmp_path, num_hidden_layers=5)
    texts, outer = texts_for(engine), off_from(engine, 1, seed=7)
    changes = [off_from(engine, first) for first in (2, 3, 4)]
    with engine.intervene(outer):
        plain = under_each(engine, [None, *changes], texts)
        with engine.reuse(changes, tokens=tokens_of(texts)), counted_layers(engine) as computed:
            assert under_each(engine, [None, *changes], texts) == plain
        assert computed[1] < computed[4], "also below layers that the outer one changes"
    with engine.reuse([off_from(engine, 4)], tokens=tokens_of(texts)):
        assert under_each(engine, [None], texts) != plain[:1]
        with engine.intervene(outer):
            assert under_each(engine, [None, *changes], texts) == plain, "what nobody announced is computed whole"


def test_routers_are_changed_in_the_layer_that_they_stand_in(tmp_path: Path) -> None:
    engine = loaded("mixtral", tmp_path, num_hidden_layers=4)
    texts, nothing = texts_for(engine), Intervention.identity(engine.model.layers, engine.model.d_mlp)
    bias = torch.zeros(4, 6)
    bias[2, 1], bias[3, 0] = -torch.inf, 2.0
    banned = Intervention(nothing.scale, nothing.shift, bias)
    changes = [banned, off_from(engine, 3), banned.then(off_from(engine, 3)), off_from(engine, 1)]
    plain = under_each(engine, [None, *changes], texts)
    with engine.reuse(changes, tokens=tokens_of(texts)), counted_layers(engine) as computed:
        assert under_each(engine, [None, *changes], texts) == plain
    assert computed[1] < computed[2] < computed[3]


def test_little_memory_keeps_few_states_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loaded("llama", tmp_path, num_hidden_layers=5)
    texts = texts_for(engine)
    changes = [off_from(engine, first) for first in (1, 3, 4)]
    plain = under_each(engine, [None, *changes], texts)
    state = tokens_of(texts) * 128 * 4  # bytes of one layer, without padding
    ran = {}
    for memory in (0, state // 2, state * 100):
        monkeypatch.setattr(loading, "free_memory", lambda _device, memory=memory: 4 * memory)
        with engine.reuse(changes, tokens=tokens_of(texts)), counted_layers(engine) as computed:
            assert under_each(engine, [None, *changes], texts) == plain
            assert engine._reused is not None
            kept = [one for of_batch in engine._reused._kept.values() for one in of_batch.values()]
            assert sum(one.nbytes for one in kept) <= memory
            ran[memory] = sum(computed)
    batches = ran[0] // (4 * 5)
    assert ran[0] == 4 * 5 * batches, "all of it"
    assert ran[0] > ran[state // 2] > ran[state * 100] == batches * (5 + 4 + 2 + 1)


def test_layers_whose_keys_and_values_later_ones_use_are_never_left_out(tmp_path: Path) -> None:
    engine = loaded("gemma4_text", tmp_path)  # layers 2 and 3 use what layers 0 and 1 computed
    texts = texts_for(engine)
    changes = [off_from(engine, first) for first in range(4)]
    plain = under_each(engine, [None, *changes], texts)
    with engine.reuse(changes, tokens=tokens_of(texts)):
        assert engine._reused is not None
        assert engine._reused.starts == []
        assert under_each(engine, [None, *changes], texts) == plain


def test_a_change_that_does_not_act_is_an_error_also_after_a_start_in_the_middle(tmp_path: Path) -> None:
    engine = loaded("llama", tmp_path)
    texts, change = texts_for(engine), off_from(engine, 1)

    def lose_a_hook() -> None:
        with engine.intervene(change):
            engine.log_likelihood(texts)
            engine._network.sites[2].module._forward_hooks.clear()
            engine.log_likelihood(texts)

    with engine.reuse([change], tokens=tokens_of(texts)):
        engine.log_likelihood(texts)
        with pytest.raises(SilentHookError, match=r"acted \d+ times in layer 2 although the model ran \d+ times"):
            lose_a_hook()


def test_a_state_is_given_back_unharmed_where_a_model_adds_to_it_in_place(tmp_path: Path) -> None:
    engine = loaded("llama", tmp_path)
    texts, change = texts_for(engine), off_from(engine, 2)
    layer = decoder_layers(engine._network.decoder)[2]
    layer.register_forward_pre_hook(_scaled)
    plain = under_each(engine, [None, change, change], texts)
    with engine.reuse([change], tokens=tokens_of(texts)):
        assert engine._reused is not None
        assert engine._reused.starts == [2]
        assert under_each(engine, [None, change, change], texts) == plain


def _scaled(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    inputs[0].mul_(1.5)


def test_the_layers_that_are_kept_save_the_most() -> None:
    firsts = [2, 2, 15, 20]
    assert best_starts(firsts, [2, 15, 20], most=1) == [15]
    assert best_starts(firsts, [2, 15, 20], most=2) == [15, 20]
    assert best_starts(firsts, [2, 15, 20], most=9) == [2, 15, 20]
    assert best_starts(firsts, [20], most=9) == [20]
    assert best_starts([0, 0], [], most=1) == []
