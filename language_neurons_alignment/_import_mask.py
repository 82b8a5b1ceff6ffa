"""Import a mask that was published elsewhere, so that the other steps find it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from .config import Selection
from .core.find import notes_on_masks
from .core.profiles import mask_members
from .core.widths import beyond, widths_of
from .errors import IncompatibleError, LNAWarning
from .languages import parse_languages
from .store.checkpoint import read_checkpoint
from .store.counts import load_span, widths_in
from .store.files import digest_of_bytes
from .store.layout import Layout
from .store.masks import Mask, MaskDescription, mask_hash
from .version import __version__


def import_mask(
    file: Path,
    layout: Layout,
    languages: Sequence[str],
    *,
    model_path: str,
    top_rate: float,
    lam: float,
    adapter: str | None = None,
    overwrite: bool = False,
) -> tuple[MaskDescription, Path]:
    """Store a published mask as this model's, with a description of where it came from.

    Warns of languages without any neuron.
    """
    Selection(top_rate, lam)
    languages = parse_languages(languages)
    if counted := layout.counted_languages():
        span, meta = load_span(layout.activation(counted[0]))
        (layers, d_mlp), widths = span.over_zero.shape, widths_in(meta)
    else:
        from .engines.checkpoint import layer_widths  # imports the transformers library, which masks need only here

        each = layer_widths(model_path)
        layers, d_mlp, widths = len(each), max(each), widths_of(each)
    published = Mask.load(file, d_mlp, languages, remedy="give a mask file").tensor
    if len(published) != layers:
        raise IncompatibleError(
            f"{file} is a mask for {len(published)} layers, {layout.model} has {layers}: give the model that it is of"
        )
    if widths is not None and (fault := beyond(published.any(dim=-1), widths, "a neuron of the mask")):
        raise IncompatibleError(f"{file}: {fault}; it is another model's mask: give the model that it is of")
    checkpoint = read_checkpoint(model_path, adapter=adapter)
    description = MaskDescription(
        languages=list(languages),
        top_rate=float(top_rate),
        lam=float(lam),
        bar=None,
        threshold=None,
        appear=[],
        classes={name: int(neurons.sum()) for name, neurons in mask_members(published).items()},
        neurons=dict(zip(languages, published.sum(dim=(0, 1)).tolist(), strict=True)),
        layers=layers,
        d_mlp=d_mlp,
        counts={},
        config_hash=checkpoint.config_hash,
        weights_hash=checkpoint.weights_hash,
        tokenizer_hash=checkpoint.tokenizer_hash,
        version=__version__,
        mask_hash=mask_hash(published),
        widths=widths,
        source={"file": file.name, "blake2b": digest_of_bytes(file.read_bytes())},
    )
    for note in notes_on_masks(description.neurons):
        warnings.warn(note, LNAWarning, stacklevel=2)
    path = layout.mask(top_rate, lam)
    Mask(tuple(languages), published, description).save(path, overwrite=overwrite)
    return description, path
