"""Small pieces of a unit's arrays: labels, and sets of vectors laid side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cache_builder.vectors import VectorSet


def vector_arrays(vectors: VectorSet) -> dict[str, np.ndarray]:
    """The arrays of the schema that describe vectors, with their scales."""
    return {
        "vector": labels(vectors.label),
        "vector_kind": labels(vectors.kind),
        "vector_setting": labels(vectors.setting),
        "vector_replicate": vectors.replicate,
        "vector_method": labels(vectors.method),
        "vector_norm": vectors.norm,
        "vector_raw_norm": vectors.raw_norm,
        "slot": np.arange(vectors.layers.shape[1], dtype=np.int32),
        "vector_layer": vectors.layers,
        "direction": vectors.direction,
    }


def answer_labels(n_options: int) -> list[str]:
    """Labels of the answer axis: positive, negative, negative_2, ..."""
    return ["positive", "negative", *(f"negative_{k}" for k in range(2, n_options))]


def at_layer(one: VectorSet) -> VectorSet:
    """A sweep's vectors, of one layer each, are told apart by `@layer` in their labels."""
    return replace(one, label=tuple(f"{label}@{one.layers[0, 0]}" for label in one.label))


def join(sets: Sequence[VectorSet]) -> VectorSet:
    """Sets of vectors one after the other."""
    stacked = {name: np.concatenate([getattr(s, name) for s in sets]) for name in
               ("direction", "layers", "replicate", "norm", "raw_norm")}  # fmt: skip
    listed = {name: tuple(value for s in sets for value in getattr(s, name)) for name in
              ("label", "kind", "setting", "method", "notes")}  # fmt: skip
    return VectorSet(**stacked, **listed)


def labels(values: Sequence[str]) -> np.ndarray:
    """Text as an object array, as the schema has it."""
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array
