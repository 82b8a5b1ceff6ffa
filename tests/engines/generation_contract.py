"""What every engine must do when it writes answers: the same tests for the oracle, for transformers and for vLLM."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from language_neurons_alignment.config import Sampling
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.corpus.encode import Prompt
from language_neurons_alignment.engines.base import Engine
from language_neurons_alignment.errors import EngineError
from tests.engines.contract import assert_same_counts, groups_of, scored_texts, some_neurons
from tests.engines.moments_contract import MomentsContract
from tests.engines.oracle import NaiveEngine
from tests.planted import WORDS, PlantedModel

QUESTIONS = (
    "What is 2 + 3?",
    "a",
    "hello there the",
    "A farmer has the 12 eggs, and sells 5 of them to the baker.\nHow many eggs are left?",
    "一二三",
    "Ünïcode über the ab ",
    "নয়টি ডিম",
    "the the the",
)
SOME = ("What is 2 + 3?", "ab", "Über the ab ", "A farmer has the 12")
"""Fewer and shorter ones, for comparing many models."""
GREEDY = Sampling(max_new_tokens=20)
DRAWN = Sampling(max_new_tokens=12, temperature=0.9, top_p=0.9, seed=7)


def prompts_of(engine: Engine, texts: tuple[str, ...] = QUESTIONS, *, answers: int = 1) -> list[Prompt]:
    """Each question, once for every answer."""
    return [Prompt(tuple(engine.tokenizer.encode(text)), n) for text in texts for n in range(answers)]


class GenerationContract(MomentsContract):
    """The tests of answers, added to the rest of the engine contract."""

    def test_it_knows_what_ends_an_answer(self, engine: Engine) -> None:
        assert engine.model.end_tokens == (2, 45)

    def test_greedy_answers_are_the_argmax_oracle_s_also_in_left_padded_batches(
        self, engine: Engine, oracle: NaiveEngine
    ) -> None:
        prompts = prompts_of(engine)
        assert len({len(prompt.tokens) for prompt in prompts}) > 4, "prompts must be of many lengths"
        answers = engine.generate(prompts, sampling=GREEDY)
        assert answers == oracle.generate(prompts, sampling=GREEDY)
        assert {answer.finish for answer in answers} == {"eos", "length"}
        for answer in answers:
            assert not set(answer.tokens) & {2, 45}
            assert (len(answer.tokens) == 20) == (answer.finish == "length")

    def test_neither_the_batch_nor_the_order_changes_an_answer(self, tiny_llama: Path, engine: Engine) -> None:
        small = self.opened(tiny_llama, batch_tokens=64)
        prompts = prompts_of(engine)
        together = engine.generate(prompts, sampling=GREEDY)
        assert small.generate(prompts[::-1], sampling=GREEDY)[::-1] == together
        assert [engine.generate([one], sampling=GREEDY)[0] for one in prompts] == together

    def test_the_batches_hold_every_prompt_once_and_a_batch_is_one_batch_again(self, engine: Engine) -> None:
        prompts = prompts_of(engine, answers=3)
        batches = engine.answer_batches(prompts, sampling=GREEDY)
        assert sorted(index for batch in batches for index in batch) == list(range(len(prompts)))
        for batch in batches:
            again = engine.answer_batches([prompts[index] for index in batch], sampling=GREEDY)
            assert again == [list(range(len(batch)))]

    def test_an_answer_ends_in_front_of_the_first_stop_string(self, engine: Engine, oracle: NaiveEngine) -> None:
        prompts = prompts_of(engine)
        free = oracle.generate(prompts, sampling=GREEDY)
        wide = next(
            character for one in free for character in one.text if character not in "é\ufffd" and ord(character) > 127
        )
        assert len(engine.tokenizer.encode(wide)) > 2, "a character of several tokens, of none of which it is the text"
        stops = (wide, "not there", *(one.text[3:5] for one in free[::2] if one.text[3:5].strip("\ufffd")))
        sampling = Sampling(max_new_tokens=20, stop=stops)
        answers = engine.generate(prompts, sampling=sampling)
        assert answers == oracle.generate(prompts, sampling=sampling)
        assert sum(answer.finish == "stop" for answer in answers) >= 3
        assert all(stop not in answer.text for stop in stops for answer in answers)
        for answer, other in zip(answers, free, strict=True):
            assert answer.finish == "stop" or wide not in other.text
            assert other.text.startswith(answer.text)
            assert other.tokens[: len(answer.tokens)] == answer.tokens

    def test_an_answer_ends_where_the_model_s_length_does(self, engine: Engine, oracle: NaiveEngine) -> None:
        longest = engine.model.max_length
        prompts = [Prompt((1, *([5, 9, 30] * 700)[: longest - 4])), Prompt((1, 40, 41))]
        answers = engine.generate(prompts, sampling=Sampling(max_new_tokens=6))
        assert answers == oracle.generate(prompts, sampling=Sampling(max_new_tokens=6))
        assert [len(answer.tokens) for answer in answers] == [3, 6]

    def test_prompts_that_cannot_be_answered_are_refused(self, engine: Engine) -> None:
        longest = engine.model.max_length
        with pytest.raises(EngineError, match=rf"1 prompts leave no room .* up to {longest} tokens"):
            engine.generate([Prompt((1,) * longest), Prompt((1, 5))], sampling=GREEDY)
        with pytest.raises(EngineError, match="no tokens"):
            engine.generate([Prompt(())], sampling=GREEDY)

    def test_nothing_is_asked(self, engine: Engine) -> None:
        assert engine.generate([], sampling=GREEDY) == []

    def test_progress_adds_up_to_the_tokens_of_the_answers(self, engine: Engine) -> None:
        done: list[int] = []
        sampling = Sampling(max_new_tokens=20, stop=("K",))
        answers = engine.generate(prompts_of(engine), sampling=sampling, progress=done.append)
        assert sum(done) == sum(len(answer.tokens) for answer in answers)

    def test_samples_are_the_same_for_a_seed_whatever_the_batch_and_the_order(
        self, tiny_llama: Path, engine: Engine
    ) -> None:
        small = self.opened(tiny_llama, batch_tokens=64)
        prompts = prompts_of(engine, answers=3)
        drawn = engine.generate(prompts, sampling=DRAWN)
        assert engine.generate(prompts, sampling=DRAWN) == drawn
        assert small.generate(prompts[::-1], sampling=DRAWN)[::-1] == drawn
        assert engine.generate(prompts[4:5], sampling=DRAWN) == drawn[4:5]
        assert len({drawn[n].tokens for n in range(3)}) == 3, "samples of one prompt must differ"
        other = Sampling(max_new_tokens=12, temperature=0.9, top_p=0.9, seed=8)
        assert engine.generate(prompts, sampling=other) != drawn

    def test_samples_follow_the_model_s_probabilities(self, engine: Engine, oracle: NaiveEngine) -> None:
        """Temperature first, then the smallest set of tokens with 80 % of the probability, as in both libraries."""
        draws, temperature, top_p = 600, 0.5, 0.8
        prompt = prompts_of(engine)[3].tokens
        sampling = Sampling(max_new_tokens=1, temperature=temperature, top_p=top_p)
        answers = engine.generate([Prompt(prompt, n) for n in range(draws)], sampling=sampling)
        seen = Counter(answer.tokens[0] if answer.tokens else 45 for answer in answers)
        chances = oracle.probabilities(prompt) ** (1 / temperature)
        chances, order = (chances / chances.sum()).sort(descending=True)
        inside = chances.cumsum(0) - chances < top_p
        expected = {
            int(token): float(p / chances[inside].sum())
            for token, p in zip(order[inside], chances[inside], strict=True)
        }
        assert len(expected) > 3, "a distribution worth testing"
        assert set(seen) <= set(expected)
        for token, p in expected.items():
            assert abs(seen[token] / draws - p) < 4.5 * (p * (1 - p) / draws) ** 0.5

    def test_samples_of_the_smallest_nucleus_are_the_greedy_answer(self, engine: Engine) -> None:
        prompts = prompts_of(engine)
        narrow = Sampling(max_new_tokens=20, temperature=0.7, top_p=1e-6)
        greedy = engine.generate(prompts, sampling=GREEDY)
        assert engine.generate(prompts, sampling=narrow) == greedy

    def test_deactivation_changes_answers_as_it_does_the_oracle_s_and_is_gone_afterwards(
        self, engine: Engine, oracle: NaiveEngine
    ) -> None:
        """Also after a KV cache of the same prompts was filled without the intervention, or with another one."""
        prompts, sampling = prompts_of(engine), Sampling(max_new_tokens=20, stop=("K",))
        plain = engine.generate(prompts, sampling=sampling)
        seen = [plain]
        for seed in (0, 1):
            off = Intervention.zero(some_neurons(engine, seed=seed))
            with engine.intervene(off), oracle.intervene(off):
                masked = engine.generate(prompts, sampling=sampling)
                assert masked == oracle.generate(prompts, sampling=sampling)
            assert masked not in seen
            seen.append(masked)
        assert engine.generate(prompts, sampling=sampling) == plain

    def test_answering_changes_neither_counts_nor_likelihoods(self, engine: Engine) -> None:
        groups, texts = groups_of(engine.tokenizer), scored_texts(engine.tokenizer)
        counts, likelihoods = engine.count(groups), engine.log_likelihood(texts)
        engine.generate(prompts_of(engine), sampling=GREEDY)
        assert_same_counts(engine.count(groups), counts, exact=True)
        assert engine.log_likelihood(texts) == likelihoods

    def test_answers_are_followed_token_by_token_and_end_where_the_follower_says(self, engine: Engine) -> None:
        prompts, few = prompts_of(engine, SOME), Sampling(max_new_tokens=6)
        answers, seen = engine.generate(prompts, sampling=few), {number: [] for number in range(len(prompts))}

        def follow(position: int, text: str) -> bool:
            seen[position].append(text)
            return position != 2 or len(seen[2]) < 3

        followed = engine.generate(prompts, sampling=few, follow=follow)
        for position, (answer, free) in enumerate(zip(followed, answers, strict=True)):
            if position == 2 and len(free.tokens) > 3:
                assert (answer.finish, answer.tokens) == ("cancelled", free.tokens[:3])
            else:
                assert answer == free
            assert len(seen[position]) == len(answer.tokens)
            assert not seen[position] or seen[position][-1] == answer.text.rstrip("\N{REPLACEMENT CHARACTER}")
        assert len(answers[2].tokens) > 3, "otherwise there was nothing to cancel"

    def test_an_error_in_the_middle_leaves_the_engine_as_it_was(self, engine: Engine) -> None:
        prompts, groups = prompts_of(engine), groups_of(engine.tokenizer)
        answers, counts = (
            engine.generate(prompts, sampling=GREEDY),
            engine.count(groups),
        )

        def stop(_tokens: int) -> None:
            raise KeyError("stop")

        with pytest.raises((KeyError, EngineError), match="stop"):
            engine.generate(prompts, sampling=GREEDY, progress=stop)
        assert engine.generate(prompts, sampling=GREEDY) == answers
        assert_same_counts(engine.count(groups), counts, exact=True)

    def test_without_its_planted_neurons_a_language_is_not_spoken_and_others_are(self, planted: PlantedModel) -> None:
        engine = self.opened(planted.folder)
        asked = {language: tuple(WORDS[language].split()[:3]) for language in planted.languages}
        prompts = [Prompt(tuple(engine.tokenizer.encode(" ".join(words)))) for words in asked.values()]

        def spoken() -> dict[str, float]:
            """The share of each answer that is in its question's language."""
            answers = engine.generate(prompts, sampling=Sampling(max_new_tokens=8))
            shares = {}
            for language, answer in zip(asked, answers, strict=True):
                words = answer.text.split()
                shares[language] = sum(word in WORDS[language].split() for word in words) / len(words)
            return shares

        assert set(spoken().values()) == {1.0}
        for off in planted.languages[:3]:
            with engine.intervene(Intervention.zero(planted.speakers(off))):
                assert spoken() == {language: float(language != off) for language in asked}
        assert set(spoken().values()) == {1.0}
