"""Is the machine busy with something else? Asked while this process sleeps, so that its own past does not count."""

from __future__ import annotations

import os
import time
from pathlib import Path

BUSY = 0.3  # of one core


def busy_cores(seconds: float = 2.0) -> float:
    """Cores in use by others over a short sleep; the load average where /proc/stat is not to be had."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return os.getloadavg()[0]
    before = _ticks(stat)
    time.sleep(seconds)
    after = _ticks(stat)
    busy, total = (after[0] - before[0]), (after[1] - before[1])
    return (os.cpu_count() or 1) * busy / total if total else 0.0


def _ticks(stat: Path) -> tuple[int, int]:
    """Busy and all ticks of all cores since the start; waiting for a disk or another guest's turn is not busy."""
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
    busy = user + nice + system + irq + softirq
    return busy, busy + idle + iowait + steal
