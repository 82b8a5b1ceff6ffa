"""Masks: which neurons belong to which language, in memory and on disk.

On disk a mask is a list of languages of lists of layers of neuron indices, the format that existing tools read, with
a JSON description beside it. In memory it is one `Mask`, whichever file it comes from. Single neurons, listed by hand
or by other tools, come from JSON and CSV files (`load_neurons`).
"""

from __future__ import annotations

import csv
import json
import math
import re
import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ..config import ENTROPY_LAMBDA, METHODS, RANDOM, Selection
from ..core.find import Found, notes_on, notes_on_masks
from ..core.frames import Columns, Framed, html_table
from ..core.model import MOST_LAYERS, WIDEST, ModelInfo
from ..core.profiles import language_profile, mask_members
from ..core.selection import MaskList, appear, from_mask_list, neurons_of_language, to_mask_list
from ..core.sweep import fine_from, largest_fine_lambda, notes_on_lambda
from ..core.widths import Widths, beyond, size_in_words, widths_fault
from ..errors import ArtifactError, ConflictError, IncompatibleError, MissingArtifactError, SettingsError
from ..languages import DEFAULT_LANGUAGES, code_or_name, parse_languages
from ..version import __version__
from .checkpoint import Checkpoint
from .counts import AnswerCounts, load_answer_counts, stored_hash
from .files import Json, atomic_files, digest_of_bytes, load_tensors, save_tensors
from .layout import Layout, rates_of, with_ending

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..plots.figures import Figure

IDENTIFY = "make it with `lna identify`"
REPLACE = "replace it with `lna identify --force`"

_NUMBER = re.compile(r"\s*-?[0-9]{1,10}\s*")

_OWN_DIGEST = "description_hash"
"""In the file of a description: the digest of all the rest of it."""

FEW_TOKENS = 10
"""With fewer answer tokens than this, probabilities come in steps of more than 0.1."""

_NOTED = ("widths", "tokenizer_hash", "largest_lam", "searched_to")
"""In a description only where there is something to say."""

UNNAMED = "unnamed"
"""The language of a mask that was published without a description and has one language only."""


@dataclass(frozen=True)
class MaskDescription:
    """What a mask was made from, and how; it lies beside the mask as JSON.

    Attributes:
        languages: in the order of the mask file.
        top_rate: share of neurons selected; for a method that takes N per language, the share that these make up.
        lam: λ; None for methods without.
        bar: activation bar; None for an imported mask and for sets made of masks, as is τ, the threshold.
        appear: selected neurons above τ in exactly j languages, j = 0..K; empty for an imported mask.
        classes: neurons per class ("specific", "related", "general", "unassigned"; imported masks: the first two).
        neurons: neurons per language.
        counts: digest of each language's counts; empty for an imported mask.
        config_hash, weights_hash, tokenizer_hash: of the model; empty for counts that do not tell. The last is stored
            only where it is known.
        version: of this package.
        source: for an imported mask, the file's name and its digest; for sets made of masks, how, and of which.
        parameters: the method's parameters besides top rate, λ and bar: "neurons" per language, "seed".
        moments: digest of each language's moments, where the method reads them.
        left_out: languages that were asked for and have no answer token.
        mask_hash: digest of the neurons (`mask_hash`); empty where a version wrote it that did not note it.
        widths: the neurons of each layer, where layers differ; stored only then. `d_mlp` is the widest layer's.
        largest_lam: the largest λ with appear[K] = 0 on these counts; ∞, stored as "inf", if there is no largest. None
            if no λ has appear[K] = 0, for other methods than entropy-λ, and for masks of versions that did not note it.
        searched_to: λ, where it is the end of the range in which it was found; else None.
    """

    languages: list[str]
    top_rate: float
    lam: float | None
    bar: float | None
    threshold: float | None
    appear: list[int]
    classes: dict[str, int]
    neurons: dict[str, int]
    layers: int
    d_mlp: int
    counts: dict[str, str]
    config_hash: str
    weights_hash: str
    version: str
    source: dict[str, str] | None = None
    method: str = ENTROPY_LAMBDA
    parameters: dict[str, int] = field(default_factory=dict)
    moments: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    mask_hash: str = ""
    widths: Widths | None = None
    largest_lam: float | None = None
    searched_to: float | None = None
    tokenizer_hash: str = ""

    def lambda_notes(self, endless_from: float | None = None) -> list[str]:
        """Say in words where λ was cut off (`notes_on_lambda`)."""
        if self.lam is None or self.appear[-1:] != [0]:
            return []
        return notes_on_lambda(self.lam, largest=self.largest_lam, end=self.searched_to, endless_from=endless_from)

    @property
    def size(self) -> str:
        """The layers and neurons of the model, to be read."""
        return size_in_words(self.layers, self.d_mlp, self.widths)

    def plain(self) -> Json:
        """The description as plain values."""
        values = asdict(self)
        noted = {name: value for name in _NOTED if (value := values.pop(name)) not in (None, "")}
        if "widths" in noted:
            noted["widths"] = list(noted["widths"])
        if noted.get("largest_lam") == math.inf:
            noted["largest_lam"] = "inf"  # JSON has no infinity
        return values | noted


