"""Forward hooks that are always removed, and interventions that are held to having fired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from ...core.interventions import Intervention, LayerIntervention
from ...errors import IncompatibleError, SilentHookError
from ..sites import NeuronSite

ForwardHook = Callable[[nn.Module, tuple[object, ...], Tensor], Tensor | None]


@contextmanager
def hooked(hooks: Sequence[tuple[nn.Module, ForwardHook]]) -> Iterator[None]:
    """While the context is open, these modules have these forward hooks, in this order; after it, never."""
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


class Interventions:
    """What is done to a model's neurons now: nested contexts are one affine map, as the steps of a list are."""

    def __init__(self, decoder: nn.Module, sites: Sequence[NeuronSite]) -> None:
        """Nothing yet."""
        self._decoder = decoder
        self._sites = sites
        self._current = Intervention.identity(len(sites), sites[0].d_mlp)
        self._changes: list[_Change] = []
        self._forwards = 0
        self._hooks = ExitStack()

    @contextmanager
    def on_top(self, intervention: Intervention) -> Iterator[None]:
        """While the context is open, the model runs under `intervention`, on top of what is in force already.

        Raises:
            IncompatibleError: the intervention is made for a model of another shape.
            SilentHookError: if the model ran and a touched layer's hook did not fire in each forward.
        """
        _check_shape(intervention, self._sites)
        before = self._current
        try:
            self._switch(before.then(intervention))
            yield
        except BaseException:
            self._switch(before, check=False)  # what went wrong matters more
            raise
        self._switch(before)

    def _switch(self, intervention: Intervention, *, check: bool = True) -> None:
        """Put another intervention in force, and hold the one before it to having acted."""
        self._hooks.close()
        done, forwards = self._changes, self._forwards
        self._current, self._forwards = intervention, 0
        self._changes = [_Change(intervention.layer(layer), layer) for layer in intervention.layers]
        if self._changes:
            self._hooks.callback(self._decoder.register_forward_pre_hook(self._count_forward).remove)
            self._hooks.enter_context(hooked([(self._sites[one.layer].module, one) for one in self._changes]))
        if check:
            _check_fired(done, forwards)

    def _count_forward(self, _module: nn.Module, _inputs: tuple[object, ...]) -> None:
        self._forwards += 1


class _Change:
    """The forward hook that changes one layer's activations, and knows how often it did."""

    def __init__(self, intervention: LayerIntervention, layer: int) -> None:
        self.layer = layer
        self.fired = 0
        self._intervention = intervention

    def __call__(self, _module: nn.Module, _inputs: tuple[object, ...], activation: Tensor) -> Tensor:
        here = self._intervention
        if here.scale.device != activation.device:  # the first time only
            here = self._intervention = here.to(activation.device)
        self.fired += 1
        return here.apply_(activation)


def _check_shape(intervention: Intervention, sites: Sequence[NeuronSite]) -> None:
    shape, expected = tuple(intervention.scale.shape), (len(sites), sites[0].d_mlp)
    if shape != expected:
        raise IncompatibleError(
            f"the intervention is for a model of shape {shape} (layers, d_mlp), this one has {expected}: "
            "take the mask that was made for this model"
        )


def _check_fired(changes: Sequence[_Change], forwards: int) -> None:
    silent = [change for change in changes if change.fired != forwards]
    if silent:
        raise SilentHookError(
            f"the intervention acted {silent[0].fired} times in layer {silent[0].layer} although the model ran "
            f"{forwards} times ({len(silent)} of {len(changes)} layers): results under it cannot be trusted; "
            "check that no fused kernel or compiled forward replaces the model's MLP"
        )
