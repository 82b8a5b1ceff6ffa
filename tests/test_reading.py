"""What a command reads, it reads once and before it computes: weights, counts, the words of --do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from language_neurons_alignment import _session
from language_neurons_alignment.activation import collect_activations
from language_neurons_alignment.config import EvaluationSettings, MapSettings
from language_neurons_alignment.errors import IncompatibleError, SettingsError
from language_neurons_alignment.ppl import perplexity_map
from language_neurons_alignment.store import checkpoint
from language_neurons_alignment.store.counts import save_counts
from language_neurons_alignment.store.layout import Layout
from tests.small_run import LANGUAGES, SETTINGS, layout_of, opened, run
from tests.test_import_mask import public_mask
from tests.workspace import made_up_counts


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file of tensors was read, and the weights."""
    seen: Counter[str] = Counter()
    load, sample = torch.load, checkpoint._weights_hash

    def counted(path: Path, **named: object) -> object:
        seen[Path(path).name] += 1
        return load(path, **named)  # type: ignore[arg-type]

    def sampled(folder: Path) -> str:
        seen["weights"] += 1
        return sample(folder)

    monkeypatch.setattr(torch, "load", counted)
    monkeypatch.setattr(checkpoint, "_weights_hash", sampled)
    return seen


def test_a_map_reads_the_counts_the_mask_and_the_weights_once(work: Path, lam: float, loads: Counter[str]) -> None:
    """General neurons and the activity of controls both come from the counts."""
    settings = MapSettings(classes=("specific", "general"), controls=2)
    with opened(work) as session:
        perplexity_map(session, top_rate=0.1, lam=lam, settings=settings)
    ours = {
        layout.activation(code, prefix=prefix).name
        for layout in (layout_of(work),)
        for code in LANGUAGES
        for prefix in (False, True)
    }
    # of the full files the meta is read before, without the counts, to see whether they are still the mask's
    assert {name: loads[name] for name in ours} == {name: 1 if name.startswith("prefix.") else 2 for name in ours}
    assert loads["mask.Llama-tiny-llama"] == loads["weights"] == 1


def test_a_map_with_means_reads_each_mean_and_the_weights_once(fresh: Path, loads: Counter[str]) -> None:
    lam = run(fresh, replace(SETTINGS, moments=True)).identification.description.lam
    loads.clear()
    with opened(fresh) as session:
        perplexity_map(session, top_rate=0.1, lam=lam, settings=MapSettings(do=("mean:each each",), controls=2))
    means = {layout_of(fresh).moments(code, prefix=prefix).name for code in LANGUAGES for prefix in (False, True)}
    assert {name: loads[name] for name in means} == dict.fromkeys(means, 1)
    assert loads["weights"] == 1


def test_counts_of_another_model_do_not_matter_where_no_control_is_drawn(work: Path, lam: float) -> None:
    layout = layout_of(work)
    for code in LANGUAGES:
        save_counts(layout, code, made_up_counts((3, 96)), {"config_hash": "other", "weights_hash": "other"})
    with opened(work) as session:
        with pytest.raises(IncompatibleError, match=r"with other config than the one in use: .* or use --controls 0"):
            perplexity_map(session, top_rate=0.1, lam=lam)
        assert perplexity_map(session, top_rate=0.1, lam=lam, settings=MapSettings(controls=0)).computed == 0


@pytest.mark.parametrize("settings", [MapSettings, EvaluationSettings])
def test_a_typo_in_a_step_shows_before_anything_is_opened(settings: type) -> None:
    with pytest.raises(SettingsError, match="unknown operation 'zeor'"):
        settings(do=("zeor each",))


def test_a_mask_is_imported_under_names_full_of_pattern_characters(tmp_path: Path) -> None:
    from language_neurons_alignment._import_mask import import_mask

    layout = Layout(tmp_path, "my[data]*", "Llama-a[b]?")
    save_counts(layout, "en", made_up_counts((5, 60)), {})
    save_counts(Layout(tmp_path, "my[data]*", "Llama-ab!"), "en", made_up_counts((2, 3)), {})
    described, path = import_mask(
        public_mask(tmp_path / "public.pth"), layout, ("en", "zh", "fr"), model_path="/x/a[b]?", top_rate=0.1, lam=0.0
    )
    assert (described.layers, described.d_mlp, path) == (5, 60, layout.mask(0.1, 0.0))


def test_results_under_a_name_with_a_hyphen_are_continued_from(work: Path) -> None:
    for path in (work / "out/activations/small").iterdir():
        path.unlink()
    with opened(work, model_name="my-own.name") as session:
        for language in LANGUAGES:
            collect_activations(session, language)
    found = _session.open_session(
        str(work / "tiny-llama"), work / "corpus.json", "small", root=work / "out", existing=True
    )
    assert found.layout.model == "my-own.name-tiny-llama"
