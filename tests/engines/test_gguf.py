"""GGUF files as models: weights equal to the folder's, and a tokenizer that is rebuilt, checked, or refused."""

from __future__ import annotations

import heapq
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from language_neurons_alignment._gguf import read_gguf
from language_neurons_alignment.corpus.encode import Framing, ScoredText
from language_neurons_alignment.corpus.records import Record
from language_neurons_alignment.engines import EngineSettings, _automatic
from language_neurons_alignment.engines import gguf as subject
from language_neurons_alignment.engines.checkpoint import layer_widths, load_config, load_end_tokens, load_tokenizer
from language_neurons_alignment.engines.transformers import TransformersEngine
from language_neurons_alignment.errors import ArtifactError, EngineError, LNAWarning, MissingEngineError
from language_neurons_alignment.store.checkpoint import read_checkpoint
from language_neurons_alignment.store.layout import results_name
from tests.engines.contract import assert_close, groups_of
from tests.tiny_models import SPECIALS, tiny_tokenizer

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("gguf", "accelerate")), reason="pip install gguf accelerate"
)
if find_spec("gguf") is not None:
    from tests.tiny_gguf import CHANGES, CONTROL, NORMAL, USER, byte_level_tables, save_tiny_gguf, sentencepiece_tables


def tables_for(kind: str) -> dict[str, Any]:
    return sentencepiece_tables() if kind == "gemma3_text" else byte_level_tables()


@pytest.fixture(scope="module")
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder, and the same model as a GGUF file."""
    folder = tmp_path_factory.mktemp("gguf")
    return folder / "model", save_tiny_gguf(
        request.param, folder / "model", folder / "tiny.gguf", tables=tables_for(request.param)
    )


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma 3 as a GGUF file."""
    folder = tmp_path_factory.mktemp("gemma")
    return save_tiny_gguf("gemma3_text", folder / "model", folder / "tiny.gguf", tables=sentencepiece_tables())


@pytest.fixture(scope="module")
def tokenizer(gemma: Path) -> Any:
    return load_tokenizer(str(gemma), None)


@pytest.fixture
def with_tables(gemma: Path, tmp_path: Path) -> Any:
    """Writes that file again with other tables or metadata."""

    def write(tables: dict[str, Any], **metadata: Any) -> Path:
        return save_tiny_gguf("gemma3_text", tmp_path / "m", tmp_path / "g" / "t.gguf", tables=tables, **metadata)

    (tmp_path / "g").mkdir()
    return write


def load(path: Path, **options: Any) -> TransformersEngine:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LNAWarning)
        return TransformersEngine.load(path, device="cpu", **options)


