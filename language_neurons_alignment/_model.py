"""What a model is, where its neurons are, the memory that it needs, and which engines serve it.

`describe_model` reads the config, and then loads the weights where they fit into memory: the places of the neurons are
proved on the loaded model (`engines.transformers.sites`), never assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch

from .core.routing import Experts
from .engines.checkpoint import DTYPES, expand, explained, load_config, longest_sequence
from .engines.families import check_vllm, class_name
from .engines.quantization import describe_quantization
from .engines.transformers import TransformersEngine
from .engines.transformers.engine import BATCH_TOKENS
from .engines.transformers.loading import auto_class, batch_bytes, free_memory, pick_device
from .errors import EngineError, UnknownArchitectureError

COUNT_BYTES = 2 * 8
"""Bytes of a neuron's two counts, of full and of prefix sequences, while it counts and in the count files."""

PROVED, REFUSED, NOT_TRIED = "proved", "refused", "not tried"


@dataclass(frozen=True)
class Memory:
    """Bytes that a model takes in one precision: its weights alone, and while it counts.

        counting = weights + tokens · (4 · d_mlp + 8 · hidden) · bytes + 2 · 8 · neurons

    `tokens` is the size of a batch; a layer holds a few tensors of both widths at a time; the counts of full and
    prefix sequences are whole numbers of eight bytes. An estimate: libraries and attention take some more.
    """

    weights: int
    counting: int


@dataclass(frozen=True)
class Places:
    """Where some neighbouring layers, `first` to `last`, keep their neurons: names of modules within a layer.

    A layer of a mixture of experts has one such place for its routed experts, and one for its shared ones.

    Attributes:
        neurons: how many each of these layers has there.
        activation: its output is the neurons' activation.
        up: the linear map whose output the activation is multiplied with; None in a plain MLP.
        down: the linear map that reads the product.
        experts: routed experts that the neurons belong to; 0 where they are computed for every token.
    """

    first: int
    last: int
    neurons: int
    activation: str
    up: str | None
    down: str
    experts: int = 0


@dataclass(frozen=True)
class ModelDescription:
    """What `describe_model` finds.

    Attributes:
        path, family, architecture: where it is, the `model_type` and the class named in its config.
        layers, neurons: of the decoder; 0 where the places of the neurons are not proved.
        experts: of a mixture of them, as proved; None elsewhere.
        parameters: of the whole model, a part for images included.
        proof: `PROVED`, `REFUSED` or `NOT_TRIED`; `said` tells what was seen or why not.
        memory: by precision.
        batch_tokens: the size of the batches that `memory` is about.
        quantization: how its weights are stored and used; "" for plain ones. `memory` is computed for plain weights.
        vllm: what the config says of the vLLM engine.
    """

    path: str
    family: str
    architecture: str
    layers: int
    neurons: int
    experts: Experts | None
    parameters: int
    vocabulary: int
    longest: int
    places: tuple[Places, ...]
    proof: str
    said: str
    memory: dict[str, Memory]
    batch_tokens: int
    vllm: str
    quantization: str = ""


def describe_model(
    model_path: str, *, dtype: str = "auto", device: str = "auto", load: bool = True, revision: str | None = None
) -> ModelDescription:
    """Describe a model folder or a hub id.

    Its weights are loaded, and the places of its neurons proved, with `load` and where they fit into the free memory
    of the device.

    >>> found = describe_model("model", device="cpu")
    >>> found.architecture, found.layers, found.neurons, found.proof
    ('LlamaForCausalLM', 3, 288, 'proved')
    >>> found.places[0].activation
    'mlp.act_fn'

    Raises:
        EngineError: there is no such model, or its files are damaged. A model whose neurons cannot be proved is no
            error: `proof` and `said` tell.
    """
    where = pick_device(device)
    path = expand(model_path)
    config = load_config(path, revision)
    text = config.get_text_config()
    family, architecture = str(config.model_type), class_name(config) or type(config).__name__
    try:
        parameters = parameters_of(config)
        proof, said = NOT_TRIED, "its weights were not loaded"
    except UnknownArchitectureError as error:
        parameters, proof, said = 0, REFUSED, str(error)
    chosen = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.") if dtype == "auto" else dtype
    weights, free = parameters * DTYPES.get(chosen, torch.float32).itemsize, free_memory(where)
    info, places = None, ()
    quantization = describe_quantization(config).get("quantization", "")
    if proof == NOT_TRIED and load:
        if weights > free:
            said = f"its weights take {in_gib(weights)} in {chosen}, and {in_gib(free)} of {where} are free"
        else:
            try:
                engine = TransformersEngine.load(model_path, device=str(where), dtype=dtype, revision=revision)
                info, places, proof, said = engine.model, _places(engine), PROVED, ""
                quantization = str(engine.provenance.get("quantization", ""))
                engine.close()
            except UnknownArchitectureError as error:
                proof, said = REFUSED, str(error)
    tokens = BATCH_TOKENS.get(where.type, 4096)
    width, hidden = (info.d_mlp if info else 0), int(getattr(text, "hidden_size", None) or 0)
    neurons = sum(info.layer_widths) if info else 0
    memory = {
        name: Memory(
            parameters * kind.itemsize,
            parameters * kind.itemsize
            + tokens * batch_bytes(width, hidden, itemsize=kind.itemsize)
            + COUNT_BYTES * neurons,
        )
        for name, kind in DTYPES.items()
    }
    return ModelDescription(
        path=model_path,
        family=family,
        architecture=architecture,
        layers=info.layers if info else 0,
        neurons=neurons,
        experts=info.experts if info else None,
        parameters=parameters,
        vocabulary=int(getattr(text, "vocab_size", None) or 0),
        longest=info.max_length if info else longest_sequence(text, None),
        places=places,
        proof=proof,
        said=said,
        memory=memory if parameters else {},
        batch_tokens=tokens,
        vllm=_vllm(config),
        quantization=quantization,
    )


def parameters_of(config: Any) -> int:
    """How many numbers the weights of a model have, by its config: it is built on torch's meta device, without memory.

    Raises:
        UnknownArchitectureError: it is no causal language model.
    """
    kind = auto_class(config)
    build = getattr(kind, "from_config", None) or kind._from_config
    with explained("the classes", str(config.name_or_path or class_name(config))), torch.device("meta"):
        empty = build(config)
    return sum(one.numel() for one in empty.parameters())


def in_gib(size: int) -> str:
    """A size to be read.

    >>> in_gib(269_030_016)
    '0.25 GiB'
    """
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**30:.2f} GiB"


def _places(engine: TransformersEngine) -> tuple[Places, ...]:
    """The places of all layers, those of neighbours that are alike together."""
    found: list[Places] = []
    for site in engine.sites:
        experts = site.experts.number if site.experts else 0
        here = Places(site.layer, site.layer, site.d_mlp, site.activation, site.up, site.down, experts)
        before = next((one for one in found if replace(one, first=0, last=0) == replace(here, first=0, last=0)), None)
        if before is not None and before.last == site.layer - 1:
            found[found.index(before)] = replace(before, last=site.layer)
        else:
            found.append(here)
    return tuple(found)


def _vllm(config: Any) -> str:
    """What can be said of the vLLM engine before it loads the model."""
    try:
        check_vllm(config)
    except EngineError as error:
        return f"does not serve it: {error}"
    missing = "" if find_spec("vllm") else "; vLLM is not installed here"
    return f"proves the neurons when it has loaded {class_name(config) or config.model_type}{missing}"
