"""Steering vectors in and out: safetensors files, `steering-vectors` objects, GGUF control vectors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steerstats.cache.disk import whole_file
from steerstats.errors import InputError, MissingDependency, require

FORMAT = "steerstats.vector"
LAYER = r"layer\.(0|[1-9][0-9]*)"  # one spelling for each layer: of layer.1 and layer.01 one would be lost
GGUF_NAMES = {
    "gemma3_text": "gemma3",
    "gpt_neox": "gptneox",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}


def save_vector(path: str | Path, vector: Mapping[int, np.ndarray], **facts: object) -> None:
    """Write one steering vector to a safetensors file.

    Parameters
    ----------
    path : path
    vector : mapping of int to array (hidden,)
        Direction by layer (0-based decoder block whose output is steered).
    **facts
        Anything else worth keeping (model, dataset, setting, method): plain JSON values, stored as metadata.
    """
    require("safetensors", "build", "writing a steering vector")
    from safetensors.numpy import save

    tensors = {f"layer.{layer}": values for layer, values in sorted(_checked(vector, str(path)).items())}
    metadata = {"format": FORMAT, "version": "1", "facts": json.dumps(facts, sort_keys=True)}
    with whole_file(Path(path)) as partial:
        partial.write_bytes(save(tensors, metadata=metadata))  # their `save_file` lets nobody else read the file


def load_vector(path: str | Path) -> tuple[dict[int, np.ndarray], dict[str, object]]:
    """Read a steering vector from safetensors: direction by layer, and its facts.

    Tensors are named `layer.N`, N being the decoder block whose output is steered, as `save_vector` names them. Facts
    are what it kept with them; a file that something else has written has none.

    Raises
    ------
    InputError
        If the file is not such a vector, or holds values that are not finite.
    """
    require("safetensors", "build", "reading a steering vector")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:  # numpy has no bfloat16
            metadata, names = file.metadata() or {}, sorted(file.keys())
            layers = {name: int(found[1]) for name in names if (found := re.fullmatch(LAYER, name))}
            if not names or len(layers) != len(names):
                raise InputError(
                    f"{path}: tensors {names[:3]} are not a {FORMAT}; name them layer.N, N being the decoder block "
                    "whose output is steered"
                )
            vector = {layer: file.get_tensor(name).float().numpy().copy() for name, layer in layers.items()}
        facts = json.loads(metadata.get("facts", "{}"))
    except InputError:
        raise
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    except (ValueError, RecursionError) as error:  # facts that are no JSON, or more than Python can hold
        raise InputError(f"{path}: not a readable {FORMAT} ({error})") from error
    return _checked(vector, str(path)), facts


def from_steering_vectors(vector: Any) -> dict[int, np.ndarray]:
    """Direction by layer of a `steering_vectors.SteeringVector`, or of anything with `layer_activations`.

    The package itself is not needed. Only vectors of decoder blocks are the same thing as ours.

    Raises
    ------
    InputError
        If there are no layer activations, or they belong to another place in the block.
    """
    activations = getattr(vector, "layer_activations", None)
    if not isinstance(activations, Mapping) or not activations:
        raise InputError(f"{type(vector).__name__} has no layer_activations; is it a steering-vectors object?")
    kind = getattr(vector, "layer_type", "decoder_block")
    if kind != "decoder_block":
        raise InputError(f"layer_type {kind!r} is not the output of a decoder block, which is what is steered here")
    arrays = {int(layer): _to_numpy(values) for layer, values in activations.items()}
    return _checked(arrays, "steering-vectors object")


def convert_steering_vectors(path: str | Path, vector: Any, **facts: object) -> None:
    """Write a `steering_vectors.SteeringVector` to a file that a build spec can name under `[vectors.files]`.

    Objects saved by `torch.save` are pickles, which run whatever they hold when they are read, and are not read
    here: load such a file with its own package, if you trust it, and give the object.

    Parameters
    ----------
    path : path
        The safetensors file to write.
    vector : SteeringVector, or anything with `layer_activations`
    **facts
        See `save_vector`.
    """
    save_vector(path, from_steering_vectors(vector), **facts)


def gguf_architecture(model_type: str) -> str:
    """What llama.cpp calls a model that transformers calls `model_type`."""
    return GGUF_NAMES.get(model_type, model_type)


def to_steering_vectors(vector: Mapping[int, np.ndarray]) -> Any:
    """A `steering_vectors.SteeringVector` with these directions (needs that package and torch).

    Raises
    ------
    MissingDependency
        If the package is not installed.
    """
    try:
        import steering_vectors as package
    except ImportError as error:
        # Its 0.12 asks for transformers below 5 and runs with later ones: no extra of ours can bring it.
        raise MissingDependency(
            "a steering-vectors object needs steering_vectors, which is not installed: "
            "pip install --no-deps steering-vectors"
        ) from error
    torch = require("torch", "build", "a steering-vectors object")
    checked = _checked(vector, "vector")
    return package.SteeringVector({layer: torch.from_numpy(values) for layer, values in checked.items()})


def save_gguf(path: str | Path, vector: Mapping[int, np.ndarray], architecture: str) -> None:
    """Write a GGUF control vector, as llama.cpp reads it.

    Parameters
    ----------
    path : path
    vector : mapping of int to array (hidden,)
        Direction by decoder block. llama.cpp adds tensor `direction.N` to the output of its layer N, and numbers
        layers as we do but takes none for layer 0.
    architecture : str
        The model's type in GGUF ("llama", "qwen2", "gemma2", ...), stored as a hint.

    Raises
    ------
    InputError
        If layer 0 is steered, which the format cannot hold.
    """
    gguf = require("gguf", "interop", "a GGUF control vector")
    checked = _checked(vector, str(path))
    if 0 in checked:
        raise InputError(f"{path}: a GGUF control vector cannot steer layer 0; it begins at layer 1")
    with whole_file(Path(path)) as partial:
        writer = gguf.GGUFWriter(str(partial), "controlvector")
        try:
            writer.add_string("controlvector.model_hint", architecture)
            writer.add_uint32("controlvector.layer_count", len(checked))
            for layer, values in sorted(checked.items()):
                writer.add_tensor(f"direction.{layer}", values)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _checked(vector: Mapping[int, np.ndarray], place: str) -> dict[int, np.ndarray]:
    checked = {int(layer): np.ascontiguousarray(values, dtype=np.float32) for layer, values in vector.items()}
    if not checked:
        raise InputError(f"{place}: the vector has no layers")
    for layer, values in checked.items():
        if layer < 0:
            raise InputError(f"{place}: layer {layer} is below 0; layers are numbered from the first block, which is 0")
        if values.ndim != 1 or not len(values):
            raise InputError(f"{place}: layer {layer} has shape {values.shape}; it has to be (hidden,)")
        if not np.isfinite(values).all():
            raise InputError(f"{place}: the vector of layer {layer} is not finite")
    return checked


def _to_numpy(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)
