"""On a CUDA device (`pytest -m cuda`): the engine there gives what the CPU gives, however rows are masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import random_examples, random_steering, tiny_model

from cache_builder.engine import Engine
from cache_builder.engine.forward import linear_float32

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def expected():
    rng = np.random.default_rng(1)
    examples, steering = random_examples(rng, 12), random_steering(rng)
    scores = Engine(tiny_model("llama"), path="trie").run(examples, steering, completions=True, read_layers=(1,))
    return examples, steering, scores


@pytest.mark.parametrize("mask", ["blocked", "dense", "flex"])
def test_float32_equals_the_cpu_under_every_mask(expected, mask):
    examples, steering, scores = expected
    model = tiny_model("llama", hidden_size=128, head_dim=32, num_attention_heads=4).cuda() if mask == "flex" else None
    if mask == "flex":  # FlexAttention wants heads of at least 16; the reference is then the same model, masked densely
        rng = np.random.default_rng(2)
        steering = random_steering(rng, directions=rng.normal(size=(2, 1, 128)))
        scores = Engine(model, path="trie").run(examples, steering, completions=True, read_layers=(1,))
        model.set_attn_implementation("flex_attention")
    engine = Engine(model or tiny_model("llama").cuda(), path="trie", budget=200, flex=mask == "flex")
    engine.forward.attention = mask
    engine.forward.always_block = mask == "blocked"
    found = engine.run(examples, steering, completions=True, read_layers=(1,))
    assert np.abs(found.logits - scores.logits).max() < 1e-3
    assert np.abs(found.completion_logprob - scores.completion_logprob).max() < 1e-3
    assert np.abs(found.activations - scores.activations).max() < 1e-3


def test_bfloat16_passes_its_proof_and_stays_near_float32(expected):
    examples, steering, scores = expected
    engine = Engine(tiny_model("llama").to("cuda", torch.bfloat16))
    parity = engine.prove(examples, steering, completions=True)
    assert parity.passed
    assert engine.path == "trie"
    assert np.abs(engine.run(examples, steering).logits - scores.logits).max() < 0.2


def test_the_head_accumulates_in_float32():
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 64, device="cuda").bfloat16(), torch.randn(300, 64, device="cuda").bfloat16()
    exact = hidden.double() @ weight.double().T
    assert (linear_float32(hidden, weight, None).double() - exact).abs().max() < 1e-4


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second CUDA device")
def test_a_device_that_is_not_the_current_one(expected):
    examples, steering, scores = expected
    found = Engine(tiny_model("llama").to("cuda:1"), path="trie").run(examples, steering, read_layers=(1,))
    assert np.abs(found.logits - scores.logits).max() < 1e-3
    assert np.abs(found.activations - scores.activations).max() < 1e-3
