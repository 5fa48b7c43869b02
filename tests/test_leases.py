"""Leases save double work and never stand in the way of a builder whose predecessor died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache_builder.workers import leases
from cache_builder.workers.leases import clear_leftovers
from steerstats.cache.disk import machine_tag, partial_path
from steerstats.cache.processes import process
from steerstats.errors import CacheError


def wait_for(condition, seconds: float = 120.0) -> None:
    """Until it holds; a machine may be slow, so that only something broken takes this long."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


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
        "import os, sys; from cache_builder.workers.leases import claim; "
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
        "import os, sys; from cache_builder.workers.leases import claim; "
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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_a_lease_says_when_its_holder_was_started(root):
    """Else a process that gets the number of a killed builder would be taken for it."""
    with leases.claim(root, "openness") as held:
        assert json.loads(held.path.read_text())["started"] == process(os.getpid())[1]


def test_a_reused_pid_is_not_its_old_holder(root):
    path = root / "units" / ".openness.lease"
    path.write_text(json.dumps({"token": "x", "machine": machine_tag(), "pid": os.getpid(), "started": "1"}))
    taken = leases.claim(root, "openness")
    assert taken is not None
    taken.release()


@pytest.mark.parametrize("away", [-1, 1], ids=["long ago", "ahead, since the clock was set back"])
def test_another_host_is_believed_until_its_heart_stops(root, away):
    path = root / "units" / ".openness.lease"
    path.write_text(json.dumps({"token": "x", "host": "elsewhere", "pid": 1}))
    assert leases.claim(root, "openness") is None
    beat = path.stat().st_mtime + away * (leases.STALE_S + 60)
    os.utime(path, (beat, beat))
    taken = leases.claim(root, "openness")
    assert taken is not None
    taken.release()


@pytest.mark.parametrize("damaged", [False, True])
def test_the_heart_beats(root, monkeypatch, damaged):
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.02)
    with leases.claim(root, "openness") as held:
        if damaged:  # says nothing of another holder
            held.path.write_bytes(b"\0")
        os.utime(held.path, (1, 1))
        wait_for(lambda: held.path.stat().st_mtime > 1)


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
    elsewhere = dead.with_name(dead.name.replace(machine_tag(), "0" * 8))
    old = elsewhere.with_name(elsewhere.name.replace("likes-rain", "tells-truth"))
    nameless = tmp_path / "units" / ".strange.partial"
    for path in (mine, dead, manifest, dead_manifest, elsewhere, old, nameless):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    long_written = elsewhere.stat().st_mtime - leases.LEFT_S + 600
    os.utime(elsewhere, (long_written, long_written))
    clear_leftovers(tmp_path)
    left = set(tmp_path.rglob(".*.partial"))
    assert left == {mine, manifest, elsewhere, nameless}


def lease_of(root, **content) -> Path:
    path = root / "units" / ".openness.lease"
    path.write_text(json.dumps({"token": "theirs", **content}))
    return path


def test_clocks_that_differ_do_not_make_living_builders_dead(root, monkeypatch):
    lease = lease_of(root, machine="elsewhere", pid=1)
    writing = partial_path(root / "units" / "openness.h5")
    writing = writing.with_name(writing.name.replace(machine_tag(), "0" * 8))
    writing.write_bytes(b"half")
    here = time.time
    monkeypatch.setattr(time, "time", lambda: here() + 2 * leases.LEFT_S)
    clear_leftovers(root)
    assert leases.claim(root, "openness") is None
    assert lease.exists()
    assert writing.exists()


def test_a_container_of_the_same_host_name_has_process_numbers_of_its_own(root):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lease_of(root, machine="another container", host=leases.socket.gethostname(), pid=gone.pid)
    assert leases.claim(root, "openness") is None
    lease_of(root, machine=machine_tag(), host="renamed since", pid=gone.pid)
    leases.claim(root, "openness").release()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_a_killed_builder_that_its_parent_has_not_noticed_is_dead(root):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    started = process(child.pid)[1]
    partial = partial_path(root / "units" / "openness.h5")
    partial = partial.with_name(partial.name.replace(f"-{os.getpid()}-", f"-{child.pid}-"))
    partial.write_bytes(b"half")
    lease = lease_of(root, machine=machine_tag(), pid=child.pid, started=started)
    assert leases.claim(root, "openness") is None
    child.kill()
    wait_for(lambda: process(child.pid)[0] == "Z")
    clear_leftovers(root)
    assert not lease.exists()
    assert not partial.exists()
    child.wait()


