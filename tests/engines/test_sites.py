"""Neuron sites: found in models that nobody listed, proved, and refused where anything contradicts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from language_neurons_alignment.engines.families import TransformersPlace
from language_neurons_alignment.engines.transformers.sites import find_sites
from language_neurons_alignment.errors import UnknownArchitectureError

HIDDEN, WIDTH, VOCABULARY = 8, 12, 40


class Thought(nn.Module):
    """An MLP under names of its own: gated, act(a x) · b x."""

    def __init__(self) -> None:
        super().__init__()
        self.spark = nn.SiLU()
        self.wish, self.doubt = nn.Linear(HIDDEN, WIDTH), nn.Linear(HIDDEN, WIDTH)
        self.deed = nn.Linear(WIDTH, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.deed(self.spark(self.wish(x)) * self.doubt(x))


class Storey(nn.Module):
    """A decoder layer: a causal mean in place of attention, then the MLP."""

    def __init__(self, thought: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)
        self.mix = nn.Linear(HIDDEN, HIDDEN)
        self.thought = thought

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(1, x.shape[1] + 1)[None, :, None]
        x = x + self.mix(self.norm(x)).cumsum(dim=1) / places
        return x + self.thought(self.norm(x))


class Tower(nn.Module):
    """A decoder whose module tree no library knows."""

    def __init__(self, *thoughts: nn.Module) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, HIDDEN)
        self.storeys = nn.ModuleList([Storey(thought) for thought in thoughts])

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
        x = self.words(input_ids)
        for storey in self.storeys:
            x = storey(x)
        return (x,)


def tower(make: Callable[[], nn.Module] = Thought, storeys: int = 2) -> Tower:
    torch.manual_seed(0)
    return Tower(*(make() for _ in range(storeys))).eval()


def test_the_neurons_of_a_model_that_nobody_listed_are_found() -> None:
    model = tower()
    sites = find_sites(model)
    assert [(site.layer, site.d_mlp, site.activation, site.up, site.down) for site in sites] == [
        (layer, WIDTH, "thought.spark", "thought.doubt", "thought.deed") for layer in (0, 1)
    ]
    assert [site.module for site in sites] == [storey.thought.spark for storey in model.storeys]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Exchanged(Thought):
    """Gate and up exchanged: the activation function acts on the map that the table calls `up`."""

    def forward(self, x: Tensor) -> Tensor:
        return self.deed(self.spark(self.doubt(x)) * self.wish(x))


def test_an_exchanged_gate_is_found_by_what_it_computes_and_refused_where_the_table_says_otherwise() -> None:
    model = tower(Exchanged)
    assert {site.up for site in find_sites(model)} == {"thought.wish"}
    find_sites(tower(), TransformersPlace("storeys", "thought.spark", "thought.wish"))
    with pytest.raises(UnknownArchitectureError, match=r"its input is not what thought.wish gives"):
        find_sites(model, TransformersPlace("storeys", "thought.spark", "thought.wish"))


class Fused(Thought):
    """Gate and up in one map, gate first or last."""

    def __init__(self, *, gate_first: bool) -> None:
        super().__init__()
        self.both, self.gate_first = nn.Linear(HIDDEN, 2 * WIDTH), gate_first

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.both(x).chunk(2, dim=-1)
        gate, up = (first, last) if self.gate_first else (last, first)
        return self.deed(self.spark(gate) * up)


def test_a_fused_gate_is_found_and_must_be_the_half_that_the_table_says() -> None:
    place = TransformersPlace("storeys", "thought.spark", "thought.both")
    for gate_first in (True, False):
        assert {site.d_mlp for site in find_sites(tower(lambda g=gate_first: Fused(gate_first=g)))} == {WIDTH}
    find_sites(tower(lambda: Fused(gate_first=True)), place)
    with pytest.raises(UnknownArchitectureError, match=r"its input is not what thought.both gives"):
        find_sites(tower(lambda: Fused(gate_first=False)), place)


class Twice(Thought):
    """The activation module runs twice in a forward."""

    def forward(self, x: Tensor) -> Tensor:
        self.spark(self.doubt(x))
        return super().forward(x)


class ChangedAfterwards(Thought):
    """An operation in place changes the activation behind the hook."""

    def forward(self, x: Tensor) -> Tensor:
        activation = self.spark(self.wish(x))
        activation.mul_(0.5)
        return self.deed(activation * self.doubt(x))


class Bare(nn.Module):
    """Three maps and no activation module, as in LFM2."""

    def __init__(self, act: Callable[[Tensor], Tensor] = F.silu, *, names: tuple[str, str] = ("one", "two")) -> None:
        super().__init__()
        self.one, self.two, self.deed = (
            nn.Linear(HIDDEN, WIDTH),
            nn.Linear(HIDDEN, WIDTH),
            nn.Linear(WIDTH, HIDDEN, bias=False),
        )
        self.act, self.names = act, names

    def forward(self, x: Tensor) -> Tensor:
        gate, up = (getattr(self, name) for name in self.names)
        return self.deed(self.act(gate(x)) * up(x))


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
@pytest.mark.parametrize("act", [F.silu, F.gelu, F.relu, gelu_tanh])
def test_an_activation_function_that_is_no_module_is_made_one_where_nothing_changes(
    act: Callable[[Tensor], Tensor], names: tuple[str, str]
) -> None:
    model, seen = tower(lambda: Bare(act, names=names)), []
    tokens = torch.arange(9)[None]
    before = model(tokens)[0]
    sites = find_sites(model)
    assert [(one.activation, one.up, one.down) for one in sites] == [
        ("thought.act_fn", f"thought.{names[1]}", "thought.deed")
    ] * 2
    assert torch.equal(model(tokens)[0], before)
    hook = sites[0].module.register_forward_hook(lambda _module, inputs, output: seen.append((inputs[0], output)))
    model(tokens)
    hook.remove()
    ((gate, activation),) = seen
    assert torch.equal(activation, act(gate))
    with torch.no_grad():
        getattr(model.storeys[0].thought, names[0]).weight.zero_()  # type: ignore[union-attr]
        getattr(model.storeys[0].thought, names[0]).bias.zero_()  # type: ignore[union-attr]
        assert not (model.storeys[0].thought(before)).any(), "another gate's neurons"  # act(0) = 0


@pytest.mark.parametrize("act", [torch.tanh, lambda x: F.silu(x) * 0.5, F.softplus])
def test_a_function_that_nobody_knows_stays_where_it_is_and_is_refused(act: Callable[[Tensor], Tensor]) -> None:
    model = tower(lambda: Bare(act))
    with pytest.raises(UnknownArchitectureError, match="no place could hold its neurons"):
        find_sites(model)
    assert not hasattr(model.storeys[0].thought, "act_fn")


class Functional(Thought):
    """Its activation module is never called, so no hook could see it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.deed(F.silu(self.wish(x)) * self.doubt(x))


