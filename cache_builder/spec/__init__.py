"""BuildSpec: everything that decides a cache's numbers, in one frozen, validated, hashable object.

    spec = load_spec("tan2024", ["model.id=Qwen/Qwen1.5-14B-Chat", "run.device=cuda"])
    identity = spec.hash(facts)

A spec comes from a TOML file or a preset, with `key=value` overrides. Its hash covers what changes numbers and
nothing else: `name` and the whole `run` table (device, budget, paths) stay out, and so do the paths of files, whose
contents are hashed instead. The fields are in `model` and `parts`, the reading of files in `reading`.
"""

from __future__ import annotations

from cache_builder.spec.model import BUNDLED, DEFAULT_LAYERS, PAPER_SHIFTS, SETTINGS, BuildSpec, is_place
from cache_builder.spec.parts import ControlSpec, ModelSpec, PromptSpec, RunSpec, VectorSpec
from cache_builder.spec.reading import load_spec, local_path, parse_spec, presets

__all__ = [
    "BUNDLED",
    "DEFAULT_LAYERS",
    "PAPER_SHIFTS",
    "SETTINGS",
    "BuildSpec",
    "ControlSpec",
    "ModelSpec",
    "PromptSpec",
    "RunSpec",
    "VectorSpec",
    "is_place",
    "load_spec",
    "local_path",
    "parse_spec",
    "presets",
]