def describe(
    found: Found, counts: AnswerCounts, selection: Selection, *, moments: Mapping[str, str]
) -> MaskDescription:
    """Say what neurons were found in, and how; `moments` are the digests of those that the method read."""
    layers, d_mlp = found.selected.shape
    parameters = {} if found.neurons is None else {"neurons": found.neurons}
    return MaskDescription(
        languages=list(counts.languages),
        top_rate=float(selection.top_rate)
        if selection.has_rate
        else int(found.selected.sum()) / found.statistics.neurons,
        lam=None if found.lam is None else float(found.lam),
        bar=float(selection.known_bar),
        threshold=found.threshold,
        appear=appear(found.above, found.selected, languages=len(counts.languages)).tolist(),
        classes=found.classes.sizes(),
        neurons=_sizes(counts.languages, found.mask),
        layers=layers,
        d_mlp=d_mlp,
        counts=counts.hashes,
        config_hash=counts.config_hash,
        weights_hash=counts.weights_hash,
        tokenizer_hash=counts.tokenizer_hash,
        version=__version__,
        method=selection.method,
        parameters={**parameters, "seed": selection.seed} if selection.method == RANDOM else parameters,
        moments=dict(moments),
        left_out=list(counts.left_out),
        mask_hash=mask_hash(found.mask),
        widths=counts.widths,
        largest_lam=_largest_lambda(found, selection),
        searched_to=found.lam if found.lam == selection.search.hi else None,
    )


def _largest_lambda(found: Found, selection: Selection) -> float | None:
    """The largest λ with appear[K] = 0, ∞ if there is no largest; None if no λ has it, or λ selects nothing."""
    if selection.method != ENTROPY_LAMBDA:
        return None
    largest = largest_fine_lambda(found.statistics, top_rate=selection.top_rate)
    return None if math.isnan(largest) else largest


def notes_on_found(found: Found, counts: AnswerCounts, description: MaskDescription) -> tuple[str, ...]:
    """Sentences about counts and neurons that a reader must know."""
    endless = description.largest_lam is not None and math.isinf(description.largest_lam)
    return (
        *counts.notes,
        *_notes_on_tokens(counts),
        *notes_on(found.statistics, counts.probability, counts.languages),
        *description.lambda_notes(fine_from(found.statistics, top_rate=description.top_rate) if endless else None),
        *notes_on_masks(description.neurons),
    )


def _notes_on_tokens(counts: AnswerCounts) -> list[str]:
    """Say which languages have few answer tokens, and which have the same counts as another."""
    notes, alike = [], defaultdict(list)
    if few := [f"{language} ({count})" for language, count in counts.answer_tokens.items() if count < FEW_TOKENS]:
        notes.append(f"few answer tokens, so probabilities in coarse steps, in {', '.join(few)}")
    for language, digest in counts.hashes.items():
        alike[digest].append(language)
    notes += [
        f"{', '.join(same)} have the same counts, so they cannot be told apart: was one text counted several times?"
        for same in alike.values()
        if len(same) > 1
    ]
    return notes


def _sizes(languages: Sequence[str], mask: Bool[Tensor, "layer neuron lang"]) -> dict[str, int]:
    return dict(zip(languages, mask.sum(dim=(0, 1)).tolist(), strict=True))


