"""The playground without its page: what a choice means, two answers, a queue of visitors who do not see each other."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import language_neurons_alignment as lna
from language_neurons_alignment._interventions import NeuronSource
from language_neurons_alignment._operations import Steps
from language_neurons_alignment._playground import MOST_TOKENS, Answers, Choice, Playground
from language_neurons_alignment.config import Sampling, Selection
from language_neurons_alignment.errors import LNAError, SettingsError
from language_neurons_alignment.store.masks import Mask
from tests.neuron_sets import source_of
from tests.tiny_models import LAYERS, save_tiny_model

TEXTS = {"en": ["Two doors, two keys."], "es": ["Dos puertas, dos llaves."], "sw": ["Milango miwili, funguo mbili."]}
CHOICE = Choice("Two doors,", {"es": 0.0, "sw": 1.5}, "mean", layers=(1, 2), sampling=Sampling(max_new_tokens=12))
LONG = Sampling(max_new_tokens=MOST_TOKENS, temperature=1.0)


class Unhurried(Playground):
    """Takes its time over what is drawn, so that there is time to stop it, on the busiest machine."""

    def _generate(self, prompt: Any, sampling: Sampling, stop: Event, say: Callable[[str], None]) -> Any:
        def slowly(text: str) -> None:
            say(text)
            stop.wait(0 if sampling.greedy else 0.05)

        return super()._generate(prompt, sampling, stop, slowly)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def neurons(folder: Path) -> Mask:
    return lna.load(str(folder), device="cpu").count(TEXTS, moments=True).find_neurons(Selection(0.1, bar=0.8))


@pytest.fixture(scope="module")
def playground(folder: Path, neurons: Mask) -> Iterator[Playground]:
    made = Unhurried(lna.load(str(folder), device="cpu"), NeuronSource.open(None, mask=neurons))
    yield made
    made.close()


def last(playground: Playground, choice: Choice, stop: Event | None = None) -> Answers:
    *_, end = playground.answers(choice, stop)
    return end


def test_both_answers_are_those_of_the_model_under_the_line_shown(playground: Playground, neurons: Mask) -> None:
    model, sampling = playground.model, {"max_new_tokens": 12}
    words = shlex.split(playground.line(CHOICE))
    assert words[::2] == ["--do"] * (len(words) // 2)
    with model.intervene(words[1::2], neurons):
        changed = model.generate(CHOICE.prompt, **sampling)
    seen = last(playground, CHOICE)
    assert (seen.undisturbed.text, seen.changed.text) == (model.generate(CHOICE.prompt, **sampling), changed)
    assert seen.changed.text != seen.undisturbed.text, "the steps must change something here"


def test_perplexity_is_of_the_answer_s_own_tokens_under_the_undisturbed_model(
    playground: Playground, folder: Path
) -> None:
    mine, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    seen, prompt = last(playground, CHOICE), tokenizer.encode(CHOICE.prompt)
    tokens = playground.model.generate(prompt, max_new_tokens=12)
    log = torch.log_softmax(mine(torch.tensor([[*prompt, *tokens]])).logits[0], dim=-1)
    nll = [-log[len(prompt) - 1 + at, token].item() for at, token in enumerate(tokens)]
    assert seen.undisturbed.perplexity == pytest.approx(torch.tensor(nll).mean().exp().item(), rel=1e-4)
    assert seen.undisturbed.tokens == len(tokens)
    assert seen.changed.perplexity != seen.undisturbed.perplexity


def test_answers_come_token_by_token_the_undisturbed_one_first(playground: Playground) -> None:
    states = list(playground.answers(Choice("Two", {"en": 0.0}, sampling=Sampling(max_new_tokens=40))))
    grown = [one.undisturbed.text for one in states if one.undisturbed.finish is None]
    assert all(after.startswith(before) for before, after in pairwise(grown))
    assert all(one.undisturbed == states[-1].undisturbed for one in states if one.changed.text)
    assert states[-1].changed.finish is not None


def test_with_no_slider_moved_the_answer_is_computed_once(playground: Playground) -> None:
    seen = last(playground, Choice("Two", sampling=Sampling(max_new_tokens=4)))
    assert seen.changed == seen.undisturbed
    assert playground.line(Choice("Two")) == ""


def test_stop_ends_both_answers_as_they_are_and_the_next_visitor_gets_whole_ones(playground: Playground) -> None:
    stop, seen = Event(), None
    for seen in playground.answers(Choice("Two", {"es": 0.0}, sampling=LONG), stop):
        if seen.undisturbed.text:
            stop.set()
    assert seen is not None
    assert (seen.undisturbed.finish, seen.changed.finish) == ("cancelled", "cancelled")
    assert 0 < seen.undisturbed.tokens < MOST_TOKENS
    assert last(playground, CHOICE).changed.finish == "length"


def test_visitors_wait_for_each_other_and_see_only_their_own(playground: Playground) -> None:
    """The first one's answers last until the second has been seen to wait."""
    waited, stop = Event(), Event()

    def first() -> list[Answers]:
        seen = []
        for one in playground.answers(Choice("Two doors,", {"en": 2.0}, sampling=LONG), stop):
            seen.append(one)
            if waited.is_set():
                stop.set()
        return seen

    alone = last(playground, CHOICE)
    with ThreadPoolExecutor() as pool:
        job, seen = pool.submit(first), []
        while not playground._asking:
            pass
        for one in playground.answers(CHOICE):
            seen.append(one)
            if one.ahead:
                waited.set()
        others = job.result(timeout=60)
    assert {one.ahead for one in seen} == {0, 1}
    assert seen[-1] == alone
    assert all(alone.undisturbed.text.startswith(one.undisturbed.text) for one in seen)
    assert others[-1].changed.text != alone.changed.text
    assert playground._asking == []


