"""Every vector has to act: what steering cannot reach is refused, by the score that is wanted, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import slow_steering
import torch
import transformers
from tiny_models import VOCAB, random_examples, random_steering, tiny_model

from cache_builder.engine import Engine, Example, Steering, read_spans
from cache_builder.engine.requests import OPERATORS, READS
from steerstats.errors import ModelError


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def part_at_once(rng, lengths=(4, 5), n=3) -> list[Example]:
    """Options of these many tokens that differ from their first one on."""
    made = []
    for _ in range(n):
        prompt = rng.integers(3, VOCAB, 10)
        options = [np.concatenate([prompt, [5 + k], rng.integers(3, VOCAB, m - 1)]) for k, m in enumerate(lengths)]
        made.append(Example(tuple(options), prompt=10, branch=10))
    return made


def slopes_are_zero(model, examples, steering, score) -> list[bool]:
    """Of each vector, from one sequence at a time."""
    values = slow_steering.grid(model, examples, steering)[score]
    odds = values[..., 0] - values[..., 1]
    return [bool(np.ptp(odds[:, codes], axis=1).max() < 1e-5) for codes in steering.codes]


def test_a_layer_that_cannot_act_is_named_although_others_act():
    rng = np.random.default_rng(0)
    model, examples = tiny_model("llama"), random_examples(rng, 2)
    sweep = Steering(rng.normal(size=(3, 1, 32)), [[0], [1], [2]], (-1.0, 0.0, 1.0), scope="prompt")
    assert slopes_are_zero(model, examples, sweep, "logits") == [False, False, True]
    for completions in (False, True):
        with pytest.raises(ModelError, match=r"scope 'prompt' cannot act at layer 2, the last.*leave that layer out"):
            Engine(model, path="trie").run(examples, sweep, completions=completions)
    both = Steering(rng.normal(size=(2, 2, 32)), [[0, 2], [1, 2]], (-1.0, 0.0, 1.0), scope="prompt")
    assert slopes_are_zero(model, examples, both, "logits") == [False, False]
    Engine(model, path="trie").run(examples, both)


def test_the_last_layer_acts_on_prompts_whose_last_token_predicts_the_answer():
    rng = np.random.default_rng(1)
    model, examples = tiny_model("llama"), part_at_once(rng)
    steering = random_steering(rng, layers=2, scope="prompt")
    scores = Engine(model, path="trie").run(examples, steering)
    expected = slow_steering.grid(model, examples, steering)["logits"]
    assert np.ptp(expected, axis=1).min() > 0.05
    assert np.abs(scores.logits - expected).max() < 1e-4


@pytest.mark.parametrize("path", ["trie", "plain"])
@pytest.mark.parametrize("layer", [1, 2])
def test_whole_completions_that_differ_at_once_are_steered_from_their_first_token(path, layer):
    rng = np.random.default_rng(2)
    model, examples = tiny_model("llama"), part_at_once(rng)
    steering = random_steering(rng, layers=layer, scope="first_answer")
    engine = Engine(model, path=path)
    with pytest.raises(ModelError, match="already predicts the first differing token"):
        engine.run(examples, steering)
    assert slopes_are_zero(model, examples, steering, "logits") == [True, True]
    scores = engine.run(examples, steering, completions=True)
    expected = slow_steering.grid(model, examples, steering)
    for score, name in (("logprob_sum", "completion_logprob"), ("logit_sum", "completion_logit")):
        odds = expected[name][..., 0] - expected[name][..., 1]
        assert np.ptp(odds, axis=1).min() > 0.05
        assert np.abs(scores.propensity(score) - odds).max() < 1e-4


def test_of_one_token_each_whole_completions_cannot_be_steered_from_the_answer_on():
    rng = np.random.default_rng(3)
    model, examples = tiny_model("llama"), part_at_once(rng, lengths=(1, 1))
    steering = random_steering(rng, scope="first_answer")
    assert slopes_are_zero(model, examples, steering, "completion_logprob") == [True, True]
    with pytest.raises(ModelError, match="already predicts the last token of every completion"):
        Engine(model, path="trie").run(examples, steering, completions=True)


@pytest.mark.parametrize("lengths", [(1, 2), (2, 1)])
def test_one_completion_with_a_token_to_predict_is_enough_for_steering_from_the_answer_on(lengths):
    rng = np.random.default_rng(3)
    model, examples = tiny_model("llama"), part_at_once(rng, lengths=lengths)
    steering = random_steering(rng, scope="first_answer")
    assert slopes_are_zero(model, examples, steering, "completion_logprob") == [False, False]
    scores = Engine(model, path="trie").run(examples, steering, completions=True)
    expected = slow_steering.grid(model, examples, steering)["completion_logprob"]
    assert np.abs(scores.completion_logprob - expected).max() < 1e-4


def test_each_place_to_read_is_the_tokens_that_its_name_says():
    # Prompt of 4 tokens, then an answer whose options part at their second token.
    places = {
        "answer": ((0, 5, 6), (1, 5, 6)),
        "last_token": ((0, 6, 7), (1, 8, 9)),
        "last_prompt": ((0, 3, 4), (1, 3, 4)),
        "completion_mean": ((0, 4, 7), (1, 4, 9)),
    }
    assert set(places) == set(READS)
    for mode, expected in places.items():
        assert read_spans(mode, [7, 9], prompt=4, branch=5) == expected


def test_multiplier_zero_costs_nothing_but_where_it_changes_something():
    at_zero = {one: random_steering(np.random.default_rng(0), operator=one).codes[:, 2] for one in OPERATORS}
    assert {one: bool(codes.any()) for one, codes in at_zero.items()} == {
        "add": False, "add_keep_norm": False, "ablate": False, "ablate_add": True
    }  # fmt: skip


def test_an_engine_is_tuned_on_what_it_will_score():
    rng = np.random.default_rng(4)
    engine, examples = Engine(tiny_model("llama"), path="trie"), part_at_once(rng)
    steering = random_steering(rng, scope="first_answer")
    engine.prove(examples, steering, completions=True)
    assert set(engine.tune(examples, steering, (64, 256), completions=True)) == {64, 256}
    found = engine.choose_mask(examples, steering, ("blocked", "dense"), completions=True)
    assert all(isinstance(speed, float) for speed in found.values()), found
    with pytest.raises(ModelError, match="cannot act"):
        engine.run(examples, steering)


def test_blocks_that_give_a_list_are_steered_and_read():
    values = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "attn_pdrop": 0.0}
    torch.manual_seed(0)
    model = transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**values)).eval()
    rng = np.random.default_rng(0)
    examples, steering = random_examples(rng, 4), random_steering(rng)
    engine = Engine(model)
    found = engine.run(examples, steering, read_layers=(1,))
    seen = []
    model.transformer.h[1].register_forward_hook(lambda module, args, output: seen.append(output[0].detach()))
    option, start, stop = examples[2].reads[1]
    model(input_ids=torch.tensor(examples[2].options[option])[None])
    assert found.activations[2, 1, 0] == pytest.approx(seen[0][0, start:stop].mean(0).numpy(), abs=1e-5)
    moved = torch.tensor(steering.multipliers[-1] * steering.directions[1, 0]).float()
    start, _ = steering.steered_span(examples[2])

    def steer(module, args, output):
        output[0][:, start:] += moved
        return output

    model.transformer.h[1].register_forward_hook(steer)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(examples[2].options[0][: examples[2].branch])[None]).logits[0, -1]
    expected = [float(logits[ids[examples[2].branch]]) for ids in examples[2].options]
    assert found.logits[2, steering.codes[1, -1]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("path", ["auto", "plain"])
def test_a_model_of_several_streams_is_refused(path):
    """As Gemma-3n: added to one of four streams, a vector would be something else than what is asked for."""
    model = tiny_model("llama")
    for block in model.model.layers:
        block.register_forward_pre_hook(lambda module, args: (args[0][0] if args[0].ndim == 4 else args[0], *args[1:]))
        block.register_forward_hook(lambda module, args, output: torch.stack([output] * 4))
    model.model.norm.register_forward_pre_hook(lambda module, args: (args[0][0],))
    rng = np.random.default_rng(0)
    with pytest.raises(ModelError, match=r"LlamaDecoderLayer gives activations of shape \(4, \d+, \d+, 32\), not"):
        Engine(model, path=path).run(random_examples(rng, 2), random_steering(rng))