def load_description(path: Path) -> MaskDescription | None:
    """Read the description beside a mask; None where there is none, as for masks published elsewhere."""
    described = with_ending(path, ".json")
    try:
        content = json.loads(described.read_text(encoding="utf-8"))
        digest = content.pop(_OWN_DIGEST, "") if isinstance(content, dict) else ""
        read = _description(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{described} cannot be read ({error}): delete it and {IDENTIFY}") from error
    if digest not in ("", _content_hash(content)):
        raise IncompatibleError(
            f"{described} was changed after it was written, it does not match its own digest: restore it, or "
            f"{_again(read)}"
        )
    return _with_codes(read)


def _content_hash(content: Any) -> str:
    """The digest of what a description says, however its file is laid out."""
    return digest_of_bytes(json.dumps(content, sort_keys=True).encode())


def mask_hash(mask: Bool[Tensor, "layer neuron lang"]) -> str:
    """Return a digest of the neurons of each language, whatever file holds them.

    >>> mask = torch.tensor([[[True], [False]]])
    >>> mask_hash(mask) == mask_hash(torch.tensor([[[True], [False], [False]]])) != mask_hash(~mask)
    True
    """
    return _list_hash(to_mask_list(mask))


def _list_hash(listed: MaskList) -> str:
    """`mask_hash` of the stored form; neurons count as int64 in ascending order, as we write them."""
    shape = repr([[one.numel() for one in per_layer] for per_layer in listed])
    indices = (one.to(torch.int64).sort().values.numpy().tobytes() for per_layer in listed for one in per_layer)
    return digest_of_bytes(shape.encode(), *indices)


def _again(description: MaskDescription) -> str:
    """What to do where a mask and its description do not belong together."""
    if description.source is not None:
        return "import the mask again with `lna import-mask --force`"
    return REPLACE


def _description(content: Any) -> MaskDescription:
    """Read a description; TypeError or ValueError where a value is none that describes a mask."""
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__}, not an object")
    endless = {"largest_lam": math.inf} if content.get("largest_lam") == "inf" else {}
    read = MaskDescription(**{**content, **endless})
    number = (int, float)
    kinds: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("top_rate",), number),
        **dict.fromkeys(("lam", "bar", "threshold", "largest_lam", "searched_to"), (*number, type(None))),
        **dict.fromkeys(("layers", "d_mlp"), (int,)),
        **dict.fromkeys(("config_hash", "weights_hash", "tokenizer_hash", "version", "method", "mask_hash"), (str,)),
        **dict.fromkeys(("languages", "appear", "left_out"), (list,)),
        **dict.fromkeys(("classes", "neurons", "counts", "parameters", "moments"), (dict,)),
        "source": (dict, type(None)),
        "widths": (list, type(None)),
    }
    words = ("languages", "left_out", "counts", "moments", "source")
    numbers = ("appear", "classes", "neurons", "parameters", "widths")
    inner = {**dict.fromkeys(words, str), **dict.fromkeys(numbers, int)}
    for name, allowed in kinds.items():
        value = getattr(read, name)
        if type(value) not in allowed:
            raise TypeError(f"its {name} is {str(value)[:60]!r}")
        held = [] if name not in inner or value is None else value.values() if isinstance(value, dict) else value
        if wrong := [one for one in held if type(one) is not inner[name]]:
            raise TypeError(f"its {name} holds {str(wrong[0])[:60]!r}")
    if not read.languages or len(set(read.languages)) < len(read.languages):
        raise ValueError(f"its languages are {read.languages}, expected each once")
    if not (0 < read.top_rate <= 1 and read.layers > 0 and 0 < read.d_mlp <= WIDEST):
        raise ValueError(f"its top rate is {read.top_rate!r}, of {read.layers} × {read.d_mlp} neurons")
    if read.method not in METHODS:
        raise ValueError(f"its method is {read.method!r}, expected one of {', '.join(METHODS)}")
    if read.widths is None:
        return read
    if fault := widths_fault(read.widths, read.layers, read.d_mlp):
        raise ValueError(fault)
    return replace(read, widths=tuple(read.widths))


def _with_codes(described: MaskDescription) -> MaskDescription:
    """The description with one code for each language; earlier versions kept spellings such as "zh-CN"."""
    codes = {language: code_or_name(language) for language in described.languages}
    if len(set(codes.values())) < len(codes):  # languages that were two then
        return described
    by_language = {
        name: {codes.get(language, language): value for language, value in getattr(described, name).items()}
        for name in ("neurons", "counts", "moments")
    }
    return replace(described, languages=list(codes.values()), **by_language)


