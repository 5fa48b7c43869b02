"""On a CUDA device (`pytest -m cuda`): the engine there gives what the CPU gives, however rows are masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import SPECIFICATIONS, random_examples, random_steering, tiny_model

from cache_builder.engine import Engine
from cache_builder.engine.forward import linear_float32
from cache_builder.engine.norms import SAME, two_kernel_norm
from cache_builder.engine.rope import rope_in_place
from steerstats.errors import ModelError

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def no_tensor_float():
    """Float32 products in float32: the reference is the CPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def a_case(n: int = 12):
    rng = np.random.default_rng(1)
    return random_examples(rng, n), random_steering(rng)


@pytest.fixture(scope="module")
def expected():
    examples, steering = a_case()
    scores = Engine(tiny_model("llama"), path="trie").run(examples, steering, completions=True, read_layers=(1,))
    return examples, steering, scores


def agree(found, scores, within: float = 1e-3) -> None:
    assert np.abs(found.logits - scores.logits).max() < within
    assert np.abs(found.completion_logprob - scores.completion_logprob).max() < within
    assert np.abs(found.activations - scores.activations).max() < within


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
    agree(engine.run(examples, steering, completions=True, read_layers=(1,)), scores)


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_every_architecture_equals_the_cpu_and_makes_the_host_wait_for_nothing(name):
    examples, steering = a_case(4)
    wanted = {"completions": True, "read_layers": (1,)}
    scores = Engine(tiny_model(name), path="trie").run(examples, steering, **wanted)
    engine = Engine(tiny_model(name).cuda(), path="trie", budget=200)
    agree(engine.run(examples, steering, **wanted), scores)
    if name in ("mixtral", "falcon"):  # these models themselves wait: for the load of experts, for an index
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = engine.run(examples, steering, **wanted)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    agree(again, scores)


def test_a_wait_would_be_seen():
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            torch.ones(3, device="cuda").sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_bfloat16_passes_its_proof_and_stays_near_float32(expected):
    examples, steering, scores = expected
    engine = Engine(tiny_model("llama").to("cuda", torch.bfloat16))
    parity = engine.prove(examples, steering, completions=True)
    assert parity.passed
    assert engine.path == "trie"
    assert np.abs(engine.run(examples, steering).logits - scores.logits).max() < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_are_two_kernels_that_give_what_the_modules_give(dtype):
    model = tiny_model("llama", hidden_size=512, head_dim=128).to("cuda", dtype)
    norms = Engine(model).forward.norms
    assert len(norms) == 7
    hidden = 5 * torch.randn(1, 700, 512, device="cuda", dtype=dtype, generator=torch.Generator("cuda").manual_seed(0))
    with torch.inference_mode():
        own, ours = norms[0](hidden), two_kernel_norm(norms[0], hidden)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            two_kernel_norm(norms[0], hidden)
            torch.cuda.synchronize()
    torch.testing.assert_close(ours, own, rtol=max(torch.finfo(dtype).eps, SAME), atol=0.0)
    if dtype != torch.float32:
        assert (own != ours).float().mean() < 1e-3
    kernels = [event for event in profile.events() if "CUDA" in str(event.device_type)]
    assert len(kernels) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotary_positions_in_place_are_the_same_bits(dtype):
    [place] = Engine(tiny_model("llama").to("cuda", dtype)).forward.ropes
    draw = torch.Generator("cuda").manual_seed(0)
    shapes = [(1, 700, 8, 128), (1, 700, 2, 128)]
    q, k = (torch.randn(s, device="cuda", dtype=dtype, generator=draw).transpose(1, 2) for s in shapes)
    cos, sin = (torch.randn(1, 700, 128, device="cuda", dtype=dtype, generator=draw) for _ in range(2))
    with torch.inference_mode():
        expected = place.apply_rotary_pos_emb(q, k, cos, sin)
        with rope_in_place([place]):
            found = place.apply_rotary_pos_emb(q, k, cos, sin)
    for one, other in zip(found, expected):
        assert torch.equal(one, other)
        assert one.stride() == (q if one.shape == q.shape else k).stride()


def test_the_head_accumulates_in_float32():
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 64, device="cuda").bfloat16(), torch.randn(300, 64, device="cuda").bfloat16()
    exact = hidden.double() @ weight.double().T
    assert (linear_float32(hidden, weight, None).double() - exact).abs().max() < 1e-4


@pytest.fixture
def little_memory():
    """Leave this process 128 MiB beside what it holds."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**27) / whole)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_rows_that_do_not_fit_are_split_and_nothing_changes(little_memory):
    rng = np.random.default_rng(1)
    examples, steering = random_examples(rng, 400), random_steering(rng)
    wanted = {"completions": True, "read_layers": (1,)}
    small = Engine(tiny_model("llama").cuda(), path="trie", budget=512)
    scores = small.run(examples, steering, **wanted)
    assert small.ceiling is None
    engine = Engine(tiny_model("llama").cuda(), path="trie", budget=1 << 15)
    engine.use_mask("dense")
    found = engine.run(examples, steering, **wanted)
    assert engine.ceiling is not None
    assert engine.budget < 1 << 15
    agree(found, scores)


def test_vectors_that_do_not_fit_are_one_line(little_memory):
    rng = np.random.default_rng(0)
    steering = random_steering(rng, n_vectors=20, multipliers=np.arange(1.0, 40_001.0))
    with pytest.raises(ModelError, match="20 steering vectors with 40000 multipliers do not fit in the memory of"):
        Engine(tiny_model("llama").cuda(), path="trie").run(random_examples(rng, 1), steering)


def test_a_model_of_which_a_block_is_kept_on_the_host(expected):
    """As `device_map` leaves it: the block's weights are brought over for each pass."""
    accelerate = pytest.importorskip("accelerate")
    examples, steering, scores = expected
    inner = ("embed_tokens", "layers.0", "layers.2", "norm", "rotary_emb")
    places = {f"model.{name}": 0 for name in inner} | {"lm_head": 0, "model.layers.1": "cpu"}
    model = accelerate.dispatch_model(tiny_model("llama"), device_map=places, main_device=0)
    assert next(model.model.layers[1].parameters()).device.type == "meta"
    found = Engine(model, path="trie").run(examples, steering, completions=True, read_layers=(1,))
    agree(found, scores)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second CUDA device")
def test_a_device_that_is_not_the_current_one(expected):
    examples, steering, scores = expected
    found = Engine(tiny_model("llama").to("cuda:1"), path="trie").run(examples, steering, read_layers=(1,))
    assert np.abs(found.logits - scores.logits).max() < 1e-3
    assert np.abs(found.activations - scores.activations).max() < 1e-3
