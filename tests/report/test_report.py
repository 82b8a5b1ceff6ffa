"""The report shows the results' own numbers, says what is missing, and lets nothing in."""

from __future__ import annotations

import csv
import html
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from language_neurons_alignment import _report as reporting
from language_neurons_alignment._compare import comparison_of
from language_neurons_alignment._report import WrittenReport, write_report
from language_neurons_alignment.analysis import analysis_of, open_neurons
from language_neurons_alignment.errors import IncompatibleError, MissingArtifactError, SettingsError
from language_neurons_alignment.identify import identify
from language_neurons_alignment.plots.charts import LineChart
from language_neurons_alignment.report.page import render_page
from language_neurons_alignment.report.sections import (
    FigureSection,
    MissingSection,
    Part,
    Report,
    TableSection,
    pictures,
)
from language_neurons_alignment.store.layout import Layout, with_ending
from tests.report.conftest import CHOICE, RATES, composed, counted, identified, layouts, mapped
from tests.workspace import TEN, leftovers

ONE_MODEL = {"corpus", "lambda-path", "appear", "layers", "stages", "languages", "language-layers", "shared", "overlap",
             "sets", "perplexity"}  # fmt: skip
TWO_MODELS = {"flow", "change", "gained-lost", "alike", "groups", "shared-change"}


