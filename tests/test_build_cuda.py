"""On a CUDA device (`pytest -m cuda`): a finished build there holds what one on the CPU holds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_build import content, write_model

from cache_builder import session
from cache_builder.build import run_build
from cache_builder.spec import parse_spec
from steerstats.cache import CacheReader

pytestmark = pytest.mark.cuda
# FlexAttention is compiled for heads of at least 16.
SHAPE = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("cuda") / "model", **SHAPE)


def build(model, root, *, device: str, **asked):
    """One dataset in three settings; arrays of its unit, and the manifest."""
    values = content(model, datasets=["bundled:demo/likes-rain"], run={"device": device, "threads": 1})
    values["model"] |= asked
    run_build(parse_spec(values), root)
    return CacheReader(root)["likes-rain"].load().arrays, json.loads((root / "manifest.json").read_text())


def test_float32_equals_the_cpu_and_the_manifest_names_the_mask_that_was_measured(model, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "FEWEST_TUNED", {"cpu": 0})
    one, _ = build(model, tmp_path / "cpu", device="cpu", dtype="float32")
    two, manifest = build(model, tmp_path / "cuda", device="auto", dtype="float32")
    for name, array in one.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(two[name].astype(float), array.astype(float), atol=2e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(two[name], array, err_msg=name)
    assert set(manifest["runtime"]["measured"]["masks"]) == {"blocked", "dense", "flex"}


def test_bfloat16_is_the_default_there(model, tmp_path):
    one, _ = build(model, tmp_path / "cpu", device="cpu", dtype="float32")
    two, manifest = build(model, tmp_path / "cuda", device="auto")
    assert manifest["facts"]["model"]["dtype"] == "bfloat16"
    seen = np.isfinite(one["propensity"]) & (one["multiplier"] == 0)[:, None]  # of no vector, which differ by rounding
    apart = np.abs(two["propensity"] - one["propensity"])[seen]
    assert apart.max() < 0.3
    assert np.isfinite(two["propensity"]).sum() == np.isfinite(one["propensity"]).sum()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_model_is_built_with_and_stays_near_the_whole_one(model, tmp_path, bits):
    pytest.importorskip("bitsandbytes")
    one, _ = build(model, tmp_path / "whole", device="auto")
    two, manifest = build(model, tmp_path / "few", device="auto", **{f"load_in_{bits}bit": True})
    assert manifest["facts"]["model"]["quantisation"][f"load_in_{bits}bit"]
    seen = np.isfinite(one["propensity"]) & (one["multiplier"] == 0)[:, None]
    first, second = one["propensity"][seen], two["propensity"][seen]
    assert np.corrcoef(first, second)[0, 1] > (0.95 if bits == 8 else 0.6)
    assert not np.array_equal(first, second), "weights of fewer bits give other values"
