"""What every engine must compute under interventions: the same tests for transformers and for vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from language_neurons_alignment._interventions import NeuronSource, intervene
from language_neurons_alignment._loaded import Model
from language_neurons_alignment._operations import Steps
from language_neurons_alignment.config import Sampling, Selection
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.perplexity import perplexity
from language_neurons_alignment.engines.base import Engine
from tests.engines.contract import assert_close, assert_same_counts, groups_of, scored_texts, some_neurons
from tests.engines.generation_contract import prompts_of
from tests.engines.oracle import NaiveEngine
from tests.neuron_sets import source_of

STEPS = {
    "zero": ["zero es"],
    "scale": ["scale:2 es"],
    "set": ["set:1.5 es"],
    "mean": ["mean:en es"],
    "replace": ["replace:es en:specific"],
    "add": ["add:en:0.5 es"],
    "diffmean": ["diffmean:en es"],
    "several": ["scale:-1 es + fr", "add:fr:1 en", "zero fr - es"],
}
"""Every operation of `--do`, and several in order."""

GREEDY = Sampling(max_new_tokens=12)


def sets(engine: Engine) -> NeuronSource:
    """Three languages with neurons in common, in the first and the last layer, and their means."""
    shape = (engine.model.layers, engine.model.d_mlp)
    languages = ("en", "es", "fr")
    draw = torch.Generator().manual_seed(5)
    means = {language: torch.randn(shape, generator=draw) for language in languages}
    return source_of(means, **{code: some_neurons(engine, seed=seed) for seed, code in enumerate(languages)})


class InterventionContract:
    """The tests; mixed into an engine's contract, which has the fixtures `engine` and `oracle`."""

    @pytest.mark.parametrize("do", STEPS.values(), ids=STEPS)
    def test_each_operation_is_the_oracle_s(self, engine: Engine, oracle: NaiveEngine, do: list[str]) -> None:
        texts, groups, prompts = scored_texts(engine.tokenizer), groups_of(engine.tokenizer), prompts_of(engine)
        plain = engine.log_likelihood(texts)
        with intervene(engine, do, sets(engine)), intervene(oracle, do, sets(engine)):
            changed = engine.log_likelihood(texts)
            assert_close(changed, oracle.log_likelihood(texts))
            assert_same_counts(engine.count(groups), oracle.count(groups))
            assert engine.generate(prompts, sampling=GREEDY) == oracle.generate(prompts, sampling=GREEDY)
        assert [one.nll for one in changed] != pytest.approx([one.nll for one in plain], rel=1e-3)
        assert engine.log_likelihood(texts) == plain

    def test_zero_by_any_name_is_deactivation_bit_for_bit(self, engine: Engine) -> None:
        texts, source = scored_texts(engine.tokenizer), sets(engine)
        with engine.intervene(Intervention.zero(_neurons(source, "es", engine))):
            off = engine.log_likelihood(texts)
        for text in ("zero es", "scale:0 es", "scale:-0 es", "set:0 es"):
            with intervene(engine, text, source):
                assert engine.log_likelihood(texts) == off, text

    def test_what_changes_nothing_changes_no_bit(self, engine: Engine) -> None:
        texts, source = scored_texts(engine.tokenizer), sets(engine)
        plain = engine.log_likelihood(texts)
        for do in ([], ["scale:1 es"], ["add:en:0 es"], ["scale:4 es", "scale:0.25 es"], ["zero es - es"]):
            with intervene(engine, do, source, allow_empty=True):
                assert engine.log_likelihood(texts) == plain, do

    def test_the_order_of_steps_matters_and_contexts_nest_in_it(self, engine: Engine) -> None:
        texts, source, first, second = scored_texts(engine.tokenizer), sets(engine), "scale:3 es", "add:en:1 es"
        with intervene(engine, [first, second], source):
            together = engine.log_likelihood(texts)
        with intervene(engine, first, source), intervene(engine, second, source):
            assert engine.log_likelihood(texts) == together, "one map either way"
        with intervene(engine, [second, first], source):
            swapped = engine.log_likelihood(texts)
        assert perplexity(swapped).nll != pytest.approx(perplexity(together).nll, rel=1e-5)

    @pytest.mark.parametrize("do", STEPS.values(), ids=STEPS)
    def test_each_operation_is_gone_after_an_exception(self, engine: Engine, do: list[str]) -> None:
        texts, source = scored_texts(engine.tokenizer), sets(engine)
        plain = engine.log_likelihood(texts)

        def fail_inside() -> None:
            with intervene(engine, do, source):
                engine.log_likelihood(texts)
                raise KeyError("stop")

        with pytest.raises(KeyError, match="stop"):
            fail_inside()
        assert engine.log_likelihood(texts) == plain

    def test_an_exception_in_an_inner_context_leaves_the_outer_one_in_force(self, engine: Engine) -> None:
        texts, source = scored_texts(engine.tokenizer), sets(engine)
        plain = engine.log_likelihood(texts)

        def fail_inside() -> None:
            with intervene(engine, "add:en:1 es", source):
                engine.log_likelihood(texts)
                raise KeyError("stop")

        with intervene(engine, "scale:3 es", source):
            outer = engine.log_likelihood(texts)
            with pytest.raises(KeyError, match="stop"):
                fail_inside()
            assert engine.log_likelihood(texts) == outer != plain
        assert engine.log_likelihood(texts) == plain

    def test_reuse_changes_no_likelihood(self, engine: Engine) -> None:
        texts, last = scored_texts(engine.tokenizer), some_neurons(engine)
        last[:-1] = False
        late, all_layers = Intervention.zero(last), Intervention.on(some_neurons(engine, seed=1), scale=2.0)
        plain = engine.log_likelihood(texts)
        with engine.intervene(late):
            expected = engine.log_likelihood(texts)
            with engine.intervene(all_layers):
                nested = engine.log_likelihood(texts)
        assert plain != expected != nested
        with engine.reuse([late, late.then(all_layers)], tokens=sum(len(text.tokens) for text in texts)):
            assert engine.log_likelihood(texts) == plain
            for _ in range(2):
                with engine.intervene(late):
                    assert engine.log_likelihood(texts) == expected
                    with engine.intervene(all_layers):
                        assert engine.log_likelihood(texts) == nested
            assert engine.log_likelihood(texts) == plain
        assert engine.log_likelihood(texts) == plain

    def test_neurons_of_a_file_are_those_that_it_lists(self, engine: Engine, tmp_path: Path) -> None:
        texts, source = scored_texts(engine.tokenizer), sets(engine)
        listed = _neurons(source, "es", engine).nonzero().tolist()
        (tmp_path / "n.csv").write_text("layer,neuron\n" + "".join(f"{layer},{one}\n" for layer, one in listed))
        for named, by_file in {"es": "@", "en + es": "en + @", "en - es": "en - @"}.items():
            with intervene(engine, f"scale:-1 {named}", source):
                expected = engine.log_likelihood(texts)
            with intervene(engine, f"scale:-1 {by_file.replace('@', f'@{tmp_path}/n.csv')}", source):
                assert engine.log_likelihood(texts) == expected, named

    def test_texts_go_through_it_as_through_the_oracle(self, engine: Engine, oracle: NaiveEngine) -> None:
        texts = {"en": ["Two doors, two keys."], "es": [("Dos puertas,", " dos llaves.")], "sw": "Milango miwili."}
        mine, known = Model(engine), Model(oracle)
        counts = mine.count(texts, moments=True)
        assert torch.equal(counts.counts, known.count(texts).counts)
        neurons = counts.find_neurons(Selection(0.1, bar=0.8))
        for one in (neurons["es"], neurons["en"] | neurons["sw"]):
            with mine.ablate(one), known.ablate(one):
                assert mine.generate(["Dos", "Two"], max_new_tokens=6) == known.generate(
                    ["Dos", "Two"], max_new_tokens=6
                )
                off = [mine.perplexity(texts)["es"].token, known.perplexity(texts)["es"].token]
            assert off[0] == pytest.approx(off[1], rel=1e-4)
            assert off[0] != pytest.approx(mine.perplexity(texts)["es"].token, rel=1e-4)


def _neurons(source: NeuronSource, neurons: str, engine: Engine) -> Tensor:
    return source.neurons(Steps.parse(f"zero {neurons}").steps[0].terms, engine.model)
