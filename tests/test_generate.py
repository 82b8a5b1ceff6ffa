"""Letting a model answer: what is kept, what is filled up, what is refused, and a kill in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from language_neurons_alignment._generate import Generated, ensure_answers, generate
from language_neurons_alignment._interventions import NeuronSource, neuron_source
from language_neurons_alignment._operations import Steps
from language_neurons_alignment._session import Session, open_session
from language_neurons_alignment.config import Sampling
from language_neurons_alignment.corpus.records import read_corpus
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import ConflictError, CorpusError, EngineError, SettingsError, SilentHookError
from language_neurons_alignment.ppl import perplexity_map
from language_neurons_alignment.store.answers import Journal, alone
from tests.small_run import LANGUAGES, SETTINGS, change_weights, idle, opened, run
from tests.workspace import change_tokenizer, contents, leftovers, silent_hooks, small_records, write_corpus

DRAWN = Sampling(temperature=0.8, max_new_tokens=6, seed=3)
GREEDY = Sampling(max_new_tokens=6)


def questions(languages: tuple[str, ...] = LANGUAGES, *, count: int = 3) -> list[dict[str, Any]]:
    """Records with no answers and with keys of their own."""
    return [
        {"id": f"q{n}", **record, "answers": [], "target": n, "note": {"any": ["thing", None]}}
        for n, record in enumerate(small_records(languages, questions=count))
    ]


@pytest.fixture
def asked(fresh: Path) -> Path:
    """A model, and a corpus of questions alone."""
    write_corpus(fresh / "corpus.json", questions())
    return fresh


def answer(folder: Path, *languages: str, sampling: Sampling = DRAWN, n: int = 2, **choices: Any) -> Generated:
    """Answers to the corpus of a folder, in batches of few prompts."""
    with opened(folder, batch_tokens=64) as session:
        return generate(
            session, languages or None, answers=n, sampling=sampling, **{"out": folder / "a.json", **choices}
        )


def items(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


# ── What comes out ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_question_gets_its_answers_and_keeps_whatever_else_it_has(asked: Path) -> None:
    done = answer(asked)
    written = items(asked / "a.json")
    assert len(done.made) == 2 * 9
    for before, after in zip(questions(), written, strict=True):
        assert {key: after[key] for key in before if key != "answers"} == {
            key: before[key] for key in before if key != "answers"
        }
        assert len(after["answers"]) == 2
        for one in after["answers"]:
            assert set(one) == {"generated", "tokens", "finish"}
            assert (one["tokens"] == 6) == (one["finish"] == "length")
    assert leftovers(asked) == []
    assert not Journal(asked / "a.json").path.exists()


def test_the_settings_stand_in_every_record_answered_and_nothing_that_changes_by_itself(asked: Path) -> None:
    answer(asked, sampling=replace(DRAWN, stop=("K",), top_p=0.9))
    made = items(asked / "a.json")[0]["generation"]
    assert made["sampling"] == {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 6, "stop": ["K"], "seed": 3}
    assert made["model"] == "Llama-tiny-llama"
    assert made["end_tokens"] == [2]
    assert made["intervention"] is None
    assert (made["engine"], made["dtype"], made["device"][:3]) == ("transformers", "float32", "cpu")
    assert {"config_hash", "weights_hash", "torch", "transformers", "version", "batch_tokens"} <= set(made)
    assert {json.dumps(item["generation"]) for item in items(asked / "a.json")} == {json.dumps(made)}


def test_answers_are_the_engine_s_and_the_corpus_can_be_counted(asked: Path) -> None:
    from language_neurons_alignment.corpus.encode import Prompt

    done = answer(asked, sampling=GREEDY, n=1)
    engine = TransformersEngine.load(asked / "tiny-llama", device="cpu")
    for record in done.corpus.records:
        prompt = Prompt(tuple(engine.tokenizer.encode(record.instruction)))
        assert record.answers == (engine.generate([prompt], sampling=GREEDY)[0].text,)
    assert read_corpus(asked / "a.json").records == done.corpus.records
    write_corpus(asked / "corpus.json", items(asked / "a.json"))
    assert len(run(asked).collected) == 3


def test_a_table_per_language_counts_what_there_is_and_what_is_new(asked: Path) -> None:
    corpus = questions()
    corpus[0]["answers"] = [{"generated": " mine"}]
    write_corpus(asked / "corpus.json", corpus)
    english, spanish, _ = answer(asked).per_language
    assert (english.language, english.questions, english.answers, english.made) == ("en", 3, 6, 5)
    assert (spanish.answers, spanish.made) == (6, 6)
    made = [one for item in items(asked / "a.json")[3:6] for one in item["answers"]]
    assert spanish.tokens == sum(one["tokens"] for one in made)
    assert spanish.cut_off == sum(one["finish"] == "length" for one in made)


# ── What is there already ───────────────────────────────────────────────────────────────────────────────────────────


def test_answers_that_are_there_are_kept_with_all_their_keys_and_filled_up(asked: Path) -> None:
    corpus = questions()
    corpus[4]["answers"] = [{"generated": " mine", "score": 0.5}]
    corpus[5]["answers"] = [{"generated": f" {n}"} for n in range(3)]
    write_corpus(asked / "corpus.json", corpus)
    answer(asked)
    after = items(asked / "a.json")
    assert after[4]["answers"][0] == {"generated": " mine", "score": 0.5}
    assert len(after[4]["answers"]) == 2
    assert after[5] == corpus[5]
    assert "generation" not in after[5]


def test_two_answers_at_once_are_one_and_then_another(asked: Path) -> None:
    answer(asked, out=asked / "both.json")
    answer(asked, n=1)
    done = answer(asked, n=2)
    assert len(done.made) == 9
    assert items(asked / "a.json") == items(asked / "both.json")


def test_a_second_call_loads_no_model_and_changes_no_file(asked: Path) -> None:
    answer(asked)
    before, written = contents(asked), (asked / "a.json").stat().st_mtime_ns
    again = generate(idle(opened(asked)), out=asked / "a.json", answers=2, sampling=DRAWN)
    assert again.made == ()
    assert contents(asked) == before
    assert (asked / "a.json").stat().st_mtime_ns == written


def test_the_corpus_itself_can_be_filled_in_place(asked: Path) -> None:
    answer(asked, out=asked / "a.json")
    answer(asked, out=asked / "corpus.json")
    assert items(asked / "corpus.json") == items(asked / "a.json")


def test_only_the_languages_asked_for_are_answered_and_the_others_written_as_they_are(asked: Path) -> None:
    done = answer(asked, "es")
    assert [len(item["answers"]) for item in items(asked / "a.json")] == [0] * 3 + [2] * 3 + [0] * 3
    assert done.languages == ("es",)
    rest = answer(asked, "en", "es", "sw")
    assert len(rest.made) == 12
    whole = answer(asked, out=asked / "whole.json")
    assert whole.corpus.records == rest.corpus.records


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"sampling": replace(DRAWN, seed=4)}, r"seed \(3, not 4\)"),
        ({"sampling": replace(DRAWN, temperature=0.7)}, r"temperature \(0\.8, not 0\.7\)"),
        ({"sampling": replace(DRAWN, stop=("K",))}, r"stop \(\[\], not \['K'\]\)"),
    ],
)
def test_answers_made_otherwise_are_a_conflict_until_they_are_overwritten(
    asked: Path, other: dict[str, Any], said: str
) -> None:
    answer(asked)
    before = contents(asked)
    with pytest.raises(ConflictError, match=rf"a\.json holds answers made with other settings: {said}.*--overwrite"):
        answer(asked, **other)
    assert contents(asked) == before
    assert len(answer(asked, **other, overwrite=True).made) == 18


def test_answers_of_another_model_or_to_other_questions_are_a_conflict(asked: Path) -> None:
    answer(asked)
    change_weights(asked)
    with pytest.raises(ConflictError, match="weights hash"):
        answer(asked)
    answer(asked, overwrite=True)
    change_tokenizer(asked / "tiny-llama")
    with pytest.raises(ConflictError, match="tokenizer hash"):
        answer(asked)
    write_corpus(asked / "corpus.json", questions(count=2))
    with pytest.raises(ConflictError, match=r"a\.json is there with other questions than .*corpus\.json"):
        answer(asked)
    assert len(answer(asked, overwrite=True).made) == 12


def test_overwriting_drops_the_answers_of_the_languages_asked_for_and_of_no_others(asked: Path) -> None:
    answer(asked)
    before = items(asked / "a.json")
    answer(asked, "es", sampling=replace(DRAWN, seed=9), overwrite=True)
    after = items(asked / "a.json")
    assert after[:3] + after[6:] == before[:3] + before[6:]
    assert all(one["answers"] != other["answers"] for one, other in zip(after[3:6], before[3:6], strict=True))


# ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_can_be_refused_is_refused_before_a_model_is_loaded(asked: Path) -> None:
    session = idle(opened(asked))
    with pytest.raises(SettingsError, match="2 times the same answer"):
        generate(session, out=asked / "a.json", answers=2)
    with pytest.raises(CorpusError, match=r"no records in 'fr'"):
        generate(session, ["fr"], out=asked / "a.json")
    with pytest.raises(SettingsError, match="--overlong"):
        generate(session, out=asked / "a.json", overlong="drop")
    assert not (asked / "a.json").exists()


def test_prompts_too_long_are_an_error_or_answered_shortly_or_left_out(asked: Path) -> None:
    corpus = questions()
    corpus[0]["instruction"] = "x" * 2044  # 2045 tokens, of 2048
    write_corpus(asked / "corpus.json", corpus)
    with pytest.raises(CorpusError, match=r"1 of 9 prompts are too long.* 2045 tokens, with an answer of up to 6"):
        answer(asked, n=1)
    skipped = answer(asked, n=1, overlong="skip")
    assert (skipped.skipped, items(asked / "a.json")[0]["answers"]) == (1, [])
    answer(asked, n=1, overlong="truncate", sampling=replace(DRAWN, max_new_tokens=5), out=asked / "b.json")
    assert items(asked / "b.json")[0]["answers"][0]["tokens"] <= 3
    corpus[0]["instruction"] = "x" * 2047
    write_corpus(asked / "corpus.json", corpus)
    with pytest.raises(CorpusError, match="no room for an answer"):
        answer(asked, n=1, overlong="truncate", out=asked / "c.json")


def test_another_process_at_the_same_file_is_refused(asked: Path) -> None:
    with alone(asked / "a.json"), pytest.raises(ConflictError, match="another process is writing"):
        answer(asked)


# ── A run that is cut off ───────────────────────────────────────────────────────────────────────────────────────────

KILLED = """
    import os, signal, sys
    from language_neurons_alignment._generate import generate
    from language_neurons_alignment._session import open_session
    from language_neurons_alignment.config import Sampling
    from language_neurons_alignment.store.answers import Journal

    append, batches = Journal.append, []

    def kill_in_the_third(self, entry):
        batches.append(entry)
        if len(batches) == 3:
            with self.path.open("ab") as file:  # half of its line is on disk
                file.write(b'{"batch": [1, 2], "answ')
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, entry)

    Journal.append = kill_in_the_third
    with open_session("tiny-llama", "corpus.json", "small", device="cpu", batch_tokens=64) as session:
        generate(session, out="a.json", answers=2, sampling=Sampling(temperature=0.8, max_new_tokens=6, seed=3))
