"""Gather the ranks' reports: check them against the tree and each other, then put every neuron in its place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from ...core.counts import LanguageCounts, SpanCounts
from ...core.routing import Experts, routing_fault
from ...errors import EngineError, LNAError, LNAWarning, SilentHookError, TallyError, UnknownArchitectureError
from ..base import not_finite
from ..moments import POWERS, SPANS, language_moments
from ..quantization import check_all_read
from ..routing import language_routing
from .messages import Message, unpack


def check_loaded(
    reports: Sequence[Message],
    *,
    path: str,
    method: str | None,
    text_only: bool,
    places: Callable[[Sequence[str]], Sequence[str]],
) -> None:
    """Refuse a model of which vLLM filled a weight in part, or left out one that the transformers library has.

    Args:
        reports: what each rank's loading left unread and unfilled.
        path: the model, for the error.
        method: how its weights are quantized, by its config.
        text_only: the checkpoint holds nothing but the decoder; else weights count that lie beside others in use.
        places: those of some weights that the transformers library has a place for; asked only where some are unread.
    """
    for report in reports:
        for name, written, size in report["unfilled"][:1]:
            raise EngineError(
                f"vLLM filled {written} of the {size} numbers of {name} from the weights at {path}, and the rest is "
                "whatever memory held: the weights are incomplete; download the model again"
            )
    everywhere = set.intersection(*({name for name, _ in report["unread"]} for report in reports))
    beside = {name for report in reports for name, others in report["unread"] if text_only or others}
    if not (names := sorted(everywhere & beside)):
        return
    check_all_read(path, names, method=method)
    try:
        lost = sorted(places(names))
    except LNAError as error:
        warnings.warn(f"vLLM {_left(names, path)}; whether they belong to it is not known: {error}", LNAWarning, 3)
        return
    if lost:
        raise EngineError(
            f"vLLM {_left(lost, path)}, for which the transformers library has a place: its numbers would be those of "
            "another model; try --engine transformers"
        )


def _left(names: Sequence[str], path: str) -> str:
    return f"left {len(names)} weights of {path} unread ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


def check_pass(reports: Sequence[Message]) -> None:
    """Check that every rank saw exactly the tree, and that the ranks agree."""
    for report in reports:
        where = f"rank (pipeline {report['pipeline_rank']}, tensor {report['tensor_rank']})"
        silent = [
            layer for layer, rows in zip(report["layers"], report["layer_rows"], strict=True) if rows != report["fed"]
        ]
        if silent:
            raise SilentHookError(
                f"the hooks of layers {silent[:4]} on {where} did not see each of the {report['fed']} rows fed; "
                "a fused kernel, a compiled forward or a quantized MLP may bypass them; try --engine transformers"
            )
        if report["unseen"] or report["wrong"] or report["statistics"]["strangers"]:
            raise TallyError(
                f"{where} did not see exactly the corpus's tokens: {report['unseen']} never came, "
                f"{report['wrong']} rows held another token or position, "
                f"{report['statistics']['strangers']} requests were unknown; nothing was counted"
            )
        if report["infinite"]:
            raise not_finite("hidden states")
    tallies = sorted({tuple(report["tally"]) for report in reports})
    if len(tallies) > 1:
        raise TallyError(
            f"the ranks counted different numbers of tokens (full, prefix): {tallies}; nothing was counted"
        )


def gather_experts(reports: Sequence[Message]) -> Experts | None:
    """The experts of the whole model; None where it has none."""
    experts = sorted({tuple(one) for report in reports for one in report["experts"]})
    if not experts:
        return None
    kinds = sorted({one[1:] for one in experts})
    if len(kinds) > 1:
        raise UnknownArchitectureError(
            f"layers of different experts are not supported: {kinds[0]} and {kinds[1]} (number, width, top-k); "
            "try --engine transformers"
        )
    number, width, top_k = kinds[0]
    return Experts(tuple(one[0] for one in experts), number, width, top_k)


def gather_counts(
    reports: Sequence[Message], *, layers: int, d_mlp: int, experts: Experts | None = None
) -> LanguageCounts:
    """The whole model's counts, with their moments if the ranks report them, and the routing of its experts."""
    covered = torch.zeros(layers, d_mlp, dtype=torch.int32)
    for report in reports:
        own, here = _place(report)
        covered[own, here] += 1
    if not bool((covered == 1).all()):
        raise TallyError(
            f"{int((covered == 0).sum())} neurons were reported by no rank and {int((covered > 1).sum())} by several; "
            "nothing was counted: please report this with the model and the parallel sizes"
        )
    over_zero = _gather(reports, "counts", np.int64, torch.zeros(layers, 2, d_mlp, dtype=torch.int64))
    full, prefix = reports[0]["tally"]
    moments = None
    if reports[0]["moments"] is not None:
        sums = torch.zeros(layers, POWERS, SPANS, d_mlp, dtype=torch.float64)
        sums = _gather(reports, "moments", np.float64, sums)
        moments = language_moments(sums, full_tokens=full, prefix_tokens=prefix)
    counts = over_zero.transpose(0, 1).contiguous()
    routing = None
    if experts is not None:
        chosen = torch.zeros(2, layers, SPANS, experts.number, dtype=torch.float64)
        for report in reports:
            own = report["layers"]
            part = unpack(report, "routing", np.float64).reshape(2, len(own), SPANS, experts.number)
            chosen[:, own] = torch.from_numpy(part.copy())
        routing = language_routing(chosen, experts, full_tokens=full, prefix_tokens=prefix)
        if fault := routing_fault(routing, full_tokens=full, prefix_tokens=prefix):
            raise TallyError(f"{fault}; nothing was counted")
    return LanguageCounts(SpanCounts(full, counts[0]), SpanCounts(prefix, counts[1]), moments, routing)


