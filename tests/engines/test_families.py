"""The table of families: what it says of transformers models is proved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig

from language_neurons_alignment.engines import families as table
from language_neurons_alignment.engines.checkpoint import longest_sequence, rope_switch
from language_neurons_alignment.engines.families import (
    ENTRY_POINTS,
    FAMILIES,
    Family,
    TransformersPlace,
    experts_in,
    families,
    family_of,
    neurons_of,
    neurons_of_layers,
    neurons_per_layer,
)
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.engines.transformers.experts import experts_of
from language_neurons_alignment.engines.transformers.loading import auto_class
from language_neurons_alignment.engines.transformers.network import decoder_of
from language_neurons_alignment.engines.transformers.sites import find_sites, layer_widths
from language_neurons_alignment.errors import EngineError, UnknownArchitectureError
from tests.tiny_models import (
    CONFIGS,
    D_MLP,
    HIDDEN,
    RAGGED_WIDTHS,
    auto_model,
    often_and_seldom,
    save_quietly,
    tiny_config,
    tiny_tokenizer,
)


def decoder_of_kind(kind: str) -> tuple[PreTrainedConfig, nn.Module]:
    config = tiny_config(kind)
    return config, decoder_of(auto_model(config).from_config(config).eval())


def test_vllm_is_told_what_its_class_of_mimo_reads_under_other_names() -> None:
    config = tiny_config("mimo_v2_flash")
    told = family_of(config).for_vllm
    assert told is not None
    assert {
        "hybrid_layer_pattern": [0, 1, 0], "moe_layer_freq": [0, 1, 1], "rope_theta": 5e6, "swa_rope_theta": 1e4,
        "partial_rotary_factor": 0.334, "swa_num_key_value_heads": 4,
    }.items() <= told(config).items()  # fmt: skip
    config.rope_parameters["sliding_attention"]["partial_rotary_factor"] = 0.5
    with pytest.raises(UnknownArchitectureError, match=r"rotates 0\.334 of a head in some layers and 0\.5 in those"):
        told(config)


@pytest.mark.parametrize("kind", often_and_seldom(CONFIGS))
def test_every_layer_s_site_is_a_module_of_its_own_and_of_the_config_s_width(kind: str) -> None:
    config, decoder = decoder_of_kind(kind)
    sites = find_sites(decoder, family_of(config).transformers)
    text = config.get_text_config()
    assert sorted({site.layer for site in sites}) == list(range(text.num_hidden_layers))
    widths, alike = tuple(layer_widths(sites)), 4 * HIDDEN if kind in ("bloom", "mpt") else D_MLP
    if not any(site.experts for site in sites):
        assert widths == RAGGED_WIDTHS.get(kind, (alike,) * len(sites))
    assert widths == neurons_of_layers(config, text.num_hidden_layers)
    opened = {site.layer: site.experts for site in sites if site.experts is not None}
    assert experts_of(opened) == experts_in(config)
    assert len({id(site.module) for site in sites}) == len(sites)


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_the_table_says_is_what_is_found_without_it(kind: str) -> None:
    config, decoder = decoder_of_kind(kind)
    listed, found = find_sites(decoder, family_of(config).transformers), find_sites(decoder)
    assert [(one.activation, one.down, one.up) for one in listed] == [
        (one.activation, one.down, one.up) for one in found
    ]


@pytest.mark.parametrize("kind", ["mamba", "bert"])
def test_a_model_without_neurons_that_can_be_proved_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 320, "eos_token_id": 2}
    config = AutoConfig.for_model(kind, **sizes, num_attention_heads=4, num_key_value_heads=2)
    save_quietly(AutoModelForCausalLM.from_config(config), tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        UnknownArchitectureError, match=rf"(?i){kind}\w*, layer 0 .* cannot be proved: no place .*; such a model"
    ) as refused:
        TransformersEngine.load(tmp_path, device="cpu")
    assert "expert" not in str(refused.value)


@pytest.mark.parametrize("kind", ["mt5", "bart"])
def test_an_encoder_with_a_decoder_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 320, "d_model": 32, "d_ff": 48, "num_layers": 1, "encoder_layers": 1, "decoder_layers": 1}
    save_quietly(AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **sizes)), tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnknownArchitectureError, match=rf"(?i){kind}.* not a causal language model.* encoder"):
        TransformersEngine.load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("kind", "named", "loader"),
    [
        ("voxtral", "VoxtralForConditionalGeneration", "AutoModelForMultimodalLM"),
        ("emu3_text_model", "Emu3ForCausalLM", "Emu3ForCausalLM"),  # the text part of a larger model, saved alone
        ("qwen3", "Emu3ForCausalLM", "AutoModelForCausalLM"),
    ],
)
def test_what_a_model_is_loaded_with(kind: str, named: str, loader: str) -> None:
    assert auto_class(AutoConfig.for_model(kind, architectures=[named])).__name__ == loader


@pytest.mark.parametrize("named", [None, "GPT2LMHeadModel", "Emu3TextModel", "logging", "Nothing"])
def test_a_class_that_does_not_fit_the_config_is_not_taken(named: str | None) -> None:
    config = AutoConfig.for_model("emu3_text_model", architectures=named and [named])
    with pytest.raises(UnknownArchitectureError, match="neither of text alone nor of text with images or sounds"):
        auto_class(config)


def test_a_wrapper_that_is_not_listed_has_the_family_of_its_text() -> None:
    assert family_of(AutoConfig.for_model("lfm2_vl")) is FAMILIES["lfm2"]
    assert family_of(AutoConfig.for_model("aya_vision", text_config={"model_type": "cohere2"})) is FAMILIES["cohere2"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Makes an entry point known, as an installed package does."""

    def install(name: str, value: str) -> None:
        entry = EntryPoint(name, value, ENTRY_POINTS)
        monkeypatch.setattr(table, "entry_points", lambda *, group: [entry] if group == ENTRY_POINTS else [])
        table._from_packages.cache_clear()

    yield install
    table._from_packages.cache_clear()


