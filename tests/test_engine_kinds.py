"""Kinds of models past plain decoders: what takes tries takes them exactly, and what does not goes the plain path."""

from __future__ import annotations

import numpy as np
import pytest
import slow_steering
import torch
import transformers
from tiny_models import SPECIFICATIONS, VOCAB, WINDOW, random_examples, random_steering

from cache_builder.engine import Engine

COMMON = SPECIFICATIONS["llama"][1]
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "moe_intermediate_size": 16, "head_dim": None,
}  # fmt: skip
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"use_mamba_kernels": False, "mamba_d_state": 4, "mamba_dt_rank": 4}
PATCHES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
TRIES = {
    "sinks, some layers with a window": ("GptOssConfig", {"sliding_window": WINDOW, "num_local_experts": 4}),
    "experts": ("Qwen3MoeConfig", EXPERTS),
    "latent attention": ("DeepseekV3Config", LATENT),
    "windows and norms after": ("Olmo3Config", {"sliding_window": WINDOW}),
    "layers without positions": ("SmolLM3Config", {"no_rope_layers": [1, 0, 1]}),
    "tied weights": ("LlamaConfig", {"tie_word_embeddings": True}),
    "language model of a model that sees": (
        "Gemma3Config",
        {
            "text_config": {**COMMON, "sliding_window": WINDOW, "sliding_window_pattern": 2},
            "vision_config": {**PATCHES, "image_size": 8, "patch_size": 4, "model_type": "siglip_vision_model"},
            "mm_tokens_per_image": 4,
            **{f"{which}_token_index": VOCAB + k for k, which in enumerate(("image", "boi", "eoi"))},
        },
    ),
}
PLAIN = {
    "some layers recurrent": ("Qwen3NextConfig", {**EXPERTS, **LINEAR, "num_hidden_layers": 4}),
    "some layers Mamba": ("JambaConfig", {**MAMBA, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1}),
    "convolutions": ("Lfm2Config", {"layer_types": ["conv", "full_attention", "conv"]}),
    "attention in chunks": ("Llama4TextConfig", {"attention_chunk_size": 8, "num_local_experts": 2}),
    "local attention in the code": (
        "GPTNeoConfig",
        {
            "num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]], "window_size": WINDOW,
            "num_hidden_layers": 4,
        },
    ),
}  # fmt: skip


def a_model(config: str, values: dict):
    """Weights large enough that steering, attention and its sinks matter."""
    values = values if "text_config" in values else {**COMMON, **values}
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**values)).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if (weight.ndim > 1 and "A_log" not in name) or "sinks" in name:
                weight.normal_(0.0, 1.0 if "sinks" in name else 0.15)
    return model


def compare(model) -> Engine:
    rng = np.random.default_rng(0)
    examples, steering = random_examples(rng, 4), random_steering(rng)
    expected = slow_steering.grid(model, examples, steering)
    engine = Engine(model, budget=100)
    found = engine.run(examples, steering, completions=True)
    for name in ("logits", "completion_logprob"):
        assert np.ptp(expected[name], axis=1).max() > 0.1, "steering has to matter for this test to mean anything"
        assert np.abs(getattr(found, name) - expected[name]).max() < 1e-4
    return engine


@pytest.mark.parametrize("kind", TRIES)
def test_a_model_that_takes_tries(kind):
    engine = compare(a_model(*TRIES[kind]))
    assert engine.path == "trie"
    assert engine.join


@pytest.mark.parametrize("kind", PLAIN)
def test_a_model_that_does_not(kind):
    engine = compare(a_model(*PLAIN[kind]))
    assert engine.path == "plain"
    assert not engine.parity.passed


class Scaled(torch.nn.Linear):
    """Weights as floats of eight bits, with one scale: what the layer computes is not what its weight says."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False)
        self.scale = plain.weight.abs().max().item() / 448
        weight = (plain.weight.detach() / self.scale).to(torch.float8_e4m3fn)
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(hidden, self.weight.to(hidden.dtype) * self.scale)


def test_weights_of_eight_bits_are_held_to_the_rounding_of_what_they_are_computed_in():
    model = a_model("LlamaConfig", {}).to(torch.bfloat16)
    for path, module in [(path, one) for path, one in model.named_modules() if isinstance(one, torch.nn.Linear)]:
        model.set_submodule(path, Scaled(module))
    rng = np.random.default_rng(0)
    engine = Engine(model)
    parity = engine.prove(random_examples(rng, 4), random_steering(rng))
    assert parity.passed
    assert parity.dtype == "bfloat16"
    assert parity.tolerance < 0.1, "a rounding step of eight bits is an eighth of the largest logit"
    assert parity.own_difference < 0.05, "the head's scale is part of what it computes"
