"""The same units on Ray: one actor a GPU (or a few GPUs), one shared directory, units retried when an actor dies.

The driver makes the manifest and hands out names; actors compute and write units as a local build does, each writing
one unit and encoding the next while its engine runs, so that what they write is the same, and a build begun on Ray
can be finished without it.
"""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections import deque
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache_builder.build import BuildReport, Notice, Progress
from cache_builder.spec import BuildSpec
from cache_builder.workers.worker import BUILT, FOUND, HELD, VAIN, Worker
from steerstats.cache import finished_sidecar
from steerstats.errors import CacheError, InputError, SteerstatsError, require

MAX_TRIES = 3  # of one unit, and of actors that die before they are ready
REACH_S = 10.0


def run_on_ray(
    spec: BuildSpec,
    out: str | Path,
    *,
    address: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    progress: Progress = lambda *_: None,
    notice: Notice = lambda _: None,
) -> BuildReport:
    """Build a cache with Ray actors.

    Parameters
    ----------
    spec : BuildSpec
        Its relative paths begin in the caller's working directory, into which the actors go.
    out : path
        A directory that every node sees.
    address : str, optional
        Of a running cluster; a local one is started without it.
    workers : int, optional
        Number of actors; default: one for each `gpus_per_worker` GPUs, or one on a machine without any.
    gpus_per_worker : float, optional
        GPUs of each actor, a whole number or a share of one; default 1 where the cluster has GPUs, else 0. With several
        the model is spread over them (`run.device_map = "auto"`, unless the spec has another).
    progress : callable (done, total, what)
    notice : callable (str)

    Returns
    -------
    BuildReport

    Raises
    ------
    MissingDependency
        Without ray.
    InputError
        For a number of GPUs that Ray does not give, or an address at which nobody answers; what the spec, the data or
        the model gets wrong, as a local build would say it.
    CacheError
        If a unit fails on `MAX_TRIES` actors, with its last error.
    """
    ray = require("ray", "ray", "building on Ray")
    if gpus_per_worker is not None and gpus_per_worker > 1 and gpus_per_worker != int(gpus_per_worker):
        raise InputError(f"GPUs of a worker: {gpus_per_worker} is neither a whole number nor a share of one")
    started, root = time.perf_counter(), Path(out).resolve()
    started_here = not ray.is_initialized()
    if started_here:
        where = address or os.environ.get("RAY_ADDRESS", "")
        _knock(where)
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False, configure_logging=False)
        except (ValueError, ConnectionError) as error:
            raise InputError(f"no Ray cluster at {where!r}: {' '.join(f'{error}'.split())}") from error
    try:
        total = float(ray.cluster_resources().get("GPU", 0))
        share = gpus_per_worker if gpus_per_worker is not None else (1.0 if total else 0.0)
        count = workers or max(1, math.floor(total / share) if share else 1)
        if share > total:
            notice(f"each worker asks for {share:g} GPUs and the cluster has {total:g}: waiting until it has more")
        content = spec.model_dump(mode="json")
        if share > 1 and not content["run"]["device_map"]:
            content["run"] = {**content["run"], "device_map": "auto"}
        remote = ray.remote(num_gpus=share, num_cpus=1)(Worker)
        with closing(_Pool(ray, remote, (content, str(root), os.getcwd()), count, notice)) as pool:
            return pool.run(root, started, progress)
    finally:
        if started_here:
            ray.shutdown()


