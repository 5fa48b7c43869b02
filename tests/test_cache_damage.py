"""A cache that was changed after it was built: everyone who reads it says so, and `pack` does not vouch for it."""

from __future__ import annotations

import fcntl
import json
import os

import h5py
import numpy as np
import pytest
from test_cache import edit, make_cache
from test_cache_hostile import replace

import steerstats
from steerstats.cache import CacheReader, finished_sidecar, pack, verify
from steerstats.cli import main
from steerstats.errors import CacheError

NAMES = ("openness", "narcissism")


@pytest.fixture
def cache(tmp_path):
    return make_cache(tmp_path / "cache", NAMES)


def change_a_number(file):
    with h5py.File(file, "r+") as root:
        root["propensity"][0, 0, 0, 0] += 1


def reseal(cache, **claims):
    side = cache / "units" / "openness.json"
    side.write_text(json.dumps(json.loads(side.read_text()) | claims))


def cut(cache, name="openness"):
    file = cache / "units" / f"{name}.h5"
    whole = file.stat().st_size
    os.truncate(file, whole // 2)
    return rf"{name}\.h5 has {whole // 2} bytes where its sidecar says {whole}"


def seal_of(file):
    import hashlib

    return {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}


@pytest.mark.parametrize("sealed_file", [False, True])
def test_pack_refuses_numbers_that_were_changed(cache, tmp_path, sealed_file):
    file = cache / "units" / "openness.h5"
    change_a_number(file)
    if sealed_file:
        reseal(cache, **seal_of(file))
    assert not all(check.ok for check in verify(cache))
    what = "content hash" if sealed_file else "file hash"
    with pytest.raises(CacheError, match=rf"unit openness is not .*units/openness\.h5: {what} is .*, the sidecar says"):
        pack(cache, tmp_path / "new" / "packed.h5")
    assert os.listdir(tmp_path) == ["cache"]


def test_pack_refuses_an_array_that_is_gone(cache, tmp_path):
    file = cache / "units" / "openness.h5"
    with h5py.File(file, "r+") as root:
        del root["input_text"]
    reseal(cache, **seal_of(file))
    with pytest.raises(CacheError, match=r"unit openness is not .*content hash is"):
        pack(cache, tmp_path / "packed.h5")
    assert os.listdir(tmp_path) == ["cache"]


def test_pack_refuses_a_packed_file_that_was_changed(cache, tmp_path):
    packed = pack(cache, tmp_path / "packed.h5")
    with h5py.File(packed, "r+") as root:
        root["openness/propensity"][0, 0, 0, 0] += 1
    with pytest.raises(CacheError, match=r"packed\.h5:/openness: content hash is"):
        pack(packed, tmp_path / "again.h5")
    assert sorted(os.listdir(tmp_path)) == ["cache", "packed.h5"]


def garble(file, text):
    file.write_bytes(file.read_bytes().replace(text, b"\xff" * len(text)))
    return file


@pytest.mark.parametrize("form", ["directory", "packed"])
def test_a_label_that_is_no_utf8_is_a_failed_check(cache, tmp_path, form):
    garble(cache / "units" / "openness.h5" if form == "directory" else pack(cache, tmp_path / "packed.h5"), b"user_neg")
    failed = [check for check in verify(cache if form == "directory" else tmp_path / "packed.h5") if not check.ok]
    assert any(check.what == "contract" and "cannot be read: 'utf-8' codec" in check.detail for check in failed)


def test_a_packed_manifest_that_is_no_utf8_is_one_error(cache, tmp_path):
    packed = garble(pack(cache, tmp_path / "packed.h5"), b'"spec_hash"')
    with pytest.raises(CacheError, match=r"packed\.h5 cannot be read: 'utf-8' codec"):
        CacheReader(packed)


def test_a_file_that_was_cut_short_is_damaged_for_readers_and_unfinished_for_a_builder(cache, tmp_path):
    size = cut(cache)
    assert finished_sidecar(cache, "openness") is None
    for read in (CacheReader, steerstats.open_cache, lambda path: pack(path, tmp_path / "packed.h5")):
        with pytest.raises(CacheError, match=size + r": copy it again or rebuild it, or remove units/openness\.json"):
            read(cache)
    assert os.listdir(tmp_path) == ["cache"]
    failed = {check.what: check for check in verify(cache) if not check.ok}
    assert set(failed) == {"complete", "file size"}
    assert failed["complete"].detail == "1 of 2 units; damaged: openness"
    assert failed["file size"].where == "openness"
    (cache / "units" / "openness.json").unlink()  # the remedy
    assert CacheReader(cache).missing == ("openness",)


def test_a_file_that_is_gone_and_two_that_are_damaged_are_said(cache):
    (cache / "units" / "openness.h5").unlink()
    with pytest.raises(CacheError, match=r"openness\.h5 is gone while its sidecar openness\.json is there"):
        CacheReader(cache)
    cut(cache, "narcissism")
    with pytest.raises(CacheError, match=r"is there \(1 more is damaged\)"):
        CacheReader(cache)


def test_a_unit_that_a_builder_writes_anew_meanwhile_is_not_damaged(cache, monkeypatch):
    """The sidecar was read, then a builder took it away and put another file in place."""
    from steerstats.cache import sidecar

    cut(cache)
    plain, looks = sidecar._read_text, []

    def late(path):
        looks.append(path)
        if len(looks) == 2:
            raise FileNotFoundError(path)
        return plain(path)

    monkeypatch.setattr(sidecar, "_read_text", late)
    assert sidecar.unit_damage(cache, "openness") is None


def test_commands_say_which_file_is_damaged(cache, tmp_path, capsys):
    cut(cache)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(cache)])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert ended.value.code == 0
    assert "units: 1 of 2, 1 damaged" in shown
    assert "openness: damaged: " in shown
    assert "sizes fit" not in shown
    for command in (
        ["fit", cache],
        ["pack", cache, "-o", tmp_path / "packed.h5"],
        ["inspect", cache, "--unit", "openness"],
    ):
        with pytest.raises(SystemExit) as ended:
            main([str(part) for part in command])
        assert ended.value.code == 2
        assert "where its sidecar says" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["cache"]


