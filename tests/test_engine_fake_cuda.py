"""Without a GPU: on CUDA devices every tensor is where it has to be, in the type it has to be, and nobody waits.

Shapes, types and devices are torch's own rules; no kernel runs, so that nothing here speaks of numbers, of memory, or
of what FlexAttention is compiled to. On the plain path transformers itself asks each batch whether it has padding, and
waits for the answer.
"""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from fake_cuda import fake_cuda, fill_with_fakes
from tiny_models import SPECIFICATIONS, random_examples, random_steering, tiny_model
from torch._subclasses.fake_tensor import DataDependentOutputException

from cache_builder.engine import Engine, Request
from cache_builder.engine.answer import Answer, Transfer
from cache_builder.engine.forward import Forward, decoder_blocks
from cache_builder.engine.lines import BATCHED, EQUAL
from cache_builder.engine.operators import LayerTable, to_device

# Mixtral's router is asked how many tokens each expert has: the model itself waits there.
NAMES = [name for name in SPECIFICATIONS if name != "mixtral"]
CASES = [
    (name, mask)
    for name in NAMES
    for mask in ("blocked", "dense", "plain")
    if not (mask == "blocked" and name == "gemma2")  # it does not call SDPA here
]


@pytest.fixture
def case():
    rng = np.random.default_rng(1)
    return random_examples(rng, 3), random_steering(rng, n_vectors=2, layers=(0, 1))


def engine_of(model, mask: str) -> Engine:
    engine = Engine(model, path="plain" if mask == "plain" else "trie", budget=400)
    if mask != "plain":
        engine.use_mask(mask)
        engine.forward.always_block = mask == "blocked"
    return engine


def run(engine: Engine, examples, steering):
    return engine.run(examples, steering, completions=True, read_layers=(1, 2))


@pytest.mark.parametrize(("name", "mask"), CASES)
def test_one_device_in_bfloat16(name, mask, case, monkeypatch):
    expected = run(engine_of(tiny_model(name), mask), *case)
    model = tiny_model(name)
    with fake_cuda(monkeypatch) as waits:
        fill_with_fakes(model, torch.bfloat16, lambda name: "cuda")
        engine = engine_of(model, mask)
        assert engine.forward.device.type == "cuda"
        assert bool(engine.forward.norms) == (name in ("llama", "qwen2", "qwen3", "mistral", "phi3", "olmo2"))
        if mask != "plain":
            assert engine.forward._takes_more  # asked once a model, which waits there
            waits.model.clear()
        scores = run(engine, *case)
    assert not waits.engine
    assert not waits.model or mask == "plain" or name == "falcon"  # which takes heads by a list
    assert (scores.computed, scores.logits.shape) == (expected.computed, expected.logits.shape)
    assert scores.activations.shape == expected.activations.shape


@pytest.mark.parametrize("mask", ["blocked", "dense", "plain"])
def test_cudnn_attention_is_off_for_the_length_of_a_pass(mask, case, monkeypatch):
    """It prepares a graph for every new row length; on an H200 a grid took three times as long."""
    model, seen = tiny_model("llama"), []
    before = torch.backends.cuda.cudnn_sdp_enabled()
    model.model.layers[0].register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    with fake_cuda(monkeypatch):
        fill_with_fakes(model, torch.bfloat16, lambda name: "cuda")
        run(engine_of(model, mask), *case)
    assert seen
    assert not any(seen)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.parametrize("operator", ["add_keep_norm", "ablate", "ablate_add"])