def _check_folder(path: Path, description: MaskDescription) -> None:
    """Raise IncompatibleError where a mask lies among results, in the folder of other rates than it was made with."""
    folder = path.absolute().parent
    if folder.parents[1].name != "activation_masks":
        return
    by_value = description.method == ENTROPY_LAMBDA and rates_of(folder.name)
    if by_value != (description.top_rate, description.lam) and folder.name not in _folders_of(description):
        raise IncompatibleError(
            f"{path} was made with top rate {description.top_rate!r} and λ {description.lam!r} by {description.method} "
            f"and lies in the folder {folder.name}: move it back to where it was written, or {_again(description)}"
        )


def _folders_of(description: MaskDescription) -> list[str]:
    """The names of the folders in which such a mask is written: by its rates, or by its neurons per language."""
    method, found = description.method, []
    neurons, seed = description.parameters.get("neurons"), description.parameters.get("seed", 0)
    with suppress(SettingsError):  # the method has no such folders
        found.append(Selection(description.top_rate, description.lam, method=method, seed=seed).folder)
    with suppress(SettingsError):
        found.append(Selection(method=method, neurons=neurons, seed=seed).folder)
    return found


def check_replaceable(path: Path, new: MaskDescription) -> None:
    """Raise ConflictError where the mask at `path` was made from anything else than `new` describes."""
    old = load_description(path)
    if old is None:
        raise ConflictError(f"{path} is there without a description of what it was made from: {REPLACE}")
    other = {
        "counts": "was made from other counts",
        "moments": "was made from other moments",
        "source": "is an imported mask, or comes from another import",
    }
    for name in ("source", "languages", "method", "parameters", "bar", "counts", "moments"):
        seen, wanted = getattr(old, name), getattr(new, name)
        if seen != wanted:
            shown = other.get(name, f"has {name} {seen}, this one {wanted}")
            raise ConflictError(f"{path} {shown}: {REPLACE}, or use another --root")