@pytest.mark.parametrize("name", ["manifest.json", "units/openness.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"units": ' + "1" * 5000 + "}"], ids=["deep", "many digits"])
def test_json_that_python_cannot_hold_is_one_error_that_names_the_file(cache, name, text):
    (cache / name).write_text(text)
    with pytest.raises(CacheError, match=rf"{name} cannot be read"):
        list(verify(cache))


def test_a_manifest_that_names_a_unit_twice_is_refused_also_by_pack(cache, tmp_path):
    manifest = json.loads((cache / "manifest.json").read_text())
    (cache / "manifest.json").write_text(json.dumps(manifest | {"units": [*NAMES, NAMES[0]]}))
    with pytest.raises(CacheError, match=r"manifest\.json: unit name 'openness' is there twice"):
        pack(cache, tmp_path / "packed.h5")


@pytest.mark.parametrize(
    ("change", "ok", "said"),
    [
        ({}, True, ""),
        ({"model": "another"}, False, "the manifest says"),
        ({"provenance": {"multipliers": [1.0, 2.0]}}, False, "the manifest says"),
        ({"manifest_sha256": None}, True, "not recorded: the manifest holds no hash of itself"),
    ],
    ids=["as it was", "model", "deep inside", "no seal"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_manifest_that_was_edited_fails_its_hash(tmp_path, change, ok, said, packed):
    place = make_cache(tmp_path / "cache", provenance={"multipliers": (1.0, 1e-7), "who": "Zoë"})
    manifest = json.loads((place / "manifest.json").read_text()) | change
    manifest = {key: value for key, value in manifest.items() if value is not None}
    (place / "manifest.json").write_text(json.dumps(manifest, indent=3))  # how it is laid out is no part of it
    path = pack(place, tmp_path / "packed.h5") if packed else place
    check = next(check for check in verify(path) if check.what == "manifest hash")
    assert check.ok is ok
    assert said in check.detail


def test_verify_says_how_many_more_are_missing(tmp_path):
    make_cache(tmp_path, [f"d{k}" for k in range(8)], write=["d0"])
    assert next(verify(tmp_path)).detail == "1 of 8 units; planned and not finished: d1, d2, d3, d4, d5 and 2 more"


@pytest.mark.parametrize(
    ("run", "ok", "said"),
    [
        (None, True, "not recorded"),
        ([], True, "not recorded"),
        ({"parity": "yes"}, True, "not recorded"),
        ({"parity": {"path": "trie", "difference": "tiny"}}, False, "largest difference not recorded nats"),
        ({"parity": {"path": "trie", "difference": 1e-6}}, False, "allowed not recorded"),
        ({"parity": {"path": "trie", "difference": 1e-6, "tolerance": 1e-4}}, True, "allowed 1.0e-04"),
        ({"parity": {"path": "trie", "difference": 2e-4, "tolerance": 1e-4}}, False, "2.0e-04 nats, allowed 1.0e-04"),
        ({"parity": {"path": "trie", "difference": -1.0, "tolerance": 1e-4}}, False, "difference not recorded nats"),
        ({"parity": {"path": "trie", "difference": False, "tolerance": 1e-4}}, False, "difference not recorded nats"),
        ({"parity": {"path": "trie", "difference": 1.0, "tolerance": float("inf")}}, False, "allowed not recorded"),
        ({"parity": {"path": "plain", "difference": None, "tolerance": 1e-4}}, True, "plain path"),
    ],
)
def test_whatever_a_sidecar_says_of_parity_is_checked_and_shown(tmp_path, capsys, run, ok, said):
    make_cache(tmp_path / "c")
    reseal(tmp_path / "c", run=run)
    (check,) = [check for check in verify(tmp_path / "c") if check.what == "engine parity"]
    assert (check.ok, said in check.detail) == (ok, True)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path / "c")])
    assert ended.value.code == 0
    assert ("parity" in capsys.readouterr().out) == (said != "not recorded")