class TestWeights:
    @pytest.mark.parametrize("both", CHANGES, indirect=True)
    def test_counts_and_likelihoods_are_those_of_the_folder(
        self, both: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
    ) -> None:
        folder, file = both
        ours, theirs = load(file), load(folder)
        assert capfd.readouterr() == ("", ""), "nothing of the library's is printed"
        groups = groups_of(theirs.tokenizer)
        one, other = ours.count(groups), theirs.count(groups)
        for a, b in ((one.full, other.full), (one.prefix, other.prefix)):
            assert a.total_tokens == b.total_tokens
            assert torch.equal(a.over_zero, b.over_zero)
        texts = [ScoredText(tuple(theirs.tokenizer.encode(text))) for text in ("The 12 eggs", "ab abc Ünïcode")]
        assert_close(ours.log_likelihood(texts), theirs.log_likelihood(texts), rel=1e-6)
        assert ours.model.layer_widths == theirs.model.layer_widths == layer_widths(str(file))
        assert ours.model.max_length == theirs.model.max_length

    def test_quantized_weights_are_those_that_the_gguf_package_dequantises_and_it_is_said(self, tmp_path: Path) -> None:
        import gguf

        file = save_tiny_gguf("qwen2", tmp_path / "m", tmp_path / "q8.gguf", tables=byte_level_tables(), quantized=True)
        with pytest.warns(LNAWarning, match=r"q8\.gguf holds its weights as Q8_0, F32: they are dequantised"):
            engine = TransformersEngine.load(file, device="cpu")
        assert engine.provenance["gguf"] == "Q8_0, F32"
        assert engine.model.dtype == "float32"
        stored = {one.name: one for one in gguf.GGUFReader(file).tensors}["blk.1.ffn_gate.weight"]
        wanted = torch.from_numpy(gguf.dequantize(stored.data, stored.tensor_type))
        loaded = engine._network.model.model.layers[1].mlp.gate_proj.weight
        assert torch.equal(loaded, wanted)
        exact = load(tmp_path / "m")._network.model.model.layers[1].mlp.gate_proj.weight
        assert 0 < float((loaded - exact).detach().abs().max()) < 0.01
        assert load(file, dtype="bfloat16").model.dtype == "bfloat16"

    def test_names_and_digests_of_results_come_from_the_file(self, gemma: Path, tmp_path: Path) -> None:
        assert results_name(str(gemma)) == "Gemma3-tiny.gguf"
        first = read_checkpoint(str(gemma))
        changed = tmp_path / "tiny.gguf"
        content = bytearray(gemma.read_bytes())
        content[-1] ^= 1
        changed.write_bytes(content)
        assert first.config_hash
        assert first.difference(read_checkpoint(str(changed))) == "weights"

    def test_a_turn_s_end_ends_an_answer_too(self, with_tables: Any) -> None:
        file = str(with_tables({**sentencepiece_tables(), "eot_token_id": 6}))
        config, tokenizer = load_config(file, None), load_tokenizer(file, None)
        assert load_end_tokens(file, config=config, tokenizer=tokenizer, revision=None) == (1, 6)

    def test_auto_is_transformers_for_such_a_file(self, gemma: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("language_neurons_alignment.engines.find_spec", lambda name: object())
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert _automatic(EngineSettings(str(gemma))) == "transformers"
        assert _automatic(EngineSettings("folder")) == "vllm"


class TestRefused:
    def test_a_missing_package_with_the_command_that_installs_it(
        self, gemma: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(subject, "find_spec", lambda name: None if name == "gguf" else object())
        with pytest.raises(MissingEngineError, match=r"needs the package gguf: pip install 'language_.*\[gguf\]'"):
            load(gemma)

    @pytest.mark.parametrize(
        ("metadata", "said"),
        [
            ({"split__count": 3}, "one of 3 parts"),
            ({"gemma3__rope__scaling__type": "linear"}, r"rope\.scaling\.type 'linear'"),
            ({"general__type": "adapter"}, "a GGUF file of the type 'adapter', not a model"),
        ],
    )
    def test_what_transformers_would_read_wrongly(self, with_tables: Any, metadata: dict[str, Any], said: str) -> None:
        with pytest.raises(EngineError, match=said):
            load(with_tables(sentencepiece_tables(), **metadata))

    def test_an_adapter_beside_it(self, gemma: Path, tmp_path: Path) -> None:
        file = tmp_path / "m.gguf"
        file.symlink_to(gemma)
        (tmp_path / "adapter_config.json").write_text("{}")
        with pytest.raises(EngineError, match=r"m\.gguf lies beside an adapter \(adapter_config\.json\).* --adapter"):
            load(file)

    def test_a_file_that_was_cut_off_anywhere(self, gemma: Path, tmp_path: Path) -> None:
        content, cut = gemma.read_bytes(), tmp_path / "cut.gguf"
        header = content.index(b"token_embd.weight")
        for length in (*range(4, 40), *range(40, header, 997), header + 30):
            cut.write_bytes(content[:length])
            with pytest.raises(ArtifactError, match=r"cannot read the GGUF file .*download it again"):
                read_gguf(cut)

    @pytest.mark.parametrize(
        ("head", "said"),
        [
            (b"GGUF\x00\x00\x00\x03", "version 50331648, expected 2 or 3, little-endian"),
            (b"GGUF\x03\0\0\0" + b"\xff" * 16, "announces 18,446,744,073,709,551,615 values"),
        ],
    )
    def test_another_byte_order_and_absurd_numbers(self, tmp_path: Path, head: bytes, said: str) -> None:
        (tmp_path / "m.gguf").write_bytes(head + bytes(64))
        with pytest.raises(ArtifactError, match=said):
            load(tmp_path / "m.gguf")


def reference(tables: dict[str, Any], text: str) -> list[int]:
    """SentencePiece's own algorithm: cut out user-defined tokens, then merge the neighbours of the highest score.

    Of equal scores the leftmost goes first. Written from its description, and without the toolkit's or any library's
    code.
    """
    kinds, vocabulary = tables["token_type"], {token: i for i, token in enumerate(tables["tokens"])}
    whole = [token for i, token in enumerate(tables["tokens"]) if kinds[i] == USER]
    found: list[int] = []
    pending = ""

    def flush() -> None:
        parts = list(pending.replace(" ", "▁"))
        while True:
            queue = []
            for at in range(len(parts) - 1):
                index = vocabulary.get(parts[at] + parts[at + 1])
                if index is not None and kinds[index] == NORMAL:
                    heapq.heappush(queue, (-tables["scores"][index], at))
            if not queue:
                break
            at = queue[0][1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        for part in parts:
            octets = [] if part in vocabulary else [f"<0x{value:02X}>" for value in part.encode()]
            found.extend(vocabulary[one] for one in octets or [part])

    place = 0
    while place < len(text):
        token = max((one for one in whole if text.startswith(one, place)), key=len, default="")
        if token:
            flush()
            pending = ""
            found.append(vocabulary[token])
        else:
            pending += text[place]
        place += max(len(token), 1)
    flush()
    return found


class TestSentencePiece:
    TABLES = sentencepiece_tables() if find_spec("gguf") is not None else {}

    @settings(deadline=None, max_examples=400)
    @given(text=st.text(alphabet="thetheaab  \n1né好\U0001f600<>", max_size=40))
    def test_it_is_sentencepiece_s_own_algorithm(self, tokenizer: Any, text: str) -> None:
        assert tokenizer.encode(text) == [2, *reference(self.TABLES, text)]
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text

    def test_one_bos_in_front_of_every_text_and_none_twice(self, tokenizer: Any) -> None:
        framing = Framing.of(tokenizer)
        assert (framing.opening, framing.closing) == ((2,), ())
        for text in ("", "the", " the", "\n\nthe"):
            assert framing.encode(Record("en", text, ())).count(2) == 1

    @pytest.mark.parametrize(("bos", "add_bos", "add_eos"), [(0, True, False), (0, True, True), (2, False, False)])
    def test_bos_and_eos_as_the_file_says_also_where_bos_is_token_0(
        self, bos: int, add_bos: bool, add_eos: bool
    ) -> None:
        tables = {**self.TABLES, "bos_token_id": bos, "add_bos_token": add_bos, "add_eos_token": add_eos}
        header = read_header(tables)
        made = subject.rebuild(header)
        subject.check(made, header)
        framing = Framing.of(made)
        assert (framing.opening, framing.closing) == ((bos,) * add_bos, (1,) * add_eos)
        assert framing.encode(Record("en", "the", ())).count(bos) == int(add_bos)
        with pytest.raises(subject._UnfitError, match="the file asks for"):
            subject.check(made, read_header({**tables, "add_bos_token": not add_bos}))

    def test_saved_and_loaded_it_is_the_same(self, tokenizer: Any, tmp_path: Path) -> None:
        tokenizer.save_pretrained(tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        for text in (*subject.PROBES, "the  her\n\n", "<table>abc"):
            assert again.encode(text) == tokenizer.encode(text)

    def test_a_space_in_front_where_the_file_asks_for_one(self, with_tables: Any) -> None:
        tables = sentencepiece_tables()
        tables["token_type"] = [NORMAL if kind == USER else kind for kind in tables["token_type"]]
        del tables["add_space_prefix"]  # then there is one
        tokenizer = load_tokenizer(str(with_tables(tables)), None)
        assert tokenizer.encode("the") == [2, tables["tokens"].index("▁the")]
        assert tokenizer.decode(tokenizer.encode("the"), skip_special_tokens=True) == "the"


class TestByteLevel:
    def test_it_is_the_tokenizer_that_its_tables_were_made_from(self, tmp_path: Path) -> None:
        file = save_tiny_gguf("llama", tmp_path / "m", tmp_path / "t.gguf", tables=byte_level_tables())
        ours, theirs = load_tokenizer(str(file), None), tiny_tokenizer()
        for text in (*subject.PROBES, "abc the the é", "", "<s>a</s>"):
            assert ours.encode(text) == theirs.encode(text)
        assert [ours.bos_token, ours.eos_token, ours.unk_token, ours.pad_token] == ["<s>", "</s>", "<unk>", "<pad>"]
        assert set(ours.all_special_tokens) == set(SPECIALS)

    @pytest.mark.parametrize(
        ("pre", "pieces"),
        [
            ("gpt-2", ["Don", "'t", "ĠDON", "'", "T", "Ġ1234", "ĊĊĠ", "Ġx"]),
            ("smollm", ["Don", "'t", "ĠDON", "'", "T", "Ġ", "1", "2", "3", "4", "ĊĊĠ", "Ġx"]),
            ("llama-bpe", ["Don", "'t", "ĠDON", "'T", "Ġ", "123", "4", "ĊĊ", "Ġ", "Ġx"]),
            ("qwen2", ["Don", "'t", "ĠDON", "'T", "Ġ", "1", "2", "3", "4", "ĊĊ", "Ġ", "Ġx"]),
        ],
    )
    def test_how_a_text_is_split_before_its_bytes_are_merged(self, pre: str, pieces: list[str]) -> None:
        file = read_header({**byte_level_tables(), "pre": pre})
        split = subject.rebuild(file).backend_tokenizer.pre_tokenizer.pre_tokenize_str("Don't DON'T 1234\n\n  x")
        assert [piece for piece, _ in split] == pieces


def read_header(tables: dict[str, Any]) -> Any:
    from language_neurons_alignment._gguf import GgufHeader

    return GgufHeader({f"tokenizer.ggml.{name}": value for name, value in tables.items()}, {})


def spoilt(name: str) -> dict[str, Any]:
    """Tables with one fault."""
    tables = sentencepiece_tables()
    at = tables["tokens"].index
    if name == "merges that do not lead to its tokens":
        tables["scores"][at("th")] = tables["scores"][at("he")] = -500.0  # "the" can only be made of t and he, late
        tables["scores"][at("▁t")] = 5.0
        tables["tokens"][at("her")] = "hxr"
    elif name == "no scores":
        del tables["scores"]
    elif name == "scores of some":
        tables["scores"] = tables["scores"][:-1]
    elif name == "a BOS that is not there":
        tables["bos_token_id"] = 10**6
    elif name == "a BOS that is not named":
        del tables["bos_token_id"]
    elif name == "another kind":
        tables["model"] = "t5"
    elif name == "an unknown split":
        tables = {**byte_level_tables(), "pre": "of-next-year"}
    elif name == "no bytes":
        tables["token_type"] = [CONTROL if kind == 6 else kind for kind in tables["token_type"]]
    return tables


class TestCheck:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("merges that do not lead to its tokens", r"'hxr', token \d+, as"),
            ("no scores", "scores for none of them"),
            ("scores of some", r"\d+ tokens, and scores for \d+ of them"),
            ("a BOS that is not there", "its bos token is number 1000000 of"),
            ("a BOS that is not named", "do not say which token that is"),
            ("another kind", "of the kind 't5'"),
            ("an unknown split", "'of-next-year', and known are gpt-2, smollm"),
            ("no bytes", "comes back as"),
        ],
    )
    def test_a_tokenizer_that_cannot_be_trusted_is_refused_with_what_to_do(
        self, with_tables: Any, name: str, said: str
    ) -> None:
        with pytest.raises(EngineError, match=said) as refused:
            load(with_tables(spoilt(name)))
        assert "put the tokenizer.json and tokenizer_config.json of the model" in str(refused.value)

    def test_the_one_that_transformers_makes_of_a_gemma_is_refused(self, gemma: Path) -> None:
        theirs = AutoTokenizer.from_pretrained(gemma.parent, gguf_file=gemma.name)
        with pytest.raises(subject._UnfitError):
            subject.check(theirs, read_gguf(gemma))

    def test_the_model_s_own_beside_it_is_used_where_it_has_the_file_s_tokens(
        self, gemma: Path, with_tables: Any
    ) -> None:
        file = with_tables(spoilt("no scores"))
        load_tokenizer(str(gemma), None).save_pretrained(file.parent)
        with pytest.warns(LNAWarning, match="is used for .* cannot be trusted: .*scores for none"):
            tokenizer = load_tokenizer(str(file), None)
        assert tokenizer.encode("the") == [2, sentencepiece_tables()["tokens"].index("the")]
        tiny_tokenizer().save_pretrained(file.parent)
        with pytest.raises(
            EngineError, match=r"the tokenizer in .* is not that of .*: token 0 of the file is '<pad>'|BOS|'<eos>'"
        ):
            load_tokenizer(str(file), None)


TABLE = Path(__file__).resolve().parents[1] / "data" / "gemma3_270m_tokens.json"


def test_the_quick_reader_reads_the_same_from_plain_memory_and_is_given_back(gemma: Path) -> None:
    package = pytest.importorskip("gguf")
    plain = package.GGUFReader
    with subject.quick_reader():
        assert package.GGUFReader is not plain
        quick = package.GGUFReader(gemma)
    assert package.GGUFReader is plain
    assert type(quick.data) is np.ndarray
    slow = plain(gemma)
    assert list(quick.fields) == list(slow.fields)
    for name, field in slow.fields.items():
        assert [part.tobytes() for part in quick.fields[name].parts] == [part.tobytes() for part in field.parts], name
        assert (quick.fields[name].data, quick.fields[name].types) == (field.data, field.types)
    for one, other in zip(quick.tensors, slow.tensors, strict=True):
        assert (one.name, one.tensor_type, one.data.dtype, one.data.shape) == (
            other.name,
            other.tensor_type,
            other.data.dtype,
            other.data.shape,
        )
        assert one.data.tobytes() == other.data.tobytes()