@dataclass(frozen=True, eq=False, repr=False)
class Mask(Framed):
    """The neurons of each language.

    One language of it (`mask["fr"]`) is a mask of that language alone. Masks are combined like sets, neuron by neuron:
    those of the same languages language by language, and a single language with each of theirs.

        & in both        | in either        - in the first alone        ^ in one of them alone

        >>> mask = Mask(("en", "fr"), torch.tensor([[[True, False], [True, True], [False, False]]]))
        >>> mask
        Mask(en 2, fr 1 of 1 × 3 neurons)
        >>> mask["en"] - mask["fr"]
        Mask(en - fr 1 of 1 × 3 neurons)
        >>> (mask["en"] & mask["fr"]).tensor[..., 0]
        tensor([[False,  True, False]])
        >>> mask.to_frame()
           layer  neuron languages
        0      0       0        en
        1      0       1     en+fr

    Attributes:
        languages: codes, in the order of the last axis.
        tensor: whether a neuron belongs to a language. A mask published without a description is only as wide as its
            largest index needs, until `over` widens it to a model.
        description: what it was made from; None for a mask published without one.
        path: the file that it was read from; None for a mask that was not.
        counts: the counts that it was found in, where they are in memory: they tell its general neurons, the mean
            activations of interventions, and the activity that controls match.
    """

    languages: tuple[str, ...]
    tensor: Bool[Tensor, "layer neuron lang"]
    description: MaskDescription | None = None
    path: Path | None = None
    counts: AnswerCounts | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        d_mlp: int | None = None,
        langs: str | Iterable[str] | None = None,
        *,
        remedy: str = IDENTIFY,
    ) -> Self:
        """Read a mask file, ours with the description beside it, or a published one.

        Args:
            path: the file.
            d_mlp: neurons per layer; None: as described, or as many as the largest index needs.
            langs: its languages, in its order, whatever a description says; None: as described, else the default ten,
                or `UNNAMED` where there is one.
            remedy: what to do when the file is missing or torn.

        Raises:
            MissingArtifactError: it is not there.
            ArtifactError: it is torn, no mask, or has an index of at least `d_mlp`.
            IncompatibleError: it has another number of languages, or other neurons than the description beside it is
                about; or that description was changed, or is of other rates than the folder.
        """
        path = Path(path)
        listed = _load_list(path, remedy)
        description = load_description(path) if langs is None else None
        if description is not None and description.mask_hash not in ("", _list_hash(listed)):
            raise IncompatibleError(
                f"{path} and {with_ending(path, '.json').name} come from two runs: the description belongs to other "
                f"neurons than the mask holds; {_again(description)}"
            )
        if description is not None:
            _check_folder(path, description)
        if langs is not None:
            languages = parse_languages(langs)
            expected, instead = "--langs names", "name its languages, in its order"
        else:
            unnamed = (UNNAMED,) if len(listed) == 1 else DEFAULT_LANGUAGES
            languages = unnamed if description is None else tuple(description.languages)
            expected, instead = "expected", "run `lna identify` again, or name its languages with `lna import-mask`"
        if len(listed) != len(languages):
            raise IncompatibleError(
                f"{path} has {len(listed)} languages, {expected} {len(languages)} ({', '.join(languages)}): {instead}"
            )
        if d_mlp is None:
            d_mlp = _width(listed) if description is None else _described_width(path, listed, description)
        mask = from_mask_list(listed, d_mlp=d_mlp)
        if description is not None and description.widths is not None:
            _check_within(path, mask, description.widths, f"it does not belong to its description; {REPLACE}")
        return cls(languages, mask, description, path)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the mask and its description; the mask last, so that its presence means that both are there.

        The description is the file's name with `.json` behind it.

        Raises:
            SettingsError: the mask has no description.
            ConflictError: another mask is there (another bar, other counts or languages), and not `overwrite`.
            ArtifactError: it cannot be written; what was there stays.
        """
        if self.description is None:
            raise SettingsError("a mask without a description cannot be stored: say what it was made from")
        path = Path(path)
        if path.exists() and not overwrite:
            check_replaceable(path, self.description)
        described = replace(self.description, mask_hash=_list_hash(self._list))
        content = described.plain()
        content[_OWN_DIGEST] = _content_hash(content)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        with atomic_files(with_ending(path, ".json"), path) as (description_file, mask_file):
            description_file.write(text.encode("utf-8"))
            save_tensors(self._list, mask_file)

    @property
    def name(self) -> str:
        """The mask in messages: its path."""
        return "the mask" if self.path is None else str(self.path)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of neurons of each language."""
        return _sizes(self.languages, self.tensor)

    def __getitem__(self, language: str) -> Self:
        """The neurons of a language.

        Raises:
            SettingsError: the mask does not have the language.
        """
        self.check_languages([language])
        column = self.languages.index(code_or_name(language))
        return self._made(self.languages[column : column + 1], self.tensor[..., column : column + 1], of=[self])

    def __and__(self, other: Mask) -> Self:
        return self._combined(other, "&", torch.logical_and)

    def __or__(self, other: Mask) -> Self:
        return self._combined(other, "|", torch.logical_or)

    def __xor__(self, other: Mask) -> Self:
        return self._combined(other, "^", torch.logical_xor)

    def __sub__(self, other: Mask) -> Self:
        return self._combined(other, "-", lambda one, two: one & ~two)

    def _combined(self, other: Mask, sign: str, combine: Callable[[Tensor, Tensor], Tensor]) -> Self:
        """Two masks as one: language by language, or each language with the other mask's only one."""
        if not isinstance(other, Mask):
            return NotImplemented
        if self.tensor.shape[:2] != other.tensor.shape[:2]:
            raise IncompatibleError(
                f"masks of {self._size} and of {other._size} neurons cannot be combined: give masks of models of one "
                "shape"
            )
        if self.languages != other.languages and len(other.languages) > 1:
            raise SettingsError(
                f"the neurons of {', '.join(self.languages)} and of {', '.join(other.languages)} cannot be combined: "
                "give the same languages, or one language on the right"
            )
        names = self.languages
        if names != other.languages and len(names) == 1:
            one, two = (_in_brackets(*each.languages) for each in (self, other))
            names = (f"{one} {sign} {two}",)
        made = f"{', '.join(self.languages)} {sign} {', '.join(other.languages)}"
        return self._made(names, combine(self.tensor, other.tensor), of=[self, other], how=made)

    def _made(self, languages: tuple[str, ...], tensor: Tensor, *, of: Sequence[Mask], how: str = "") -> Self:
        """A mask made of masks. Its description tells of which and, where they agree, of which model."""
        described = [one.description for one in of]
        if any(one is None for one in described):
            return type(self)(languages, tensor)
        first = next(one for one in described if one is not None)
        alike = {
            name: getattr(first, name) if len({getattr(one, name) for one in described}) == 1 else ""
            for name in ("config_hash", "weights_hash", "tokenizer_hash")
        }
        description = replace(
            first,
            languages=list(languages),
            bar=None,
            threshold=None,
            appear=[],
            classes={name: int(neurons.sum()) for name, neurons in mask_members(tensor).items()},
            neurons=_sizes(languages, tensor),
            counts={},
            moments={},
            left_out=[],
            mask_hash=mask_hash(tensor),
            largest_lam=None,
            searched_to=None,
            source={"made": how or languages[0], "of": " ".join(mask_hash(one.tensor) for one in of)},
            **alike,
        )
        counts = self.counts if all(one.counts is self.counts for one in of) else None
        return type(self)(languages, tensor, description, counts=counts)

    def columns(self) -> Columns:
        """A row for each neuron: layer, neuron, and the languages that it belongs to, joined by +."""
        layer, neuron = self.tensor.any(dim=-1).nonzero(as_tuple=True)
        of = self.tensor[layer, neuron].tolist()
        named = ["+".join(c for c, own in zip(self.languages, row, strict=True) if own) for row in of]
        return {"layer": layer.tolist(), "neuron": neuron.tolist(), "languages": named}

    def plot(self, *, title: str = "") -> Figure:
        """Draw how many neurons each language has in each layer.

        >>> Mask(("en", "fr"), torch.rand(4, 9, 2) < 0.5).plot(title="a model").get_suptitle()
        'a model'
        """
        from ..plots.figures import neurons_figure  # matplotlib takes a moment to load

        members = mask_members(self.tensor)
        return neurons_figure(language_profile(self.tensor, members=members, languages=self.languages), title=title)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{language} {count}" for language, count in self.sizes.items())
        lam = None if self.description is None or self.description.source else self.description.lam
        found = "" if lam is None else f"; λ = {lam:.6g}"
        return f"{type(self).__name__}({sizes} of {self._size} neurons{found})"

    def _repr_html_(self) -> str:
        members = mask_members(self.tensor)
        counts = language_profile(self.tensor, members=members, languages=self.languages).per_language.tolist()
        columns = {"language": list(self.languages), "neurons": list(self.sizes.values())}
        for k, name in enumerate(members):
            columns[name] = [row[k] for row in counts]
        return html_table(columns, caption=f"Language neurons of {self._size}")

    @property
    def _size(self) -> str:
        layers, d_mlp, _ = self.tensor.shape
        return size_in_words(layers, d_mlp, None if self.description is None else self.description.widths)

    def neurons_of(
        self, language: str, classes: Sequence[str], general: Bool[Tensor, "layer neuron"] | None = None
    ) -> Bool[Tensor, "layer neuron"]:
        """Return a language's neurons of some `CLASSES`; no mask holds the general ones (`general_neurons`).

        Raises:
            SettingsError: a language that the mask does not have, an unknown class, or the class general without
                the general neurons.
        """
        self.check_languages([language])
        column = self.languages.index(code_or_name(language))
        return neurons_of_language(self.tensor, column, classes=classes, general=general)

    def over(self, model: ModelInfo) -> Self:
        """Return the mask over a model's neurons.

        Raises:
            IncompatibleError: it was made for another number of layers or neurons.
            ArtifactError: it has neurons that the model does not have.
        """
        layers, width, _ = self.tensor.shape
        if layers != model.layers:
            raise IncompatibleError(
                f"{self.name} is a mask for {layers} layers, {model.path} has {model.layers}: "
                "give the model that it was made from"
            )
        described = None if self.description is None else self.description.widths
        if (
            width > model.d_mlp
            or (self.description is not None and width < model.d_mlp)
            or described not in (None, model.widths)
        ):
            raise ArtifactError(
                f"{self.name} is for {size_in_words(layers, width, described)} neurons per layer, {model.path} has "
                f"{model.size}; it is another model's mask: give the model that it was made from"
            )
        if model.widths is not None:
            remedy = "it is another model's mask: give the model that it was made from"
            _check_within(self.name, self.tensor, model.widths, remedy)
        if width == model.d_mlp:
            return self
        return replace(self, tensor=torch.nn.functional.pad(self.tensor, (0, 0, 0, model.d_mlp - width)))

    def check_languages(self, languages: Iterable[str]) -> None:
        """Raise SettingsError unless the mask has all these languages."""
        unknown = [language for language in languages if code_or_name(language) not in self.languages]
        if unknown:
            raise SettingsError(
                f"{self.name} has no neurons of {', '.join(unknown)}: choose --langs from {', '.join(self.languages)}"
            )

    def check_model(self, checkpoint: Checkpoint) -> None:
        """Raise IncompatibleError where the mask was made from another model; one that does not tell passes."""
        if self.description is not None:
            checkpoint.check_same(
                self.description,
                what=f"{self.name} was made from a model",
                remedy="give that model, or count and identify this one (under another --model-name or --root)",
            )

    def digest_of(self, classes: Sequence[str]) -> str:
        """Return a digest of the neurons of all languages; for general ones, of what they are found from."""
        found_from = self.description and (self.description.bar, self.description.counts)
        named = repr((self.languages, found_from if "general" in classes else None))
        indices = [neurons for per_layer in self._list for neurons in per_layer]
        parts = (part for one in indices for part in (one.numel().to_bytes(8, "little"), one.numpy().tobytes()))
        return digest_of_bytes(named.encode(), *parts)

    @cached_property
    def _list(self) -> MaskList:
        """The stored form."""
        return to_mask_list(self.tensor)


