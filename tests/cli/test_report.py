"""`lna report` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from language_neurons_alignment import _report as reporting
from language_neurons_alignment.report.sections import pictures
from language_neurons_alignment.store.layout import Layout
from tests.cli.conftest import Lna
from tests.workspace import store_counts

RATES = ("-r", 0.2, "-b", 0.8, "--hi", 2)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Counts of two models, the same ones, in the current folder; of their pictures, one is drawn."""
    for name in ("Llama-base", "Llama-aligned"):
        store_counts(Layout(tmp_path, "mgsm", name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reporting, "pictures", lambda told: pictures(told)[:1])
    return tmp_path


def test_the_last_line_is_the_page_and_what_is_missing_is_said_with_its_command(lna: Lna, counted: Path) -> None:
    call = lna("report", "--model-path", "base", "--model-name", "Llama", "-s", "mgsm", "-l", 0.5, *RATES,
               "--title", "Ten languages", "--pdf")  # fmt: skip
    assert call.code == 0, call.err
    page = Path(call.lines[-1])
    assert page == Path("reports/mgsm/0.2-0.5/report.Llama-base.html")
    assert page.is_file()
    assert "<h1>Ten languages</h1>" in page.read_text(encoding="utf-8")
    assert len(list((page.parent / "report.Llama-base").iterdir())) == 4
    (pdf,) = (page.parent / "report.Llama-base").glob("*.pdf")
    assert b"/Type3" not in pdf.read_bytes(), "a font that journals refuse"
    assert b"/CIDFontType2" in pdf.read_bytes() or b"/TrueType" in pdf.read_bytes()
    assert "not drawn: What breaks" in call.err
    assert "lna ppl --model-path base -s mgsm -d DATA -r 0.2 -l 0.5" in call.err


def test_other_models_are_compared_and_the_page_goes_where_it_is_wanted(lna: Lna, counted: Path) -> None:
    call = lna("report", "--model-path", "base", "--model-name", "Llama", "-s", "mgsm", "-l", 0.5, *RATES,
               "aligned", "--trained", "zh,de", "-o", "out/both.html", "--json")  # fmt: skip
    assert call.code == 0, call.err
    assert call.json["page"] == "out/both.html"
    text = Path("out/both.html").read_text(encoding="utf-8")
    assert "Llama-base → Llama-aligned" in text
    assert "Trained languages and the others" in text
    assert "the same counts" in text, "and says that nothing differs"


@pytest.mark.parametrize(
    ("flags", "code", "named"),
    [
        (("--model-path", "nowhere", "-s", "mgsm"), 1, "lna activation"),
        (("--model-path", "base", "-s", "mgsm", "-o", "page.pdf"), 2, ".html"),
        (("--model-path", "base", "-s", "mgsm", "aligned", "--trained", "ko"), 2, "--trained"),
        (("--model-path", "base", "-s", "mgsm", "base"), 2, "given twice"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    lna: Lna, counted: Path, flags: tuple[str, ...], code: int, named: str
) -> None:
    call = lna("report", "--model-name", "Llama", *RATES, "-l", 0.5, *flags)
    assert (call.code, call.out) == (code, ""), call
    assert named in call.err
    assert "Traceback" not in call.err
    assert not list(counted.rglob("*.html"))
