"""The engine gives what one sequence at a time gives, on every architecture, however it is batched."""

from __future__ import annotations

import numpy as np
import pytest
import slow_steering
import torch
from tiny_models import ARCHITECTURES, PLAIN_ARCHITECTURES, WINDOW, random_examples, random_steering, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from cache_builder.engine import OPERATORS, SCOPES, Engine, Example, Steering, attention, count_nodes
from steerstats.errors import ModelError

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_trie_plain_and_slow_agree_on_every_cell(name):
    rng = np.random.default_rng(1)
    model, examples, steering = tiny_model(name), random_examples(rng), random_steering(rng)
    expected = slow_steering.grid(model, examples, steering)
    assert np.ptp(expected["logits"], axis=1).min() > 0.05, "steering has to matter for this test to mean anything"
    for path in ("trie", "plain"):
        scores = Engine(model, path=path, budget=64).run(examples, steering, completions=True)
        assert np.abs(scores.logits - expected["logits"]).max() < TOLERANCE
        assert np.abs(scores.logsumexp - expected["logsumexp"][..., 0]).max() < TOLERANCE
        assert np.abs(scores.completion_logit - expected["completion_logit"]).max() < TOLERANCE
        assert np.abs(scores.completion_logprob - expected["completion_logprob"]).max() < TOLERANCE


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_proof_passes_and_chooses_the_trie(name):
    rng = np.random.default_rng(2)
    engine = Engine(tiny_model(name))
    parity = engine.prove(random_examples(rng), random_steering(rng))
    assert parity.passed
    assert engine.path == "trie"
    assert parity.difference < 1e-5
    assert parity.activation_difference < 1e-5
    assert parity.own_difference < 1e-5


@pytest.mark.parametrize("name", PLAIN_ARCHITECTURES)
def test_models_that_take_no_tree_mask_go_the_plain_path_by_themselves(name):
    rng = np.random.default_rng(3)
    model, examples, steering = tiny_model(name), random_examples(rng, 4), random_steering(rng)
    engine = Engine(model, budget=64)
    scores = engine.run(examples, steering, completions=True)
    assert engine.path == "plain"
    assert not engine.parity.passed
    assert "plain path" in str(engine.parity)
    expected = slow_steering.grid(model, examples, steering)
    assert np.abs(scores.logits - expected["logits"]).max() < TOLERANCE
    assert np.abs(scores.completion_logprob - expected["completion_logprob"]).max() < TOLERANCE