def open_mask(layout: Layout, *, top_rate: float, lam: float | None, checkpoint: Checkpoint) -> Mask:
    """Find a mask of the layout's method by its rates, and check that it was made from this model."""
    mask = Mask.load(layout.mask(top_rate, lam))
    mask.check_model(checkpoint)
    return mask


def general_neurons(
    mask: Mask, layout: Layout | None, counts: AnswerCounts | None = None
) -> Bool[Tensor, "layer neuron"]:
    """Find the general neurons, which no mask holds, in the counts that the mask was made from."""
    if mask.description is None:
        raise MissingArtifactError(
            f"{mask.name} has no description beside it, so its general neurons are unknown: {IDENTIFY}"
        )
    if mask.description.bar is None:
        raise MissingArtifactError(
            f"{mask.name} was imported or made of other masks, so its general neurons are unknown: leave general out "
            "of --classes, or count the model and make a mask with `lna identify`"
        )
    counts = counts or mask.counts
    if counts is None:
        if layout is None:
            raise MissingArtifactError(
                f"{mask.name} was read from a file, and its general neurons are in the counts that it was made from: "
                "take the neurons that counts.find_neurons() gives"
            )
        counts = load_answer_counts(layout, mask.languages)
    if counts.hashes != mask.description.counts:
        raise IncompatibleError(
            f"{mask.name} was made from other counts than those that are there now: run `lna identify --force`"
        )
    return counts.statistics(bar=mask.description.bar).general


