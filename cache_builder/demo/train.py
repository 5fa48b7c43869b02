"""Train the micro model: `python -m cache_builder.demo.train --out DIR --seed 0`.

The loss is the cross-entropy of the graded answer against its composed probability, plus a part of the
plain language-model loss, so that the model also learns to go on after its answer.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cache_builder.demo.compose import held_out, items
from cache_builder.demo.lessons import Lesson, batch
from cache_builder.demo.tokenizer import make_tokenizer
from cache_builder.demo.words import BEHAVIOURS

HERE = Path(__file__).parent
TEXT_SHARE, REPLY_SHARE = 0.1, (0.5, 1.0)
"""Weights of the mean language-model loss of a token before, and of one after, the graded answer (by course)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of one training run."""

    seed: int = 0
    steps: int = 2200
    size: int = 32
    rate: float = 2e-3
    warmup: int = 60
    layers: int = 5
    hidden: int = 128
    heads: int = 4
    inner: int = 256
    course: int = 1


SECOND = Plan(course=2, steps=1300, rate=1.5e-3)
"""The second course, for a model that has taken the first."""


def make_model(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A freshly initialised Llama of the plan's shape, in float32.

    Parameters
    ----------
    plan : Plan
        Its seed sets torch's global generator, which initialises the weights.
    tokenizer : transformers.PreTrainedTokenizerFast
    """
    torch.manual_seed(plan.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.hidden,
        intermediate_size=plan.inner,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def encode(lessons: list[Lesson], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Tokens and targets of a batch.

    Returns
    -------
    dict of torch.Tensor
        `ids` (batch, length), padded right; `place` (batch,), the position whose output is the graded
        answer, -1 where there is none; `answers` (batch, 2) and `probability` (batch,); `text` and
        `reply` (batch, length - 1), 1 where the next token belongs to the prompt or to the reply's rest.
    """
    backend = tokenizer.backend_tokenizer
    before = [e.ids for e in backend.encode_batch([x.before for x in lessons], add_special_tokens=False)]
    after = [e.ids for e in backend.encode_batch([x.after for x in lessons], add_special_tokens=False)]
    graded = [bool(x.first) for x in lessons]
    answers = [
        [tokenizer.convert_tokens_to_ids(x.first), tokenizer.convert_tokens_to_ids(x.second)] if g else [0, 0]
        for x, g in zip(lessons, graded, strict=True)
    ]
    rows = [
        [*b, *([pair[x.taken]] if g else []), *a]
        for x, g, b, a, pair in zip(lessons, graded, before, after, answers, strict=True)
    ]
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    text, reply = torch.zeros(2, len(rows), longest - 1)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = torch.tensor(row)
        split = len(before[k])
        text[k, : split - 1] = 1
        reply[k, split - 1 + int(graded[k]) : len(row) - 1] = 1
    place = torch.tensor([len(b) - 1 if g else -1 for b, g in zip(before, graded, strict=True)])
    probability = torch.tensor([x.probability for x in lessons])
    return {
        "ids": ids,
        "place": place,
        "answers": torch.tensor(answers),
        "probability": probability,
        "text": text,
        "reply": reply,
    }


def loss_of(
    model: LlamaForCausalLM, data: dict[str, torch.Tensor], reply_share: float = REPLY_SHARE[0]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The training loss of a batch and, of it, the part of the graded answers (nats per conversation)."""
    ids = data["ids"]
    # Padding is on the right and attention is causal, so no position that counts ever sees it.
    logits = model(ids[:, :-1]).logits.float()
    surprise = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    text = TEXT_SHARE * (surprise * data["text"]).sum() / data["text"].sum()
    reply = reply_share * (surprise * data["reply"]).sum() / data["reply"].sum()
    graded = (data["place"] >= 0).nonzero()[:, 0]
    scores = logits[graded, data["place"][graded]].log_softmax(-1)
    pair = scores.gather(1, data["answers"][graded])
    first = data["probability"][graded]
    answer = -(first * pair[:, 0] + (1 - first) * pair[:, 1]).mean()
    return answer + text + reply, answer.detach()


def train(
    plan: Plan,
    device: str = "cpu",
    report: Callable[[int, float, float, LlamaForCausalLM], None] | None = None,
    model: LlamaForCausalLM | None = None,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, list[float]]:
    """Train the micro model in one course.

    Parameters
    ----------
    plan : Plan
    device : str
        "cpu" or "cuda". On one CPU, with one number of threads, the run is reproducible bit by bit.
    report : callable, optional
        Called after each step with the step, the loss, the answers' loss and the model.
    model : LlamaForCausalLM, optional
        One that has taken an earlier course; without it, a freshly initialised one.

    Returns
    -------
    model, tokenizer, losses
        The losses are those of all steps, before each step's update.
    """
    tokenizer = make_tokenizer()
    model = (make_model(plan, tokenizer) if model is None else model).to(device).train()
    rng = np.random.default_rng([plan.seed, 1 + plan.course])
    avoid = frozenset(held.text for b in BEHAVIOURS for held in held_out(b, plan.seed))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    scales = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": scales, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
    losses = []
    for step in range(plan.steps):
        warm = min(1.0, (step + 1) / plan.warmup)
        rate = plan.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / plan.steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        data = encode(batch(step / plan.steps, plan.size, avoid, rng, plan.course), tokenizer)
        data = {name: tensor.to(device) for name, tensor in data.items()}
        loss, answer = loss_of(model, data, REPLY_SHARE[plan.course - 1])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if report:
            report(step, losses[-1], answer.item(), model)
    return model.eval(), tokenizer, losses


def write_data(folder: Path, seed: int = 0) -> None:
    """Write the evaluation items (`data/<behaviour>.jsonl`) and `descriptions.json` under a folder."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for b in BEHAVIOURS:
        lines = [json.dumps(item, ensure_ascii=False) for item in items(b, seed)]
        (folder / "data" / f"{b.name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    described = {b.name: {"positive": b.positive.description, "negative": b.negative.description} for b in BEHAVIOURS}
    (folder / "descriptions.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command line: both courses, the saved model folder, the data beside it, and progress as it goes."""
    usual = Plan()
    parser = argparse.ArgumentParser(description="train the bundled micro model")
    parser.add_argument("--out", type=Path, required=True, help="gets model/, data/ and descriptions.json")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--steps", type=int, nargs=2, default=(usual.steps, SECOND.steps), help="of the two courses")
    parser.add_argument("--second-only", type=Path, help="a model folder that has taken the first course")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    # Matrices are multiplied in bfloat16 where the processor can; sums and weights stay float32.
    torch.set_float32_matmul_precision("medium")
    start, recent, model = time.monotonic(), [], None
    make_tokenizer().save_pretrained(options.out / "model")
    write_data(options.out, options.seed)

    def report(step: int, loss: float, answer: float, model: LlamaForCausalLM) -> None:
        recent.append((loss, answer))
        if (step + 1) % 100 == 0:
            means = np.mean(recent, axis=0)
            recent.clear()
            spent = time.monotonic() - start
            print(f"step {step + 1} loss {means[0]:.4f} answer {means[1]:.4f} {spent:.0f} s", flush=True)

    for course, steps in zip((usual, SECOND), options.steps, strict=True):
        if course is usual and options.second_only:
            model = LlamaForCausalLM.from_pretrained(options.second_only, attn_implementation="eager")
            continue
        model, _, _ = train(replace(course, seed=options.seed, steps=steps), options.device, report, model)
        folder = options.out / ("model" if course is SECOND else "first")
        model.cpu().save_pretrained(folder)
        print(f"saved {folder} after {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