def test_a_model_that_asserts_what_the_trie_does_not_give_goes_the_plain_path(monkeypatch):
    model, rng = tiny_model("llama"), np.random.default_rng(3)
    own = model.forward

    def strict(*args, attention_mask=None, **kwargs):
        assert attention_mask is None or attention_mask.ndim == 2, "one number a token"
        return own(*args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(model, "forward", strict)
    parity = Engine(model).prove(random_examples(rng), random_steering(rng))
    assert (parity.path, parity.reason) == ("plain", "it raises AssertionError: one number a token")


def test_a_proof_of_whole_completions_asks_no_device_for_float64():
    """Apple's (MPS) has none, and raises a TypeError."""

    class Single(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            assert getattr(out, "dtype", None) != torch.float64, func
            return out

    engine, rng = Engine(tiny_model("llama")), np.random.default_rng(3)
    examples, steering = random_examples(rng), random_steering(rng)
    with Single():
        assert engine.prove(examples, steering, completions=True).passed
        engine.run(examples, steering, completions=True, read_layers=(0, 2))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_scopes_and_operators_equal_the_slow_way(name, scope, operator):
    rng = np.random.default_rng(4)
    model, examples = tiny_model(name), random_examples(rng, 3)
    steering = random_steering(rng, 1, operator=operator, scope=scope, multipliers=(-1.0, 0.0, 0.7))
    expected = slow_steering.grid(model, examples, steering)
    assert np.abs(np.diff(expected["logits"], axis=1)).max() > 0.01
    for path in ("trie", "plain"):
        scores = Engine(model, path=path, budget=50).run(examples, steering, completions=True)
        assert np.abs(scores.logits - expected["logits"]).max() < TOLERANCE
        assert np.abs(scores.completion_logprob - expected["completion_logprob"]).max() < TOLERANCE


@pytest.mark.parametrize("name", ["qwen3", "opt"])
def test_several_layers_at_once_and_vectors_of_different_layers(name):
    rng = np.random.default_rng(5)
    model, examples = tiny_model(name), random_examples(rng, 3)
    together = random_steering(rng, 2, layers=(0, 2))
    apart = Steering(rng.normal(size=(3, 1, 32)), [[0], [1], [2]], (-1.0, 0.0, 1.0))
    for steering in (together, apart):
        scores = Engine(model, path="trie").run(examples, steering)
        assert np.abs(scores.logits - slow_steering.grid(model, examples, steering)["logits"]).max() < TOLERANCE


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_published_package_gives_the_same_propensities(name):
    package = pytest.importorskip("steering_vectors", reason="the oracle is not installed")
    if name == "opt":
        layers = {"decoder_block": "model.decoder.layers.{num}"}
    elif name == "falcon":
        layers = {"decoder_block": "transformer.h.{num}"}
    else:
        layers = None
    rng = np.random.default_rng(6)
    model, examples, steering = tiny_model(name), random_examples(rng, 4), random_steering(rng)
    propensity = Engine(model, path="trie").run(examples, steering).propensity()
    for v, direction in enumerate(steering.directions):
        vector = package.SteeringVector({1: torch.from_numpy(direction[0])})
        for j, multiplier in enumerate(steering.multipliers):
            for i, example in enumerate(examples):
                with vector.apply(model, layers, multiplier=float(multiplier), min_token_index=example.prompt - 1):
                    answers = []
                    for ids in example.options:
                        with torch.inference_mode():
                            logits = model(input_ids=torch.tensor(ids)[None]).logits[0, example.branch - 1]
                        answers.append(float(logits[ids[example.branch]]))
                assert abs(answers[0] - answers[1] - propensity[i, steering.codes[v, j]]) < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mixtral", "gemma2", "mamba"])
def test_batch_composition_and_row_packing_do_not_matter(name):
    rng = np.random.default_rng(7)
    model, examples, steering = tiny_model(name), random_examples(rng, 7), random_steering(rng)
    path = "plain" if name == "mamba" else "trie"
    results = [
        Engine(model, path=path, budget=budget).run(chosen, steering, read_layers=(1,))
        for budget in (16, 40, 2000)
        for chosen in (examples, examples[::-1])
    ]
    for k, scores in enumerate(results[1:], start=1):
        order = slice(None, None, -1 if k % 2 else 1)
        assert np.abs(scores.logits[order] - results[0].logits).max() < 1e-5
        assert np.abs(scores.activations[order] - results[0].activations).max() < 1e-5
    alone = Engine(model, path=path).run(examples[2:3], steering)
    assert np.abs(alone.logits[0] - results[0].logits[2]).max() < 1e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("scope", "parts"), [("last_prompt", 4), ("all", 1)])
def test_attention_in_blocks_equals_the_dense_mask(name, scope, parts, monkeypatch):
    rng = np.random.default_rng(24)
    model, examples, steering = tiny_model(name), random_examples(rng, 6), random_steering(rng, scope=scope)
    dense = Engine(model, path="trie", budget=150)
    dense.forward.attention = "dense"
    blocked = Engine(model, path="trie", budget=150)
    assert blocked.forward.attention == ("dense" if name == "gemma2" else "blocked")
    monkeypatch.setattr(attention, "BLOCK", {"cpu": 8})
    monkeypatch.setattr(attention, "PARTS", {"cpu": parts})
    blocked.forward.always_block = True
    calls = []
    attend = attention.BlockPlan.attend
    monkeypatch.setattr(attention.BlockPlan, "attend", lambda *a: calls.append(1) or attend(*a))
    apart = blocked.run(examples, steering).logits - dense.run(examples, steering).logits
    assert np.abs(apart).max() < 1e-5
    assert bool(calls) == (name != "gemma2")


def test_blocks_are_used_where_they_save_and_the_proof_always_tries_them(monkeypatch):
    rng = np.random.default_rng(25)
    model, examples, steering = tiny_model("llama"), random_examples(rng, 6), random_steering(rng)
    calls = []
    attend = attention.BlockPlan.attend
    monkeypatch.setattr(attention.BlockPlan, "attend", lambda *a: calls.append(1) or attend(*a))
    engine = Engine(model, path="trie", budget=2000)
    engine.run(examples, steering)
    assert not calls
    assert engine.prove(examples, steering).mask == "blocked"
    assert calls
    calls.clear()
    engine.run(random_examples(rng, 40), steering)
    assert calls


def test_blocks_that_fail_the_proof_leave_the_trie_with_a_dense_mask(monkeypatch):
    rng = np.random.default_rng(26)
    engine = Engine(tiny_model("llama"))
    monkeypatch.setattr(attention.BlockPlan, "attend", lambda self, query, key, value, scale: query)
    parity = engine.prove(random_examples(rng), random_steering(rng))
    assert parity.passed
    assert parity.mask == engine.forward.attention == "dense"


def test_the_same_budget_gives_the_same_bits():
    rng = np.random.default_rng(8)
    model, examples, steering = tiny_model("llama"), random_examples(rng, 6), random_steering(rng)
    first, second = (Engine(model, path="trie", budget=60).run(examples, steering) for _ in range(2))
    assert np.array_equal(first.logits, second.logits)


@pytest.mark.parametrize("path", ["trie", "plain"])
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma3"])
def test_multiplier_zero_is_the_untouched_model(name, path):
    rng = np.random.default_rng(9)
    model, examples = tiny_model(name), random_examples(rng, 4)
    steering = random_steering(rng)
    assert (steering.codes[:, 2] == 0).all()
    scores = Engine(model, path=path).run(examples, steering)
    for i, example in enumerate(examples):
        with torch.inference_mode():
            own = model(input_ids=torch.tensor(example.options[0])[None]).logits[0, example.branch - 1].numpy()
        answers = [ids[example.branch] for ids in example.options]
        assert np.abs(scores.logits[i, 0] - own[answers]).max() < 1e-5
        assert abs(scores.logsumexp[i, 0] - np.log(np.exp(own.astype(np.float64)).sum())) < 1e-5


@pytest.mark.parametrize("path", ["trie", "plain"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon", "olmo2"])
def test_activations_are_the_block_outputs_at_the_tokens_asked_for(name, path):
    rng = np.random.default_rng(10)
    model = tiny_model(name)
    examples = []
    for example in random_examples(rng, 4):
        ends = [len(ids) for ids in example.options]
        reads = (
            (0, example.branch, example.branch + 1),
            (1, example.prompt, ends[1]),
            (0, example.prompt - 1, example.prompt),
        )
        examples.append(Example(example.options, example.prompt, example.branch, reads))
    layers = (0, 2)
    together = Engine(model, path=path, budget=48).run(examples, random_steering(rng), read_layers=layers)
    alone = Engine(model, path=path).run(examples, read_layers=layers, first=False).activations
    for i, example in enumerate(examples):
        for r, (option, start, stop) in enumerate(example.reads):
            outputs = slow_steering.block_outputs(model, example.options[option])
            for column, layer in enumerate(layers):
                expected = outputs[layer][start:stop].mean(0)
                assert np.abs(together.activations[i, r, column] - expected).max() < TOLERANCE
                assert np.abs(alone[i, r, column] - expected).max() < TOLERANCE


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_sliding_windows_shorter_than_the_prompt_are_kept(name):
    rng = np.random.default_rng(11)
    examples, steering = random_examples(rng, 3), random_steering(rng)
    assert min(example.prompt for example in examples) > WINDOW
    model = tiny_model(name)
    expected = slow_steering.grid(model, examples, steering)["logits"]
    wide = slow_steering.grid(tiny_model(name, sliding_window=100), examples, steering)["logits"]
    assert np.abs(expected - wide).max() > 0.01, "the window has to matter"
    scores = Engine(model, path="trie").run(examples, steering)
    assert np.abs(scores.logits - expected).max() < TOLERANCE


def test_a_window_goes_by_depth_and_padding_sees_itself_alone():
    forward = Engine(tiny_model("llama")).forward
    end, depth = torch.tensor([[4, 3, 3, 4, 5]]), torch.tensor([[0, 1, 2, 1, 0]])  # 0-1-2, 0-3, padding
    whole = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert forward._dense_mask(end, depth, None)[0, 0].int().tolist() == whole
    whole[2][0] = 0
    assert forward._dense_mask(end, depth, 2)[0, 0].int().tolist() == whole


def test_more_than_two_options():
    rng = np.random.default_rng(12)
    model, steering = tiny_model("llama"), random_steering(rng)
    examples = random_examples(rng, 3, n_options=4)
    expected = slow_steering.grid(model, examples, steering)
    scores = Engine(model, path="trie").run(examples, steering, completions=True)
    assert np.abs(scores.logits - expected["logits"]).max() < TOLERANCE
    odds = expected["logits"][..., 0] - np.log(np.exp(expected["logits"][..., 1:]).sum(-1))
    assert np.abs(scores.propensity() - odds).max() < TOLERANCE
    assert np.abs(scores.propensity("probability") - 1 / (1 + np.exp(-odds))).max() < TOLERANCE
    mass = np.exp(expected["logits"] - expected["logsumexp"]).sum(-1)
    assert np.abs(scores.propensity("answer_mass") - mass).max() < TOLERANCE


def test_every_score_follows_from_the_slow_logits():
    rng = np.random.default_rng(13)
    model, examples, steering = tiny_model("qwen2"), random_examples(rng, 4), random_steering(rng)
    expected = slow_steering.grid(model, examples, steering)
    scores = Engine(model, path="trie").run(examples, steering, completions=True)
    mass = np.exp(expected["logits"] - expected["logsumexp"]).sum(-1)
    pairs = {
        "logit_diff": expected["logits"],
        "logprob_sum": expected["completion_logprob"],
        "logit_sum": expected["completion_logit"],
    }
    for score, values in pairs.items():
        assert np.abs(scores.propensity(score) - (values[..., 0] - values[..., 1])).max() < TOLERANCE
    assert np.abs(scores.propensity("answer_mass") - mass).max() < TOLERANCE
    assert (mass < 0.9).all()
    assert (mass > 0).all()


def test_a_token_of_bracket_and_letter_refuses_a_scope_that_could_not_act():
    rng = np.random.default_rng(14)
    example = random_examples(rng, 1)[0]
    joined = Example(example.options, prompt=example.branch, branch=example.branch)
    engine = Engine(tiny_model("llama"), path="trie")
    with pytest.raises(ModelError, match="scope = 'last_prompt'"):
        engine.run([joined], random_steering(rng, scope="first_answer"))
    scores = engine.run([joined], random_steering(rng, scope="last_prompt"))
    assert np.ptp(scores.propensity()) > 0.05


def test_steering_the_prompt_at_the_last_layer_could_not_act():
    rng = np.random.default_rng(15)
    engine = Engine(tiny_model("llama"), path="trie")
    with pytest.raises(ModelError, match="cannot act"):
        engine.run(random_examples(rng, 1), random_steering(rng, layers=2, scope="prompt"))
    assert np.ptp(engine.run(random_examples(rng, 1), random_steering(rng, layers=1, scope="prompt")).logits) > 0


def test_nodes_are_computed_once_each():
    rng = np.random.default_rng(16)
    examples, steering = random_examples(rng, 6), random_steering(rng)
    engine = Engine(tiny_model("gpt2"), path="trie", budget=4000, join=False)
    scores = engine.run(examples, steering)
    assert scores.computed == scores.packed == count_nodes(examples, steering)
    paths = set()
    for example in examples:
        ids, n = example.options[0].tolist(), example.branch
        for code in range(steering.n_codes):
            marked = [(t, code if i >= example.prompt - 1 else 0) for i, t in enumerate(ids[:n])]
            paths |= {tuple(marked[: i + 1]) for i in range(n)}
    assert scores.computed == len(paths)


@pytest.mark.parametrize("scope", SCOPES)
def test_branches_are_computed_only_past_the_layer_that_steers_them(scope):
    rng = np.random.default_rng(26)
    examples = random_examples(rng, 6)
    apart = Steering(rng.normal(size=(3, 1, 32)), [[2], [0], [1]], (-1.0, 0.0, 1.0), scope=scope)
    if scope == "prompt":
        apart = Steering(rng.normal(size=(2, 1, 32)), [[1], [0]], (-1.0, 0.0, 1.0), scope=scope)
    for steering in (apart, random_steering(rng, 2, layers=(1, 2), scope=scope)):
        if scope == "prompt" and steering is not apart:
            continue
        whole = Engine(tiny_model("gpt2"), path="trie", budget=4000, join=False).run(examples, steering)
        joined = Engine(tiny_model("gpt2"), path="trie", budget=4000).run(examples, steering)
        assert np.abs(joined.logits - whole.logits).max() < 1e-5
        assert joined.computed == pytest.approx(count_nodes(examples, steering, n_blocks=3))
        assert joined.computed < whole.computed


def test_stages_are_few_however_many_layers_are_swept():
    rng = np.random.default_rng(27)
    model, examples = tiny_model("llama", num_hidden_layers=12), random_examples(rng, 3)
    sweep = Steering(rng.normal(size=(12, 1, 32)), np.arange(12)[:, None], (-1.0, 1.0))
    whole = Engine(model, path="trie", join=False).run(examples, sweep)
    joined = Engine(model, path="trie").run(examples, sweep)
    assert np.abs(joined.logits - whole.logits).max() < 1e-5
    assert count_nodes(examples, sweep, n_blocks=12) < joined.computed < 0.75 * whole.computed


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_takes_joined_branches(name):
    rng = np.random.default_rng(28)
    engine = Engine(tiny_model(name))
    steering = Steering(rng.normal(size=(3, 1, 32)), [[0], [1], [2]], (-1.0, 1.0))
    parity = engine.prove(random_examples(rng), steering)
    assert parity.joined
    assert parity.difference < 1e-5


def test_a_model_that_does_not_take_joined_branches_keeps_the_trie():
    rng = np.random.default_rng(29)
    model, examples, steering = tiny_model("llama"), random_examples(rng), random_steering(rng)
    block = model.model.layers[2]
    inner = block.forward

    def of_its_own_mind(hidden_states, position_embeddings=None, **rest):
        own = model.model.rotary_emb(hidden_states, torch.arange(hidden_states.shape[1])[None])
        same = torch.equal(own[0], position_embeddings[0]) or position_embeddings[0].shape[1] == length
        return inner(hidden_states, position_embeddings=position_embeddings if same else own, **rest)

    length = 0

    def remember(module, args, kwargs):
        nonlocal length
        length = args[0].shape[1]

    model.model.layers[0].register_forward_pre_hook(remember, with_kwargs=True)
    block.forward = of_its_own_mind
    engine = Engine(model)
    parity = engine.prove(examples, steering)
    assert (parity.passed, parity.path, parity.joined, engine.join) == (True, "trie", False, False)
