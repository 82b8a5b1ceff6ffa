"""The logit lens on tiny models: against the library's own hidden states, and proved or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.lens import read_out
from language_neurons_alignment.corpus.encode import ScoredText
from language_neurons_alignment.engines.transformers import TransformersEngine, network
from language_neurons_alignment.errors import EngineError, UnknownArchitectureError
from tests.tiny_models import VOCABULARY, save_tiny_model

GROUP = torch.arange(VOCABULARY - 20) % 5
"""The last 20 tokens are in no table: they belong to the last group, 5."""
TEXTS = [
    ScoredText(tuple(torch.randint(4, VOCABULARY, (n,), generator=torch.Generator().manual_seed(n)).tolist()))
    for n in (23, 9, 17)
]
PLACES = [(1, 5, 22), (8,), (2, 3, 9, 16)]
FAMILIES = {
    # the final norm, and what the model makes of the projection's output
    "llama": ("norm", lambda logits, _: logits),
    "gemma2": (
        "norm",
        lambda logits, config: config.final_logit_softcapping * torch.tanh(logits / config.final_logit_softcapping),
    ),
    "cohere": ("norm", lambda logits, config: logits * config.logit_scale),
    "granite": ("norm", lambda logits, config: logits / config.logits_scaling),
    "gpt2": ("ln_f", lambda logits, _: logits),
    "mixtral": ("norm", lambda logits, _: logits),
}


def members() -> Tensor:
    group = torch.cat([GROUP, torch.full((20,), 5)])
    return torch.nn.functional.one_hot(group, 6).float()


def by_hand(model: Any, kind: str) -> list[Tensor]:
    """The library's hidden states behind each layer, one text at a time, through the norm and the head by hand."""
    norm, finish = FAMILIES[kind]
    found = []
    for text, places in zip(TEXTS, PLACES, strict=True):
        with torch.no_grad():
            given = model(torch.tensor([text.tokens]), output_hidden_states=True, use_cache=False)
            normed = [getattr(model.get_decoder(), norm)(one) for one in given.hidden_states[1:-1]]
            logits = [finish(model.lm_head(one), model.config)[0] for one in (*normed, given.hidden_states[-1])]
        assert (logits[-1] - given.logits[0]).abs().max() < 1e-4, "what is done by hand is what the model does"
        before, targets = [place - 1 for place in places], torch.tensor([text.tokens[place] for place in places])
        found.append(torch.stack([read_out(one[before], targets, members()).double().sum(dim=0) for one in logits]))
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TransformersEngine]:
    made: dict[str, TransformersEngine] = {}

    def load(kind: str) -> TransformersEngine:
        if kind not in made:
            folder = save_tiny_model(kind, tmp_path_factory.mktemp("lens") / kind)
            made[kind] = TransformersEngine.load(folder, device="cpu", dtype="float32")
        return made[kind]

    return load


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_layer_is_read_as_by_hand_and_the_last_one_is_the_model_itself(
    loaded: Callable[[str], TransformersEngine], kind: str
) -> None:
    engine = loaded(kind)
    found = engine.lens(TEXTS, PLACES, GROUP, groups=6)
    close(found, by_hand(engine._network.model, kind))
    every = [tuple(range(1, len(text.tokens))) for text in TEXTS]
    losses = [one[-1, -1].item() for one in engine.lens(TEXTS, every, GROUP, groups=6)]
    assert losses == pytest.approx([one.nll for one in engine.log_likelihood(TEXTS)], rel=1e-5)
    assert not torch.allclose(found[0][0], found[0][-1])


def test_batches_and_pieces_of_logits_change_nothing(
    loaded: Callable[[str], TransformersEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded("llama")
    whole = engine.lens(TEXTS, PLACES, GROUP, groups=6)
    alone = [engine.lens([one], [places], GROUP, groups=6)[0] for one, places in zip(TEXTS, PLACES, strict=True)]
    close(alone, whole)
    monkeypatch.setattr(network, "LOGITS", {"cpu": 2 * VOCABULARY})
    monkeypatch.setattr(network, "_CACHED_LOGITS", {"cpu": VOCABULARY})
    seen: list[int] = []
    monkeypatch.setattr(
        "language_neurons_alignment.engines.transformers.lens.read_out",
        lambda logits, targets, some: seen.append(len(logits)) or read_out(logits, targets, some),
    )
    close(engine.lens(TEXTS, PLACES, GROUP, groups=6), whole)
    assert set(seen) == {1}, "the logits of one position at a time"


def test_an_intervention_is_read_as_with_hooks_by_hand(loaded: Callable[[str], TransformersEngine]) -> None:
    engine = loaded("llama")
    off = torch.zeros(engine.model.layers, engine.model.d_mlp, dtype=torch.bool)
    off[1, ::2] = True
    before = engine.lens(TEXTS, PLACES, GROUP, groups=6)
    with engine.intervene(Intervention.zero(off)):
        found = engine.lens(TEXTS, PLACES, GROUP, groups=6)
    model: Any = engine._network.model
    hook = model.model.layers[1].mlp.act_fn.register_forward_hook(lambda _m, _i, output: output * ~off[1])
    expected = by_hand(model, "llama")
    hook.remove()
    close(found, expected)
    for one, other in zip(found, before, strict=True):
        assert torch.equal(one[0], other[0]), "nothing changes in front of the layer"
        assert (one[1:] - other[1:]).abs().amax(dim=1).min() > 1e-3
    close(engine.lens(TEXTS, PLACES, GROUP, groups=6), before)


def test_opt_is_read_through_its_projection(tmp_path: Path) -> None:
    engine = TransformersEngine.load(save_tiny_model("opt", tmp_path / "opt"), device="cpu", dtype="float32")
    every = [tuple(range(1, len(text.tokens))) for text in TEXTS]
    losses = [one[-1, -1].item() for one in engine.lens(TEXTS, every, GROUP, groups=6)]
    assert losses == pytest.approx([one.nll for one in engine.log_likelihood(TEXTS)], rel=1e-5)


def test_a_decoder_that_does_more_behind_its_norm_is_refused_by_name(
    loaded: Callable[[str], TransformersEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded("llama")
    decoder: Any = engine._network.decoder
    own = decoder.forward

    def more(*inputs: Any, **choices: Any) -> Any:
        given = own(*inputs, **choices)
        given.last_hidden_state = 1.5 * given.last_hidden_state
        return given

    monkeypatch.setattr(decoder, "forward", more)
    with pytest.raises(UnknownArchitectureError, match="LlamaForCausalLM: the modules behind its last layer"):
        engine.lens(TEXTS, PLACES, GROUP, groups=6)


def test_layers_that_do_not_read_each_other_are_refused_by_name(
    loaded: Callable[[str], TransformersEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded("llama")
    layers: Any = engine._network.decoder.layers  # type: ignore[union-attr]
    own = layers[1].forward
    monkeypatch.setattr(layers[1], "forward", lambda hidden, *rest, **more: own(hidden, *rest, **more))
    hook = layers[1].register_forward_pre_hook(lambda _m, given: (2 * given[0], *given[1:]))
    # the lens's own hooks come later, so they see what the layer truly reads
    with pytest.raises(UnknownArchitectureError, match="what layer 0 gives is not what layer 1 reads"):
        engine.lens(TEXTS, PLACES, GROUP, groups=6)
    hook.remove()


def test_vllm_refuses_in_one_line_that_says_what_to_do() -> None:
    from language_neurons_alignment.engines.base import no_lens

    error = no_lens()
    assert isinstance(error, EngineError)
    assert "--engine transformers" in str(error)
    assert "\n" not in str(error)