def changed_counts(mask: Mask, layout: Layout) -> list[str]:
    """Return the languages whose counts, as their files say, are others now than those that a mask was made from."""
    made_from = {} if mask.description is None else mask.description.counts
    stored = {language: stored_hash(layout, language) for language in made_from}
    return [language for language, digest in stored.items() if digest not in (None, made_from[language])]


def _in_brackets(name: str) -> str:
    """The name of a set, as part of another one's."""
    return f"({name})" if " " in name else name


def _load_list(path: Path, remedy: str) -> MaskList:
    stored = load_tensors(path, remedy=remedy)
    listed = isinstance(stored, list) and all(isinstance(per_layer, list) for per_layer in stored)
    if not listed or not all(_is_indices(neurons) for per_layer in stored for neurons in per_layer):
        raise ArtifactError(
            f"{path} is not a mask: expected a list of languages of lists of layers of indices; {remedy}"
        )
    layers = sorted({len(per_layer) for per_layer in stored})
    if len(layers) != 1 or not 0 < layers[0] <= MOST_LAYERS:
        raise ArtifactError(
            f"{path} is not a mask: its languages have {', '.join(map(str, layers)) or 'no'} layers, expected the same "
            f"number in each, 1..{MOST_LAYERS}; {remedy}"
        )
    for language, per_layer in enumerate(stored):
        for layer, neurons in enumerate(per_layer):
            if fault := _fault_of(neurons):
                raise ArtifactError(f"{path} is not a mask: language {language}, layer {layer}, {fault}; {remedy}")
    return stored


