"""Run by test_build_kill: fork builds, kill them at random moments, and let the last one finish.

Forking spares each build the seconds that importing torch takes, so that kills land in the work and not before it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

from cache_builder.build import run_build
from cache_builder.spec import parse_spec


def forked_build(content: dict, root: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        run_build(parse_spec(content), root)
    except BaseException as error:
        print(f"child: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main() -> None:
    content, root, kills = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    begin = time.perf_counter()
    _, status = os.waitpid(forked_build(content, sys.argv[4]), 0)
    whole = time.perf_counter() - begin
    rng, report = random.Random(0), {"uninterrupted": status, "killed": 0, "finished": []}
    for _ in range(5 * kills):  # a build may outrun its killer on a machine that is suddenly less busy
        if report["killed"] == kills:
            break
        pid = forked_build(content, root)
        # Most moments in the first half, where setting up and the first units are; some anywhere.
        time.sleep(whole * rng.random() ** 1.5)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        report["killed"] += os.WIFSIGNALED(status)
        units = os.path.join(root, "units")
        finished = sorted(n for n in os.listdir(units) if n.endswith(".json")) if os.path.isdir(units) else []
        report["finished"].append(len(finished))
        outran = not os.WIFSIGNALED(status)
        if outran:
            whole *= 0.7
        if finished and (
            outran or len(finished) == len(content["datasets"])
        ):  # take a unit away, so that there is something left to kill
            os.unlink(os.path.join(units, rng.choice(finished)))
    _, status = os.waitpid(forked_build(content, root), 0)
    report["last"] = status
    print(json.dumps(report))


if __name__ == "__main__":
    main()
