"""Vectors that leave a cache: which one is written, to which file, and what the file says of it."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from example_table import example_rows
from test_cli_build import write_spec
from tiny_build import write_model

from cache_builder.vectors.interop import load_vector
from steerstats import demo_cache
from steerstats.cache import CacheReader, UnitData, create_cache, write_unit
from steerstats.cache.table import import_table


@pytest.mark.parametrize("ending", ["safetensors", "gguf"])
def test_export_writes_the_vector_that_was_applied(run, tmp_path, model, ending):
    spec = write_spec(tmp_path, model, datasets=["bundled:demo/likes-rain"])
    run("build", spec, "-o", tmp_path / "c")
    target = tmp_path / "new" / f"v.{ending}"
    code, _, errors = run("export", tmp_path / "c", "likes-rain", "-o", target, "--vector", "mean")
    assert code == 0, errors
    expected = CacheReader(tmp_path / "c")["likes-rain"].read("direction", vector="mean")[0]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask
    if ending == "safetensors":
        vector, facts = load_vector(target)
        assert facts["label"] == "mean"
        assert (vector[1] == expected).all()
    else:
        gguf = pytest.importorskip("gguf", reason="the interop extra is not installed")
        tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(target).tensors}
        assert (tensors["direction.1"] == expected).all()
        assert gguf.GGUFReader(target).fields["controlvector.model_hint"].contents() == "llama"


def test_an_exported_vector_is_of_its_own_layer_and_says_of_which_cache(run, tmp_path):
    unit = CacheReader(demo_cache())["likes-rain"].load()
    unit.arrays["vector_layer"][unit.arrays["vector"].tolist().index("mean")] = 0
    manifest = {"kind": "import", "spec_hash": "ab12", "units": ["likes-rain"], "model": "mine"}
    root = create_cache(tmp_path / "c", manifest)
    write_unit(root, "likes-rain", UnitData(unit.arrays, {**unit.attrs, "spec_hash": "ab12"}))
    code, out, errors = run("export", root, "likes-rain", "-o", tmp_path / "v.safetensors", "--vector", "mean")
    assert code == 0, errors
    assert "vector mean of likes-rain, layer 0 of" in out
    vector, facts = load_vector(tmp_path / "v.safetensors")
    assert (list(vector), facts["spec_hash"]) == ([0], "ab12")
    code, _, errors = run("export", root, "likes-rain", "-o", tmp_path / "v.pt")
    assert code == 2
    assert "v.pt: .pt is not written; give .safetensors or .gguf" in " ".join(errors.split())


def test_export_from_a_table_says_that_there_are_scores_only(run, tmp_path):
    pd.DataFrame(list(example_rows())).to_csv(tmp_path / "scores.csv", index=False)
    import_table(tmp_path / "scores.csv", tmp_path / "c", model="m")
    code, _, errors = run("export", tmp_path / "c", "kindness", "-o", tmp_path / "v.safetensors")
    assert code == 2
    assert "this cache holds no vectors, only what they did" in " ".join(errors.split())
    assert not (tmp_path / "v.safetensors").exists()


def test_an_exported_control_vector_hints_at_the_type_of_the_cached_model(run, tmp_path):
    gguf = pytest.importorskip("gguf", reason="the interop extra is not installed")
    spec = write_spec(
        tmp_path, write_model(tmp_path / "m", "gpt_neox"), datasets=["bundled:demo/likes-rain"], controls={}
    )
    assert run("build", spec, "-o", tmp_path / "c")[0] == 0

    def hint(*options):
        code, _, errors = run("export", tmp_path / "c", "likes-rain", "-o", tmp_path / "v.gguf", *options)
        assert code == 0, errors
        return gguf.GGUFReader(tmp_path / "v.gguf").fields["controlvector.model_hint"].contents()

    assert hint() == "gptneox"
    assert hint("--overwrite", "--architecture", "mine") == "mine"
    code, _, errors = run("export", tmp_path / "c", "likes-rain", "-o", tmp_path / "v.gguf")
    assert (code, hint("--overwrite")) == (2, "gptneox")
    assert "v.gguf exists; choose another name, or overwrite it (--overwrite)" in " ".join(errors.split())


def test_a_cache_that_does_not_say_what_its_model_is_needs_the_architecture(run, tmp_path):
    packed = Path(__file__).parent / "data" / "archives" / "v1" / "packed.h5"  # of a builder that did not record it
    name = CacheReader(packed).units[0]
    code, _, errors = run("export", packed, name, "-o", tmp_path / "v.gguf")
    assert code == 2
    assert "give --architecture" in " ".join(errors.split())
