"""Memory that ends, numbers that are not finite, requests that do not fit: each has an answer or a named error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from tiny_models import random_examples, random_steering, tiny_model

from cache_builder.engine import Engine, Example, Request, flight
from steerstats.errors import InputError, ModelError


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("path", ["trie", "plain"])
def test_out_of_memory_halves_the_budget_and_loses_nothing(path, monkeypatch):
    rng = np.random.default_rng(17)
    model, examples, steering = tiny_model("llama"), random_examples(rng, 8), random_steering(rng)
    expected = Engine(model, path=path).run(examples, steering, read_layers=(1,))
    engine = Engine(model, path=path, budget=500)
    real, refused = engine.forward.run, []

    def small_device(layout, tables, read_layers=()):
        if layout.token.size > 60:
            refused.append(layout.token.size)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return real(layout, tables, read_layers)

    monkeypatch.setattr(engine.forward, "run", small_device)
    scores = engine.run(examples, steering, read_layers=(1,))
    assert refused
    assert engine.budget < 500
    assert engine.ceiling < 500
    assert np.abs(scores.logits - expected.logits).max() < 1e-5
    assert np.abs(scores.activations - expected.activations).max() < 1e-5


@pytest.mark.parametrize("path", ["trie", "plain"])
def test_rows_that_hold_some_codes_of_an_example_are_split_into_what_they_hold(path, monkeypatch):
    """What another row holds as well would be added twice to the sums over whole completions."""
    rng = np.random.default_rng(17)
    model, examples = tiny_model("llama"), random_examples(rng, 2, completion=6)
    steering = random_steering(rng, multipliers=np.linspace(-1.5, 1.5, 12))
    expected = Engine(model, path=path).run(examples, steering, completions=True)
    engine, split, real = Engine(model, path=path, budget=150), [], flight.Job.split
    run = engine.forward.run

    def small_device(layout, *rest):
        if layout.token.size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(layout, *rest)

    monkeypatch.setattr(engine.forward, "run", small_device)
    monkeypatch.setattr(flight.Job, "split", lambda job, row: split.append(row) or real(job, row))
    scores = engine.run(examples, steering, completions=True)
    assert {row.base for row in split} == {False, True}
    assert all(len(row.codes) < steering.n_codes - 1 for row in split)
    assert scores.logits == pytest.approx(expected.logits, abs=1e-5)
    assert scores.completion_logit == pytest.approx(expected.completion_logit, abs=1e-4)
    assert scores.completion_logprob == pytest.approx(expected.completion_logprob, abs=1e-4)


@pytest.mark.parametrize("place", ["lay_out", "Transfer"])
@pytest.mark.parametrize("path", ["trie", "plain"])
def test_memory_that_ends_beside_the_forward_pass_loses_nothing_either(place, path, monkeypatch):
    rng = np.random.default_rng(17)
    model, examples, steering = tiny_model("llama"), random_examples(rng, 8), random_steering(rng)
    expected = Engine(model, path=path).run(examples, steering, read_layers=(1,))
    engine, real, calls = Engine(model, path=path, budget=90 if path == "trie" else 400), getattr(flight, place), []
    monkeypatch.setattr(flight, "PADDING", 1.0)  # rows of many sequences, which can be halved more than once

    def small_host(*args, **options):
        calls.append(1)
        if len(calls) in (2, 3):  # the first row is still in flight
            raise MemoryError if place == "lay_out" else torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **options)

    monkeypatch.setattr(flight, place, small_host)
    scores = engine.run(examples, steering, read_layers=(1,))
    assert len(calls) > 4
    assert engine.ceiling < 400
    assert np.abs(scores.logits - expected.logits).max() < 1e-5
    assert np.abs(scores.activations - expected.activations).max() < 1e-5


def test_memory_that_ends_between_two_requests_loses_neither(monkeypatch):
    rng = np.random.default_rng(17)
    model, steering = tiny_model("llama"), random_steering(rng)
    requests = [Request(random_examples(rng, n), steering, read_layers=(1,)) for n in (8, 3, 8)]
    expected = list(Engine(model, path="trie", budget=150).stream(requests))
    engine, real, calls = Engine(model, path="trie", budget=150), flight.Transfer, []
    monkeypatch.setattr(flight, "IN_FLIGHT", 100)
    started = []

    def small_device(*args):
        calls.append(1)
        if len(started) == 2 and engine.ceiling is None:  # at the second request, and the first is still in flight
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args)

    monkeypatch.setattr(flight, "Transfer", small_device)
    found = list(engine.stream(request for request in requests if not started.append(1)))
    assert engine.ceiling < 150
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one.logits - other.logits).max() < 1e-5
        assert np.abs(one.activations - other.activations).max() < 1e-5


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: out of memory",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes. Error code 12",
        "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes.",
    ],
)
def test_libraries_that_find_no_memory_are_understood(words, monkeypatch):
    rng = np.random.default_rng(18)
    engine = Engine(tiny_model("llama"), path="trie", budget=500)
    real, failed = engine.forward.run, []

    def once(*args):
        if not failed:
            failed.append(1)
            raise RuntimeError(words)
        return real(*args)

    monkeypatch.setattr(engine.forward, "run", once)
    assert np.isfinite(engine.run(random_examples(rng, 8), random_steering(rng)).logits).all()
    assert engine.ceiling < 500


def test_vectors_that_do_not_fit_are_a_named_error(monkeypatch):
    rng = np.random.default_rng(18)
    engine = Engine(tiny_model("llama"), path="trie")

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(flight, "layer_tables", full)
    with pytest.raises(ModelError, match="2 steering vectors with 4 multipliers do not fit in the memory of cpu"):
        engine.run(random_examples(rng, 2), random_steering(rng))


def test_a_sequence_of_the_proof_that_does_not_fit_is_a_named_error(monkeypatch):
    engine = Engine(tiny_model("llama"))

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.forward, "run", full)
    examples = random_examples(np.random.default_rng(18), 2)
    longest = max(len(option) for example in examples for option in example.options)
    with pytest.raises(ModelError, match=f"one sequence of up to {longest} tokens does not fit in the memory of cpu"):
        engine.prove(examples)


def test_a_sequence_that_never_fits_is_a_named_error(monkeypatch):
    engine = Engine(tiny_model("llama"), path="trie")

    def nothing_fits(*args):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(engine.forward, "run", nothing_fits)
    rng = np.random.default_rng(18)
    with pytest.raises(ModelError, match="does not fit in the memory"):
        engine.run(random_examples(rng, 4), random_steering(rng))


def test_other_errors_of_the_model_are_not_taken_for_lack_of_memory(monkeypatch):
    engine = Engine(tiny_model("llama"), path="trie")

    def broken(*args):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(engine.forward, "run", broken)
    rng = np.random.default_rng(19)
    with pytest.raises(RuntimeError, match="shapes"):
        engine.run(random_examples(rng, 1), None)


@pytest.mark.parametrize(
    ("dtype", "scale", "size", "words"),
    [
        (
            torch.float16,
            1e6,
            1.0,
            'without steering: float16 ends at 65504; load it with dtype = "bfloat16" or "float32"',
        ),
        (torch.float16, 1.0, 1e6, "under the largest multipliers: float16 ends at 65504"),
        (torch.float32, 1.0, 3e38, "under the largest multipliers: take smaller ones"),
        (torch.float32, np.nan, 1.0, r"without steering: are its weights damaged\?"),
    ],
)
def test_logits_that_are_not_finite_are_an_error_of_the_proof(dtype, scale, size, words):
    """They fell back to sequences one at a time, and were found when the first unit was written."""
    rng = np.random.default_rng(19)
    model = tiny_model("llama")
    model.model.layers[0].register_forward_hook(lambda module, args, output: output * scale)
    steering = random_steering(rng, multipliers=(-size, 0.0, size))
    with pytest.raises(ModelError, match=f"^LlamaForCausalLM gives logits that are not finite, {words}"):
        Engine(model.to(dtype)).prove(random_examples(rng, 3), steering)


def test_positions_that_end_before_a_sequence_does_are_a_named_error():
    """GPT-J's lie in a table that is no embedding."""
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": 16, "vocab_size": 97}
    engine = Engine(transformers.GPTJForCausalLM(transformers.GPTJConfig(**shape)))
    examples = random_examples(np.random.default_rng(19), 3, shared=10)
    # Which error it is, is a matter of transformers' version.
    found = r"^GPTJForCausalLM cannot run one sequence of up to \d+ tokens: it raises \w+: index 16 is out of bounds"
    with pytest.raises(ModelError, match=found):
        engine.prove(examples)


