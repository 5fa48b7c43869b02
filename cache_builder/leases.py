"""Leases on units, so that several builders on one directory do not do the same work twice.

They only save work: correctness rests on the atomic rename of finished units. A lease is a small file with a
heartbeat (its modification time); one whose heart stopped, or whose process is gone, may be taken.
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

from steerstats.cache.writer import PARTIAL, UNITS, host_tag, partial_path

HEARTBEAT_S = 5.0
STALE_S = 60.0
LEASE = ".lease"
LEFT_S = 3600.0  # a file that another machine has not finished in that time will not be finished


class Lease:
    """A claim on one unit, kept alive by a thread until `release` (or the process ends)."""

    def __init__(self, path: Path, token: str) -> None:
        self.path, self.token = path, token
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{path.stem}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the claim back; a claim that someone else took meanwhile is left to them."""
        self._stop.set()
        self._thread.join()
        if _read(self.path).get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                os.utime(self.path)
            except OSError:  # taken away or disk gone: the build goes on, at worst the unit is computed twice
                return


def claim(root: str | Path, unit: str) -> Lease | None:
    """Claim a unit of a cache directory; None while a living builder holds it.

    Parameters
    ----------
    root : path
        The cache directory.
    unit : str
        Unit name.
    """
    path = Path(root) / UNITS / f".{unit}{LEASE}"
    token = secrets.token_hex(8)
    mine = json.dumps({"token": token, "host": socket.gethostname(), "pid": os.getpid(), "started": _process_start()})
    for _ in range(2):
        try:
            _create(path, mine)
            return Lease(path, token)
        except FileExistsError:
            if not _is_dead(path):
                return None
            _bury(path, token)
    return None


def clear_leftovers(root: str | Path) -> None:
    """Remove what killed builders left in a cache directory: half-written files, and leases that nobody keeps.

    Files are told by their names: those of processes of this machine that are gone, and old ones of any other. A
    builder killed between a unit's rename and its release leaves the lease of a finished unit, which nobody claims
    again; one killed while it took a lease over leaves that lease under its own name.
    """
    for path in [*Path(root).glob(f".*{PARTIAL}"), *(Path(root) / UNITS).glob(f".*{PARTIAL}")]:
        host, _, pid = path.name.removesuffix(PARTIAL).rpartition(".")[2].rpartition("-")[0].partition("-")
        try:
            gone = host == host_tag() and pid.isdigit() and not _is_alive(int(pid), None)
            if gone or time.time() - path.stat().st_mtime > LEFT_S:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue
    for path in (Path(root) / UNITS).glob(f".*{LEASE}*"):
        if not path.name.endswith(PARTIAL) and _is_dead(path):
            _bury(path, secrets.token_hex(8))


def _create(path: Path, text: str) -> None:
    """A lease that is never seen empty: a builder killed while it writes one leaves no riddle for others.

    Raises
    ------
    FileExistsError
        If the unit is claimed.
    """
    partial = partial_path(path)
    partial.write_text(text, encoding="utf-8")
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    finally:
        partial.unlink(missing_ok=True)


def _bury(path: Path, token: str) -> None:
    """Take a dead lease away.

    Renaming first lets exactly one of several takers win; unlink alone would let a slow one remove a new lease.
    """
    grave = path.with_name(f"{path.name}.{token}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, grave)
        grave.unlink(missing_ok=True)


def _is_dead(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if age > STALE_S:
        return True
    holder = _read(path)
    if holder.get("host") != socket.gethostname() or "pid" not in holder:
        # Unreadable (no hard links, see `_create`): being written, or half-written by a builder that died. Age decides.
        return False
    return not _is_alive(int(holder["pid"]), holder.get("started"))


def _is_alive(pid: int, started: str | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return started is None or _process_start(pid) in (None, started)


def _process_start(pid: int | str = "self") -> str | None:
    """Start time of a process where the system tells (Linux), so that a reused pid is not taken for its holder."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