def _gather(reports: Sequence[Message], key: str, dtype: type[np.generic], into: Tensor) -> Tensor:
    """Each rank's [own layer, …, own neuron], put in its place in [layer, …, neuron]."""
    for report in reports:
        own, here = _place(report)
        part = unpack(report, key, dtype).reshape(len(own), *into.shape[1:-1], report["neurons"]).copy()
        into[own, ..., here] = torch.from_numpy(part)
    return into


def _place(report: Message) -> tuple[Tensor, slice]:
    """The layers of a rank, and its neurons in them."""
    width = report["neurons"]
    start = report["tensor_rank"] * width
    return torch.tensor(report["layers"], dtype=torch.int64), slice(start, start + width)


def gather_losses(reports: Sequence[Message], *, wanted: np.ndarray) -> Float32[np.ndarray, " node"]:
    """The likelihood of each wanted node, from a rank that has the logits."""
    for report in reports:
        if report["nll"] is None:
            continue
        known = unpack(report, "known", np.uint8)
        if known.any() or not wanted.any():
            wrong = int((known[wanted] != 1).sum())
            if wrong:
                raise TallyError(
                    f"the likelihood of {wrong} of {int(wanted.sum())} tokens was not computed exactly once"
                )
            return unpack(report, "nll", np.float32)
    raise TallyError("no rank computed a likelihood: this vLLM gives the logits to none of the workers")


def check_acted(reports: Sequence[Message], *, touched: bool) -> None:
    """Check that an intervention acted in each forward of each layer that it changes."""
    if touched and not any(report["acted"] for report in reports):
        raise SilentHookError("the intervention reached no layer on any rank: results under it cannot be trusted")
    for report in reports:
        silent = [layer for layer, times in report["acted"] if times != report["forwards"]]
        if silent:
            raise SilentHookError(
                f"the intervention did not act in layers {silent[:4]} although the model ran "
                f"{report['forwards']} times: results under it cannot be trusted; "
                "a fused kernel or a compiled forward may bypass the model's MLP"
            )