MARTIAN = Family(TransformersPlace("floors", "brain.spark"))


def test_an_installed_package_brings_a_family(installed: Callable[[str, str], None]) -> None:
    installed("martian", f"{__name__}:MARTIAN")
    assert len(families()) == len(FAMILIES) + 1
    assert family_of(SimpleNamespace(model_type="martian")) is MARTIAN


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("martian", f"{__name__}:PHOBOS", "cannot be loaded: .*PHOBOS"),
        ("martian", "martian_models:MARTIAN", "cannot be loaded: No module named 'martian_models'"),
        ("martian", "json:loads", "gives a function, expected a Family"),
        ("llama", f"{__name__}:MARTIAN", "a family that is in the table already"),
    ],
)
def test_an_entry_point_that_brings_none_is_named(
    installed: Callable[[str, str], None], name: str, value: str, said: str
) -> None:
    installed(name, value)
    with pytest.raises(UnknownArchitectureError, match=rf"the entry point {name} = {value} of an installed .*{said}"):
        families()


def test_a_package_that_pip_installed_is_asked(tmp_path: Path) -> None:
    (tmp_path / "martian.py").write_text("MARTIAN = None\n")
    described = tmp_path / "martian_models-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: martian-models\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nmartian = martian:MARTIAN\n")
    code = "from language_neurons_alignment.engines.families import families; families()"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert "the entry point martian = martian:MARTIAN of martian-models gives a NoneType" in ran.stderr


def test_an_architecture_that_nobody_knows_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "martian"}))
    with pytest.raises(UnknownArchitectureError, match="martian"):
        TransformersEngine.load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("config", "tokenizer", "longest"),
    [
        ({"max_position_embeddings": 2048}, 10**30, 2048),
        ({"max_position_embeddings": 2048}, 512, 512),
        ({"seq_length": 1024}, 10**30, 1024),
        ({}, 4096, 4096),
        ({}, 10**30, 1_000_000_000),
    ],
)
def test_the_longest_sequence_is_what_config_and_tokenizer_both_allow(
    config: dict, tokenizer: int, longest: int
) -> None:
    assert longest_sequence(SimpleNamespace(**config), SimpleNamespace(model_max_length=tokenizer)) == longest


def test_only_longrope_switches_by_length() -> None:
    long = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
    assert rope_switch(SimpleNamespace(rope_parameters=long)) == 4096
    assert rope_switch(SimpleNamespace(rope_parameters={"full_attention": long, "sliding_attention": {}})) == 4096
    yarn = {"rope_type": "yarn", "original_max_position_embeddings": 4096}
    assert rope_switch(SimpleNamespace(rope_parameters=yarn)) is None
    assert rope_switch(SimpleNamespace()) is None


def test_the_table_needs_no_vllm() -> None:
    code = "import sys, language_neurons_alignment.engines.families; assert 'vllm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("layers", [0, -1, 2**11, 2**31 - 1])
def test_a_number_of_layers_that_only_damage_explains_is_refused_at_once(layers: int) -> None:
    with pytest.raises(EngineError, match=rf"names {layers:,} layers, expected 1 to 1,024: correct config.json"):
        neurons_of_layers(SimpleNamespace(model_type="llama", intermediate_size=4), layers)
    assert neurons_of({"model_type": "llama", "num_hidden_layers": layers, "intermediate_size": 4}) == 0


def test_a_config_that_does_not_tell_its_width_is_refused() -> None:
    with pytest.raises(EngineError, match="does not tell how many neurons a layer has"):
        neurons_per_layer(SimpleNamespace(model_type="llama"))
