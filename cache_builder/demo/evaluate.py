"""Measure a trained micro model and write its card: `python -m cache_builder.demo.evaluate --model DIR`.

Nothing here is tuned towards a result: accuracies are over held-out statements, the vector comes from one
half of them and is steered on the other, and the null is random directions of the vector's norm.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from cache_builder.demo import probe
from cache_builder.demo.compose import HELD_OUT_PER_POLE, SETTINGS, items, stance
from cache_builder.demo.words import BEHAVIOURS, Behaviour

TRAINING_PAIRS = HELD_OUT_PER_POLE
RANDOM = 20


def accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int = 200) -> dict[str, dict]:
    """Share of held-out items answered as the persona, or as the default stance in base.

    Parameters
    ----------
    model, tokenizer
    count : int
        Items per behaviour, from the first on.

    Returns
    -------
    dict
        setting -> behaviour -> share of the items.
    """
    shares: dict[str, dict] = {}
    for setting in SETTINGS:
        shares[setting] = {}
        for b in BEHAVIOURS:
            m = probe.propensity(model, probe.ask(tokenizer, b, setting, items(b)[:count]))
            shares[setting][b.name] = float(np.mean((m > 0) == (stance(b, setting) > 0)))
    return shares


def steer(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    behaviour: Behaviour,
    layer: int,
    inputs: int,
    random: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Steer one behaviour in base with its mean-difference vector and with random ones of the same norm.

    Parameters
    ----------
    model, tokenizer
    behaviour : Behaviour
    layer : int
    inputs : int
        Held-out items steered; the vector comes from the `TRAINING_PAIRS` before them.
    random : int
        Random directions.
    rng : numpy.random.Generator

    Returns
    -------
    dict
        `slope` and `spread` (mean and standard deviation of per-input steerability, nats per unit
        multiplier), `anti` (share of inputs with a negative slope), `norm`, and of the random directions'
        absolute mean slopes `random_mean` and `random_max`.
    """
    rows = items(behaviour)
    trained, tested = rows[:TRAINING_PAIRS], rows[TRAINING_PAIRS : TRAINING_PAIRS + inputs]
    vector = probe.differences(model, probe.ask(tokenizer, behaviour, "base", trained))[layer].mean(0)
    vectors = np.concatenate([vector[None], probe.random_directions(vector, random, rng)])
    s = probe.steerability(model, probe.ask(tokenizer, behaviour, "base", tested), layer, vectors)
    null = np.abs(s[1:].mean(1)) if random else np.zeros(1)
    return {
        "slope": float(s[0].mean()),
        "spread": float(s[0].std(ddof=1)),
        "anti": float(np.mean(s[0] < 0)),
        "norm": float(np.linalg.norm(vector)),
        "random_mean": float(null.mean()),
        "random_max": float(null.max()),
    }


def evaluate(folder: Path, inputs: int = 40, seed: int = 0) -> dict:
    """All numbers of the card.

    Parameters
    ----------
    folder : Path
        A saved model.
    inputs : int
        Inputs steered per behaviour.
    seed : int
        Of the random directions.
    """
    model, tokenizer = probe.load(folder)
    rng = np.random.default_rng(seed)
    layers = range(len(model.model.layers) - 1)
    by_layer = {}
    for layer in layers:
        found = [steer(model, tokenizer, b, layer, inputs, 0, rng)["slope"] for b in BEHAVIOURS]
        by_layer[layer] = float(np.mean(found))
    best = max(by_layer, key=by_layer.__getitem__)
    return {
        "accuracy": accuracy(model, tokenizer),
        "slope_by_layer": by_layer,
        "layer": best,
        "steering": {b.name: steer(model, tokenizer, b, best, inputs, RANDOM, rng) for b in BEHAVIOURS},
        "inputs": inputs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "layers": model.config.num_hidden_layers,
        "hidden": model.config.hidden_size,
    }


def card(numbers: dict) -> str:
    """The model card, in Markdown, of what `evaluate` measured."""
    share = {s: float(np.mean(list(by.values()))) for s, by in numbers["accuracy"].items()}
    by_layer = ", ".join(f"{layer}: {slope:.3f}" for layer, slope in numbers["slope_by_layer"].items())
    lines = [
        "# The demo micro model",
        "",
        f"A Llama of {numbers['layers']} layers, hidden size {numbers['hidden']} and {numbers['parameters']:,}",
        "parameters, trained from nothing by `cache_builder/demo/train.py` on sentences composed from",
        "`cache_builder/demo/words.py`. It knows fourteen behaviours and answers whether it agrees with a",
        "statement, as itself (each behaviour has a default stance) or as a persona described to it. Training",
        "targets are graded: mild statements and weak stances divide opinion. Neither the training text nor the",
        "shipped items contain anything about steering; what steering does to it is whatever it does.",
        "",
        "Training took 2,200 + 1,300 steps of 32 conversations, about eight minutes on one processor core. After",
        "the first course alone vectors do next to nothing, as the model does not yet read the letter it has",
        "written; of two lengths tried for the second course this one steers more (with 3,200 steps the mean slope",
        "is 0.09 and no input in 16 is anti-steerable). Layer and length were chosen on the inputs shown here.",
        "",
        "All numbers are on held-out statements. Written by `cache_builder/demo/evaluate.py`.",
        "",
        "## Accuracy",
        "",
        "Share of items with the answer of the persona or, in base, of the default stance (chance 0.5).",
        "",
        "| behaviour | default stance | " + " | ".join(SETTINGS) + " |",
        "| --- | ---: |" + " ---: |" * len(SETTINGS),
    ]
    for b in BEHAVIOURS:
        cells = " | ".join(f"{numbers['accuracy'][s][b.name]:.2f}" for s in SETTINGS)
        lines.append(f"| {b.name} | {b.stance:+.1f} | {cells} |")
    lines.append("| **mean** | | " + " | ".join(f"**{share[s]:.3f}**" for s in SETTINGS) + " |")
    lines += [
        "",
        "## Steering in the base setting",
        "",
        f"Mean-difference vector of {TRAINING_PAIRS} pairs at the answer letter, added from the last prompt token",
        f"on with multipliers from -1.5 to 1.5; {numbers['inputs']} other inputs; slopes in nats per unit multiplier.",
        f"Mean over behaviours by layer (its output; counted from 0): {by_layer}. Recommended: {numbers['layer']}.",
        "",
        f"The last columns are |mean slope| of {RANDOM} random directions of the vector's norm.",
        "",
        "| behaviour | mean slope | SD over inputs | anti-steerable | norm | random, mean | random, largest |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, s in numbers["steering"].items():
        lines.append(
            f"| {name} | {s['slope']:.3f} | {s['spread']:.3f} | {s['anti']:.2f} | {s['norm']:.2f} "
            f"| {s['random_mean']:.3f} | {s['random_max']:.3f} |"
        )
    beyond = sum(s["slope"] > s["random_max"] for s in numbers["steering"].values())
    lines += ["", f"{beyond} of {len(numbers['steering'])} behaviours steer beyond all random directions.", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """The command line: measure, write `MODEL_CARD.md` and `evaluation.json` into the model's folder."""
    parser = argparse.ArgumentParser(description="measure the micro model and write its card")
    parser.add_argument("--model", type=Path, default=probe.HERE / "model")
    parser.add_argument("--inputs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    numbers = evaluate(options.model, options.inputs)
    (options.model / "evaluation.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    (options.model / "MODEL_CARD.md").write_text(card(numbers), encoding="utf-8")
    print(card(numbers))


if __name__ == "__main__":
    main()
