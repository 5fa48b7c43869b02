"""A small sweep over layers, written as a build would, without a model."""

from __future__ import annotations

import numpy as np

from steerstats.cache import UnitData, create_cache, write_unit

LAYERS = (3, 7, 9)


def write_sweep(root, names, means, multipliers, **attrs):
    """A cache of straight curves: a mean slope for each of `LAYERS`, or for the first ones; 30 inputs a dataset.

    `attrs` go to every unit.
    """
    layers = LAYERS[: len(means)]
    rng, grid = np.random.default_rng(0), np.array(multipliers)
    create_cache(root, {"kind": "sweep", "spec_hash": "ab", "model": "m", "units": list(names)})
    for name in names:
        slopes = np.array(means)[:, None] + rng.normal(scale=0.2, size=(len(layers), 30))
        arrays = {
            "input": np.array([f"i{k}" for k in range(30)], dtype=object),
            "setting_eval": np.array(["base"], dtype=object),
            "vector": np.array([f"base@{layer}" for layer in layers], dtype=object),
            "multiplier": grid,
            "slot": np.zeros(1, dtype=np.int32),
            "input_question": np.array([f"{name}{k}" for k in range(30)], dtype=object),
            "input_split": np.array(["val"] * 30, dtype=object),
            "vector_kind": np.array(["trained"] * len(layers), dtype=object),
            "vector_setting": np.array(["base"] * len(layers), dtype=object),
            "vector_replicate": np.full(len(layers), -1, dtype=np.int32),
            "vector_layer": np.array(layers, dtype=np.int32)[:, None],
            "propensity": (slopes[:, None, :] * grid[:, None])[None].astype(np.float32),
            "planned": np.ones((1, len(layers)), dtype=np.uint8),
        }
        own = {"dataset": name, "model": "m", "score": "logit_diff", "spec_hash": "ab"}
        write_unit(root, name, UnitData(arrays, own | attrs))
    return root
