"""What vLLM reads of a checkpoint and fills of its own weights: seen by what happens to tensors, whatever the names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig

from language_neurons_alignment.engines.transformers.loading import with_a_place
from language_neurons_alignment.engines.vllm.gather import check_loaded
from language_neurons_alignment.engines.vllm.messages import Message
from language_neurons_alignment.engines.vllm.weights import Reading
from language_neurons_alignment.errors import EngineError, LNAWarning
from tests.tiny_models import save_tiny_model

WEIGHTS = {
    "layers.0.mlp.gate.weight": torch.ones(4, 3),
    "layers.0.mlp.up.weight": torch.ones(4, 3),
    "layers.0.mlp.up.bias": torch.ones(4),
    "layers.0.mlp.down.weight": torch.ones(3, 4),
    "layers.0.mlp.down.bias": torch.zeros(3),
    "layers.0.scale": torch.ones(()),
    "layers.7.mlp.up.weight": torch.ones(4, 3).to(torch.float8_e4m3fn),
    "tower.0.up.weight": torch.ones(4, 3),
}


class Loading(nn.Module):
    """As a class of vLLM: gate and up in one matrix, parameters filled in several ways, unknown names passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.empty(8, 3))
        self.down = nn.Parameter(torch.empty(3, 4))
        self.scale = 0.0

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        for name, weight in weights:
            if name.startswith("layers.7") or name.startswith("tower"):
                continue
            if name.endswith("gate.weight"):
                self.both.data.narrow(0, 0, 4).copy_(weight.detach()[:])
            elif name.endswith("up.weight"):
                self.both.data[4:] = weight.to(torch.bfloat16)
            elif name.endswith("down.weight"):
                self.down.data = weight.view(3, 4)
            elif name == "layers.0.scale":
                self.scale = weight.item()


class Patient(Loading):
    """Takes all weights before it reads any."""

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        super().load_weights(list(weights))


def report(kind: Callable[[], Loading], names: Iterable[str] = WEIGHTS, *, quantized: bool = False) -> Message:
    model = kind()
    with torch.no_grad(), Reading(model) as reading:
        model.load_weights((name, WEIGHTS[name].clone()) for name in names)
    assert "load_weights" not in model.__dict__
    return reading.report(quantized=quantized)


@pytest.mark.parametrize("kind", [Loading, Patient])
def test_what_is_left_unread_is_named_unless_it_is_zero(kind: Callable[[], Loading]) -> None:
    assert report(kind) == {
        "unread": [
            ["layers.0.mlp.up.bias", True],
            ["layers.7.mlp.up.weight", False],
            ["tower.0.up.weight", False],
        ],
        "unfilled": [],
    }


def test_a_matrix_of_which_a_part_is_missing_is_named() -> None:
    incomplete = [name for name in WEIGHTS if not name.endswith("0.mlp.gate.weight")]
    assert report(Loading, incomplete)["unfilled"] == [["both", 12, 24]]
    assert report(Loading, incomplete, quantized=True)["unfilled"] == []
    with pytest.raises(EngineError, match=r"^vLLM filled 12 of the 24 numbers of both from the weights at x, .*again$"):
        check([report(Loading, incomplete)])


def check(reports: Sequence[Message], *, text_only: bool = True, missing: Sequence[str] = ()) -> list[str]:
    """The weights of which it is asked whether they have a place; all have but `missing`."""
    asked: list[str] = []

    def places(names: Sequence[str]) -> list[str]:
        asked.extend(names)
        return [name for name in names if name not in missing]

    check_loaded(reports, path="x", method=None, text_only=text_only, places=places)
    return asked


def test_an_unread_weight_is_refused_where_the_transformers_library_has_a_place_for_it() -> None:
    one, names = report(Loading), ["layers.0.mlp.up.bias", "layers.7.mlp.up.weight", "tower.0.up.weight"]
    assert check([one], missing=names) == names
    with pytest.raises(
        EngineError, match=r"^vLLM left 1 weights of x unread \(layers.0.mlp.up.bias\), .*transformers$"
    ):
        check([one], missing=names[1:])
    with pytest.raises(EngineError, match=r"left 1 weights of x unread \(layers.0.mlp.up.bias\)"):
        check([one], text_only=False)  # a layer or a tower that is left out as a whole is another part of the model


def test_a_rank_of_a_pipeline_leaves_out_what_another_one_reads() -> None:
    ranks: list[Message] = [{"unread": [[name, True]], "unfilled": []} for name in ("a.weight", "b.weight")]
    assert check(ranks) == []


def test_scales_that_are_left_unread_are_refused_whoever_has_a_place_for_them() -> None:
    unread = ["layers.0.up.weight_scale"]
    with pytest.raises(EngineError, match=r"1 of their scales were not read"):
        check([{"unread": [[name, True] for name in unread], "unfilled": []}], missing=unread)


def test_unread_weights_of_a_model_that_the_transformers_library_does_not_know_are_told() -> None:
    def places(_names: Sequence[str]) -> list[str]:
        raise EngineError("it is not known")

    with pytest.warns(LNAWarning, match=r"left 3 weights of x unread \(layers.0.mlp.up.bias, .*: it is not known$"):
        check_loaded([report(Loading)], path="x", method=None, text_only=True, places=places)


def test_which_weights_the_transformers_library_has_a_place_for(tmp_path: Path) -> None:
    file = save_tiny_model("llama", tmp_path / "model") / "model.safetensors"
    weights = load_file(file)
    more = ("model.layers.1.self_attn.q_proj.bias", "model.layers.0.self_attn.rotary_emb.inv_freq")
    save_file({**weights, **{name: torch.ones(2) for name in more}}, file, metadata={"format": "pt"})
    config = AutoConfig.from_pretrained(file.parent)
    names = ["model.layers.1.mlp.up_proj.weight", *more]
    assert with_a_place(str(file.parent), names, config=config, revision=None) == names[:1]