def test_every_operator_in_float32(operator, case, monkeypatch):
    steering = random_steering(np.random.default_rng(2), operator=operator)
    model = tiny_model("llama")
    with fake_cuda(monkeypatch) as waits:
        fill_with_fakes(model, torch.float32, lambda name: "cuda")
        run(Engine(model, path="trie"), case[0], steering)
    assert not waits.engine


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_masks_of_flex_attention_are_where_it_runs_and_nobody_waits(name, case, monkeypatch):
    from transformers.integrations.flex_attention import WrappedFlexAttention

    seen, model = set(), tiny_model(name)

    def kernel(query, key, value, *, block_mask, **rest):
        seen.add((block_mask.kv_indices.device, block_mask.mask_mod.__module__))
        assert block_mask.shape[-2:] == (query.shape[2], key.shape[2])
        return torch.empty_like(query), SimpleNamespace(lse=query.new_empty(query.shape[:3], dtype=torch.float32))

    monkeypatch.setattr(WrappedFlexAttention(False), "_compiled_flex_attention", kernel)
    with fake_cuda(monkeypatch) as waits:
        fill_with_fakes(model, torch.bfloat16, lambda name: "cuda")
        run(engine_of(model, "flex"), *case)
    assert not waits.engine
    assert not waits.model
    assert seen == {(torch.device("cuda", 0), "cache_builder.engine.flex")}


def two_places(model: torch.nn.Module) -> dict[str, str]:
    """Where parts go, as a device map has it: the first block on one device, the others and what follows on another,
    and a head that shares its weight with the embedding beside that."""
    blocks = {module: number for number, module in enumerate(decoder_blocks(model))}
    after = ("norm",) if model.config.tie_word_embeddings else ("norm", "head", "embed_out")
    places = {}
    for path, module in model.named_modules():
        if module in blocks:
            places[path] = f"cuda:{min(blocks[module], 1)}"
        elif not list(module.children()) and not any(path.startswith(f"{block}.") for block in places):
            places[path] = "cuda:1" if any(part in path for part in after) else "cuda:0"
    return places


def put_on_two(model: torch.nn.Module) -> dict[str, str]:
    places = two_places(model)
    fill_with_fakes(model, torch.bfloat16, lambda path: next(at for part, at in places.items() if f"{part}." in path))
    return places


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize(
    ("name", "way"),
    [("llama", EQUAL), *product(("llama", "gpt_neox", "gemma3", "opt"), ("trie", BATCHED))],
)
def test_a_model_over_two_devices(name, way, case, monkeypatch):
    def engine_on(model) -> Engine:
        engine = Engine(model, path="trie" if way == "trie" else "plain", budget=400)
        engine.forward.lines = BATCHED if way == "trie" else way
        return engine

    expected, model = run(engine_on(tiny_model(name)), *case), tiny_model(name)
    with fake_cuda(monkeypatch) as waits:
        dispatch_model(model, put_on_two(model), main_device="cuda:0", skip_keys=model._skip_keys_device_placement)
        engine = engine_on(model)
        assert [str(place) for place in engine.forward.places.values()] == ["cuda:0", "cuda:1", "cuda:1"]
        scores = run(engine, *case)
    assert not waits.engine
    assert engine.mask == "dense"
    assert (scores.computed, scores.logits.shape) == (expected.computed, expected.logits.shape)
    assert scores.activations.shape == expected.activations.shape


def test_results_on_two_devices_are_each_waited_for(case, monkeypatch):
    """Blocks are moved by hand, without what would bring logits back to the first device."""
    model, sent, begin = tiny_model("llama"), [], Transfer.__init__
    monkeypatch.setattr(Transfer, "__init__", lambda self, output: (begin(self, output), sent.append(self))[0])
    with fake_cuda(monkeypatch) as waits:
        for part, place in put_on_two(model).items():
            add_hook_to_module(model.get_submodule(part), AlignDevicesHook(place))
        run(Engine(model, path="trie"), *case)
    assert not waits.engine
    assert sent
    assert all({str(event.stream) for event in one.events} == {"cuda:0", "cuda:1"} for one in sent)