def _is_indices(neurons: object) -> bool:
    """Whether these are indices; an empty tensor holds none, whatever its type."""
    if not isinstance(neurons, Tensor) or neurons.ndim != 1:
        return False
    return not neurons.numel() or neurons.dtype in (torch.int64, torch.int32)


def _fault_of(neurons: Tensor) -> str | None:
    """Say what is impossible about a layer's indices; None where nothing is. Their order means nothing."""
    if not neurons.numel():
        return None
    low, high = map(int, neurons.aminmax())
    if low < 0 or high >= WIDEST:
        return f"has neuron indices {low}..{high}, expected them in 0..{WIDEST - 1}: no model is wider"
    if neurons.numel() > 1 and not bool((neurons.diff() > 0).all()):
        twice = neurons.numel() - len(neurons.unique())
        return f"names {twice} neurons more than once" if twice else None
    return None


def _check_within(
    name: str | Path, mask: Bool[Tensor, "layer neuron lang"], widths: Sequence[int], remedy: str
) -> None:
    """Raise ArtifactError where a mask has a neuron beyond its layer's width."""
    if fault := beyond(mask.any(dim=-1), widths, "a neuron of the mask"):
        raise ArtifactError(f"{name}: {fault}; {remedy}")


def _width(listed: MaskList) -> int:
    """Neurons per layer that the largest index needs."""
    return 1 + max((int(neurons.max()) for per_layer in listed for neurons in per_layer if neurons.numel()), default=0)


def _described_width(path: Path, listed: MaskList, description: MaskDescription) -> int:
    """Neurons per layer as described, checked before a table of that size is made."""
    layers, width = description.layers, description.d_mlp
    needed = _width(listed)
    if layers != len(listed[0]) or type(width) is not int or not needed <= width <= WIDEST:
        raise ArtifactError(
            f"{path} has {len(listed[0])} layers and neuron indices up to {needed - 1}, its description says {layers} "
            f"layers of {width} neurons: they do not belong together; {REPLACE}"
        )
    return width


_SHAPE = "expected [[layer, neuron], …], or a CSV with the columns layer,neuron; numbers from 0"


def load_neurons(path: Path) -> Int64[Tensor, "place 2"]:
    """Read the (layer, neuron) places in a `.json` or `.csv` file."""

    def is_place(one: Any) -> bool:
        whole = isinstance(one, list) and len(one) == 2 and all(type(n) is int for n in one)
        return whole and 0 <= one[0] < MOST_LAYERS and 0 <= one[1] < WIDEST

    try:
        text = path.read_text(encoding="utf-8-sig")
        listed = json.loads(text) if path.suffix == ".json" else _rows(text)
    except FileNotFoundError:
        raise MissingArtifactError(f"{path} is not there: give a file of neurons") from None
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise ArtifactError(f"{path} cannot be read as neurons ({str(error)[:120]}): {_SHAPE}") from error
    wrong = [one for one in listed if not is_place(one)] if isinstance(listed, list) else [listed]
    if wrong:
        raise ArtifactError(f"{path} holds {reprlib.repr(wrong[0])!r}, which is no neuron: {_SHAPE}")
    return torch.tensor(listed, dtype=torch.int64).reshape(-1, 2)


def _rows(text: str) -> list[list[int]]:
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if not {"layer", "neuron"} <= set(table.fieldnames or ()):
        raise ValueError(f"its header is {','.join(table.fieldnames or ()) or 'missing'}")
    return [[_whole(row["layer"]), _whole(row["neuron"])] for row in table]


def _whole(text: str | None) -> int:
    """Read a number as written in plain digits; `int` would also read 1_000 and the digits of other scripts."""
    if text is None or not _NUMBER.fullmatch(text):
        raise ValueError(f"{str(text)[:40]!r} is not a whole number")
    return int(text)
