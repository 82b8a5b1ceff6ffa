"""What `--moments` costs: counting with them against counting without, on the same batches. One ratio, from one run.

    python benchmarks/moments.py --model ~/.cache/language_neurons_alignment/SmolLM2-135M-Instruct --threads 1
    python benchmarks/moments.py --shape mistral-7b --device cuda --dtype bfloat16

The two alternate. On a busy machine the ratio of processor seconds is the steadier one.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from counting import SHAPES, random_engine, random_groups, seconds

from language_neurons_alignment.engines.transformers import TransformersEngine


def measure(engine: TransformersEngine, args: argparse.Namespace) -> dict[str, float | str]:
    """Medians over repetitions of pairs."""
    groups = random_groups(
        max(1, args.tokens // args.length),
        1,
        prompt=args.length // 2,
        answer=args.length - args.length // 2,
        vocabulary=engine._network.head.vocabulary,
    )
    device = engine._network.device
    for moments in (False, True):
        engine.count(groups[:2], moments=moments)
    pairs = [
        tuple(
            seconds(lambda moments=moments: engine.count(groups, moments=moments), device) for moments in (False, True)
        )
        for _ in range(args.repeats)
    ]
    ratios = [with_them[0] / without[0] for without, with_them in pairs]
    return {
        "model": args.model or f"{args.shape} (random weights)",
        "device": str(engine.provenance["device"]),
        "dtype": engine.model.dtype,
        "tokens": sum(group.full_tokens for group in groups),
        "counting_s": statistics.median(without[0] for without, _ in pairs),
        "with_moments_s": statistics.median(with_them[0] for _, with_them in pairs),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "processor_time_ratio": statistics.median(with_them[1] / without[1] for without, with_them in pairs),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="a model folder")
    which.add_argument("--shape", choices=SHAPES, default="tiny", help="a random model of this shape")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens per repetition")
    parser.add_argument("--length", type=int, default=256, help="mean tokens of a sequence")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads (on a busy machine, 1 measures most steadily)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.model:
        engine = TransformersEngine.load(
            str(Path(args.model).expanduser()), device=args.device, dtype=args.dtype, batch_tokens=args.batch_tokens
        )
    else:
        engine = random_engine(args.shape, args.device, args.dtype, args.batch_tokens)
    print(json.dumps(measure(engine, args), indent=1))


if __name__ == "__main__":
    main()
