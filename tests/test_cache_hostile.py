"""Files that a reader of caches must not trust: links, bombs, names that lead out, and what cannot be parsed."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
from test_cache import edit, make_cache, make_unit

from steerstats.cache import CacheReader, pack, write_unit
from steerstats.errors import CacheError, InputError


def replace(name, make):
    def change(root):
        del root[name]
        make(root)

    return change


def elsewhere():
    layout = h5py.VirtualLayout((5, 6, 3, 6), "f4")
    layout[:] = h5py.VirtualSource("/etc/hosts", "x", (5, 6, 3, 6))
    return layout


HOSTILE = {
    "external link": (
        replace("propensity", lambda root: root.__setitem__("propensity", h5py.ExternalLink("/etc/hosts", "/x"))),
        "ExternalLink that leaves the file",
    ),
    "soft link": (
        replace("propensity", lambda root: root.__setitem__("propensity", h5py.SoftLink("/planned"))),
        "SoftLink that leaves",
    ),
    "external storage": (
        replace(
            "propensity",
            lambda root: root.create_dataset(
                "propensity", (5, 6, 3, 6), "f4", external=[("/etc/hosts", 0, 5 * 6 * 3 * 6 * 4)]
            ),
        ),
        "stored outside this file",
    ),
    "virtual storage": (
        replace("propensity", lambda root: root.create_virtual_dataset("propensity", elsewhere())),
        "stored outside this file",
    ),
    "bomb": (
        replace(
            "propensity",
            lambda root: root.create_dataset("propensity", (5, 6, 3, 1 << 40), "f4", chunks=(1, 1, 1, 1024)),
        ),
        r"/propensity declares .* bytes and stores 0",
    ),
    "compressed bomb": (
        replace(
            "activation",
            lambda root: root.create_dataset("activation", (1 << 20,) * 5, "f2", chunks=(8,) * 5, compression="gzip"),
        ),
        r"/activation declares",
    ),
    "version": (
        lambda root: root.attrs.__setitem__("version", 99),
        r"version 99 cannot be read; this steerstats reads 1",
    ),
    "stranger": (lambda root: root.create_dataset("payload", data=np.ones(3)), "/payload is not part of the schema"),
    "group": (lambda root: root.create_group("payload"), "/payload is not part of the schema"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_its_path(tmp_path, case):
    change, message = HOSTILE[case]
    edit(make_cache(tmp_path), change)
    with pytest.raises(CacheError, match=message):
        CacheReader(tmp_path)["openness"].load()


def test_unit_names_cannot_leave_the_directory(tmp_path):
    make_cache(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"units": ["../../secret"]}))
    with pytest.raises(CacheError, match="leaves the cache directory"):
        CacheReader(tmp_path)
    for name in ("../evil", ".hidden"):
        with pytest.raises(InputError, match="unit name"):
            write_unit(tmp_path, name, make_unit())


def test_a_unit_that_is_a_link_out_of_the_directory_is_not_followed_and_a_directory_that_is_one_is(tmp_path):
    file = make_cache(tmp_path / "cache") / "units" / "openness.h5"
    (tmp_path / "linked").symlink_to(tmp_path / "cache")
    assert CacheReader(tmp_path / "linked").units == ("openness",)
    file.rename(tmp_path / "elsewhere.h5")
    file.symlink_to(tmp_path / "elsewhere.h5")
    with pytest.raises(CacheError, match=r"openness\.h5 is a link that leaves the cache directory"):
        CacheReader(tmp_path / "cache")


def repacked(path, source, change, **manifest):
    """A packed file whose manifest was changed, with `change` in place of the unit."""
    with h5py.File(pack(source, path), "r+") as file:
        told = json.loads(file["manifest"].asstr()[()]) | manifest
        del file["manifest"], file["openness"]
        file.create_dataset("manifest", data=json.dumps(told), dtype=h5py.string_dtype())
        change(file)
    return path


def test_a_unit_of_a_packed_file_is_a_group_of_that_file(tmp_path):
    source = make_cache(tmp_path / "cache")
    other = pack(source, tmp_path / "other.h5")
    path = repacked(
        tmp_path / "linked.h5",
        source,
        lambda file: file.__setitem__("away", h5py.ExternalLink(str(other), "/")),
        units=["away/openness"],
    )
    with pytest.raises(CacheError, match=r"unit name 'away/openness' leaves the cache file"):
        CacheReader(path)
    path = repacked(tmp_path / "array.h5", source, lambda file: file.create_dataset("openness", data=[1.0]))
    with pytest.raises(CacheError, match=r"array\.h5:/openness is not a group"):
        CacheReader(path)
    path = repacked(tmp_path / "bare.h5", source, lambda file: file.__delitem__("manifest"))
    with pytest.raises(CacheError, match="/manifest is missing"):
        CacheReader(path)


@pytest.mark.parametrize("units", [5, None, "openness", {"openness": 1}, [1], [".."]])
def test_units_that_are_no_list_of_names_are_a_located_error(tmp_path, units):
    make_cache(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"units": units}))
    with pytest.raises(CacheError, match=r"manifest\.json: unit"):
        CacheReader(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1 is not JSON"),
        (b"not json", "line 1 is not JSON"),
        (b"\xff", "cannot be read"),
        (b"[1]", "holds list"),
        (b'{"emoji": "\\ud83d\\ude00",\n"model": "\\ud800"}', r"line 2 holds half a character \(\\ud800\)"),
        (b'{"type": "\\ud83d\\ude00 \\\\ud800"}', "manifest type is '\U0001f600 "),
        (b'{"type": "x"}', "manifest type is 'x'"),
        (b'{"type": "steerstats.cache", "version": 99}', r"\(manifest\): schema version 99 cannot be read"),
    ],
)
def test_a_damaged_manifest_is_a_located_error(tmp_path, content, said):
    make_cache(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(CacheError, match=rf"{re.escape(str(tmp_path))}.*{said}"):
        CacheReader(tmp_path)
    with pytest.raises(CacheError, match=r"manifest"):
        make_cache(tmp_path)


@pytest.mark.parametrize("part", ["manifest.json", "units/openness.h5", "units/openness.json"])
def test_a_part_of_a_cache_is_told_from_the_cache(tmp_path, part):
    make_cache(tmp_path)
    said = f"{tmp_path / part}.* it is a part of the cache {tmp_path}; give that directory"
    with pytest.raises(CacheError, match=said):
        CacheReader(tmp_path / part)


def test_truncated_hdf5_is_a_located_error(tmp_path):
    make_cache(tmp_path)
    file = tmp_path / "units" / "openness.h5"
    file.write_bytes(file.read_bytes()[:2000])
    side = json.loads((tmp_path / "units" / "openness.json").read_text()) | {"bytes": 2000}
    (tmp_path / "units" / "openness.json").write_text(json.dumps(side))
    with pytest.raises(CacheError, match=r"openness\.h5 cannot be opened as HDF5"):
        CacheReader(tmp_path)["openness"]
