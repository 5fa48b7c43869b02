"""Leases on units, so that several builders on one directory do not do the same work twice.

They only save work: correctness rests on the atomic rename of finished units. A lease is a small file with a
heartbeat (its modification time); one whose heart stopped, or whose process is gone, may be taken. Ages are measured
by the clock of the file system, which all builders share however much their own clocks differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from steerstats.cache.disk import PARTIAL, is_abandoned, machine_tag, partial_path
from steerstats.cache.processes import is_alive, process
from steerstats.cache.sidecar import UNITS
from steerstats.errors import CacheError
from steerstats.interrupts import deferred

HEARTBEAT_S = 5.0
STALE_S = 60.0
LEASE = ".lease"
LEFT_S = 3600.0  # a file that another machine has not finished in that time will not be finished


class Lease:
    """A claim on one unit, kept alive by a thread until `release` (or the process ends).

    A `with` block gives it back at its end, unless it is `kept` by who releases it later.
    """

    def __init__(self, path: Path, token: str) -> None:
        self.path, self.token, self.kept = path, token, False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{path.stem}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.kept:
            self.release()

    def release(self) -> None:
        """Give the claim back; a claim that someone else took meanwhile is left to them."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # a lease that cannot be removed grows stale
            if _read(self.path).get("token") == self.token:
                self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                # A process that was suspended finds the lease gone, or another's, which must not be kept alive for
                # them: its work goes on, at worst the unit is computed twice. What is read and what is touched is one
                # open file, since the name may become another's between the two.
                with open(self.path, "rb") as file:
                    if _parsed(file.read()).get("token", self.token) != self.token:
                        return
                    os.utime(file.fileno())
            except FileNotFoundError:
                return
            except OSError:  # a network file system that does not answer now may do so at the next beat
                continue


def claim(root: str | Path, unit: str) -> Lease | None:
    """Claim a unit of a cache directory; None while a living builder holds it.

    Parameters
    ----------
    root : path
        The cache directory.
    unit : str
        Unit name.

    Raises
    ------
    CacheError
        If nothing can be written there.
    """
    lease = None
    try:
        with deferred():  # Ctrl-C between the file and who answers for it would leave a lease that nobody gives back
            lease = _claimed(Path(root) / UNITS / f".{unit}{LEASE}")
    except OSError as error:
        raise CacheError(f"{Path(root) / UNITS}: {unit} cannot be claimed: {error}") from error
    except KeyboardInterrupt:
        if lease is not None:
            lease.release()
        raise
    return lease


def _claimed(path: Path) -> Lease | None:
    token = secrets.token_hex(8)
    started = (process() or ("", None))[1]
    mine = {"token": token, "host": socket.gethostname(), "machine": machine_tag(), "pid": os.getpid()}
    for _ in range(2):
        if _create(path, mine | {"started": started}):
            return Lease(path, token)
        dead = _if_dead(path, _now(path.parent))
        if dead is not None:
            _bury(path, dead)
        elif path.exists():
            return None
    return None


def is_held(root: str | Path, unit: str) -> bool:
    """Whether a builder seems to be at a unit; nothing is written, and ages are taken by this machine's clock."""
    path = Path(root) / UNITS / f".{unit}{LEASE}"
    return path.exists() and _if_dead(path, time.time()) is None


def clear_leftovers(root: str | Path) -> None:
    """Remove what killed builders left in a cache directory: half-written files, and leases that nobody keeps.

    Files are told by their names: those of processes of this machine that are gone, and old ones of any other. A
    builder killed between a unit's rename and its release leaves the lease of a finished unit, which nobody claims
    again; one killed while it took a lease over leaves that lease under its own name.
    """
    units = Path(root) / UNITS
    try:
        now = _now(units)
    except OSError:  # nothing can be removed where nothing can be written
        return
    for path in [*Path(root).glob(f".*{PARTIAL}"), *units.glob(f".*{PARTIAL}")]:
        with contextlib.suppress(OSError):
            if is_abandoned(path) or now - path.stat().st_mtime > LEFT_S:
                path.unlink(missing_ok=True)
    for path in units.glob(f".*{LEASE}*"):
        with contextlib.suppress(OSError):
            if not path.name.endswith(PARTIAL) and (dead := _if_dead(path, now)) is not None:
                _bury(path, dead)


def _create(path: Path, content: dict[str, Any]) -> bool:
    """Make a lease that is never seen empty: a builder killed while it writes one leaves no riddle for others.

    False if the unit is claimed.
    """
    partial = partial_path(path)
    try:
        partial.write_text(json.dumps(content), encoding="utf-8")
        os.link(partial, path)
    except FileExistsError:
        # NFS says so too of a link that it has just made, where its first answer was lost.
        return _read(path).get("token") == content["token"]
    except OSError:
        if not partial.exists() or not _read(partial):
            raise
        # a file system without hard links
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(json.dumps(content))
        except FileExistsError:
            return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def _bury(path: Path, dead: dict[str, Any]) -> None:
    """Take a dead lease away.

    Renaming first lets exactly one of several takers win; unlink alone would let a slow one remove a new lease. A slow
    one may still have renamed a new lease, and puts it back.
    """
    grave = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, grave)
        if _read(grave) != dead:
            with contextlib.suppress(OSError):
                os.link(grave, path)
        grave.unlink(missing_ok=True)


def _if_dead(path: Path, now: float) -> dict[str, Any] | None:
    """What a lease says whose holder is dead; None if the holder lives, or there is no lease."""
    try:
        age = now - path.stat().st_mtime
    except FileNotFoundError:
        return None
    holder = _read(path)
    # One that lies ahead was written before the clock was set back; the next beat of a living heart corrects that.
    if abs(age) > STALE_S:
        return holder
    if holder.get("machine") != machine_tag() or not str(holder.get("pid")).isdecimal():
        # Unreadable (no hard links, see `_create`): being written, or half-written by a builder that died. Age decides.
        return None
    return None if is_alive(int(holder["pid"]), holder.get("started")) else holder


def _now(folder: Path) -> float:
    """The file system's time: that of a file which is made now."""
    probe = partial_path(folder / "now")
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_bytes())
    except OSError:
        return {}


def _parsed(content: bytes) -> dict[str, Any]:
    """What a lease says; nothing where it cannot be understood."""
    try:
        said = json.loads(content)
    except ValueError:  # also of bytes that are no UTF-8
        return {}
    return said if isinstance(said, dict) else {}