def test_nothing_stays_hooked_into_the_model():
    rng = np.random.default_rng(20)
    model, examples = tiny_model("llama"), random_examples(rng, 2)
    before = model(input_ids=torch.tensor(examples[0].options[0])[None]).logits
    implementation = model.config._attn_implementation
    Engine(model).run(examples, random_steering(rng), read_layers=(0, 1))
    assert torch.equal(model(input_ids=torch.tensor(examples[0].options[0])[None]).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert "forward" not in vars(model.lm_head)
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": 3}, "layer 3 is not in this model; it has 0-2"),
        ({"directions": np.full((1, 1, 32), np.nan), "n_vectors": 1}, "vector 0 is not finite"),
        ({"multipliers": (0.0, np.nan)}, r"multipliers \[0.0, nan\] have to be finite"),
        ({"directions": np.ones((1, 1, 31)), "n_vectors": 1}, "31 dimensions; the model has 32"),
        ({"scope": "answer"}, "scope 'answer' is not one of"),
        ({"operator": "times"}, "operator 'times' is not one of"),
        ({"layers": (1, 1)}, "names a layer twice"),
    ],
)
def test_steering_that_does_not_fit_is_an_error(change, words):
    rng = np.random.default_rng(23)
    with pytest.raises(InputError, match=words):
        Engine(tiny_model("llama"), path="trie").run(random_examples(rng, 1), random_steering(rng, **change))