class Deaf(Thought):
    """Computes the same beside the module, whose output is then ignored: an intervention would do nothing."""

    def forward(self, x: Tensor) -> Tensor:
        self.spark(self.wish(x))
        return self.deed(F.silu(self.wish(x)) * self.doubt(x))


class More(Thought):
    """The MLP adds something beside the down projection."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.flip(-1)


class Normed(Thought):
    """A norm stands between the neurons and the down projection."""

    def forward(self, x: Tensor) -> Tensor:
        return self.deed(F.layer_norm(self.spark(self.wish(x)) * self.doubt(x), (WIDTH,)))


class Pair(nn.Module):
    """Two MLPs in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Thought(), Thought()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Twice, "thought.spark runs 2 times per forward"),
        (ChangedAfterwards, "no place could hold its neurons"),
        (Functional, "no place could hold its neurons"),
        (Deaf, r"does not reach thought.deed in layer 0|runs 2 times"),
        (More, "thought returns something other than what the down projection gives"),
        (Normed, "no place could hold its neurons"),
        (
            Pair,
            "one place could hold its neurons .*; thought.one.spark is followed by .*, but thought returns something",
        ),
    ],
)
def test_what_cannot_be_proved_is_refused_with_what_was_seen(make: Callable[[], nn.Module], says: str) -> None:
    model = tower(make)
    with pytest.raises(UnknownArchitectureError, match=says) as refused:
        find_sites(model)
    assert "Tower" in str(refused.value)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_one_wrong_layer_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnknownArchitectureError, match="layer 1"):
        find_sites(Tower(Thought(), Twice(), Thought()).eval())


def test_layers_may_be_of_different_widths() -> None:
    class Wide(Thought):
        def __init__(self) -> None:
            super().__init__()
            self.wish, self.doubt, self.deed = (nn.Linear(HIDDEN, 16), nn.Linear(HIDDEN, 16), nn.Linear(16, HIDDEN))

    torch.manual_seed(0)
    assert [site.d_mlp for site in find_sites(Tower(Thought(), Wide(), Thought()).eval())] == [WIDTH, 16, WIDTH]


def test_layers_with_one_shared_module_are_refused() -> None:
    model = tower()
    model.storeys[1].thought.spark = model.storeys[0].thought.spark
    with pytest.raises(UnknownArchitectureError, match=r"layers share one activation module|runs 2 times"):
        find_sites(model)