def test_a_link_that_nfs_made_and_denies_is_a_claim(root, monkeypatch):
    link = os.link

    def denying(source, target):
        link(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(leases.os, "link", denying)
    held = leases.claim(root, "openness")
    assert held is not None
    held.release()
    assert list((root / "units").iterdir()) == []


def test_a_builder_that_was_suspended_does_not_keep_its_successors_lease_alive(root, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    held = leases.claim(root, "openness")
    other = root / "units" / ".theirs"
    other.write_text(json.dumps({"token": "theirs", "machine": "elsewhere", "pid": 1}))
    os.utime(other, (1, 1))
    os.replace(other, held.path)
    wait_for(lambda: not held._thread.is_alive())
    assert held.path.stat().st_mtime == 1
    held.release()
    assert json.loads(held.path.read_text())["token"] == "theirs"


def test_a_lease_that_changes_hands_in_the_middle_of_a_beat_is_not_kept_alive(root, monkeypatch):
    plain, taken = os.utime, []
    path, other = root / "units" / ".openness.lease", root / "units" / ".theirs"
    other.write_text(json.dumps({"token": "theirs", "machine": "elsewhere", "pid": 1}))
    plain(other, (1, 1))

    def late(target):
        if not taken:
            taken.append(os.replace(other, path))
        plain(target)

    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(leases.os, "utime", late)
    held = leases.claim(root, "openness")
    wait_for(lambda: not held._thread.is_alive())
    assert taken
    assert path.stat().st_mtime == 1
    held.release()


def test_a_heart_goes_on_after_a_beat_that_the_file_system_did_not_take(root, monkeypatch):
    beats, utime = [], os.utime

    def failing(path, *rest):
        beats.append(path)
        if len(beats) == 1:
            raise OSError(116, "Stale file handle")
        utime(path, *rest)

    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(leases.os, "utime", failing)
    with leases.claim(root, "openness"):
        wait_for(lambda: len(beats) > 2)


def test_a_slow_taker_puts_a_new_lease_back(root, monkeypatch):
    """Two see one dead lease; one has buried it and begun before the other comes to burying."""
    lease = lease_of(root, machine=machine_tag(), pid=os.getpid(), started="1")
    plain, winners = leases._bury, []

    def slow(path, dead):
        monkeypatch.setattr(leases, "_bury", plain)
        winners.append(leases.claim(root, "openness"))
        plain(path, dead)

    monkeypatch.setattr(leases, "_bury", slow)
    assert leases.claim(root, "openness") is None
    assert json.loads(lease.read_text())["token"] == winners[0].token
    winners[0].release()
    assert list((root / "units").iterdir()) == []


def test_a_slow_taker_leaves_what_a_third_one_claimed_meanwhile(root, monkeypatch):
    lease = lease_of(root, machine=machine_tag(), pid=os.getpid(), started="1")
    plain, third = leases._read, json.dumps({"token": "third", "machine": "elsewhere", "pid": 1})

    def late(path):
        if path.name.startswith(f"{lease.name}."):  # taken away, and not the one that was seen to be dead
            lease.write_text(third)
            return {"token": "second"}
        return plain(path)

    monkeypatch.setattr(leases, "_read", late)
    assert leases.claim(root, "openness") is None
    assert lease.read_text() == third
    assert list((root / "units").iterdir()) == [lease]


@pytest.mark.parametrize("step", ["_now", "_bury"], ids=["before it is looked at", "after it was seen to be dead"])
def test_a_lease_that_goes_while_it_is_looked_at_leaves_its_unit_to_who_looks(root, monkeypatch, step):
    lease = lease_of(root, machine=machine_tag(), pid=os.getpid(), started="1")
    plain = getattr(leases, step)

    def late(*arguments):
        monkeypatch.setattr(leases, step, plain)
        lease.unlink()
        return plain(*arguments)

    monkeypatch.setattr(leases, step, late)
    leases.claim(root, "openness").release()


def test_a_file_that_another_builder_clears_at_the_same_time_stops_nobody(root, monkeypatch):
    paths = [root / "units" / f".{name}.partial" for name in "ab"]
    for path in paths:
        path.touch()
        os.utime(path, (1, 1))
    gone = []

    def late(path):
        if not gone:
            gone.append(path)
            path.unlink()
        return False

    monkeypatch.setattr(leases, "is_abandoned", late)
    clear_leftovers(root)
    assert len(gone) == 1
    assert list((root / "units").iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", '{"pid": "x"}', '{"machine": "MINE", "pid": null}', '{"machine": "MINE", "pid": "²"}']
)
def test_a_lease_that_cannot_be_understood_is_believed_until_it_is_old(root, content):
    path = root / "units" / ".openness.lease"
    path.write_text(content.replace("MINE", machine_tag()))
    clear_leftovers(root)
    assert leases.claim(root, "openness") is None
    old = path.stat().st_mtime - leases.STALE_S - 1
    os.utime(path, (old, old))
    leases.claim(root, "openness").release()


def test_a_process_number_that_none_can_have_is_that_of_a_dead_builder(root):
    path = root / "units" / ".openness.lease"
    path.write_text(json.dumps({"machine": machine_tag(), "pid": 10**20}))
    partial = root / "units" / f".openness.h5.{machine_tag()}-{10**20}-ab.partial"
    partial.touch()
    clear_leftovers(root)
    assert not partial.exists()
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_one_line_and_nothing_to_clear(root):
    (root / "units").rmdir()
    clear_leftovers(root)
    with pytest.raises(CacheError, match=r"units: openness cannot be claimed: .*No such file"):
        leases.claim(root, "openness")


def test_a_full_disk_leaves_no_half_claim(root, monkeypatch):
    def full(path, *_, **__):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CacheError, match=r"openness cannot be claimed: .*No space left"):
        leases.claim(root, "openness")
    assert list((root / "units").iterdir()) == []


def test_ctrl_c_amid_a_claim_gives_it_back(root, monkeypatch, listening):
    link = os.link

    def pressed(*paths):
        link(*paths)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "link", pressed)
    with pytest.raises(KeyboardInterrupt):
        leases.claim(root, "openness")
    assert list((root / "units").iterdir()) == []


def test_a_lease_that_was_handed_on_outlives_its_block(root):
    with leases.claim(root, "openness") as held:
        held.kept = True
    assert held.path.exists()
    held.release()
    assert list((root / "units").iterdir()) == []
