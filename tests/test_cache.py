"""The cache contract: what is written can be read, and what breaks the contract is refused with its path."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from steerstats.cache import (
    SETTINGS,
    CacheReader,
    UnitData,
    content_hash,
    create_cache,
    pack,
    verify,
    write_unit,
)
from steerstats.cache.schema import ARRAYS
from steerstats.errors import CacheError, InputError

ATTRS = {"dataset": "openness", "model": "tiny", "score": "logit_diff", "spec_hash": "ab" * 32}


def text(values) -> np.ndarray:
    return np.array(list(values), dtype=object)


def make_unit(n: int = 6, seed: int = 0, width: int = 5) -> UnitData:
    rng = np.random.default_rng(seed)
    vectors = [*SETTINGS, "mean"]
    logits = rng.normal(size=(5, 6, 3, 2, n)).astype(np.float32)
    arrays = {
        "input": text(f"i{k}" for k in range(n)),
        "setting_eval": text(SETTINGS),
        "vector": text(vectors),
        "multiplier": np.array([-1.0, 0.0, 1.0]),
        "answer": text(["positive", "negative"]),
        "hidden": np.arange(width, dtype=np.int32),
        "layer": np.array([2], dtype=np.int32),
        "pair": text(f"p{k}" for k in range(4)),
        "setting_train": text(SETTINGS),
        "input_question": text(f"q{k // 2}" for k in range(n)),
        "input_text": text(f"<b>é {k}</b>" for k in range(n)),
        "input_pos_is_a": np.array([1, 0, -1] * n, dtype=np.int8)[:n],
        "vector_kind": text(["trained"] * 5 + ["mean"]),
        "vector_setting": text(vectors),
        "vector_replicate": np.full(6, -1, dtype=np.int32),
        "answer_logit": logits,
        "propensity": logits[:, :, :, 0] - logits[:, :, :, 1],
        "logsumexp": np.logaddexp(logits[:, :, :, 0], logits[:, :, :, 1]) + np.float32(0.1),
        "planned": np.ones((5, 6), dtype=np.uint8),
        "activation": rng.normal(size=(5, 1, 2, 4, width)).astype(np.float16),
    }
    return UnitData(arrays, dict(ATTRS))


def make_cache(path, units=("openness",), write=None, **said):
    manifest = {"kind": "simulated", "spec_hash": ATTRS["spec_hash"], "units": list(units), "model": "tiny"}
    create_cache(path, manifest | said)
    for k, name in enumerate(write if write is not None else units):
        unit = make_unit(seed=k)
        write_unit(path, name, UnitData(unit.arrays, {**ATTRS, "dataset": name}), {"device": "cpu"})
    return path


def edit(path, change):
    """Change a finished file as a stranger might, keeping its size claim consistent."""
    file = path / "units" / "openness.h5"
    with h5py.File(file, "r+") as root:
        change(root)
    side = json.loads((path / "units" / "openness.json").read_text())
    side["bytes"] = file.stat().st_size
    (path / "units" / "openness.json").write_text(json.dumps(side))


def test_a_unit_comes_back_as_it_was_written(tmp_path):
    unit = make_unit()
    loaded = CacheReader(make_cache(tmp_path))["openness"].load()
    assert set(loaded.arrays) == set(unit.arrays)
    for name, array in unit.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array, err_msg=name)


def test_labels_select_in_the_order_asked_for(tmp_path):
    unit, whole = CacheReader(make_cache(tmp_path))["openness"], make_unit().arrays["propensity"]
    got = unit.read("propensity", vector=["mean", "base"], setting_eval="user_pos", multiplier=1.0)
    np.testing.assert_array_equal(got, whole[3][[5, 0]][:, 2])
    np.testing.assert_array_equal(unit.read("propensity", vector=["base", "base"])[:, 1], whole[:, 0])
    both = unit.read("propensity", vector=np.array(["mean", "base"]), setting_eval=["sys_neg", "base"])
    np.testing.assert_array_equal(both, whole[[2, 0]][:, [5, 0]])


def test_an_unknown_label_or_array_names_what_there_is(tmp_path):
    unit = CacheReader(make_cache(tmp_path))["openness"]
    with pytest.raises(CacheError, match=r"vector 'median' is not in this cache; it has mean, base, sys_pos"):
        unit.read("propensity", vector="median")
    with pytest.raises(CacheError, match=r"/direction is not in this cache; it has activation"):
        unit.read("direction")
    with pytest.raises(CacheError, match=r"/propensity has the axes \('setting_eval', .*'input'\), not 'layer'"):
        unit.read("propensity", layer=2)


def test_a_packed_cache_reads_and_hashes_like_its_directory(tmp_path):
    names = ("openness", "narcissism")
    source = make_cache(tmp_path / "cache", names)
    packed = CacheReader(pack(source, tmp_path / "cache.h5"))
    assert packed.units == names
    for name in names:
        assert content_hash(packed[name].load()) == content_hash(CacheReader(source)[name].load())
    assert all(check.ok for check in verify(tmp_path / "cache.h5"))
    lighter = CacheReader(pack(source, tmp_path / "light.h5", leave_out=["activation", "logsumexp"]))
    assert "activation" not in lighter["openness"]
    assert all(check.ok for check in verify(tmp_path / "light.h5"))
    with pytest.raises(CacheError, match="exists"):
        pack(source, tmp_path / "cache.h5")


def test_a_packed_file_says_all_that_was_left_out_and_is_never_left_without_what_it_needs(tmp_path):
    source = make_cache(tmp_path / "cache")
    light = pack(source, tmp_path / "light.h5", leave_out="activation")
    assert CacheReader(light)["openness"].sidecar["left_out"] == ["activation"]
    lighter = pack(light, tmp_path / "lighter.h5", leave_out=["answer_logit", "direction"])  # it has no direction
    assert CacheReader(lighter)["openness"].sidecar["left_out"] == ["activation", "answer_logit"]
    for name, message in {"activations": "not an array", "propensity": "needs", "vector": "needs"}.items():
        with pytest.raises(InputError, match=f"leave_out names '{name}', which .*{message}"):
            pack(source, tmp_path / "not.h5", leave_out=[name])
    with pytest.raises(CacheError, match="has no finished unit to pack"):
        pack(make_cache(tmp_path / "begun", write=()), tmp_path / "not.h5")
    assert not (tmp_path / "not.h5").exists()


def test_verify_finds_a_flipped_bit(tmp_path):
    make_cache(tmp_path)
    assert all(check.ok for check in verify(tmp_path))
    file = tmp_path / "units" / "openness.h5"
    with h5py.File(file, "r") as root:
        offset = root["propensity"].id.get_offset()
    with open(file, "rb+") as raw:
        raw.seek(offset)
        byte = raw.read(1)[0]
        raw.seek(offset)
        raw.write(bytes([byte ^ 1]))
    failed = {check.what for check in verify(tmp_path) if not check.ok}
    assert {"file hash", "content hash"} <= failed


def test_a_unit_without_its_sidecar_or_of_another_size_is_not_finished(tmp_path):
    make_cache(tmp_path, ("openness", "narcissism"))
    (tmp_path / "units" / "openness.json").unlink()
    with open(tmp_path / "units" / "narcissism.h5", "ab") as file:
        file.write(b"x")
    cache = CacheReader(tmp_path, allow_damaged=True)
    assert cache.units == ()
    assert cache.missing == ("openness", "narcissism")
    with pytest.raises(CacheError, match="'openness' is not finished; it has none finished"):
        cache["openness"]


def test_specs_are_not_mixed_in_one_directory(tmp_path):
    make_cache(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(CacheError, match="specs are not mixed"):
        create_cache(tmp_path, {"kind": "grid", "spec_hash": "cd" * 32, "units": [], "model": "tiny"})
    (tmp_path / "notes.txt").touch()  # anyone may keep something beside a cache
    create_cache(tmp_path, {"kind": "simulated", "spec_hash": ATTRS["spec_hash"], "units": ["other"], "model": "x"})
    assert (tmp_path / "manifest.json").read_bytes() == before
    with pytest.raises(InputError, match=r"manifest kind is 'grids', it should be one of \('grid', 'sweep'"):
        create_cache(tmp_path / "new", {"kind": "grids", "spec_hash": "cd" * 32, "units": [], "model": "tiny"})


def test_a_manifest_that_was_changed_by_hand_is_joined_by_nobody(tmp_path):
    make_cache(tmp_path)
    path, joining = tmp_path / "manifest.json", {"kind": "grid", "spec_hash": ATTRS["spec_hash"]}
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest, indent=3))
    assert create_cache(tmp_path, joining) == tmp_path
    numbered = joining | {"facts": {9: "before 10 until it is text", 10: "after 9"}}
    assert create_cache(tmp_path / "new", numbered) == tmp_path / "new"
    path.write_text(json.dumps(manifest | {"model": "another"}))
    with pytest.raises(CacheError, match=r"manifest\.json is not as it was written: its manifest_sha256 is \w{64}"):
        create_cache(tmp_path, joining)


def spoil(name, value, index=0):
    def change(unit):
        array = unit.arrays[name].copy()
        array[index] = value
        unit.arrays[name] = array

    return change


BROKEN = {
    "nan": (spoil("propensity", np.nan, (1, 2, 0, 3)), r"/propensity is nan at setting_eval=sys_pos, vector=sys_neg"),
    "inf": (spoil("activation", np.inf, (0, 0, 1, 2, 3)), r"/activation is inf at setting_train=base, layer=2"),
    "unplanned": (spoil("planned", 0, (0, 4)), r"has a value at setting_eval=base, vector=user_neg.*planned excludes"),
    "type": (lambda u: u.arrays.update(propensity=u.arrays["propensity"].astype(float)), "float64, it should be"),
    "shape": (lambda u: u.arrays.update(planned=np.ones((5, 5), np.uint8)), r"\(5, 5\), setting_eval x vector is"),
    "missing": (lambda u: u.arrays.pop("vector_kind"), "/vector_kind is missing"),
    "scale": (lambda u: u.arrays.pop("layer"), "/activation needs the scale /layer, which is missing"),
    "stranger": (lambda u: u.arrays.update(extra=np.ones(3)), "/extra is not part of the schema"),
    "twice": (spoil("input", "i1"), "'i1' more than once"),
    "setting twice": (spoil("setting_eval", "sys_pos"), "/setting_eval holds 'sys_pos' more than once"),
    "training setting twice": (spoil("setting_train", "sys_pos"), "/setting_train holds 'sys_pos' more than once"),
    "order": (spoil("multiplier", 5.0), "strictly increasing"),
    "multiplier twice": (spoil("multiplier", 0.0), "strictly increasing"),
    "zero": (spoil("multiplier", 0.5, 1), "it should hold 0"),
    "attribute": (lambda u: u.attrs.pop("score"), "attribute score is missing"),
    "kind": (spoil("vector_kind", "magic"), "'magic', it should be one of"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_unit_is_refused_and_nothing_is_written(tmp_path, case):
    change, message = BROKEN[case]
    make_cache(tmp_path, write=())
    unit = make_unit()
    change(unit)
    with pytest.raises(CacheError, match=message):
        write_unit(tmp_path, "openness", unit)
    assert os.listdir(tmp_path / "units") == []


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, monkeypatch):
    make_cache(tmp_path, write=())

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steerstats.cache.writer.fsync_and_hash", full)
    with pytest.raises(CacheError, match=r"openness\.h5 could not be written: .*No space left"):
        write_unit(tmp_path, "openness", make_unit())
    assert os.listdir(tmp_path / "units") == []


def test_the_page_names_what_a_built_cache_holds():
    root = Path(__file__).parent.parent
    page = (root / "steerstats" / "cache" / "SCHEMA.md").read_text("utf-8")
    cache = CacheReader(root / "reports" / "examples" / "demo" / "cache.h5")
    unit = cache[cache.units[0]]
    arrays = [spec.name for spec in ARRAYS if not spec.name.startswith(("input_", "pair_")) or spec.required]
    names = [*cache.manifest, *unit.attrs, *unit.sidecar, *arrays]
    assert [name for name in names if f"`{name}`" not in page and f"`{name} = " not in page] == []
