"""Rotary positions in place give the bits that the modules give; modules that rotate in another way are left alone."""

from __future__ import annotations

import importlib
import types

import numpy as np
import pytest
import slow_steering
import torch
from tiny_models import SPECIFICATIONS, random_examples, random_steering, tiny_model

from cache_builder.engine import Engine
from cache_builder.engine.rope import NAME, rope_in_place, rope_modules

CPU = torch.device("cpu")
# Halves of whole heads in the type they come in. GPT-NeoX and Phi-3 may rotate a part of each head, OLMo 2 gives back
# the type of the queries: to the bit they do the same where this is tried. GPT-2 and OPT have no rotary positions.
TAKEN = {"llama", "qwen2", "qwen3", "mistral", "mixtral", "gemma2", "gemma3", "phi3", "olmo2", "gpt_neox", "falcon"}


def home(name: str) -> types.ModuleType:
    """Where a tiny model's blocks are written."""
    return importlib.import_module(type(tiny_model(name)).__module__)


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_which_modules_are_taken(name):
    found = rope_modules(tiny_model(name), CPU)
    assert [place.__name__ for place in found] == ([home(name).__name__] if name in TAKEN else [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(TAKEN))
def test_a_grid_is_the_same_to_the_bit(name, dtype):
    rng = np.random.default_rng(0)
    examples, steering, model = random_examples(rng, 6), random_steering(rng), tiny_model(name).to(dtype)
    wanted = {"completions": True, "read_layers": (1,)}
    engine = Engine(model, path="trie")
    expected = engine.run(examples, steering, **wanted)
    engine.forward.ropes = rope_modules(model, CPU)
    called, own = [], getattr(home(name), NAME)
    slow_steering.blocks(model)[1].register_forward_pre_hook(lambda *_: called.append(getattr(home(name), NAME)))
    found = engine.run(examples, steering, **wanted)
    assert called
    assert own not in called
    assert getattr(home(name), NAME) is own
    for field in ("logits", "logsumexp", "completion_logprob", "activations"):
        assert np.array_equal(getattr(found, field), getattr(expected, field)), field


def test_a_part_of_each_head_is_left_to_the_module():
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    model = tiny_model("gpt_neox", rope_parameters=rope)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        expected = model(ids).logits
        with rope_in_place(rope_modules(model, CPU)):
            assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("change", ["interleaved", "rounded", "replaced", "arguments", "picky"])
def test_a_function_that_does_something_else_is_left_alone(change, monkeypatch):
    place, model = home("llama"), tiny_model("llama")
    own = getattr(place, NAME)

    def other(q, k, cos, sin, unsqueeze_dim=1):
        if change == "interleaved":
            q = q.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
        if change == "picky" and q.dtype == torch.float16:
            raise RuntimeError("no kernel for this type")
        if change == "rounded":
            return tuple(one.to(q.dtype) for one in own(q.float(), k.float(), cos.float(), sin.float()))
        return own(q, k, cos, sin, unsqueeze_dim)

    def more(q, k, cos, sin, position_ids=None, unsqueeze_dim=1):
        return own(q, k, cos, sin, unsqueeze_dim)

    function = more if change == "arguments" else other
    if change != "replaced":
        function.__module__ = place.__name__
    monkeypatch.setattr(place, NAME, function)
    assert rope_modules(model, CPU) == []


def test_functions_are_given_back_also_after_an_error():
    model, place = tiny_model("llama"), home("llama")
    own = getattr(place, NAME)
    model.model.norm.register_forward_pre_hook(lambda *_: getattr(place, NAME) is own or 1 / 0)
    with pytest.raises(ZeroDivisionError), rope_in_place(rope_modules(model, CPU)):
        model(torch.tensor([[1, 2, 3]]))
    assert getattr(place, NAME) is own


def test_trying_moves_no_one_elses_draws():
    model = tiny_model("llama")
    torch.manual_seed(3)
    expected = torch.randn(3)
    torch.manual_seed(3)
    rope_modules(model, CPU)
    assert torch.equal(torch.randn(3), expected)
