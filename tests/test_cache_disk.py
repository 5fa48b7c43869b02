"""Whatever the disk and other builders do, a cache holds whole units whose sidecars fit, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import steerstats
from steerstats.cache import (
    CacheReader,
    UnitData,
    create_cache,
    disk,
    finished_sidecar,
    pack,
    verify,
    write_unit,
    writer,
)
from steerstats.errors import CacheError

MANIFEST = {"kind": "import", "spec_hash": "ab12", "units": ["likes-rain"], "model": "mine"}
NAME = "likes-rain"


@pytest.fixture(scope="module")
def unit() -> UnitData:
    whole = CacheReader(steerstats.demo_cache())[NAME].load()
    return UnitData(whole.arrays, {**whole.attrs, "spec_hash": "ab12", "attribution": "ours  "})


@pytest.fixture
def root(tmp_path) -> Path:
    return create_cache(tmp_path / "cache", MANIFEST)


def names(root: Path) -> list[str]:
    return sorted(os.listdir(root / "units"))


FULL = """
import os, resource, sys
import numpy as np, steerstats
from steerstats.cache import CacheReader, UnitData, create_cache, pack, verify, write_unit
from steerstats.errors import CacheError

def limited(bytes, call):
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, resource.RLIM_INFINITY))
    try:
        call()
    except CacheError as error:
        assert "File too large" in str(error) and "\\n" not in str(error), error
    else:
        raise AssertionError(bytes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

folder = sys.argv[1]
unit = CacheReader(steerstats.demo_cache())["likes-rain"].load()
unit = UnitData(unit.arrays, {**unit.attrs, "spec_hash": "ab12"})
root = create_cache(folder + "/cache", {"kind": "import", "spec_hash": "ab12", "units": ["likes-rain"], "model": "m"})
size = write_unit(root, "likes-rain", unit).stat().st_size
for name in os.listdir(root / "units"):
    os.unlink(root / "units" / name)
handles = os.listdir("/proc/self/fd")
for room in [0, 1, 100, 800, 2048, 20_000, *np.linspace(30_000, size - 1, 12).astype(int).tolist()]:
    limited(room, lambda: write_unit(root, "likes-rain", unit))
    assert os.listdir(root / "units") == [], room
    assert len(os.listdir("/proc/self/fd")) == len(handles), room
write_unit(root, "likes-rain", unit)
assert len(os.listdir("/proc/self/fd")) == len(handles)
assert all(check.ok for check in verify(root))
for room in (0, 3000, 100_000):
    limited(room, lambda: pack(root, folder + "/packed.h5"))
    assert os.listdir(folder) == ["cache"], room
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux")
def test_a_disk_that_fills_up_at_any_byte_is_one_error_that_leaves_nothing_and_goes_on(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_sidecar_that_cannot_be_written_leaves_the_unit_unfinished_and_no_other_file(unit, root, monkeypatch, step):
    plain, calls = getattr(os, step), []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2:  # the first is the unit's own
            raise OSError(28, "No space left on device")
        return plain(*arguments)

    monkeypatch.setattr(disk.os, step, failing)
    with pytest.raises(steerstats.SteerstatsError, match=r"likes-rain\.h5 could not be written: .*No space left"):
        write_unit(root, NAME, unit)
    assert names(root) == [f"{NAME}.h5"]
    assert finished_sidecar(root, NAME) is None
    monkeypatch.undo()
    write_unit(root, NAME, unit)
    assert all(check.ok for check in verify(root))


def other(unit: UnitData) -> UnitData:
    """The same unit as a machine of another kind computes it: files of one size and other bytes."""
    return UnitData(unit.arrays, {**unit.attrs, "attribution": "theirs"})


@pytest.mark.parametrize("moment", ["before the rename", "after the rename"])
def test_a_sidecar_never_vouches_for_the_file_of_another_builder(unit, root, monkeypatch, moment):
    """Two builders write one unit (a suspended one woke up): whoever comes last, file and sidecar are of one hand."""
    plain, raced = os.replace, []

    def racing(source, target):
        theirs = Path(target).suffix == ".h5" and not raced
        if theirs:
            raced.append(target)
        if theirs and moment == "before the rename":
            write_unit(root, NAME, other(unit))
        plain(source, target)
        if theirs and moment == "after the rename":
            write_unit(root, NAME, other(unit))

    monkeypatch.setattr(os, "replace", racing)
    write_unit(root, NAME, unit)
    monkeypatch.undo()
    assert raced
    assert names(root) == [f"{NAME}.h5", f"{NAME}.json"]
    assert finished_sidecar(root, NAME)
    assert [check for check in verify(root) if not check.ok] == []


def test_a_unit_that_another_builder_finished_meanwhile_stays_as_it_is(unit, root):
    write_unit(root, NAME, other(unit))
    before = finished_sidecar(root, NAME), (root / "units" / f"{NAME}.h5").stat().st_mtime_ns
    write_unit(root, NAME, unit, replace=False)
    assert (finished_sidecar(root, NAME), (root / "units" / f"{NAME}.h5").stat().st_mtime_ns) == before
    assert names(root) == [f"{NAME}.h5", f"{NAME}.json"]
    write_unit(root, NAME, unit)
    assert finished_sidecar(root, NAME) != before[0]


def test_an_earlier_sidecar_does_not_vouch_for_a_file_whose_own_was_never_written(unit, root, monkeypatch):
    write_unit(root, NAME, other(unit))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        write_unit(root, NAME, unit)
    assert names(root) == [f"{NAME}.h5"]
    assert finished_sidecar(root, NAME) is None


def test_a_sidecar_that_is_taken_away_while_it_is_read_is_an_unfinished_unit(unit, root, monkeypatch):
    write_unit(root, NAME, unit)
    plain = Path.read_text

    def late(path, *arguments, **options):
        path.unlink()
        return plain(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", late)
    assert finished_sidecar(root, NAME) is None


def test_builders_that_begin_one_cache_in_the_same_instant_do_not_take_each_other_for_strangers(tmp_path, monkeypatch):
    root = tmp_path / "cache"
    root.mkdir()
    (root / ".nfs00000000deadbeef").write_bytes(b"an open file without a name, as NFS keeps it")
    plain = Path.iterdir

    def late(path):
        if path == root and not (root / "manifest.json").exists():
            monkeypatch.undo()
            create_cache(root, MANIFEST)  # the other one, between two of our steps
        return plain(path)

    monkeypatch.setattr(Path, "iterdir", late)
    assert create_cache(root, MANIFEST) == root
    (tmp_path / "full").mkdir()
    there = [".a.partial", ".b.partial", ".c.partial", "thesis.tex"]
    for name in there:
        (tmp_path / "full" / name).touch()
    with pytest.raises(steerstats.SteerstatsError, match=r"holds no manifest\.json \(thesis\.tex\)"):
        create_cache(tmp_path / "full", MANIFEST)
    assert sorted(os.listdir(tmp_path / "full")) == there, "what is there is left alone"


def test_a_manifest_for_which_there_is_no_room_is_one_error_that_names_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "publish_once", full)
    with pytest.raises(CacheError, match=r"manifest\.json could not be written: .*No space left on device"):
        create_cache(tmp_path / "cache", MANIFEST)


def test_a_name_that_is_longer_than_a_disk_takes_is_one_error(root, unit):
    with pytest.raises(CacheError, match=r"x\.h5 could not be written: .*[Nn]ame too long"):
        write_unit(root, "x" * 300, unit)
    assert names(root) == []


@pytest.mark.parametrize("links", [True, False])
def test_the_first_manifest_wins_with_hard_links_and_without(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise OSError("not supported")

    if not links:
        monkeypatch.setattr(disk.os, "link", refuse)
    target = tmp_path / "manifest.json"
    disk.publish_once(target, b"first")
    disk.publish_once(target, b"second")
    assert target.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_what_a_killed_pack_left_of_a_file_is_gone_with_the_next_and_nothing_else_is(tmp_path):
    """A file of a process that is still there, of another machine's, or of another target stays."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    tag, gone, small = disk.machine_tag(), ended.pid, "small[1].h5"  # a pattern to a shell
    left = f".{small}.{tag}-{gone}-0a0b.partial"
    others = [f".{small}.{tag}-{os.getpid()}-0a0b.partial", f".{small}.fedcba98-{gone}-0a0b.partial"]
    others += [f".small1.h5.{tag}-{gone}-0a0b.partial", f"{small}.partial", f".{small}.partial"]
    for name in [left, *others]:
        (tmp_path / name).write_bytes(b"half")
    pack(steerstats.demo_cache(), tmp_path / small, leave_out=["activation", "direction"])
    assert sorted(os.listdir(tmp_path)) == sorted([*others, small])


def test_of_two_builders_that_begin_one_cache_at_once_the_later_takes_the_manifest_of_the_first(tmp_path, monkeypatch):
    plain = disk.publish_once

    def raced(target, content):
        monkeypatch.undo()
        create_cache(target.parent, MANIFEST | {"model": "theirs"})
        plain(target, content)

    monkeypatch.setattr(writer, "publish_once", raced)
    assert CacheReader(create_cache(tmp_path / "cache", MANIFEST)).manifest["model"] == "theirs"


WRITERS = {
    "publish": lambda root, unit: disk.publish(root / "a.json", b"{}"),
    "publish_once": lambda root, unit: disk.publish_once(root / "a.json", b"{}"),
    "pack": lambda root, unit: pack(steerstats.demo_cache(), root / "a.h5"),
    "write_unit": lambda root, unit: write_unit(root, NAME, unit),
}


@pytest.mark.parametrize("how", WRITERS)
def test_bytes_are_on_disk_before_they_have_a_name_and_the_name_is_afterwards(unit, root, monkeypatch, how):
    plain = {name: getattr(os, name) for name in ("fsync", "replace", "link")}
    done = []

    def noted(name):
        def call(*arguments):
            folder = name == "fsync" and stat.S_ISDIR(os.fstat(*arguments).st_mode)
            done.append("folder" if folder else "bytes" if name == "fsync" else "name")
            return plain[name](*arguments)

        return call

    for name in plain:
        monkeypatch.setattr(disk.os, name, noted(name))
    WRITERS[how](root, unit)
    assert done == ["bytes", "name"] * (2 if how == "write_unit" else 1) + ["folder"]  # a unit, and then its sidecar


@pytest.mark.parametrize(("stranger", "left"), [(False, set()), (True, {"a", "a/theirs"})])
def test_folders_that_were_made_for_nothing_are_gone_but_for_those_that_others_use(tmp_path, stranger, left):
    def interrupted():
        with disk.folders_for(tmp_path / "a" / "b" / "c.h5"):
            assert (tmp_path / "a" / "b").is_dir()
            if stranger:
                (tmp_path / "a" / "theirs").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == left


@pytest.mark.skipif(not os.path.isdir("/proc/self/ns"), reason="needs Linux")
@pytest.mark.parametrize(("owner", "name"), [(os, "readlink"), (Path, "read_text")])
def test_containers_and_boots_of_one_host_name_are_machines_of_their_own(monkeypatch, owner, name):
    here = disk.machine_tag.__wrapped__()
    assert here == disk.machine_tag()
    monkeypatch.setattr(owner, name, lambda *_: "another")
    assert disk.machine_tag.__wrapped__() != here


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_syncs_no_folders_holds_a_cache_and_a_broken_one_is_said(unit, root, monkeypatch, code):
    """Some network and FUSE file systems open a folder and refuse to sync it."""
    plain = os.fsync

    def refuse(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        plain(handle)

    monkeypatch.setattr(disk.os, "fsync", refuse)
    if code == errno.EIO:
        with pytest.raises(steerstats.SteerstatsError, match="could not be written"):
            write_unit(root, "likes-rain", unit)
    else:
        write_unit(root, "likes-rain", unit)
        assert all(check.ok for check in verify(root))


def test_what_hdf5_reads_back_from_a_sink_is_what_it_wrote(unit, tmp_path):
    """Chunks that do not fit the cache of HDF5 come back before they are whole."""
    values = np.random.default_rng(0).normal(size=(700, 3000))
    with disk.new_hdf5(tmp_path / "a.h5") as file:
        data = file.create_dataset("a", shape=values.shape, dtype="f8", chunks=(100, 3000), compression="gzip")
        for start in range(0, 3000, 500):
            data[:, start : start + 500] = values[:, start : start + 500]
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["a"][()], values)


def test_an_error_names_the_file_that_was_asked_for_and_not_the_one_it_is_written_to_first(tmp_path):
    with (
        pytest.raises(FileNotFoundError) as raised,
        disk.whole_file(tmp_path / "none" / "vector.safetensors") as partial,
    ):
        partial.write_bytes(b"")
    assert raised.value.filename == str(tmp_path / "none" / "vector.safetensors")
