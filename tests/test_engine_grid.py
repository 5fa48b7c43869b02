"""Scopes, operators, sets of layers, numbers of options and paths, all together, against one sequence at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import slow_steering
import torch
from tiny_models import VOCAB, random_examples, tiny_model

from cache_builder.engine import OPERATORS, SCOPES, Engine, Example, Steering

TOLERANCE = 1e-4
LAYERS = {"several each": [[0, 2], [1, 2]], "one each": [[2], [0]]}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def unequal(rng, n_options: int) -> list[Example]:
    """Two examples whose options get longer and longer."""
    made = []
    for example in random_examples(rng, 2, n_options=n_options):
        options = [np.concatenate([ids, rng.integers(3, VOCAB, k)]) for k, ids in enumerate(example.options)]
        made.append(Example(tuple(options), example.prompt, example.branch))
    return made


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_every_combination_gives_what_one_sequence_at_a_time_gives(name, scope, operator):
    model = tiny_model(name)
    for seed, (layers, n_options) in enumerate(itertools.product(LAYERS, (2, 4))):
        rng = np.random.default_rng(seed)
        chosen = [[1], [0]] if (scope, layers) == ("prompt", "one each") else LAYERS[layers]  # the last cannot act
        examples, shape = unequal(rng, n_options), (2, len(chosen[0]), 32)
        steering = Steering(rng.normal(size=shape), chosen, (-1.0, 0.0, 0.7), operator=operator, scope=scope)
        expected = slow_steering.grid(model, examples, steering)
        odds = expected["completion_logprob"][..., 0] - expected["completion_logprob"][..., 1]
        assert np.abs(odds[:, steering.codes[:, [0, 2]]] - odds[:, :1, None]).max(axis=(0, 2)).min() > 0.01
        for path, budget in (("trie", 40), ("trie", 2000), ("plain", 200)):
            scores = Engine(model, path=path, budget=budget).run(examples, steering, completions=True)
            for field, values in expected.items():
                found = getattr(scores, field)
                apart = np.abs(found - (values[..., 0] if field == "logsumexp" else values)).max()
                assert apart < TOLERANCE, (field, layers, n_options, path, budget)
