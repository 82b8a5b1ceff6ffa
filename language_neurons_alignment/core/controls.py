"""Matched controls: random neurons that a set of neurons is held against.

What many neurons do when they are changed says little, for any as many neurons do something. A control has the same
number of neurons in each layer, which are as active, and which belong to no language.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import SettingsError

NEAREST = 20
"""Of how many eligible neurons of the nearest activity one is drawn."""


def matched_controls(
    neurons: Bool[Tensor, "layer neuron"],
    *,
    activity: Float[Tensor, "layer neuron"] | None,
    eligible: Bool[Tensor, "layer neuron"],
    seed: int,
) -> Bool[Tensor, "layer neuron"]:
    """As many random neurons in each layer, each as active as one of `neurons`.

    In a random order, each of `neurons` takes one of the `NEAREST` eligible neurons of its layer, not taken yet, whose
    activity is nearest to its own.

    Args:
        neurons: what the control is for.
        activity: what is matched, such as the mean activation probability; None: only the layer is.
        eligible: from where it is drawn; those of `neurons` are not, whatever this says.
        seed: the same seed draws the same neurons.

    Raises:
        SettingsError: a layer has fewer eligible neurons than are needed.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros_like(neurons)
    for layer in neurons.any(dim=1).nonzero().flatten().tolist():
        wanted = neurons[layer].nonzero().flatten()
        pool = (eligible[layer] & ~neurons[layer]).nonzero().flatten()
        if len(pool) < len(wanted):
            raise SettingsError(
                f"layer {layer} has {len(pool)} neurons of no language, a control of {len(wanted)} needs as many: "
                "choose fewer neurons (-r, --classes), or leave controls out (--controls 0)"
            )
        known = None if activity is None else activity[layer].double()
        drawn[layer, _draw(wanted, pool, known, generator)] = True
    return drawn


def _draw(wanted: Tensor, pool: Tensor, activity: Tensor | None, generator: torch.Generator) -> Tensor:
    """As many of `pool` as are wanted, each near in activity to one of them."""
    if activity is None:
        return pool[torch.randperm(len(pool), generator=generator)[: len(wanted)]]
    order = torch.randperm(len(pool), generator=generator)  # so that ties are broken at random, not by index
    pool = pool[order[activity[pool[order]].argsort(stable=True)]]
    levels, free, taken = activity[pool], torch.ones(len(pool), dtype=torch.bool), []
    for neuron in wanted[torch.randperm(len(wanted), generator=generator)].tolist():
        at = int(torch.searchsorted(levels, activity[neuron]))
        # among the nearest places of the sorted pool there are enough that are still free
        near = _nearest_free(free, at)
        distance = (levels[near] - activity[neuron]).abs()
        near = near[distance.argsort(stable=True)[:NEAREST]]
        chosen = int(near[torch.randint(len(near), (1,), generator=generator)])
        free[chosen] = False
        taken.append(chosen)
    return pool[torch.tensor(taken)]


def _nearest_free(free: Bool[Tensor, " place"], at: int) -> Tensor:
    """The places that are free, nearest to `at` on either side, `NEAREST` on each at most."""
    reach = NEAREST
    while True:
        low, high = max(0, at - reach), min(len(free), at + reach)
        left, right = free[low:at].nonzero().flatten() + low, free[at:high].nonzero().flatten() + at
        whole = low == 0 and high == len(free)
        if whole or ((len(left) >= NEAREST or low == 0) and (len(right) >= NEAREST or high == len(free))):
            return torch.cat([left[-NEAREST:], right[:NEAREST]])
        reach *= 2
