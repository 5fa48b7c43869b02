"""Whether a process of this machine is still there."""

from __future__ import annotations

import os
from pathlib import Path


def is_alive(pid: int, started: str | None = None) -> bool:
    """Whether there is such a process, and it began when it is said to have begun.

    Examples
    --------
    >>> import os
    >>> from steerstats.cache.processes import is_alive
    >>> is_alive(os.getpid()), is_alive(2**40)
    (True, False)
    """
    if os.name == "nt":  # there os.kill ends a process whatever the signal
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has a number that large
        return False
    except PermissionError:
        return True
    state, start = process(pid) or ("", None)
    if state in ("Z", "X"):  # killed, and not yet taken note of by its parent
        return False
    return started is None or start in (None, started)


def process(pid: int | str = "self") -> tuple[str, str] | None:
    """State and start time of a process where the system tells (Linux): a reused pid is not its earlier holder.

    Examples
    --------
    >>> from steerstats.cache.processes import process
    >>> process(2**40) is None
    True
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]
