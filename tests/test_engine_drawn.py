"""Requests of any shape: the trie in rows and stages of any size gives what the plain path gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import VOCAB, tiny_model

from cache_builder.engine import OPERATORS, SCOPES, Engine, Example, Request, Steering
from steerstats.errors import ModelError

LAYERS = 4


def drawn_example(rng: np.random.Generator, n_options: int, alphabet: int) -> Example:
    """Of few different tokens, so that prompts begin one another; with reads anywhere, or none."""
    prompt, opening = (rng.integers(3, 3 + alphabet, int(rng.integers(*size))) for size in ((1, 12), (0, 3)))
    start = np.concatenate([prompt, opening])
    heads = rng.choice(np.arange(3, VOCAB), n_options, replace=False)
    tails = [rng.integers(3, 3 + alphabet, int(rng.integers(0, 4))) for _ in heads]
    options = tuple(np.concatenate([start, [head], tail]) for head, tail in zip(heads, tails))
    reads = []
    for option in rng.integers(n_options, size=int(rng.integers(0, 4))).tolist():
        begin = int(rng.integers(0, len(options[option])))
        reads.append((option, begin, int(rng.integers(begin + 1, len(options[option]) + 1))))
    return Example(options, len(prompt), len(start), tuple(reads))


def drawn_request(rng: np.random.Generator) -> Request:
    n_options, alphabet = int(rng.integers(1, 4)), int(rng.choice([4, 8, 90]))
    examples = [drawn_example(rng, n_options, alphabet) for _ in range(int(rng.integers(1, 8)))]
    examples += [examples[0]] * int(rng.integers(2))
    n_vectors, n_slots = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    layers = np.stack([rng.choice(LAYERS, n_slots, replace=False) for _ in range(n_vectors)])
    multipliers = rng.choice([-2.0, -1.0, 0.0, 0.5, 1.0], int(rng.integers(1, 5)))
    directions = rng.normal(size=(n_vectors, n_slots, 32))
    steering = Steering(directions, layers, multipliers, str(rng.choice(OPERATORS)), str(rng.choice(SCOPES)))
    read = tuple(sorted(rng.choice(LAYERS, int(rng.integers(0, 3)), replace=False).tolist()))
    whole = bool(rng.integers(2))
    return Request(examples, steering, whole, read, first=not whole or bool(rng.integers(2)))


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_rows_and_stages_of_any_size_give_what_the_plain_path_gives(name):
    torch.set_num_threads(1)
    rng, model, ran = np.random.default_rng(16), tiny_model(name, num_hidden_layers=LAYERS), 0
    while ran < 5:
        request = drawn_request(rng)
        try:
            expected = next(Engine(model, path="plain").stream([request]))
        except ModelError:  # a scope that cannot act
            continue
        engine = Engine(model, path="trie", budget=int(rng.choice([16, 40, 1000])), join=bool(rng.integers(4)))
        engine.ceiling = int(rng.integers(3, 60)) if rng.random() < 0.4 else None
        engine.forward.always_block = engine.mask == "blocked" and bool(rng.integers(2))
        found = next(engine.stream([request]))
        for array in ("logits", "logsumexp", "completion_logit", "completion_logprob", "activations"):
            values, wanted = getattr(found, array), getattr(expected, array)
            assert (values is None) == (wanted is None)
            if wanted is not None:
                np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4, err_msg=f"{array} of {request}")
        ran += 1
