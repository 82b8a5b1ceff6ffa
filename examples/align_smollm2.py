"""A real pair of models for `lna compare`: SmolLM2-135M, and a copy trained on one language for a few minutes on a CPU.

    python examples/align_smollm2.py --language de --folder aligned

trains on the second half of the demo's questions and writes, under the folder, the copy and the first half as a corpus
that no training has seen. What to type next is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from language_neurons_alignment._demo import demo_corpus_path, demo_model_path
from language_neurons_alignment.languages import language_code, language_name


def halves(path: Path) -> tuple[list[dict], list[dict]]:
    """The records of the first and of the second half of a corpus's questions, in every language."""
    records = json.loads(path.read_text(encoding="utf-8"))
    questions = sorted({record["id"] for record in records})
    first = set(questions[: len(questions) // 2])
    return [r for r in records if r["id"] in first], [r for r in records if r["id"] not in first]


def train(model: torch.nn.Module, texts: list[torch.Tensor], *, steps: int, rate: float, seed: int) -> None:
    """Next-token training, one text a step, with a linear decay of the learning rate."""
    order = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    model.train()
    for step in range(1, steps + 1):
        tokens = order.choice(texts)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
        if step % 10 == 0 or step == 1:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)


def main() -> None:
    """Train, save, and say what to type next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", type=language_code, default="de", help="code or name of the language trained on")
    parser.add_argument("--folder", type=Path, default=Path("aligned"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rate", type=float, default=5e-5, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    base = demo_model_path()
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    held_out, seen = halves(demo_corpus_path())
    name = language_name(args.language)
    told = [r["instruction"] + a["generated"] for r in seen if r["lang"] == name for a in r["answers"]]
    train(
        model,
        [tokenizer(text, return_tensors="pt").input_ids for text in told],
        steps=args.steps,
        rate=args.rate,
        seed=args.seed,
    )
    copy = args.folder / f"{base.name}-{args.language}"
    model.bfloat16().save_pretrained(copy)
    tokenizer.save_pretrained(copy)
    corpus = args.folder / "held-out.json"
    corpus.write_text(json.dumps(held_out, ensure_ascii=False, indent=1), encoding="utf-8")
    print(f"\nfor M in {base} {copy}; do for L in en es fr de ru zh; do")
    print(f"  lna activation --model-path $M -d {corpus} -s held-out -l $L --root {args.folder}")
    print("done; done")
    print(
        f"lna compare {base} {copy} -s held-out --langs en,es,fr,de,ru,zh --hi 1 --trained {args.language} "
        f"--root {args.folder}"
    )


if __name__ == "__main__":
    main()