def test_a_visitor_who_stops_while_waiting_or_leaves_holds_nobody_up(playground: Playground) -> None:
    running, stop = playground.answers(Choice("Two", {"es": 0.0}, sampling=LONG)), Event()
    next(running)
    waiting = playground.answers(Choice("Dos", {"es": 0.0}, sampling=LONG), stop)
    assert next(waiting).ahead == 1
    stop.set()
    *_, seen = waiting
    assert (seen.undisturbed.text, seen.undisturbed.finish) == ("", "cancelled")
    running.close()  # the tab was closed
    assert last(playground, CHOICE).changed.finish == "length"


@settings(max_examples=8)
@given(
    st.dictionaries(st.sampled_from(sorted(TEXTS)), st.floats(0, 2).map(lambda value: round(value, 2)), min_size=1),
    st.sampled_from([None, (0, 0), (1, 1), (0, 1), (1, 2)]),
    st.sampled_from(["doubled", "mean"]),
)
def test_a_choice_is_its_equation_on_the_chosen_neurons_alone(
    playground: Playground, sliders: dict[str, float], layers: tuple[int, int] | None, upper: str
) -> None:
    choice, source, info = (
        Choice(sliders=sliders, layers=layers, upper=upper),
        playground._source,
        playground.model.info,
    )
    made = source.intervention(playground.steps(choice), info, allow_empty=True)
    activation = torch.linspace(-2, 2, LAYERS * info.d_mlp).view(LAYERS, info.d_mlp)
    expected, (first, end) = activation.double(), layers or (0, LAYERS - 1)
    assert source.mask is not None
    for language in playground.languages:
        value, mean = sliders.get(language, 1.0), source.mean(language, info)
        inside = source.mask[language].tensor[..., 0].clone()
        inside[:first], inside[end + 1 :] = False, False
        weight = value - 1
        moved = (1 - weight) * expected + weight * mean if upper == "mean" and value > 1 else value * expected
        expected = torch.where(inside, moved, expected)
    found = torch.stack([made.layer(at).apply_(activation[at].clone()) for at in range(LAYERS)])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=10)
