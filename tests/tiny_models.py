"""Tiny random models of every architecture that the engine is proved on, and random examples for them."""

from __future__ import annotations

import numpy as np
import torch
import transformers

from cache_builder.engine import Example, Steering

VOCAB = 97
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2, "head_dim": 8}
_GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WINDOW = 7

SPECIFICATIONS = {
    "llama": ("LlamaConfig", _GROUPED),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", _GROUPED),
    "mistral": ("MistralConfig", {**_GROUPED, "sliding_window": WINDOW}),
    "mixtral": ("MixtralConfig", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma2": ("Gemma2Config", {**_GROUPED, "sliding_window": WINDOW, "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3TextConfig", {**_GROUPED, "sliding_window": WINDOW, "sliding_window_pattern": 2}),
    "gpt2": ("GPT2Config", {**_GPT2, **_SPECIAL}),
    "gpt_neox": ("GPTNeoXConfig", _COMMON),
    "phi3": ("Phi3Config", {**_GROUPED, "original_max_position_embeddings": 128}),
    "olmo2": ("Olmo2Config", _GROUPED),
    "opt": ("OPTConfig", {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "falcon": ("FalconConfig", {**_COMMON, "new_decoder_architecture": False, "multi_query": True}),
}
PLAIN_SPECIFICATIONS = {
    "bloom": ("BloomConfig", {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 3, "n_head": 4, **_SPECIAL}),
    "mamba": ("MambaConfig", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4}),
}
ARCHITECTURES = tuple(SPECIFICATIONS)
PLAIN_ARCHITECTURES = tuple(PLAIN_SPECIFICATIONS)


def tiny_model(name: str, seed: int = 0, **changes) -> transformers.PreTrainedModel:
    """A float32 model with weights large enough that steering and attention clearly matter."""
    config_name, values = {**SPECIFICATIONS, **PLAIN_SPECIFICATIONS}[name]
    config = getattr(transformers, config_name)(**{**values, **changes})
    config._attn_implementation = "eager" if name in ("gemma2", "bloom") else "sdpa"
    if name == "mamba":
        config._attn_implementation = None
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1 and "A_log" not in key:
                parameter.normal_(0.0, 0.15)
    return model


def random_examples(
    rng: np.random.Generator, n: int = 5, *, completion: int = 3, n_options: int = 2, shared: int = 6
) -> list[Example]:
    """Examples whose prompts share a beginning, with answers of unequal length and one common answer token."""
    beginning = rng.integers(3, VOCAB, shared)
    examples = []
    for i in range(n):
        prompt = np.concatenate([beginning[: shared - i % 2], rng.integers(3, VOCAB, int(rng.integers(4, 14)))])
        opening = rng.integers(3, VOCAB, 1)
        letters = rng.choice(np.arange(3, VOCAB), n_options, replace=False)
        options = [
            np.concatenate([prompt, opening, [letter], rng.integers(3, VOCAB, completion - 2 + j)])
            for j, letter in enumerate(letters)
        ]
        examples.append(Example(tuple(options), prompt=len(prompt), branch=len(prompt) + 1))
    return examples


def random_steering(rng: np.random.Generator, n_vectors: int = 2, layers=1, **changes) -> Steering:
    """Vectors long enough to move logits by about a nat."""
    layers = np.atleast_1d(layers)
    slots = len(layers)
    values = {
        "directions": rng.normal(size=(n_vectors, slots, 32)) * 0.8,
        "layers": np.broadcast_to(layers, (n_vectors, slots)),
        "multipliers": (-1.5, -0.5, 0.0, 1.0),
        **changes,
    }
    return Steering(**values)
