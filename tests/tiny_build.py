"""A tiny random chat model on disk and a spec that builds quickly with it: real tokenizer, template and data."""

from __future__ import annotations

from pathlib import Path

from tiny_models import tiny_model

from cache_builder.demo.tokenizer import make_tokenizer
from cache_builder.spec import BuildSpec, parse_spec

DATASETS = ("likes-rain", "plans-ahead", "tells-truth")
WORDS = ["accidents", "agendas", "airports", "alarms", "amplifiers", "animals", "anvils", "apps", "armies", "ballads",
         "beaches", "bedrooms", "bells", "borders"]  # of the demo's tokenizer, a token each  # fmt: skip


def write_model(path: Path, architecture: str = "llama", **changes) -> Path:
    """Save a tiny random model with the demo's tokenizer; weights are the same in every call."""
    tokenizer = make_tokenizer()
    model = tiny_model(architecture, vocab_size=len(tokenizer), **changes)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def content(model: Path, **overrides) -> dict:
    """A spec as a mapping: three datasets, three settings, few inputs, one control of each kind."""
    values = {
        "name": "tiny",
        "model": {"id": str(model)},
        "datasets": [f"bundled:demo/{name}" for name in DATASETS],
        "settings": ["base", "sys_pos", "user_neg"],
        "order": "balanced",
        "limit": 14,
        "layers": [1],
        "multipliers": [-1.0, 0.0, 2.0],
        "prompt": {"descriptions": "bundled:demo/descriptions.json"},
        "controls": {"resampled": 1, "random": 1, "shuffled": 1, "debiased": True, "shifts": ["base->base"]},
        "run": {"budget": 256, "threads": 1},
    }
    return values | overrides


def tiny_spec(model: Path, **overrides) -> BuildSpec:
    """The same, validated."""
    return parse_spec(content(model, **overrides))