def _knock(address: str) -> None:
    """See that somebody listens at HOST:PORT: Ray itself goes on trying for many minutes, without a word."""
    named = re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", address)
    if named is None:  # auto, local, ray://..., which Ray refuses by itself
        return
    try:
        socket.create_connection((named[1], int(named[2])), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {error}") from error


@dataclass(eq=False, slots=True)
class _Seat:
    """One actor: what it has computed and not yet said to be written, and what it expects to build next."""

    actor: Any
    owed: list[str] = field(default_factory=list)
    hint: str = ""


class _Pool:
    """Actors that work through a queue of unit names; a dead one is replaced and its units queued again."""

    def __init__(self, ray: Any, remote: Any, arguments: tuple, count: int, notice: Notice) -> None:
        self.ray, self.remote, self.arguments = ray, remote, arguments
        self.count, self.notice, self.deaths = count, notice, 0
        self.queue: deque[str] = deque()
        self.tries: dict[str, int] = {}
        self.built, self.elsewhere = [], []
        self.left = False
        self.seats: list[_Seat] = []
        self.pending: dict[Any, tuple[_Seat, str]] = {}  # by call: who is asked, and for which unit ("" for none)

    def run(self, root: Path, started: float, progress: Progress) -> BuildReport:
        progress(0, None, "starting workers")
        facts = self._start()
        names = facts["units"]
        found = tuple(name for name in names if finished_sidecar(root, name))
        self.queue.extend(name for name in names if name not in found)
        idle = list(self.seats)
        # The others start once the first has settled the manifest, and therefore the budget.
        for _ in range(min(self.count - 1, max(len(self.queue) - 1, 0))):
            self._seat()
        while self.queue or any(seat.owed for seat in self.seats) or any(name for _, name in self.pending.values()):
            idle = [seat for seat in idle if not self._engage(seat)]
            if not self.pending:
                raise CacheError("no Ray worker is left")
            progress(len(found) + len(self.built) + len(self.elsewhere), len(names), "units")
            done, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=1.0)
            for reference in done:
                seat, name = self.pending.pop(reference)
                if self._settle(root, seat, name, reference):
                    idle.append(seat)
        progress(len(names), len(names), "done")
        seconds = time.perf_counter() - started
        return BuildReport(root, tuple(self.built), found, tuple(self.elsewhere), seconds, facts["parity"])

    def close(self) -> None:
        """Free what the workers hold: a cluster goes on, and they with it while anybody keeps a traceback of here."""
        for seat in list(self.seats):
            self._dismiss(seat)

    def _start(self) -> dict[str, Any]:
        """Start the first worker, and say what it finds."""
        for _ in range(MAX_TRIES):
            seat = _Seat(self.remote.remote(*self.arguments))
            self.seats.append(seat)
            try:
                facts = self.ray.get(seat.actor.ready.remote())
            except self.ray.exceptions.RayError as error:
                last = error
                self._dismiss(seat)
                continue
            if facts["problem"]:
                raise InputError(facts["problem"])
            for note in facts["notes"]:
                self.notice(note)
            return facts
        raise CacheError(f"no Ray worker could be started: {last}")

    def _seat(self) -> None:
        """Start one more worker."""
        seat = _Seat(self.remote.remote(*self.arguments))
        self.seats.append(seat)
        self.pending[seat.actor.ready.remote()] = (seat, "")

    def _engage(self, seat: _Seat) -> bool:
        """Give an idle worker its next unit, or let it finish what it writes; False if there is nothing to do."""
        if not self.queue:
            if not seat.owed:
                return False
            self.pending[seat.actor.finish.remote()] = (seat, "")
            return True
        # What others expect is left to them while there is anything else: they have begun to encode it.
        expected = {other.hint for other in self.seats if other is not seat}
        free = [name for name in self.queue if name not in expected]
        name = seat.hint if seat.hint in self.queue else (free or self.queue)[0]
        self.queue.remove(name)
        seat.hint = next((one for one in free if one != name), "")
        self.pending[seat.actor.build.remote(name, seat.hint)] = (seat, name)
        return True

    def _settle(self, root: Path, seat: _Seat, name: str, reference: Any) -> bool:
        """Take in the answer to a call; False if there is no such worker any more."""
        try:
            answer = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, SteerstatsError) else None
            self._retry(name, str(cause or error), final=cause is not None)
            if name:  # after an error of CUDA's, say, all that this worker is given would fail
                self._replace(root, seat, seat.owed, "is replaced")
            return not name
        except self.ray.exceptions.RayError:  # dead, or killed for memory (no `RayActorError`), or its node is gone
            self._replace(root, seat, [*seat.owed, *filter(None, [name])], "died")
            return False
        if isinstance(answer, dict):
            if problem := answer["problem"]:
                # What one worker could do another cannot (a smaller GPU, a folder that it does not see).
                self._dismiss(seat)
                self._bury(f"cannot take part: {problem}")
                if not self.seats:
                    raise CacheError(f"no Ray worker is left: {problem}")
            return not problem
        seat.owed += [name] if name else []
        for one, how, problem in answer:
            seat.owed.remove(one)
            if how == BUILT:
                self.built.append(one)
            elif how == FOUND:
                self.elsewhere.append(one)
            elif how == HELD:
                self._leave(one)
            else:
                self._retry(one, problem, final=how == VAIN)
        return True

    def _dismiss(self, seat: _Seat) -> None:
        """Free what a worker holds: one that was only out of reach would keep its GPU, and its claim on a unit."""
        self.seats.remove(seat)
        with suppress(Exception):  # dead already, or its node is gone
            self.ray.kill(seat.actor)

    def _replace(self, root: Path, seat: _Seat, had: list[str], how: str) -> None:
        """Start another worker in place of one that was at these units."""
        self._dismiss(seat)
        lost = [one for one in had if not finished_sidecar(root, one)]
        self.built += [one for one in had if one not in lost]
        self.queue.extend(lost)
        again = f" while building {' and '.join(lost)}; what it had not finished is queued again" if lost else ""
        self._bury(f"{how}{again}")
        self._seat()

    def _bury(self, how: str) -> None:
        self.deaths += 1
        self.notice(f"a Ray worker {how}")
        if self.deaths > MAX_TRIES * self.count:
            raise CacheError(f"{self.deaths} Ray workers were lost; the last one {how}")

    def _leave(self, name: str) -> None:
        """Leave a unit to the builder that is at it, and look again once there is nothing else."""
        self.queue.append(name)
        if not self.left:
            self.notice(f"unit {name} is claimed by another builder; it is left to it, and looked at again")
        self.left = True

    def _retry(self, name: str, problem: str, *, final: bool) -> None:
        """Queue a unit again that failed ("": a call about none), unless that is vain or was tried often enough."""
        self.tries[name] = self.tries.get(name, 0) + 1
        text, what = " ".join(problem.split()), f"unit {name}" if name else "a call of a Ray worker"
        if final or self.tries[name] >= MAX_TRIES:
            raise CacheError(f"{what} failed: {text[-300:]}")
        self.notice(f"{what} failed{' and is tried again' * bool(name)}: {text[-200:]}")
        if name:
            self.queue.append(name)
