"""The plain path is held to single passes too, and rounding is no excuse for more than rounding."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slow_steering
import torch
import transformers
from tiny_models import VOCAB, random_examples, random_steering, tiny_model

from cache_builder.engine import Engine, Example
from cache_builder.engine.lines import parts_of
from cache_builder.engine.plan import Wanted, lay_out
from cache_builder.packing import Row
from steerstats.errors import ModelError

DYNAMIC = {
    "max_position_embeddings": 16,
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
}
LONGROPE = {
    "max_position_embeddings": 128,
    "original_max_position_embeddings": 18,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 18,
        "partial_rotary_factor": 1.0,
    },
}


def sized_examples(sizes, beyond: int = 2) -> list[Example]:
    """Of as many tokens as asked for, and so many beyond the first in which they differ."""
    rng = np.random.default_rng(4)
    found = []
    for size in sizes:
        prompt, letters = rng.integers(3, VOCAB, size), rng.choice(np.arange(3, VOCAB), 2, replace=False)
        tails = [np.concatenate([prompt, [letter], rng.integers(3, VOCAB, beyond)]) for letter in letters]
        found.append(Example(tuple(tails), prompt=size - 1, branch=size))
    return found


def forgetful(model):
    """A model that has seen nothing before each of its passes: what a sequence of its own gets."""

    def forget(module, args, kwargs=None):
        module.rotary_emb.max_seq_len_cached = 0

    model.model.register_forward_pre_hook(forget)
    return model


def alone(model, examples, steering) -> tuple[np.ndarray, np.ndarray]:
    """First-token logits and sums over whole completions, of sequences that end with what is asked of them."""
    shape = (len(examples), steering.n_codes, 2)
    logits, sums = np.zeros(shape), np.zeros(shape)
    for i, example in enumerate(examples):
        for vector, column in np.ndindex(steering.codes.shape):
            code, by_layer = steering.codes[vector, column], {1: np.float64(steering.directions[vector, 0])}
            span = range(example.prompt - 1, 99)

            def run(ids, by_layer=by_layer, span=span, x=float(steering.multipliers[column])):
                return slow_steering.logits_of(model, ids, span, by_layer, x, "add")

            first = run(example.options[0][: example.branch])[-1]
            logits[i, code] = [first[ids[example.branch]] for ids in example.options]
            for j, ids in enumerate(example.options):
                found = torch.tensor(run(ids[:-1])).log_softmax(-1)
                sums[i, code, j] = sum(float(found[t, ids[t + 1]]) for t in range(example.prompt - 1, len(ids) - 1))
    return logits, sums


@pytest.mark.parametrize("path", ["auto", "plain"])
def test_frequencies_that_follow_the_longest_sequence_follow_each_ones_own(path):
    steering = random_steering(np.random.default_rng(0))
    examples = sized_examples([9, 24, 24, 12, 20, 20, 9, 31])
    logits, sums = alone(forgetful(tiny_model("llama", **DYNAMIC)), examples, steering)
    engine = Engine(tiny_model("llama", **DYNAMIC), path=path)
    found = engine.prove(examples, steering)
    assert (found.path, found.lines) == ("plain", "equal")
    assert found.plain_difference < 1e-4, "of sequences as they run, not of the batches that were refused"
    assert "sequences run in batches of one length, slower still: in batches of several lengths" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["lines"] == "equal"
    scores = engine.run(examples, steering, completions=True, read_layers=(1, 2))
    assert scores.computed == scores.packed
    assert scores.logits == pytest.approx(logits, abs=1e-4)
    assert scores.completion_logprob == pytest.approx(sums, abs=1e-4)
    again = engine.run(examples[:1], steering, completions=True, read_layers=(1, 2))
    assert again.logits == pytest.approx(scores.logits[:1], abs=1e-5), "what ran before must not matter"
    assert again.activations == pytest.approx(scores.activations[:1], abs=1e-5)


def test_a_model_that_minds_company_gets_one_sequence_at_a_time():
    steering = random_steering(np.random.default_rng(0))
    examples = sized_examples([9, 9, 12, 12, 15])
    model = tiny_model("llama")
    expected = slow_steering.grid(model, examples, steering)
    model.model.layers[0].register_forward_hook(lambda module, args, output: output + 0.1 * (output.shape[0] - 1))
    model.model.layers[0].mlp.register_forward_hook(lambda module, args, output: output * (1 + (args[0].numel() > 999)))
    engine = Engine(model, path="plain")
    assert engine.prove(examples, steering).lines == "single"
    assert engine.parity.plain_difference == 0.0
    assert "one at a time" in str(engine.parity)
    assert engine.run(examples, steering).logits == pytest.approx(expected["logits"], abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("path", "padded", "lines"), [("auto", True, "equal"), ("plain", True, "equal"), ("plain", False, "single")]
)
def test_a_model_that_raises_on_batches_gets_the_ones_that_it_takes(path, padded, lines, dtype):
    steering = random_steering(np.random.default_rng(0))
    examples = sized_examples([9, 9, 12, 12, 15])
    model = tiny_model("llama").to(dtype)
    expected = Engine(model, path="trie").run(examples, steering, completions=True, read_layers=(1,))

    def picky(module, args, kwargs):
        mask = kwargs.get("attention_mask")
        ragged = mask is not None and mask.ndim == 2 and not mask.all()
        if ragged if padded else len(kwargs["input_ids"]) > 1:
            raise ValueError("cu_seqlens and padding\ndo not go together")

    model.model.register_forward_pre_hook(picky, with_kwargs=True)
    engine = Engine(model, path=path)
    parity = engine.prove(examples, steering, completions=True)
    assert parity.lines == lines
    assert parity.plain_difference <= parity.tolerance
    if path == "plain":
        assert str(parity).endswith(
            "slower still: in batches of several lengths the model gives other numbers, or an error"
        )
    scores = engine.run(examples, steering, completions=True, read_layers=(1,))
    allowed = 1e-4 if dtype == torch.float32 else 0.2
    assert scores.logits == pytest.approx(expected.logits, abs=allowed)
    assert scores.activations == pytest.approx(expected.activations, abs=allowed)


@pytest.mark.parametrize("path", ["auto", "plain"])
def test_an_encoder_is_refused(path):
    values = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.BertConfig(**values, intermediate_size=48))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.15)
    rng = np.random.default_rng(0)
    with pytest.raises(ModelError, match="BertLMHeadModel lets tokens see later ones, as an encoder does"):
        Engine(model, path=path).prove(random_examples(rng), random_steering(rng))


def test_a_model_that_raises_on_batches_is_held_to_the_noise_of_those_it_takes():
    """The tolerance was four roundings of the largest sum, 0.7 nats where a model that takes any has 0.04."""
    case = sized_examples([9, 9, 12, 12, 15]), random_steering(np.random.default_rng(0))
    model = tiny_model("llama").to(torch.bfloat16)
    usual = Engine(model).prove(*case, completions=True).tolerance
    calls = []

    def picky(module, args, kwargs):
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.ndim == 2 and not mask.all():
            calls.append(1)
            raise ValueError("no padding")

    model.model.register_forward_pre_hook(picky, with_kwargs=True)
    found = Engine(model).prove(*case, completions=True)
    assert calls
    assert (found.passed, found.lines) == (True, "equal")
    assert max(3 * found.plain_difference, found.difference) <= found.tolerance < 2 * usual


@pytest.mark.parametrize("beyond", [2, 20])
@pytest.mark.parametrize("whole", [False, True])
def test_low_precision_excuses_no_more_than_rounding(beyond, whole):
    """Nor do large sums over long completions excuse anything at the first token."""
    steering = random_steering(np.random.default_rng(0))
    examples = sized_examples([9, 30, 30, 12, 25, 20, 9, 31], beyond)
    model = tiny_model("phi3", **LONGROPE).to(torch.bfloat16)
    engine = Engine(model)
    found = engine.prove(examples, steering, completions=whole)
    assert found.plain_difference < found.tolerance < found.difference
    assert (engine.path, found.lines) == ("plain", "equal")
    alone = [Engine(model, path="plain").run([one], steering).logits for one in examples]
    assert engine.run(examples, steering).logits == pytest.approx(np.concatenate(alone), abs=0.05)


@pytest.mark.parametrize("way", ["equal", "single"])
def test_every_line_and_all_that_is_asked_of_it_is_in_one_part(way):
    rng = np.random.default_rng(1)
    examples, steering = random_examples(rng, 5), random_steering(rng)
    wanted = Wanted(completions=True, reads=True)
    row = Row(np.arange(5), np.arange(1, steering.n_codes), True, 0)
    layout = lay_out(examples, steering, row, wanted, as_trie=False)
    nodes = np.unique(layout.score_node)
    parts = list(parts_of(layout, nodes, way))
    assert sum(part.layout.token.size for part in parts) == layout.lengths.sum()
    for whole, node, place in (
        (nodes, [part.wanted for part in parts], [part.wanted_place for part in parts]),
        (layout.read_node, [part.layout.read_node for part in parts], [part.read_place for part in parts]),
    ):
        assert sorted(np.concatenate(place)) == list(range(len(whole)))
        for part, here, at in zip(parts, node, place):
            for name in ("token", "code", "depth"):
                found = getattr(part.layout, name).reshape(-1)[here]
                assert np.array_equal(found, getattr(layout, name).reshape(-1)[whole[at]])