WAITS = {"item": lambda h: h.sum().item(), "cpu": lambda h: h.sum().cpu(), "index": lambda h: h[..., [0]]}


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_would_be_seen(wait, case, monkeypatch):
    model, apply = tiny_model("llama"), LayerTable.apply
    monkeypatch.setattr(LayerTable, "apply", lambda self, h, *rest: apply(self, h, *rest) * WAITS[wait](h))
    with fake_cuda(monkeypatch) as waits:
        fill_with_fakes(model, torch.bfloat16, lambda name: "cuda")
        engine = Engine(model, path="trie")
        if wait == "item":
            with pytest.raises(DataDependentOutputException):
                run(engine, *case)
        else:
            run(engine, *case)
            assert waits.engine


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_vector_on_another_device_would_be_seen(case, monkeypatch):
    model = tiny_model("llama")
    with fake_cuda(monkeypatch):
        dispatch_model(model, put_on_two(model), main_device="cuda:0")
        engine = Engine(model, path="trie")
        engine.forward.places = dict.fromkeys(engine.forward.places, engine.forward.device)
        with pytest.raises(RuntimeError, match=r"devices.* cuda:"):
            run(engine, *case)


def test_arrays_go_to_a_device_through_pinned_memory_and_nobody_waits(monkeypatch):
    calls = []

    class Pinned:
        def to(self, device, non_blocking=False):
            calls.append((device.type, non_blocking))

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: Pinned())
    to_device(np.zeros(3), torch.device("cuda", 0))
    assert calls == [("cuda", True)]


@pytest.mark.parametrize("path", ["trie", "plain"])
def test_rows_stay_in_flight_while_the_next_are_laid_out(path, monkeypatch):
    """The device has work while the host prepares more; the results of a row are asked for only some rows later."""
    log, rng = [], np.random.default_rng(0)
    forward, take = Forward.run, Answer.take
    monkeypatch.setattr(Forward, "run", lambda *a: (log.append("sent"), forward(*a))[1])
    monkeypatch.setattr(Answer, "take", lambda *a: (log.append("taken"), take(*a))[1])
    engine = Engine(tiny_model("llama"), path=path, budget=16)
    engine.run(random_examples(rng, 12), random_steering(rng))
    flying = np.cumsum([1 if what == "sent" else -1 for what in log])
    assert log.count("sent") > 6
    assert flying.max() == 4
    assert log[:4] == ["sent"] * 4


@pytest.mark.parametrize("path", ["trie", "plain"])
def test_rows_stay_in_flight_between_requests(path, monkeypatch):
    """A setting's last rows are on the device while the next one's first are laid out: the device never waits."""
    log, rng = [], np.random.default_rng(0)
    forward, take = Forward.run, Answer.take
    steering = random_steering(rng)
    asked = [Request(random_examples(rng, 4), steering, read_layers=(1,)) for _ in range(6)]
    engine = Engine(tiny_model("llama"), path=path, budget=100)
    expected = [engine.run(one.examples, steering, read_layers=(1,)) for one in asked]
    monkeypatch.setattr(Forward, "run", lambda *a: (log.append("sent"), forward(*a))[1])
    monkeypatch.setattr(Answer, "take", lambda *a: (log.append("taken"), take(*a))[1])
    earlier = engine.tokens
    found = []
    for scores in engine.stream(one for one in asked if not log.append("asked")):
        log.append("answered")
        found.append(scores)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.logits, other.logits)
        assert np.array_equal(one.activations, other.activations)
    assert np.allclose(engine.tokens - earlier, [sum(one.computed for one in found), sum(one.packed for one in found)])
    flying = np.cumsum([{"sent": 1, "taken": -1}.get(what, 0) for what in log])
    answers = [place for place, what in enumerate(log) if what == "answered"]
    assert flying.max() == 4
    assert [flying[place] for place in answers[:2]] == [3, 3], "the next requests' rows are there already"
    assert min(flying[log.index("sent") : answers[-2] + 1]) > 0
    assert log.index("answered") > [place for place, what in enumerate(log) if what == "asked"][1]
