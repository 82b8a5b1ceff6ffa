"""A GGUF file on the command line: all steps on one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli.conftest import Lna


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("gguf", "accelerate")), reason="pip install gguf accelerate"
)
def test_all_steps_run_on_a_gguf_file_and_their_results_bear_its_name(lna: Lna, here: Path) -> None:
    from tests.tiny_gguf import save_tiny_gguf, sentencepiece_tables

    save_tiny_gguf("gemma3_text", here / "folder", here / "tiny.gguf", tables=sentencepiece_tables())
    flags = ("--model-path", "tiny.gguf", "-d", "datasets/mgsm.json", "-s", "mgsm", "--engine", "transformers")
    done = lna("run", *flags, "--langs", "es,en,sw", "-b", 0.8, "-r", 0.1, "-l", 0.1, "--controls", 0)
    assert done.code == 0, done.err
    assert "tiny.gguf holds its weights as F32: they are dequantised" in done.err
    names = {path.name for path in here.rglob("*Gemma3-tiny.gguf*")}
    assert {"activation.es.Gemma3-tiny.gguf.pt", "mask.Gemma3-tiny.gguf", "ppl.Gemma3-tiny.gguf.json"} <= names
    assert "already counted" in lna("activation", *flags, "-l", "es").err
    assert lna("dataset", "check", "datasets/mgsm.json", "--model-path", "tiny.gguf", "--no-language-id").code == 0