@pytest.mark.parametrize("path", ["trie", "plain"])
def test_a_run_that_only_reads_takes_steering_however_short_its_rows_are(path):
    rng = np.random.default_rng(31)
    examples, steering = random_examples(rng, 3), random_steering(rng)
    engine = Engine(tiny_model("llama"), path=path, budget=16)  # below the tokens of any example
    expected = engine.run(examples, read_layers=(1,), first=False)
    found = engine.run(examples, steering, read_layers=(1,), first=False)
    assert np.array_equal(found.activations, expected.activations)
    assert np.isnan(found.logits).all()
    with pytest.raises(InputError, match="nothing is asked for"):
        engine.run(examples, steering, first=False)


def test_options_of_which_one_begins_the_other_have_no_first_differing_token():
    ids = np.arange(5, 12)
    example = Example((ids, ids[:6]), prompt=4, branch=6, reads=())
    with pytest.raises(InputError, match="example 0"):
        Engine(tiny_model("llama"), path="trie").run([example])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": 0, "branch": 3}, "prompt 0"),
        ({"prompt": 4, "branch": 3}, "branch 3"),
        ({"prompt": 2, "branch": 6}, "option 1 does not share"),
        ({"prompt": 2, "branch": 5, "reads": ((0, 6, 9),)}, "outside the example"),
    ],
)
def test_examples_whose_indices_do_not_fit_are_refused(values, words):
    options = (np.array([1, 2, 3, 4, 5, 6, 7]), np.array([1, 2, 3, 4, 5, 8, 7]))
    with pytest.raises(InputError, match=words):
        Example(options, **values)


def test_flex_attention_off_cuda_is_a_named_error():
    with pytest.raises(ModelError, match="flex_attention is compiled for CUDA"):
        Engine(tiny_model("llama"), flex=True)


def test_a_model_whose_weights_are_offloaded_gives_the_same_numbers():
    from accelerate import cpu_offload

    rng = np.random.default_rng(32)
    examples, steering = random_examples(rng, 6), random_steering(rng)
    expected = Engine(tiny_model("llama"), path="trie").run(examples, steering, completions=True, read_layers=(1,))
    model = cpu_offload(tiny_model("llama"), execution_device=torch.device("cpu"))
    assert model.get_input_embeddings().weight.is_meta
    engine = Engine(model)
    found = engine.run(examples, steering, completions=True, read_layers=(1,))
    assert engine.parity.passed
    assert np.abs(found.logits - expected.logits).max() < 1e-5
    assert np.abs(found.completion_logprob - expected.completion_logprob).max() < 1e-5
    assert np.abs(found.activations - expected.activations).max() < 1e-5
