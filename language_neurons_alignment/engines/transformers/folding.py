"""An intervention folded into weights: the model then computes by itself what it computed under the intervention.

With the activation a of a neuron, its column w of the down projection and the output u of the up projection (u = 1 in
a plain MLP), the MLP adds a · u · w. So

    a ← s · a           w ← s · w                     in every MLP
    a ← s · a + b       w ← s · w, bias ← bias + b · w    where u = 1 and the down projection has a bias
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ...core.interventions import Intervention, LayerIntervention
from ...errors import EngineError
from .network import Network
from .sites import NeuronSite

_INPUTS = {nn.Linear: 1, Conv1D: 0}
"""The dimension of a linear map's weight that its inputs, the neurons, lie along."""


def fold(network: Network, intervention: Intervention, files: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """Yield the stored tensors that an intervention changes: their names in `files`, and what they become.

    A stored tensor is taken for a down projection only where it equals the loaded one bit for bit.

    Args:
        network: the model, loaded as it is stored.
        intervention: scales of neurons, and shifts where a bias takes them in.
        files: the safetensors file of each stored tensor.

    Raises:
        EngineError: something cannot be folded, or a weight is not in the files as the model has it.
    """
    for site, down, part in foldable(network, intervention):
        axis = _INPUTS[type(down)]
        scale = torch.ones(site.d_mlp).index_put((part.neurons,), part.scale)
        name, stored = _stored(down.weight, f"{site.layer}.{site.down}.weight", files)
        columns = stored.double()
        yield name, _rounded(columns * (scale[None] if axis else scale[:, None]), stored, name)
        if part.shift.any():
            shift = torch.zeros(site.d_mlp).index_put((part.neurons,), part.shift).double()
            name, stored = _stored(down.bias, f"{site.layer}.{site.down}.bias", files)
            yield name, _rounded(stored.double() + (columns @ shift if axis else shift @ columns), stored, name)


def foldable(network: Network, intervention: Intervention) -> list[tuple[NeuronSite, Any, LayerIntervention]]:
    """Return each site that an intervention changes, its down projection, and the intervention's part there.

    EngineError for what weights cannot express.
    """
    if intervention.router is not None and intervention.router.any():
        raise EngineError(
            "ban and boost act on a router's logits and cannot be folded into a down projection: leave these steps out"
        )
    parameters, found = list(network.model.named_parameters(remove_duplicate=False)), []
    for site in network.sites:
        part = intervention.layer(site.layer).within(site.start, site.stop)
        if not len(part.neurons):
            continue
        if site.experts is not None:
            raise EngineError(
                f"layer {site.layer} has {len(part.neurons)} of the neurons in routed experts ({site.experts.name}), "
                "whose weights are stored in ways that differ by family: this is not supported; leave them out"
            )
        down: Any = network.layers[site.layer].get_submodule(site.down)
        if type(down) not in _INPUTS:
            raise EngineError(
                f"the down projection of layer {site.layer} ({site.down}) is a {type(down).__name__}, and only Linear "
                "and Conv1D can be folded into: give the model without quantization and adapters"
            )
        users = [name for name, one in parameters if one is down.weight or one is down.bias]
        if len(users) > 1 + (down.bias is not None):
            raise EngineError(
                f"the down projection of layer {site.layer} is shared ({', '.join(users)}), so folding would change "
                "other layers too: export is refused"
            )
        if part.shift.any() and (site.up is not None or down.bias is None):
            why = f"{site.down} has no bias" if site.up is None else f"{site.up} multiplies the activation"
            raise EngineError(
                f"a step shifts activations in layer {site.layer}, which no weight can express, for {why}: only zero "
                "and scale can be folded here"
            )
        found.append((site, down, part))
    return found


def _stored(weight: Tensor, tail: str, files: Mapping[str, Path]) -> tuple[str, Tensor]:
    """The stored tensor that was loaded as this weight, and its name; the families' prefixes differ."""
    for name in (name for name in files if name == tail or name.endswith(f".{tail}")):
        with safe_open(files[name], "pt") as file:
            stored = file.get_tensor(name)
        if stored.shape == weight.shape and torch.equal(stored.to(weight.dtype), weight.detach().cpu()):
            return name, stored
    raise EngineError(
        f"no tensor …{tail} in the weight files equals the one of the loaded model, so it is not known where to fold: "
        "save the model with save_pretrained, and export that"
    )


def _rounded(changed: Tensor, stored: Tensor, name: str) -> Tensor:
    """What a tensor becomes, in the precision in which it is stored."""
    rounded = changed.to(stored.dtype)
    if not rounded.isfinite().all():
        raise EngineError(f"{name} would hold numbers beyond the range of {stored.dtype}: give smaller factors")
    return rounded
