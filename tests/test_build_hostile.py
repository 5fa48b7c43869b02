"""What befalls a build: suspended and overtaken, on a full disk, on a cache that nobody may write any more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tiny_build import DATASETS, tiny_spec

from cache_builder import blocks, session
from cache_builder.blocks import ActivationStore
from cache_builder.build import BuildReport, run_build
from cache_builder.workers.leases import clear_leftovers
from steerstats.cache import CacheReader, verify
from steerstats.cache.disk import machine_tag
from steerstats.cache.sidecar import SEAL, manifest_hash
from steerstats.errors import CacheError


@pytest.fixture(scope="module")
def built(model, tmp_path_factory):
    """A finished cache, to be copied."""
    return run_build(tiny_spec(model), tmp_path_factory.mktemp("built") / "cache").root


def files(root) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_a_builder_that_wakes_up_after_another_took_its_unit_over_leaves_that_one_as_it_is(
    model, tmp_path, monkeypatch
):
    spec, root, seen = tiny_spec(model), tmp_path / "cache", []
    plain = session.write_unit

    def suspended(where, name, *rest, **options):
        if not seen:
            seen.append(name)
            # The process stands still for so long that its lease looks dead; another one builds the unit and is done.
            os.utime(root / "units" / f".{name}.lease", (1, 1))
            assert run_build(spec, root, only=lambda one: one == name).built == (name,)
            seen.append({path: at for path, at in files(root).items() if name in path})
        return plain(where, name, *rest, **options)

    monkeypatch.setattr(session, "write_unit", suspended)
    run_build(spec, root)
    name, before = seen
    after = files(root)
    assert sorted(before) == [f"units/{name}.h5", f"units/{name}.json"]
    assert {path: after[path] for path in before} == before
    assert sorted(os.listdir(root / "units")) == sorted(f"{one}.{end}" for one in DATASETS for end in ("h5", "json"))
    assert all(check.ok for check in verify(root))


def test_a_finished_cache_is_found_finished_without_proof_and_without_writing(model, tmp_path, monkeypatch):
    spec, root = tiny_spec(model), tmp_path / "cache"
    run_build(spec, root)
    before = files(root)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    for call in ("link", "replace", "rename", "unlink"):
        monkeypatch.setattr(os, call, refuse)
    monkeypatch.setattr("pathlib.Path.touch", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(session.Session, "prove", lambda *_: pytest.fail("proved"))
    report = run_build(spec, root)
    assert report.found == DATASETS
    assert report.summary().endswith("3 were finished before")
    monkeypatch.undo()
    assert files(root) == before


def edit(path, change):
    """As by someone who knows of the manifest's seal."""
    said = json.loads(path.read_text())
    change(said)
    if SEAL in said:
        said[SEAL] = manifest_hash(said)
    path.write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("file", "part", "values", "message"),
    [
        ("manifest.json", "runtime", {"budget": "256"}, r"manifest\.json: runtime\.budget is '256'; a build writes"),
        ("manifest.json", "runtime", {"threads": -1}, r"manifest\.json: runtime\.threads is -1; a build writes"),
        ("manifest.json", "runtime", {"budget": 0}, r"manifest\.json: runtime\.budget is 0; a build writes"),
        (f"units/{DATASETS[0]}.json", "run", {"budget": [1]}, r"likes-rain\.json: run\.budget is \[1\]; a build"),
        (f"units/{DATASETS[0]}.json", "run", {"ceiling": 0.5}, r"likes-rain\.json: run\.ceiling is 0\.5; a build"),
    ],
)
def test_a_number_that_was_edited_in_a_cache_ends_the_build_with_its_place(
    model, built, tmp_path, file, part, values, message
):
    root = shutil.copytree(built, tmp_path / "cache")
    edit(root / file, lambda said: said[part].update(values))
    with pytest.raises(CacheError, match=message):
        run_build(tiny_spec(model, run={}), root)