"""


@pytest.fixture
def killed(asked: Path) -> Path:
    """A folder in which a run was killed in its third batch."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED)], cwd=asked, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (asked / "a.json").exists()
    return asked


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_file_byte_for_byte(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = Journal(killed / "a.json").read()[1:]
    assert len(entries) == 2
    asked_for: list[int] = []
    real = TransformersEngine.generate

    def counting(self: TransformersEngine, prompts: Any, **choices: Any) -> Any:
        asked_for.append(len(prompts))
        return real(self, prompts, **choices)

    monkeypatch.setattr(TransformersEngine, "generate", counting)
    with pytest.raises(
        ConflictError, match=r"partial\.jsonl is an unfinished run with other settings: seed \(3, not 4\)"
    ):
        answer(killed, sampling=replace(DRAWN, seed=4))
    done = answer(killed)
    assert done.resumed == sum(len(entry["answers"]) for entry in entries)
    assert sum(asked_for) == 18 - done.resumed, "nothing is computed twice"
    resumed = (killed / "a.json").read_bytes()
    assert not Journal(killed / "a.json").path.exists()
    answer(killed, overwrite=True)
    assert (killed / "a.json").read_bytes() == resumed, "an uninterrupted run gives the same"


def interrupted(folder: Path, *, after: int, **choices: Any) -> None:
    """A call that ends by an exception after so many batches."""
    real, done = TransformersEngine.generate, []

    def failing(self: TransformersEngine, prompts: Any, **more: Any) -> Any:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(1)
        return real(self, prompts, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersEngine, "generate", failing)
        with pytest.raises(KeyboardInterrupt):
            answer(folder, **choices)


@pytest.mark.parametrize("after", [0, 2])
def test_overwriting_too_goes_on_where_it_was_cut_off_and_the_old_file_stands_until_then(
    asked: Path, after: int
) -> None:
    answer(asked)
    before = (asked / "a.json").read_bytes()
    other = replace(DRAWN, seed=8)
    interrupted(asked, after=after, sampling=other, overwrite=True)
    assert (asked / "a.json").read_bytes() == before
    done = answer(asked, sampling=other, overwrite=True)
    assert (done.resumed > 0) == (after > 0)
    straight = answer(asked, sampling=other, out=asked / "straight.json")
    assert [r.answers for r in done.corpus.records] == [r.answers for r in straight.corpus.records]


def test_a_journal_whose_answers_are_all_in_the_file_is_forgotten(asked: Path) -> None:
    interrupted(asked, after=2)
    spent = Journal(asked / "a.json").path.read_bytes()
    answer(asked)
    Journal(asked / "a.json").path.write_bytes(spent)  # as if the kill had come between writing and cleaning up
    assert len(answer(asked, n=3).made) == 9
    assert not Journal(asked / "a.json").path.exists()


# ── Neurons off ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def masked(work: Path) -> Iterator[tuple[Path, Session, float]]:
    """The results of a whole run, their session, and its λ; and a corpus of questions alone beside them."""
    lam = run(work).identification.description.lam
    write_corpus(work / "q.json", questions())
    with open_session(str(work / "tiny-llama"), work / "q.json", "small", root=work / "out", device="cpu") as session:
        yield work, session, lam


OFF = Steps.parse("zero es")


def sets(session: Session, lam: float) -> NeuronSource:
    return neuron_source(session, top_rate=0.1, lam=lam)


def test_answers_with_neurons_off_are_those_of_the_engine_under_that_intervention(
    masked: tuple[Path, Session, float],
) -> None:
    from language_neurons_alignment.corpus.encode import Prompt

    folder, session, lam = masked
    done = generate(session, out=folder / "off.json", sampling=GREEDY, do=OFF, neurons=sets(session, lam))
    plain = generate(session, out=folder / "on.json", sampling=GREEDY)
    engine = session.source()
    prompts = [Prompt(tuple(engine.tokenizer.encode(record.instruction))) for record in done.corpus.records]
    with engine.intervene(sets(session, lam).intervention(OFF, engine.model)):
        expected = engine.generate(prompts, sampling=GREEDY, progress=lambda _: None)
    assert [record.answers[0] for record in done.corpus.records] == [one.text for one in expected]
    assert [record.answers for record in done.corpus.records] != [record.answers for record in plain.corpus.records]
    made = items(folder / "off.json")[0]["generation"]["intervention"]
    assert {key: made[key] for key in ("do", "classes", "top_rate", "lambda", "means")} == {
        "do": ["zero es"], "classes": ["specific", "related"], "top_rate": 0.1, "lambda": lam, "means": {},
    }  # fmt: skip
    with pytest.raises(ConflictError, match="intervention"):
        generate(session, out=folder / "off.json", sampling=GREEDY)


@pytest.mark.parametrize("before", [None, {"language": "es", "classes": ["specific"], "mask": "00"}])
def test_answers_described_before_there_was_do_are_known_again(
    masked: tuple[Path, Session, float], before: dict[str, Any] | None
) -> None:
    folder, session, _ = masked
    generate(session, out=folder / "a.json", sampling=GREEDY)
    old = items(folder / "a.json")
    for record in old:
        del record["generation"]["intervention"]
        record["generation"]["deactivated"] = before
    write_corpus(folder / "a.json", old)
    if before is None:
        assert not generate(session, out=folder / "a.json", sampling=GREEDY).made
    else:
        with pytest.raises(ConflictError, match="intervention"):
            generate(session, out=folder / "a.json", sampling=GREEDY)


def test_answers_under_an_intervention_that_never_fired_are_an_error_and_not_kept(
    masked: tuple[Path, Session, float],
) -> None:
    folder, session, lam = masked
    with silent_hooks(), pytest.raises(SilentHookError, match="cannot be trusted"):
        generate(session, out=folder / "off.json", sampling=GREEDY, do=OFF, neurons=sets(session, lam))
    assert not (folder / "off.json").exists()
    done = generate(session, out=folder / "off.json", sampling=GREEDY, do=OFF, neurons=sets(session, lam))
    assert not done.resumed


def test_changing_no_neuron_is_refused(masked: tuple[Path, Session, float]) -> None:
    folder, session, lam = masked
    empty = sets(session, lam)
    assert empty.mask is not None
    empty.mask.tensor[:] = False
    with pytest.raises(SettingsError, match=r"'zero es' would change nothing, for .* has no specific, related neurons"):
        generate(session, out=folder / "off.json", sampling=GREEDY, do=OFF, neurons=empty)


# ── A run that begins with questions ────────────────────────────────────────────────────────────────────────────────

ASKING = replace(SETTINGS, answers=2, sampling=DRAWN)


def test_a_run_on_questions_answers_them_first_and_leaves_the_corpus_as_it_is(asked: Path) -> None:
    before = (asked / "corpus.json").read_bytes()
    done = run(asked, ASKING)
    own = asked / "out" / "answers" / "small" / "answers.Llama-tiny-llama.json"
    assert done.generated is not None
    assert done.generated.corpus.path == own
    assert [len(item["answers"]) for item in items(own)] == [2] * 9
    assert (asked / "corpus.json").read_bytes() == before
    assert all(one.meta["sequences"] == 6 for one in done.collected)


def test_a_second_run_on_questions_computes_nothing_and_the_steps_by_hand_agree(asked: Path) -> None:
    from language_neurons_alignment.activation import collect_activations
    from language_neurons_alignment.pipeline import run_pipeline

    lam = run(asked, ASKING).identification.description.lam
    before = contents(asked)
    again = run_pipeline(idle(opened(asked)), LANGUAGES, ASKING)
    assert again.generated is not None
    assert again.generated.made == ()
    assert all(one.reused for one in again.collected)
    assert collect_activations(idle(opened(asked)), "es").reused
    assert perplexity_map(idle(opened(asked)), top_rate=0.1, lam=lam).computed == 0
    assert contents(asked) == before


def test_a_run_on_questions_with_other_choices_is_a_conflict_until_forced(asked: Path) -> None:
    run(asked, ASKING)
    other = replace(ASKING, sampling=replace(DRAWN, seed=5))
    with pytest.raises(ConflictError, match="seed"):
        run(asked, other)
    forced = run(asked, replace(other, overwrite=True))
    assert forced.generated is not None
    assert len(forced.generated.made) == 18
    assert not any(one.reused for one in forced.collected)


def test_answers_of_other_weights_are_not_taken_for_this_model_s(asked: Path) -> None:
    from language_neurons_alignment.activation import collect_activations

    run(asked, ASKING)
    shutil.rmtree(asked / "out" / "activations")
    change_weights(asked)
    with pytest.raises(CorpusError, match="none of 3 records has an answer"):
        collect_activations(opened(asked), "es")
    with pytest.raises(ConflictError, match="weights hash"):
        run(asked, ASKING)


def test_a_corpus_with_answers_is_left_alone_and_a_mixed_one_refused(fresh: Path) -> None:
    with opened(fresh) as session:
        assert ensure_answers(session, LANGUAGES) == (session, None)
    corpus = small_records(LANGUAGES)
    for record in corpus:
        record["answers"] = [] if record["lang"] == "sw" else record["answers"]
    write_corpus(fresh / "corpus.json", corpus)
    with pytest.raises(CorpusError, match=r"has answers in en, es and none in sw: .*lna generate.*--langs"):
        ensure_answers(idle(opened(fresh)), LANGUAGES)
    assert ensure_answers(idle(opened(fresh)), ("en", "es"))[1] is None


def test_further_languages_are_answered_when_they_are_first_wanted(asked: Path) -> None:
    with opened(asked) as session:
        first, _ = ensure_answers(session, ("en",), answers=2, sampling=DRAWN)
        assert [len(record.answers) for record in first.corpus.records] == [2] * 3 + [0] * 6
        _, more = ensure_answers(session, LANGUAGES, answers=2, sampling=DRAWN)
        assert more is not None
        assert len(more.made) == 12


def test_an_engine_that_fails_leaves_what_was_answered(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = TransformersEngine.generate, []

    def failing(self: TransformersEngine, prompts: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise EngineError("the model computed NaN")
        return real(self, prompts, **more)

    monkeypatch.setattr(TransformersEngine, "generate", failing)
    with pytest.raises(EngineError, match="NaN"):
        answer(asked)
    assert len(Journal(asked / "a.json").read()) == 2
    assert answer(asked).resumed > 0
