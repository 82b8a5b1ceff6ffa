"""How many layers and neurons a model has, from its config alone."""

from __future__ import annotations

from typing import Any

from ..errors import EngineError
from .sites import architecture_of


def model_shape(model_path: str) -> tuple[int, int]:
    """Layers, and neurons per layer, of a model folder or hub id; no weights are read.

    Raises:
        EngineError: there is no config, or it does not tell.
        UnknownArchitectureError: where its neurons are is not known.
    """
    from .transformers.loading import load_config

    config: Any = load_config(model_path, None)
    architecture_of(config)
    text = config.get_text_config()
    layers, d_mlp = getattr(text, "num_hidden_layers", None), _width(text)
    if not (isinstance(layers, int) and isinstance(d_mlp, int)):
        raise EngineError(f"the config of {model_path} does not tell how many layers and neurons it has")
    return layers, d_mlp


def _width(text: Any) -> int | None:
    """Neurons per layer; BLOOM's config names no width: its MLPs are 4 times as wide as its residual stream."""
    if text.model_type == "bloom":
        return 4 * text.hidden_size
    return getattr(text, "intermediate_size", None) or getattr(text, "ffn_dim", None)