def test_what_a_build_does_not_need_of_edited_files_does_not_stop_it(model, built, tmp_path):
    root = shutil.copytree(built, tmp_path / "cache")
    edit(root / "manifest.json", lambda said: said["runtime"].update(survey={"unit": "another"}))
    edit(root / "units" / f"{DATASETS[0]}.json", lambda said: [said.pop("file"), said.update(run="edited")])
    (root / "units" / f"{DATASETS[1]}.json").unlink()
    (root / "units" / f".{DATASETS[1]}.h5.{machine_tag()}-{10**20}-ab.partial").touch()  # of a builder that is gone
    report = run_build(tiny_spec(model, run={}), root)
    assert [name for name in os.listdir(root / "units") if name.startswith(".")] == []
    assert report.built == DATASETS[1:2]
    again, whole = CacheReader(root)[DATASETS[1]], CacheReader(built)[DATASETS[1]]
    assert again.sidecar["content_sha256"] == whole.sidecar["content_sha256"]


def test_a_manifest_that_was_edited_is_refused_and_written_anew_once_it_is_deleted(model, built, tmp_path):
    root = shutil.copytree(built, tmp_path / "cache")
    manifest = root / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"provenance": {', '"provenance": {"note": "mine", ', 1))
    (root / "units" / f"{DATASETS[1]}.json").unlink()
    with pytest.raises(
        CacheError, match=r"is not as it was written: .*; restore it, or delete it and the build writes"
    ):
        run_build(tiny_spec(model, run={}), root)
    for built_anew in (DATASETS[1:2], ()):
        manifest.unlink()
        assert run_build(tiny_spec(model, run={}), root).built == built_anew
    assert all(check.ok for check in verify(root))


def test_one_unit_was_and_two_were_finished_before():
    said = [BuildReport(Path("c"), ("a",), ("b", "d")[:n], (), 1.0, "").summary() for n in (1, 2)]
    assert said == [f"c: 1 unit built in 1 s, {found} finished before" for found in ("1 was", "2 were")]


def test_a_scratch_file_that_a_kill_left_is_known_by_its_name_and_removed(tmp_path, monkeypatch):
    (tmp_path / "units").mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    def named(**options):
        """A file system on which no file can be made without a name, and a kill before it is taken away."""
        return tempfile.NamedTemporaryFile(**options, delete=False)

    monkeypatch.setattr(blocks.tempfile, "TemporaryFile", named)
    mine = ActivationStore((1, 1, 2, 3, 4), tmp_path / "units")
    monkeypatch.setattr(os, "getpid", lambda: gone.pid)
    ActivationStore((1, 1, 2, 3, 4), tmp_path / "units").close()
    monkeypatch.undo()
    assert len(os.listdir(tmp_path / "units")) == 2
    clear_leftovers(tmp_path)
    assert os.listdir(tmp_path / "units") == [os.path.basename(mine._file.name)]
    mine.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_disk_that_is_full_is_one_line_also_when_the_store_is_closed(tmp_path):
    store = ActivationStore((1, 1, 2, 3, 4), tmp_path)
    store._file.close()
    store._file = open("/dev/full", "w+b")  # noqa: SIM115
    with pytest.raises(CacheError, match=r"training activations could not be written: .*No space left"):
        store.write(0, np.arange(3), np.zeros((3, 2, 1, 4)))
    store.close()
    assert store._file.closed


def test_a_disk_that_fills_up_under_a_build_ends_it_with_one_line_and_is_gone_on_from(model, tmp_path, monkeypatch):
    spec, root = tiny_spec(model), tmp_path / "cache"
    plain, written = os.fsync, []

    def full(handle):
        written.append(handle)
        if len(written) > 4:  # the manifest and its folder, the first unit and its sidecar
            raise OSError(28, "No space left on device")
        return plain(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match=r"\.h5 could not be written: .*No space left"):
        run_build(spec, root)
    monkeypatch.undo()
    assert [name for name in os.listdir(root / "units") if name.startswith(".")] == []
    done = CacheReader(root).units
    assert len(run_build(spec, root).built) == len(DATASETS) - len(done)
    assert all(check.ok for check in verify(root))
