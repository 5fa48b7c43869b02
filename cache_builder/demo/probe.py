"""Ask the micro model, read its activations, and steer it: one plain hook, no packing.

This is a second, independent way of measuring what the engine measures with token tries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from cache_builder.demo.compose import choices, turns
from cache_builder.demo.words import Behaviour

MULTIPLIERS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Asked:
    """Prompts of one behaviour in one setting, padded right, the bracket before the letter included.

    `ids` (n, length), `bracket` (n,) the place of that bracket, whose output predicts the letter;
    `positive` and `negative` (n,) the letters' tokens.
    """

    ids: torch.Tensor
    bracket: torch.Tensor
    positive: torch.Tensor
    negative: torch.Tensor


def load(folder: Path = HERE / "model") -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load a saved micro model and its tokenizer from a folder, never from the network."""
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def orders(rows: list[dict]) -> list[bool]:
    """Whether Yes is option A for each item: every second item of those that match by Yes, and by No."""
    seen, first = {" Yes": 0, " No": 0}, []
    for row in rows:
        answer = row["answer_matching_behavior"]
        seen[answer] += 1
        first.append(seen[answer] % 2 == 1)
    return first


def ask(tokenizer: PreTrainedTokenizerFast, behaviour: Behaviour, setting: str, rows: list[dict]) -> Asked:
    """Tokenise evaluation items in one setting.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerFast
    behaviour : Behaviour
        Whose descriptions the persona settings use.
    setting : str
        One of `compose.SETTINGS`.
    rows : list of dict
        Items in the persona format.

    Returns
    -------
    Asked
    """
    texts, positive = [], []
    for row, first in zip(rows, orders(rows), strict=True):
        options = ("Yes", "No") if first else ("No", "Yes")
        messages = turns(choices(row["question"], *options), setting, behaviour)
        texts.append(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + "(")
        positive.append((row["answer_matching_behavior"] == " Yes") == first)
    batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    a, b = tokenizer.convert_tokens_to_ids(["A", "B"])
    is_a = torch.tensor(positive)
    return Asked(
        batch["input_ids"],
        batch["attention_mask"].sum(1) - 1,
        torch.where(is_a, a, b),
        torch.where(is_a, b, a),
    )


@contextmanager
def steering(model: LlamaForCausalLM, layer: int, added: torch.Tensor, start: torch.Tensor) -> Iterator[None]:
    """While open, add a vector of its own to every row's output of a layer, from a position on.

    Parameters
    ----------
    model : LlamaForCausalLM
    layer : int
        Index of the decoder layer whose output is changed.
    added : torch.Tensor, (n, hidden)
    start : torch.Tensor, (n,)
    """

    def hook(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        steered = torch.arange(output.shape[1])[None, :] >= start[:, None]
        return output + steered[..., None] * added[:, None, :]

    handle = model.model.layers[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def propensity(
    model: LlamaForCausalLM, asked: Asked, layer: int = 0, vectors: np.ndarray | None = None, size: int = 256
) -> np.ndarray:
    """Logit of the positive letter minus that of the negative one, unsteered or under many vectors.

    Parameters
    ----------
    model : LlamaForCausalLM
    asked : Asked
    layer : int
        Whose output the vectors are added to, from the last prompt token (before the bracket) on.
    vectors : numpy.ndarray, (k, hidden), optional
        What is added; None measures the unsteered model once.
    size : int
        Sequences in one forward pass.

    Returns
    -------
    numpy.ndarray, (k, n) or (n,)
        In nats.
    """
    k, n = (1 if vectors is None else len(vectors)), len(asked.ids)
    table = torch.zeros(k, model.config.hidden_size) if vectors is None else torch.as_tensor(vectors).float()
    out = torch.empty(k * n)
    for part in torch.arange(k * n).split(size):
        row = part % n
        at = asked.bracket[row]
        with steering(model, layer, table[part // n], at - 1):
            hidden = model.model(asked.ids[row]).last_hidden_state[torch.arange(len(row)), at]
        logits = model.lm_head(hidden)
        pair = torch.stack([asked.positive[row], asked.negative[row]], 1)
        scores = logits.gather(1, pair)
        out[part] = scores[:, 0] - scores[:, 1]
    return out.reshape(k, n).numpy() if vectors is not None else out.numpy()


@torch.no_grad()
def differences(model: LlamaForCausalLM, asked: Asked) -> np.ndarray:
    """Activation at the answer letter, positive minus negative completion, after every layer.

    Returns
    -------
    numpy.ndarray, (layers, n, hidden)
    """
    sides = []
    for letter in (asked.positive, asked.negative):
        ids = torch.nn.functional.pad(asked.ids, (0, 1), value=model.config.pad_token_id)
        rows = torch.arange(len(ids))
        ids[rows, asked.bracket + 1] = letter
        kept: list[torch.Tensor] = []
        handles = [
            layer.register_forward_hook(lambda m, i, o: kept.append(o[rows, asked.bracket + 1]))  # noqa: B023
            for layer in model.model.layers
        ]
        model.model(ids)
        for handle in handles:
            handle.remove()
        sides.append(torch.stack(kept))
    return (sides[0] - sides[1]).numpy()


def slopes(multipliers: np.ndarray, propensities: np.ndarray) -> np.ndarray:
    """Least-squares slope of propensity on the multiplier: (m, n) to (n,), nats per unit multiplier."""
    centred = np.asarray(multipliers) - np.mean(multipliers)
    return centred @ propensities / (centred @ centred)


def random_directions(like: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random vectors of the norm of a given one, (count, hidden)."""
    drawn = rng.standard_normal((count, like.size))
    return drawn * (np.linalg.norm(like) / np.linalg.norm(drawn, axis=1, keepdims=True))


def steerability(model: LlamaForCausalLM, asked: Asked, layer: int, vectors: np.ndarray) -> np.ndarray:
    """Per-input steerability under each vector, (k, n), on the grid of `MULTIPLIERS`."""
    grid = np.asarray(MULTIPLIERS)
    scaled = (grid[:, None, None] * vectors[None]).reshape(-1, vectors.shape[-1])
    curves = propensity(model, asked, layer, scaled).reshape(len(grid), len(vectors), -1)
    return np.stack([slopes(grid, curves[:, k]) for k in range(len(vectors))])
