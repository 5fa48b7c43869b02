"""Exchange of steering vectors: safetensors files, steering-vectors objects, GGUF control vectors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cache_builder.vectors.interop import (
    GGUF_NAMES,
    convert_steering_vectors,
    from_steering_vectors,
    gguf_architecture,
    load_vector,
    save_gguf,
    save_vector,
    to_steering_vectors,
)
from steerstats.errors import InputError, MissingDependency

HIDDEN = 24


def test_safetensors_round_trip(tmp_path):
    rng = np.random.default_rng(3)
    vector = {4: rng.normal(size=HIDDEN).astype(np.float32), 11: rng.normal(size=HIDDEN).astype(np.float32)}
    save_vector(tmp_path / "v.safetensors", vector, dataset="narcissism", setting="base")
    back, facts = load_vector(tmp_path / "v.safetensors")
    assert back.keys() == vector.keys()
    assert all(np.array_equal(back[layer], vector[layer]) for layer in vector)
    assert facts == {"dataset": "narcissism", "setting": "base"}


def test_files_that_are_no_vectors_are_refused(tmp_path):
    (tmp_path / "junk").write_bytes(b"not a tensor file")
    with pytest.raises(InputError, match="junk: not a readable safetensors file"):
        load_vector(tmp_path / "junk")
    from safetensors.numpy import save_file

    save_file({"weight": np.ones(3, dtype=np.float32)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(InputError, match=r"layer\.N"):
        load_vector(tmp_path / "model.safetensors")
    save_file({name: np.ones(3, dtype=np.float32) for name in ("layer.1", "layer.01")}, str(tmp_path / "twice"))
    with pytest.raises(InputError, match=r"layer\.N"):
        load_vector(tmp_path / "twice")
    with pytest.raises(InputError, match="layer 2 is not finite"):
        save_vector(tmp_path / "x", {2: np.array([1.0, np.nan])})
    with pytest.raises(InputError, match="layer -1 is below 0"):
        from_steering_vectors(SimpleNamespace(layer_activations={-1: np.ones(3)}))


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_vector_that_something_else_has_written_is_read_by_the_names_of_its_tensors(tmp_path, metadata):
    from safetensors.numpy import save_file

    save_file({"layer.2": np.ones(3, dtype=np.float32)}, str(tmp_path / "v"), metadata=metadata)
    vector, facts = load_vector(tmp_path / "v")
    assert list(vector) == [2]
    assert facts == {}
    save_file({}, str(tmp_path / "none"), metadata=metadata)
    with pytest.raises(InputError, match=r"none: tensors \[\] are not a"):
        load_vector(tmp_path / "none")


@pytest.mark.parametrize("name", ["layer.last", "layer.-1", "layer."])
def test_a_layer_that_is_no_number_is_named(tmp_path, name):
    from safetensors.numpy import save_file

    save_file({name: np.ones(3, dtype=np.float32)}, str(tmp_path / "v"), metadata={"format": "steerstats.vector"})
    with pytest.raises(InputError, match=rf"v: tensors \['{name}'\] are not a steerstats\.vector"):
        load_vector(tmp_path / "v")


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "float8_e4m3fn"])
def test_a_vector_is_read_in_any_type_and_a_model_is_told_from_it(tmp_path, dtype):
    torch = pytest.importorskip("torch", reason="needs torch")
    from safetensors.torch import save_file

    tensors = {"layer.3": torch.tensor([1.5, -2.0, 0.25]).to(getattr(torch, dtype))}
    save_file({"model.norm.weight": tensors["layer.3"]}, str(tmp_path / "model"))
    with pytest.raises(InputError, match=r"model: tensors \['model\.norm\.weight'\] are not a"):
        load_vector(tmp_path / "model")
    save_file(tensors, str(tmp_path / "v"), metadata={"format": "pt"})
    found = load_vector(tmp_path / "v")[0][3]
    assert found.dtype == np.float32
    assert found.tolist() == [1.5, -2.0, 0.25]
    for facts in ("{", "[" * 100_000):
        save_file({"layer.3": torch.ones(3)}, str(tmp_path / "w"), metadata={"facts": facts})
        with pytest.raises(InputError, match=r"w: not a readable steerstats\.vector"):
            load_vector(tmp_path / "w")


@pytest.mark.parametrize("save", [save_vector, lambda path, vector: save_gguf(path, vector, "llama")])
def test_a_vector_that_cannot_be_written_leaves_the_one_that_was_there(tmp_path, monkeypatch, save):
    pytest.importorskip("gguf", reason="the package is not installed")
    path = tmp_path / "v"
    save(path, {1: np.ones(8, dtype=np.float32)})
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, {1: np.zeros(8, dtype=np.float32)})
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["v"]


def test_steering_vectors_objects_come_in_without_their_package():
    torch = pytest.importorskip("torch", reason="needs torch")
    stranger = SimpleNamespace(layer_activations={7: torch.arange(3.0).bfloat16()}, layer_type="decoder_block")
    assert from_steering_vectors(stranger)[7].tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(InputError, match="layer_activations"):
        from_steering_vectors(object())
    stranger.layer_activations = {7: torch.ones(2, 3)}
    with pytest.raises(InputError, match=r"layer 7 has shape \(2, 3\); it has to be \(hidden,\)"):
        from_steering_vectors(stranger)
    stranger.layer_type = "mlp"
    with pytest.raises(InputError, match="'mlp'"):
        from_steering_vectors(stranger)


def test_steering_vectors_objects_go_out_and_come_back():
    package = pytest.importorskip("steering_vectors", reason="the package is not installed")
    vector = {2: np.arange(4, dtype=np.float32)}
    out = to_steering_vectors(vector)
    assert isinstance(out, package.SteeringVector)
    assert np.array_equal(from_steering_vectors(out)[2], vector[2])


def test_a_steering_vectors_object_becomes_a_file_that_a_spec_can_name(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch")
    package = pytest.importorskip("steering_vectors", reason="the package is not installed")
    convert_steering_vectors(tmp_path / "v.safetensors", package.SteeringVector({3: torch.arange(4.0)}), made="here")
    vector, facts = load_vector(tmp_path / "v.safetensors")
    assert vector[3].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert facts == {"made": "here"}


def test_the_hint_for_steering_vectors_is_a_command_that_works(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "steering_vectors", None)
    with pytest.raises(MissingDependency, match="pip install --no-deps steering-vectors"):
        to_steering_vectors({1: np.ones(3)})


def test_gguf_names_are_those_that_the_gguf_package_knows():
    gguf = pytest.importorskip("gguf", reason="the package is not installed")
    known = set(gguf.MODEL_ARCH_NAMES.values())
    assert gguf_architecture("mistral") == "llama"
    assert set(GGUF_NAMES.values()) <= known
    assert {
        gguf_architecture(name) for name in ("llama", "qwen2", "gemma2", "gpt2", "phi3", "olmo2", "falcon")
    } <= known


def test_gguf_control_vectors_are_read_back_by_the_gguf_package(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package is not installed")
    vector = {1: np.arange(8, dtype=np.float32), 13: np.ones(8, dtype=np.float32)}
    save_gguf(tmp_path / "v.gguf", vector, "llama")
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    assert {t.name: t.data.tolist() for t in reader.tensors} == {
        f"direction.{layer}": values.tolist() for layer, values in vector.items()
    }
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    assert reader.fields["controlvector.layer_count"].contents() == 2, "as many as it has, whichever they are"
    assert reader.fields["general.architecture"].contents() == "controlvector"
    with pytest.raises(InputError, match="layer 0"):
        save_gguf(tmp_path / "w.gguf", {0: np.ones(8)}, "llama")