@given(
    st.text(max_size=30),
    st.dictionaries(st.sampled_from(["en", "fr", "zh-Hant"]), st.sampled_from([0, 0.05, 0.9, 1.35, 2])),
    st.sampled_from([None, (0, 4)]),
    st.sets(st.sampled_from(["specific", "related", "general"]), min_size=1),
    st.sampled_from([Sampling(max_new_tokens=64), Sampling(0.7, max_new_tokens=9, seed=3)]),
)
def test_a_link_holds_the_whole_choice(prompt, sliders, layers, classes, sampling) -> None:
    choice = Choice(prompt, sliders, "mean", tuple(classes), layers, "chat", sampling)
    assert Choice.of_query(choice.query()) == choice


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("fr=x", "the link cannot be read"),
        ("fr=3", "the slider of fr must be from 0 to 2, got 3.0"),
        ("fr=nan", "must be from 0 to 2"),
        ("layers=3", "the link cannot be read"),
        ("layers=3-2", "layers 3 to 2 are none"),
        ("upper=best", "must be one of doubled, mean"),
        ("classes=typo", "--classes must be one of"),
        ("template=mine", "plain or chat"),
        ("max_new_tokens=100000", "may have 512 tokens here"),
        ("temperature=-1", "--temperature"),
    ],
)
def test_a_link_that_cannot_be_is_refused_in_one_line(query: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named) as refused:
        Choice.of_query(query)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        (Choice(" ", {"es": 0.0}), "there is no prompt"),
        (Choice("Two", {"fr": 0.0}), "the mask has no neurons of fr: choose from en, es, sw"),
        (Choice("Two", {"es": 0.0}, layers=(1, 3)), "there is no layer 3: the model has layers 0..2"),
        (Choice("a b " * 2000), "the model allows 2048 for prompt and answer together: write a shorter one"),
        (Choice("Two", template="chat"), "has no chat template"),
    ],
)
def test_what_cannot_be_answered_is_said_and_the_next_visitor_is_answered(
    playground: Playground, choice: Choice, named: str
) -> None:
    with pytest.raises(LNAError, match=named) as refused:
        last(playground, choice)
    assert "\n" not in str(refused.value)
    assert last(playground, Choice("Two", sampling=Sampling(max_new_tokens=1))).undisturbed.tokens == 1


def test_only_what_is_at_hand_can_be_chosen(playground: Playground, neurons: Mask, tmp_path: Path) -> None:
    neurons.save(tmp_path / "neurons")
    few = Playground(playground.model, NeuronSource.open(None, mask=Mask.load(tmp_path / "neurons")))
    assert (few.classes, few.means) == (("specific", "related"), ())
    assert len(few.notes) == 1
    with pytest.raises(SettingsError, match="mean activations of es are not at hand"):
        few.line(Choice(sliders={"es": 1.5}, upper="mean"))
    with pytest.raises(SettingsError, match="general neurons are not at hand"):
        few.line(Choice(sliders={"es": 0}, classes=("general",)))
    with pytest.raises(SettingsError, match="needs a mask"):
        Playground(playground.model, NeuronSource.open(None))


def test_a_range_of_layers_is_a_set_like_any_other() -> None:
    info = lna.core.model.ModelInfo("model", "Llama", 3, 4, 99, "float32")
    everywhere = torch.ones(3, 4, dtype=torch.bool)
    source = source_of(fr=everywhere)
    steps = Steps.parse(["zero fr - layers:0-0", "zero layers:1-2"])
    one, other = (source.neurons(step.terms, info) for step in steps.steps)
    assert torch.equal(one, other)
    assert one.sum(dim=1).tolist() == [0, 4, 4]
    assert (steps.needs_mask, Steps.parse("zero layers:1-2").needs_mask) == (True, False)
    assert source.notes(Steps.parse("zero fr - layers:0-2")) != []
    assert source.notes(steps) == []
    with pytest.raises(SettingsError, match=r"layers:0-3: model has layers 0\.\.2"):
        source.neurons(Steps.parse("zero layers:0-3").steps[0].terms, info)
