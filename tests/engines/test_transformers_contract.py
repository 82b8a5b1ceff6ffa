"""The engine contract on the transformers engine, and on the oracle that it is compared with."""

from __future__ import annotations

from pathlib import Path

from language_neurons_alignment.engines.transformers import TransformersEngine
from tests.engines.generation_contract import GenerationContract
from tests.engines.intervention_contract import InterventionContract
from tests.engines.oracle import NaiveEngine


def load_transformers(folder: Path, *, batch_tokens: int | None = None) -> TransformersEngine:
    return TransformersEngine.load(folder, device="cpu", dtype="float32", batch_tokens=batch_tokens)


def load_oracle(folder: Path, *, batch_tokens: int | None = None) -> NaiveEngine:
    return NaiveEngine(folder)


class TestTransformers(InterventionContract, GenerationContract):
    load = staticmethod(load_transformers)


class TestOracle(GenerationContract):
    load = staticmethod(load_oracle)

    test_an_intervention_for_another_model_is_refused = None  # it checks no shapes
    test_samples_are_the_same_for_a_seed_whatever_the_batch_and_the_order = None  # it is greedy
    test_samples_follow_the_model_s_probabilities = None
    test_samples_of_the_smallest_nucleus_are_the_greedy_answer = None
    test_greedy_answers_are_the_argmax_oracle_s_also_in_left_padded_batches = None  # it is the oracle
    test_an_answer_ends_in_front_of_the_first_stop_string = None
    test_an_answer_ends_where_the_model_s_length_does = None
    test_deactivation_changes_answers_as_it_does_the_oracle_s_and_is_gone_afterwards = None
    test_prompts_that_cannot_be_answered_are_refused = None  # it refuses nothing
    test_an_error_in_the_middle_leaves_the_engine_as_it_was = None  # it reports progress at the end only
    test_progress_adds_up_to_the_full_sequences = None  # it reports what it feeds, full and prefix
