"""Steering vectors that were made elsewhere: read from files, named by content, laid beside the fitted ones.

    [vectors.files]
    mine = "mine.safetensors"

Files are those of `interop.save_vector`; `interop.convert_steering_vectors` writes one from a steering-vectors object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cache_builder.vectors import VectorSet, slot_norms, to_norm
from cache_builder.vectors.interop import load_vector
from steerstats.errors import InputError


def load_vector_files(files: Mapping[str, str]) -> dict[str, dict[int, np.ndarray]]:
    """Read every file of a spec's `vectors.files`: direction by layer, by name.

    Raises
    ------
    InputError
        Naming the key, and the file.
    """
    found = {}
    for name, path in files.items():
        try:
            found[name] = load_vector(path)[0]
        except InputError as error:
            raise InputError(f"vectors.files.{name}: {error}") from error
    return found


def file_hashes(files: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each file's bytes, for a cache's identity."""
    return {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in files.items()}


def imported_vectors(
    files: Mapping[str, Mapping[int, np.ndarray]], norms: np.ndarray | None, hidden: int, n_layers: int, n_slots: int
) -> VectorSet:
    """Vectors that were made elsewhere, beside the fitted ones.

    Parameters
    ----------
    files : mapping of name to {layer: array (hidden,)}
        As `interop.load_vector` gives them; one or more.
    norms : array (n_slots,) or None
        Norm of each slot to rescale to; None keeps a vector as it is.
    hidden, n_layers : int
        Of the model.
    n_slots : int
        Layers that one vector of this build steers at once.

    Raises
    ------
    InputError
        Naming the vector and what does not fit the model or the build.
    """
    directions, layers, raw = [], [], []
    for name, by_layer in files.items():
        where = f"vectors.files.{name}"
        if len(by_layer) != n_slots:
            found = ", ".join(map(str, sorted(by_layer)))
            raise InputError(
                f"{where}: steers {len(by_layer)} layers ({found}), and this build's vectors {n_slots} at once; the "
                "file should hold as many"
            )
        for layer, values in by_layer.items():
            if layer >= n_layers:
                raise InputError(f"{where}: layer {layer} is not in this model; it has 0-{n_layers - 1}")
            if len(values) != hidden:
                raise InputError(f"{where}: has {len(values)} dimensions; the model has {hidden}")
        ordered = sorted(by_layer)
        found = np.stack([by_layer[layer] for layer in ordered]).astype(np.float64)
        if not slot_norms(found).all():
            raise InputError(f"{where}: is zero at layer {ordered[int(np.argmin(slot_norms(found)))]}")
        layers.append(ordered)
        raw.append(np.linalg.norm(found))
        directions.append(found if norms is None else to_norm(found, norms))
    direction = np.stack(directions).astype(np.float32)
    return VectorSet(
        direction=direction,
        layers=np.array(layers, dtype=np.int32),
        label=tuple(files),
        kind=("imported",) * len(files),
        setting=tuple(files),
        method=("imported",) * len(files),
        replicate=np.full(len(files), -1, dtype=np.int32),
        norm=np.linalg.norm(direction, axis=(1, 2)).astype(np.float32),
        raw_norm=np.array(raw, dtype=np.float32),
    )
