"""Import a mask that was published elsewhere, so that the other steps find it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .config import Selection
from .core.profiles import mask_members
from .errors import IncompatibleError
from .languages import parse_languages
from .store.checkpoint import read_checkpoint
from .store.counts import load_span
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
    """Store a published mask as this model's, with a description of where it came from."""
    Selection(top_rate, lam)
    languages = parse_languages(languages)
    if counted := layout.counted_languages():
        layers, d_mlp = load_span(layout.activation(counted[0]))[0].over_zero.shape
    else:
        from .engines.checkpoint import model_shape  # imports the transformers library, which masks need only here

        layers, d_mlp = model_shape(model_path)
    published = Mask.load(file, d_mlp, languages, remedy="give a mask file").tensor
    if len(published) != layers:
        raise IncompatibleError(
            f"{file} is a mask for {len(published)} layers, {layout.model} has {layers}: give the model that it is of"
        )
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
        version=__version__,
        mask_hash=mask_hash(published),
        source={"file": file.name, "blake2b": digest_of_bytes(file.read_bytes())},
    )
    path = layout.mask(top_rate, lam)
    Mask(tuple(languages), published, description).save(path, overwrite=overwrite)
    return description, path
