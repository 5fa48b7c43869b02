"""Leases save double work and never stand in the way of a builder whose predecessor died."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cache_builder import leases
from cache_builder.leases import clear_leftovers
from steerstats.cache.writer import host_tag, partial_path


@pytest.fixture
def root(tmp_path):
    (tmp_path / "units").mkdir()
    return tmp_path


def test_a_unit_has_one_living_holder(root):
    with leases.claim(root, "openness") as held:
        assert leases.claim(root, "openness") is None
        other = leases.claim(root, "narcissism")
        assert other is not None
        other.release()
        assert held.path.exists()
    with leases.claim(root, "openness"):
        pass
    assert list((root / "units").iterdir()) == []


def test_a_dead_process_leaves_its_unit_at_once(root):
    script = (
        "import os, sys; from cache_builder.leases import claim; "
        "assert claim(sys.argv[1], 'openness'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(root)], check=False)
    assert done.returncode == -9
    assert (root / "units" / ".openness.lease").exists()
    taken = leases.claim(root, "openness")
    assert taken is not None
    taken.release()


def test_what_dead_holders_left_beside_finished_units_is_removed_and_living_leases_stay(root):
    script = (
        "import os, sys; from cache_builder.leases import claim; "
        "assert claim(sys.argv[1], 'openness'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(root)], check=False)
    units = root / "units"
    # Killed between the two steps of taking a dead lease over.
    (units / ".agreeableness.lease.0123456789abcdef").write_text((units / ".openness.lease").read_text())
    (units / ".narcissism.lease").write_text(json.dumps({"token": "x", "host": "elsewhere", "pid": 1}))
    with leases.claim(root, "anti-immigration"):
        clear_leftovers(root)
        assert {path.name for path in units.iterdir()} == {".anti-immigration.lease", ".narcissism.lease"}


def test_a_lease_is_never_seen_empty(root, monkeypatch):
    seen = []
    link = os.link

    def watched(partial, path):
        seen.append((path.exists(), json.loads(partial.read_text())["pid"]))
        link(partial, path)

    monkeypatch.setattr(leases.os, "link", watched)
    with leases.claim(root, "openness"):
        assert leases.claim(root, "openness") is None
    assert seen == [(False, os.getpid()), (True, os.getpid())]
    assert list((root / "units").iterdir()) == []


def test_without_hard_links_a_unit_is_still_claimed_once(root, monkeypatch):
    def refuse(*_):
        raise OSError("not supported")

    monkeypatch.setattr(leases.os, "link", refuse)
    with leases.claim(root, "openness"):
        assert leases.claim(root, "openness") is None
    assert list((root / "units").iterdir()) == []


def test_a_reused_pid_is_not_its_old_holder(root):
    path = root / "units" / ".openness.lease"
    path.write_text(json.dumps({"token": "x", "host": leases.socket.gethostname(), "pid": os.getpid(), "started": "1"}))
    taken = leases.claim(root, "openness")
    assert taken is not None
    taken.release()


def test_another_host_is_believed_until_its_heart_stops(root):
    path = root / "units" / ".openness.lease"
    path.write_text(json.dumps({"token": "x", "host": "elsewhere", "pid": 1}))
    assert leases.claim(root, "openness") is None
    old = path.stat().st_mtime - leases.STALE_S - 1
    os.utime(path, (old, old))
    taken = leases.claim(root, "openness")
    assert taken is not None
    taken.release()


def test_the_heart_beats(root, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.02)
    with leases.claim(root, "openness") as held:
        os.utime(held.path, (1, 1))
        for _ in range(200):
            if held.path.stat().st_mtime > 1:
                break
            leases.time.sleep(0.02)
        assert held.path.stat().st_mtime > 1


def test_releasing_leaves_a_lease_that_was_taken_over(root):
    held = leases.claim(root, "openness")
    held.path.write_text(json.dumps({"token": "someone else"}))
    held.release()
    assert held.path.exists()


def test_what_a_killed_builder_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    (tmp_path / "units").mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = partial_path(tmp_path / "units" / "likes-rain.h5")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
    manifest = partial_path(tmp_path / "manifest.json")
    dead_manifest = manifest.with_name(manifest.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
    elsewhere = dead.with_name(dead.name.replace(host_tag(), "0" * 8))
    old = elsewhere.with_name(elsewhere.name.replace("likes-rain", "tells-truth"))
    nameless = tmp_path / "units" / ".strange.partial"
    for path in (mine, dead, manifest, dead_manifest, elsewhere, old, nameless):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    clear_leftovers(tmp_path)
    left = set(tmp_path.rglob(".*.partial"))
    assert left == {mine, manifest, elsewhere, nameless}
