"""Steps as one affine map: each operation by hand, order, controls' swaps, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from language_neurons_alignment._interventions import NeuronSource
from language_neurons_alignment._operations import Steps
from language_neurons_alignment.core.counts import LanguageMoments, SpanMoments
from language_neurons_alignment.core.interventions import Intervention
from language_neurons_alignment.core.selection import to_mask_list
from language_neurons_alignment.errors import IncompatibleError, MissingArtifactError, SettingsError
from language_neurons_alignment.languages import code_or_name
from language_neurons_alignment.store.checkpoint import read_checkpoint
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout
from tests.neuron_sets import NOWHERE, model_of, source_of
from tests.tiny_models import save_tiny_model
from tests.workspace import made_up_counts

SHAPE = (3, 8)
MODEL = model_of(SHAPE)


def draw(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SETS = {"en": draw(1) > 0.3, "fr": draw(2) > 0.3, "de": draw(3) > 0.3}
MEANS = {"en": draw(4), "fr": draw(5), "de": draw(6)}
SOURCE = source_of(MEANS, **SETS)
A = torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(7))


def apply(intervention: Intervention, activation: Tensor = A) -> Tensor:
    changed = activation.clone()
    for layer in intervention.layers:
        changed[:, layer] = intervention.layer(layer).apply_(changed[:, layer].clone())
    return changed


def done(*texts: str, activation: Tensor = A) -> Tensor:
    return apply(SOURCE.intervention(Steps.parse(texts), MODEL), activation)


def test_each_operation_is_its_equation() -> None:
    fr, mu = SETS["fr"], {language: mean.float() for language, mean in MEANS.items()}
    other = ((MEANS["en"] + MEANS["de"]) / 2).float()
    expected = {
        "zero fr": torch.zeros_like(A),
        "scale:-1.5 fr": -1.5 * A,
        "set:0.25 fr": torch.full_like(A, 0.25),
        "mean:en fr": mu["en"].expand_as(A),
        "replace:en fr": mu["en"].expand_as(A),
        "mean:fr fr": mu["fr"].expand_as(A),
        "add:de:-0.5 fr": A - 0.5 * mu["de"],
        "diffmean:fr fr": A + mu["fr"] - other,
    }
    for text, everywhere in expected.items():
        changed = done(text)
        assert torch.allclose(changed, torch.where(fr, everywhere, A), atol=1e-6), text
        assert torch.equal(changed[:, ~fr], A[:, ~fr]), "other neurons stay bit for bit"


def test_zero_is_deactivation_and_scale_0_is_zero_bit_for_bit() -> None:
    zero = Intervention.zero(SETS["fr"])
    for text in ("zero fr", "scale:0 fr", "scale:-0 fr", "set:0 fr", "set:-0.0 fr"):
        made = SOURCE.intervention(Steps.parse(text), MODEL)
        for one, other in ((made.scale, zero.scale), (made.shift, zero.shift)):
            assert one.dtype == other.dtype
            assert torch.equal(one.view(torch.int32), other.view(torch.int32)), text
    odd = torch.tensor([-0.0, float("inf"), float("-inf"), float("nan"), -1.0, 0.0, 1e30, -1e-40])
    for text in ("zero fr", "scale:0 fr", "set:0 fr"):
        changed = done(text, activation=odd.expand(1, *SHAPE).contiguous())[0][SETS["fr"]]
        assert torch.equal(changed, torch.zeros_like(changed))
        assert not changed.signbit().any(), "+0, also of −0 and of what is not finite"


@pytest.mark.parametrize("texts", [[], ["scale:1 fr"], ["add:en:0 fr"], ["scale:2 fr", "scale:0.5 fr"]])
def test_what_changes_nothing_touches_nothing(texts: list[str]) -> None:
    assert SOURCE.intervention(Steps.parse(texts), MODEL).layers == []


def test_steps_are_done_in_their_order() -> None:
    both = SETS["fr"] & SETS["de"]
    assert torch.equal(done("set:1 fr", "scale:3 de")[:, both], torch.full_like(A, 3.0)[:, both])
    assert torch.equal(done("scale:3 de", "set:1 fr")[:, both], torch.full_like(A, 1.0)[:, both])
    texts = ("scale:2 fr", "add:en:1 de", "scale:-1 fr + de", "mean:de en - fr")
    one_by_one = A
    for text in texts:
        one_by_one = done(text, activation=one_by_one)
    assert torch.allclose(done(*texts), one_by_one, atol=1e-5)


def test_a_swap_puts_other_neurons_in_the_place_of_each_step_s() -> None:
    doing = Steps.parse(["zero fr", "add:en:1 de"])
    swapped = SOURCE.intervention(doing, MODEL, swap=lambda neurons: neurons.roll(1, dims=1))
    expected = Intervention.zero(SETS["fr"].roll(1, dims=1)).then(
        Intervention.on(SETS["de"].roll(1, dims=1), shift=MEANS["en"])
    )
    assert torch.equal(swapped.scale, expected.scale)
    assert torch.equal(swapped.shift, expected.shift)


def test_an_empty_set_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    empty = source_of(**{**SETS, "sw": torch.zeros(SHAPE)})
    (tmp_path / "n.json").write_text("[]")
    for neurons, why in {
        "sw": "has no specific, related neurons of sw: choose other --classes",
        "sw:specific": "has no specific neurons of sw",
        "fr - fr": "no neurons are left in its set",
        f"@{tmp_path}/n.json": "has no neurons in it: give another file",
    }.items():
        doing = Steps.parse(["zero fr", f"zero {neurons}"])
        with pytest.raises(SettingsError, match=why):
            empty.opened(doing).intervention(doing, MODEL)
        allowed = empty.opened(doing).intervention(doing, MODEL, allow_empty=True)
        assert torch.equal(allowed.scale, Intervention.zero(SETS["fr"]).scale)


def test_a_word_that_stands_for_no_language_is_refused() -> None:
    with pytest.raises(SettingsError, match="each, target stands for no language here"):
        SOURCE.intervention(Steps.parse(["zero each", "mean:target fr"]), MODEL)


def test_diffmean_differs_from_the_other_languages_of_the_mask() -> None:
    with pytest.raises(SettingsError, match="diffmean:sw names no language of the mask: choose from en, fr, de"):
        SOURCE.opened(Steps.parse("diffmean:sw fr"))
    alone = source_of({"fr": MEANS["fr"]}, fr=SETS["fr"])
    with pytest.raises(SettingsError, match="no other language to differ from"):
        alone.intervention(Steps.parse("diffmean:fr fr"), MODEL)


@pytest.mark.parametrize(
    ("dtype", "texts", "largest"),
    [
        ("float32", ["set:1e39 fr"], "3.4"),
        ("float32", ["scale:1e39 fr"], "3.4"),
        ("float32", ["scale:1e30 fr", "scale:1e30 fr"], "3.4"),
        ("float16", ["set:70000 fr"], "65504"),
    ],
)
def test_numbers_that_the_precision_cannot_hold_are_refused(dtype: str, texts: list[str], largest: str) -> None:
    with pytest.raises(SettingsError, match=rf"comes to numbers above {largest}.*, the largest in {dtype}"):
        SOURCE.intervention(Steps.parse(texts), model_of(SHAPE, dtype=dtype))


def test_means_are_asked_for_before_the_model_and_refused_where_they_are_another_model_s(tmp_path: Path) -> None:
    bare = source_of(**SETS)
    for text in ("mean:en fr", "diffmean:fr fr", "add:target:1 each"):
        with pytest.raises(MissingArtifactError, match=r"lna activation --moments"):
            bare.opened(Steps.parse(text))
    bare.opened(Steps.parse("zero each"))
    layout = Layout(tmp_path / "out", "small", "Llama-tiny")
    ours = read_checkpoint(str(save_tiny_model("llama", tmp_path / "tiny-llama")))
    full, prefix = (
        SpanMoments(tokens, mean, mean.square() + tokens) for tokens, mean in ((1000, draw(8)), (250, 0 * draw(8)))
    )
    counts = replace(made_up_counts(SHAPE), moments=LanguageMoments(full, prefix))
    for other in (replace(ours, config_hash="other"), replace(ours, weights_hash="other")):
        meta = {"config_hash": other.config_hash, "weights_hash": other.weights_hash}
        save_counts(layout, "en", counts, meta)
        with pytest.raises(IncompatibleError, match=f"on a model with other {ours.difference(other)} than"):
            replace(bare, layout=layout, checkpoint=ours).opened(Steps.parse("mean:en fr"))
        read = replace(bare, layout=layout, checkpoint=other).opened(Steps.parse("mean:en fr"))
        assert torch.equal(read.mean("en", MODEL), draw(8) / 750)
    with pytest.raises(IncompatibleError, match=r"of \(3, 8\) \(layers, d_mlp\), nowhere has \(4, 8\)"):
        SOURCE.mean("en", model_of((4, 8)))


def test_files_and_means_are_read_when_a_source_is_opened_and_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "n.json").write_text("[[0, 1]]")
    torch.save(to_mask_list(torch.ones(*SHAPE, 1, dtype=torch.bool)), tmp_path / "mask.Llama-tiny")
    doing = Steps.parse([f"mean:en fr + @{tmp_path}/n.json", f"zero @{tmp_path}/mask.Llama-tiny"])
    source = SOURCE.opened(doing)
    code_or_name("no language")  # the names of languages are read once, when the first unknown one is looked up

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened in the middle of a computation")

    with monkeypatch.context() as patch:
        for name in ("builtins.open", "io.open", "torch.load", "pathlib.Path.read_bytes", "pathlib.Path.read_text"):
            patch.setattr(name, refuse)
        touched = source.intervention(doing, MODEL).touched
        told = source.describe(doing)
    assert touched.all()
    assert set(told["neurons"]) == {"fr", f"@{tmp_path}/n.json", f"@{tmp_path}/mask.Llama-tiny"}
    with pytest.raises(SettingsError, match="has not been read"):
        SOURCE.intervention(doing, MODEL)


def test_a_description_tells_what_was_done_and_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    path.write_text("[[0, 1]]")
    doing = Steps.parse([f"replace:en fr + @{path}", "zero each"])
    told = SOURCE.opened(doing).describe(doing)
    assert json.loads(json.dumps(told)) == told
    assert told["do"] == [f"mean:en fr + @{path}", "zero each"]
    assert set(told["neurons"]) == {"fr", f"@{path}", "each"}
    assert set(told["means"]) == {"en"}
    assert told["classes"] == ["specific", "related"]
    assert SOURCE.opened(doing).describe(doing) == told
    path.write_text("[[0, 2]]")
    assert SOURCE.opened(doing).describe(doing) != told
    path.write_text("[[0, 1]]")
    for other in (source_of({**MEANS, "en": MEANS["fr"]}, **SETS), source_of(MEANS, **{**SETS, "fr": SETS["de"]})):
        assert other.opened(doing).describe(doing) != told


def test_files_alone_need_no_mask(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("layer,neuron\n2,7\n")
    doing = Steps.parse(f"zero @{tmp_path}/n.csv")
    source = NeuronSource.open(NOWHERE, doing)
    assert source.intervention(doing, MODEL).touched.nonzero().tolist() == [[2, 7]]
    assert source.describe(doing)["lambda"] is None