def half_written(root):
    root.create_dataset("propensity", (5, 6, 3, 6), "f4", chunks=(1, 1, 1, 6))[0, 0, 0] = 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replace("propensity", half_written), "/propensity declares 2,160 bytes and stores 24; it is not read"),
        (replace("input", lambda root: root.create_dataset("input", data="i0")), r"/input is a scale with shape \(\)"),
        (lambda root: root.attrs.__setitem__("type", np.bytes_(b"\xff")), "attribute type is"),
    ],
)
def test_a_file_that_a_stranger_left_half_done_is_a_located_error(tmp_path, change, said):
    edit(make_cache(tmp_path), change)
    with pytest.raises(CacheError, match=rf"openness\.h5: {said}"):
        CacheReader(tmp_path)["openness"].read("propensity")


def test_bytes_that_cannot_be_inflated_are_a_located_error_and_a_failed_check(tmp_path):
    packed = pack(steerstats.demo_cache(), tmp_path / "packed.h5", leave_out="activation")
    with h5py.File(packed) as file:
        chunk = file["likes-rain/propensity"].id.get_chunk_info(0)
    with open(packed, "rb+") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes(chunk.size))
    with pytest.raises(CacheError, match=r"packed\.h5:/likes-rain cannot be read"):
        CacheReader(packed)["likes-rain"].read("propensity")
    assert [check.where for check in verify(packed) if not check.ok] == ["likes-rain"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("type", "other", "attribute type is 'other'"), ("version", 99, "schema version 99 cannot")],
)
def test_a_packed_file_of_another_type_or_version_is_refused(cache, tmp_path, name, value, said):
    packed = pack(cache, tmp_path / "packed.h5")
    with h5py.File(packed, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(CacheError, match=rf"packed\.h5: {said}"):
        CacheReader(packed)


def test_a_cache_is_read_while_another_program_locks_its_file(cache):
    """Locks are unknown to some network file systems, and left behind on others; a finished file never changes."""
    with open(cache / "units" / "openness.h5", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert CacheReader(cache)["openness"].read("propensity").shape == (5, 6, 3, 6)