def table(written: WrittenReport, name: str) -> list[dict[str, str]]:
    """A figure's CSV file."""
    with (written.page.with_suffix("") / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_is_there_as_two_pictures_and_a_table(written: WrittenReport) -> None:
    assert {figure.name for figure in written.report.figures} == ONE_MODEL | TWO_MODELS
    assert written.report.missing == {}
    names = [picture.name for picture in pictures(written.report)]
    assert len(names) == len(set(names))
    assert [path.name for path in written.pictures] == [
        f"{name}.{end}" for name in names for end in ("png", "svg", "csv")
    ]
    for path in written.pictures:
        start = path.read_bytes()[:200]
        assert start.startswith({".png": b"\x89PNG", ".svg": b"<?xml"}.get(path.suffix, b"")), path
        assert start
    assert leftovers(written.page.parent) == []


def test_the_tables_of_one_model_are_its_analysis(written: WrittenReport, results: Path) -> None:
    found = analysis_of(open_neurons(Layout(results, "mgsm", "Llama-base"), CHOICE))
    for row, layer in zip(table(written, "layers"), found.classes.counts.tolist(), strict=True):
        assert [float(row[name]) for name in ("specific", "related", "general")] == layer[:3]
    for row, counts in zip(table(written, "languages"), found.languages.per_language.tolist(), strict=True):
        assert [float(row["specific: neurons"]), float(row["related: neurons"])] == counts
    cells = {(row["language"], int(row["layer"])): float(row["related neurons"])
             for row in table(written, "language-layers-related")}  # fmt: skip
    assert cells == {
        (code, layer): float(found.languages.counts[layer, k, 1]) for k, code in enumerate(TEN) for layer in range(6)
    }
    assert found.above is not None
    everywhere = found.above.all.sum(dim=0).tolist()
    assert [float(row["all neurons: neurons"]) for row in table(written, "shared")] == everywhere[1:]
    for row in table(written, "overlap-jaccard"):
        one, other, shown = row.values()
        expected = float(found.overlap.jaccard[TEN.index(one), TEN.index(other)])
        if one != other and not math.isnan(expected):
            assert float(shown) == expected


def test_the_tables_of_the_comparison_are_the_comparison(written: WrittenReport, results: Path) -> None:
    models = [open_neurons(Layout(results, "mgsm", name), CHOICE) for name in ("Llama-base", "Llama-aligned")]
    (pair,) = comparison_of(models, trained=("zh", "de")).pairs
    total, states = pair.classes.total, pair.classes.states
    for row in table(written, "flow"):
        before, after, neurons = row.values()
        assert float(neurons) == float(total[states.index(before), states.index(after)])
    change = [[float(value) for value in list(row.values())[1:]] for row in table(written, "change-change")]
    assert change == pair.classes.change[:, :3].tolist()
    gained = [float(row["gained: mask neurons"]) for row in table(written, "gained-lost-all-mask")]
    assert gained == pair.languages.gained.sum(dim=0)[:, -1].tolist()
    groups = {row["languages"]: row for row in table(written, "groups")}
    assert set(groups) == {"trained", "untrained"}
    shown = float(groups["trained"]["related: mean change of neurons"])
    assert shown == float(pair.groups.means[0, pair.groups.classes.index("related")])


def test_the_perplexity_map_is_shown_in_both_scales_and_in_every_variant(written: WrittenReport) -> None:
    (figure,) = (one for one in written.report.figures if one.name == "perplexity")
    assert [view.name for view in figure.views] == ["percent", "log1p", "specific-percent", "specific-log1p"]
    for row in table(written, "perplexity-percent"):
        off, text, percent = row.values()
        assert float(percent) == pytest.approx(100.0 * (TEN.index(off) + 1) / (TEN.index(text) + 1))


def test_the_picture_the_page_and_the_table_show_the_same_numbers(written: WrittenReport) -> None:
    page = written.page.read_text(encoding="utf-8")
    payload = json.loads(re.search(r'id="page-payload">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    bars = payload["figures"]["appear"][0]
    shown = [sum(one["values"][j] or 0 for one in bars["panels"][0]["series"]) for j in range(11)]
    assert sum(shown) == round(RATES.top_rate * 6 * 80)
    rows = table(written, "appear")
    assert shown == [sum(float(value or 0) for value in list(row.values())[1:]) for row in rows]
    heat = payload["figures"]["language-layers"][0]
    assert heat["exact"] == [[f"{value:.0f}" for value in row] for row in heat["values"]]


def test_the_same_results_give_the_same_files_byte_for_byte(
    written: WrittenReport, monkeypatch: pytest.MonkeyPatch, results: Path, tmp_path: Path
) -> None:
    drawn = ("appear", "overlap-jaccard", "lambda-path-classes")
    monkeypatch.setattr(reporting, "pictures", lambda told: [one for one in pictures(told) if one.name in drawn])
    names = ("Llama-base", "Llama-aligned")
    out = tmp_path / written.page.name
    again = write_report(layouts(results, *names), CHOICE, called=names, trained=("zh", "de"), out=out)
    assert len(again.pictures) == 9
    for path in (again.page, *again.pictures):
        assert path.read_bytes() == (written.page.parent / path.relative_to(tmp_path)).read_bytes(), path


def test_what_is_missing_is_said_with_the_command_that_makes_it_and_leaves_no_empty_figure(tmp_path: Path) -> None:
    identified(counted(tmp_path, "Llama-base"))
    told = composed(tmp_path)
    (remedy,) = told.missing.values()
    assert remedy.endswith("lna ppl --model-path Llama-base -s mgsm -d DATA -r 0.2 -l 0.25")
    assert "perplexity" not in {figure.name for figure in told.figures}
    assert html.escape(remedy.split(". ")[1]) in render_page(told, folder="f")
    shutil.rmtree(tmp_path / "activations")
    alone = composed(tmp_path)
    assert len(alone.missing) == 4
    assert sum("lna activation" in remedy for remedy in alone.missing.values()) == 3
    assert {figure.name for figure in alone.figures} == ONE_MODEL - {
        "corpus",
        "lambda-path",
        "shared",
        "perplexity",
    }


def test_a_map_of_another_mask_and_an_unfinished_one_are_not_shown(tmp_path: Path) -> None:
    layout = counted(tmp_path, "Llama-base")
    found = identified(layout)
    path = mapped(layout, found, cells=100)
    (remedy,) = composed(tmp_path).missing.values()
    assert "not finished: 10 cells are missing" in remedy
    stale = path.with_name(f"{path.name}.json")
    content = json.loads(stale.read_text(encoding="utf-8"))
    stale.write_text(json.dumps({**content, "provenance": {**content["provenance"], "mask": "another"}}))
    (remedy,) = composed(tmp_path).missing.values()
    assert "another mask" in remedy
    assert remedy.endswith("--force")


def test_no_results_at_all_or_models_that_cannot_be_compared_are_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="lna activation"):
        write_report(layouts(tmp_path, "Llama-base"), CHOICE)
    counted(tmp_path, "Llama-other")
    (base,), small = layouts(results, "Llama-base"), Layout(tmp_path, "other", "Llama-other")
    (tmp_path / "activations" / "mgsm").rename(tmp_path / "activations" / "other")
    with pytest.raises(IncompatibleError, match="dataset"):
        write_report([base, small], CHOICE)
    with pytest.raises(SettingsError, match="html"):
        write_report([base], CHOICE, out=tmp_path / "page")
    assert not list(tmp_path.rglob("*.html"))


class Outline(HTMLParser):
    """Headings, ids, and everything that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.unnamed: list[str] = []
        self.captions = self.tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.captions += tag == "caption"
        self.tables += tag == "table"
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag in ("script", "img", "link", "iframe", "object", "video", "audio", "source"):
            self.loaded += [value for key in ("src", "href", "data") if (value := given.get(key))]
        if given.get("role") == "img" and not given.get("aria-label"):
            self.unnamed.append(str(given))


def without_scripts(page: str) -> str:
    return re.sub(r"(<script[^>]*>).*?(</script>)", r"\1\2", page, flags=re.S)


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(without_scripts(page))
    return found


def test_the_page_stands_alone_and_its_structure_is_sound(written: WrittenReport) -> None:
    page = written.page.read_text(encoding="utf-8")
    found = outline(page)
    assert [url for url in found.loaded if not url.startswith("data:")] == []
    assert "default-src 'none'" in page
    assert len(page.encode()) < 8_000_000
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(found.headings, found.headings[1:], strict=False))
    assert len(found.ids) == len(set(found.ids))
    assert found.unnamed == []
    assert found.captions == found.tables > 20
    page = without_scripts(page)
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert anchors <= set(found.ids)
    for link in set(re.findall(r'<a href="([^"#]+)"', page)):
        assert (written.page.parent / html.unescape(link)).is_file(), link


EVIL = "</script><script>alert('x')</script>&\"'<img src=x>"


def test_names_that_users_chose_are_shown_and_never_run() -> None:
    rows = ((EVIL, EVIL),)
    sections = (TableSection("t", EVIL, EVIL, (EVIL, "b"), rows), MissingSection("m", EVIL, EVIL, EVIL))
    evil, harmless = (
        Report(text, text, ((text, text),), (Part("p", text, told),), ("en",), 2)
        for text, told in ((EVIL, sections), ("", ()))
    )
    page = render_page(evil, folder=EVIL)
    assert EVIL not in page
    assert page.count("<script") == render_page(harmless, folder="").count("<script")
    assert html.escape("<img src=x>") in page


def test_a_figures_words_name_its_largest_number(written: WrittenReport) -> None:
    page = written.page.read_text(encoding="utf-8")
    (alt,) = re.findall(r'id="perplexity">.*?aria-label="(What breaks[^"]*)"', page, re.S)
    assert "Heatmap of 10 by 10" in alt
    assert "Largest: 1,000" in alt
    assert "Swahili" in alt
    assert "English" in alt


@pytest.mark.parametrize("figure", [FigureSection, TableSection])
def test_every_section_says_how_to_read_it(written: WrittenReport, figure: type) -> None:
    sections = [section for part in written.report.parts for section in part.sections if isinstance(section, figure)]
    assert sections
    for section in sections:
        assert len(section.reading) > 150, section.title


def test_the_lambda_path_reaches_past_lambda_and_says_what_half_of_it_would_do(tmp_path: Path) -> None:
    base = counted(tmp_path, "Llama-base", ("en", "es"))
    mapped(base, identified(base, ("en", "es")))

    def section() -> FigureSection:
        report = composed(tmp_path)
        return next(one for one in report.figures if one.name == "lambda-path")

    chart = section().views[0].chart
    assert isinstance(chart, LineChart)
    assert chart.x[-1] == 1.25 * RATES.lam  # type: ignore[operator]
    whole, half = (identify(base, ("en", "es"), replace(RATES, lam=lam)) for lam in (RATES.lam, RATES.lam / 2))  # type: ignore[operator]
    sizes = [int(one.mask.sum()) for one in (half, whole)]
    note = section().note
    assert f"At λ = 0.125, half of this λ, the masks have {sizes[0]:,} neurons instead of {sizes[1]:,}" in note
    kept = [int((half.mask & whole.mask)[..., k].sum()) / int(whole.mask[..., k].sum()) for k in (0, 1)]
    assert f"{100 * min(kept):.0f} % (" in note
    assert "Effects there: `lna identify --model-path Llama-base -s mgsm -r 0.2 -l 0.125`, then `lna ppl" in note
    path = mapped(base, half)
    stored = json.loads(with_ending(path, ".json").read_text(encoding="utf-8"))
    for cell in stored["cells"]:
        if cell["deactivated"] == cell["text_language"] == "es":
            cell["token"] = 150.0
    with_ending(path, ".json").write_text(json.dumps(stored), encoding="utf-8")
    assert (
        "a language's own perplexity changes by +100 % instead of +100 % (the median language; the most different is "
        "Spanish, +50 % instead of +100 %)."
    ) in section().note