class Another(Tower):
    """Something more runs, in front of the list of layers."""

    def __init__(self, more: nn.Module) -> None:
        super().__init__(Thought(), Thought())
        self.more = more

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
        x = self.words(input_ids)
        for one in self.more if isinstance(self.more, nn.ModuleList) else [self.more]:
            x = one(x)
        for storey in self.storeys:
            x = storey(x)
        return (x,)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (lambda: nn.ModuleList([Storey(Thought())]), "more.0, a Storey as its layers are, outside"),
        (lambda: Storey(Thought()), "more, a Storey as its layers are, outside"),
        (lambda: nn.ModuleList([Pair()]), "more.0.two.spark, followed by more.0.two.deed, outside"),
        (Thought, "more.spark, followed by more.deed, outside"),
        (lambda: nn.ModuleList([Functional()]), r"another list of modules \(Functional\), outside"),
    ],
)
def test_neurons_outside_of_the_list_of_layers_are_never_left_out(more: Callable[[], nn.Module], says: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnknownArchitectureError, match=says):
        find_sites(Another(more()).eval())


def test_a_layer_that_text_does_not_run_through_is_named() -> None:
    class Skip(Tower):
        def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
            return (self.storeys[0](self.words(input_ids)),)

    with pytest.raises(UnknownArchitectureError, match=r"Skip does not run layer 1 \(Storey\) on text alone"):
        find_sites(Skip(Thought(), Thought()).eval())


def test_what_runs_in_front_and_holds_no_neurons_is_no_objection() -> None:
    torch.manual_seed(0)
    model = Another(nn.ModuleList([nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN)])).eval()
    assert [site.layer for site in find_sites(model)] == [0, 1]


def test_a_heavier_list_that_text_does_not_run_through_is_not_that_of_the_layers() -> None:
    model = tower()
    model.eyes = nn.ModuleList([nn.Linear(100, 100)])
    assert [site.layer for site in find_sites(model)] == [0, 1]


class Decoy(Storey):
    """Computes the MLP and adds another one, or nothing."""

    def __init__(self, factor: float) -> None:
        super().__init__(Thought())
        self.factor = factor
        self.one, self.two = nn.Parameter(torch.randn(HIDDEN, WIDTH)), nn.Parameter(torch.randn(WIDTH, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(x @ self.one) @ self.two + self.factor * self.thought(self.norm(x))


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_an_mlp_that_the_layer_does_not_use_is_refused(factor: float) -> None:
    model = tower()
    model.storeys[1] = Decoy(factor).eval()
    if factor:
        assert len(find_sites(model)) == 2  # a scaled residual is used
        return
    with pytest.raises(UnknownArchitectureError, match=r"at thought.spark changes nothing in what layer 1 \(Decoy\)"):
        find_sites(model)


def test_a_down_projection_of_zeros_is_no_objection() -> None:
    """As in blocks that were put in between and not trained yet (LLaMA Pro)."""
    model = tower()
    with torch.no_grad():
        model.storeys[1].thought.deed.weight.zero_()  # type: ignore[union-attr]
    assert len(find_sites(model)) == 2


def test_a_model_that_computes_neurons_of_several_streams_is_refused() -> None:
    class Streams(Tower):
        def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
            return (super().forward(torch.cat([input_ids, input_ids]))[0][:1],)

    torch.manual_seed(0)
    with pytest.raises(UnknownArchitectureError, match=r"thought.spark computes 14 rows of neurons for 7 tokens"):
        find_sites(Streams(Thought(), Thought()).eval())


def test_a_model_that_sees_what_comes_later_is_refused() -> None:
    class Both(Tower):
        def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
            (hidden,) = super().forward(input_ids)
            return (hidden + hidden.mean(dim=1, keepdim=True),)

    torch.manual_seed(0)
    with pytest.raises(UnknownArchitectureError, match="Both is not causal"):
        find_sites(Both(Thought(), Thought()).eval())


def test_a_module_that_is_not_where_the_table_says_is_refused() -> None:
    with pytest.raises(UnknownArchitectureError, match=r"never called a module 'thought.act', where the table"):
        find_sites(tower(), TransformersPlace("storeys", "thought.act"))
    with pytest.raises(UnknownArchitectureError, match=r"no list of decoder layers at 'floors', where the table"):
        find_sites(tower(), TransformersPlace("floors"))
    with pytest.raises(UnknownArchitectureError, match="no list of decoder layers"):
        find_sites(Tower().eval())


def test_a_positive_activation_below_zero_counts_by_its_own_sign() -> None:
    """Firing is the sign of what the activation function gives, not of what goes into it."""

    class Mirrored(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x - 0.1 * x

    class Odd(Thought):
        def __init__(self) -> None:
            super().__init__()
            self.spark = Mirrored()

    (site, _) = find_sites(tower(Odd))
    assert isinstance(site.module, Mirrored)
