"""The same units on Ray: one actor a GPU (or a few GPUs), one shared directory, units retried when an actor dies.

The driver makes the manifest and hands out names; actors compute and write units as a local build does, so that
what they write is the same, and a build begun on Ray can be finished without it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from pathlib import Path
from typing import Any

from cache_builder.build import BuildReport, Notice, Progress, Session, read_runtime, scratch_folder
from cache_builder.leases import claim, clear_leftovers
from cache_builder.spec import BuildSpec, parse_spec
from steerstats.cache import create_cache, finished_sidecar
from steerstats.errors import CacheError, InputError, SteerstatsError, require

MAX_TRIES = 3  # of one unit, and of actors that die before they are ready
POLL_S = 0.2


class Worker:
    """A loaded spec on one actor. Public methods take and return plain values only."""

    def __init__(self, spec: dict[str, Any], root: str) -> None:
        self.root = Path(root)
        try:
            runtime = read_runtime(self.root)
            self.session = Session(parse_spec(spec, "spec"), runtime, scratch=scratch_folder(self.root))
            if runtime is not None:
                create_cache(self.root, {"kind": "grid", "spec_hash": self.session.spec_hash})
                self.session.settle(self.root)
            self.session.prove()
            if runtime is None:
                speeds = {} if self.session.spec.run.budget else self.session.tune()
                create_cache(self.root, self.session.manifest(speeds))
                self.session.settle(self.root)
            clear_leftovers(self.root)
        except SteerstatsError as error:
            # An exception in a constructor would reach the driver as a dead actor, and be retried for nothing.
            self.session, self.problem = None, f"{error}"
        else:
            self.problem = ""

    def ready(self) -> dict[str, Any]:
        """Unit names, parity and device, or what is wrong with the spec."""
        if self.session is None:
            return {"problem": self.problem}
        parity = self.session.engine.parity
        return {
            "problem": "",
            "units": [unit.name for unit in self.session.units],
            "parity": str(parity),
            "passed": bool(parity and parity.passed),
            "notes": list(self.session.builder.renderer.notes),
        }

    def build(self, name: str) -> str:
        """Build one unit unless it is finished; returns its name."""
        plan = next(unit for unit in self.session.units if unit.name == name)
        while not finished_sidecar(self.root, name):
            lease = claim(self.root, name)
            if lease is None:
                time.sleep(POLL_S)
                continue
            with lease:
                if not finished_sidecar(self.root, name):
                    self.session.build_unit(self.root, plan)
        return name


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
    out : path
        A directory that every node sees.
    address : str, optional
        Of a running cluster; a local one is started without it.
    workers : int, optional
        Number of actors; default: one for each `gpus_per_worker` GPUs, or one on a machine without any.
    gpus_per_worker : float, optional
        GPUs of each actor; default 1 where the cluster has GPUs, else 0.
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
        What the spec, the data or the model gets wrong, as a local build would say it.
    CacheError
        If a unit fails on `MAX_TRIES` actors, with its last error.
    """
    ray = require("ray", "ray", "building on Ray")
    begin, root = time.perf_counter(), Path(out).resolve()
    root.parent.mkdir(parents=True, exist_ok=True)
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(address=address, log_to_driver=False, include_dashboard=False, configure_logging=False)
    try:
        total = float(ray.cluster_resources().get("GPU", 0))
        share = gpus_per_worker if gpus_per_worker is not None else (1.0 if total else 0.0)
        count = workers or max(1, math.floor(total / share) if share else 1)
        remote = ray.remote(num_gpus=share, num_cpus=1)(Worker)
        pool = _Pool(ray, remote, (spec.model_dump(mode="json"), str(root)), count, notice)
        return pool.run(root, begin, progress)
    finally:
        if started_here:
            ray.shutdown()


class _Pool:
    """Actors that work through a queue of unit names; a dead one is replaced and its unit queued again."""

    def __init__(self, ray: Any, remote: Any, arguments: tuple, count: int, notice: Notice) -> None:
        self.ray, self.remote, self.arguments = ray, remote, arguments
        self.count, self.notice = count, notice
        self.deaths = 0

    def run(self, root: Path, begin: float, progress: Progress) -> BuildReport:
        progress(0, None, "starting workers")
        first, facts = self._start()
        names = facts["units"]
        found = tuple(name for name in names if finished_sidecar(root, name))
        queue, tries, built = deque(name for name in names if name not in found), dict.fromkeys(names, 0), []
        # The others start once the first has settled the manifest, and therefore the budget.
        starting = [self.remote.remote(*self.arguments) for _ in range(min(self.count - 1, max(len(queue) - 1, 0)))]
        pending = {actor.ready.remote(): (actor, "") for actor in starting}
        idle = [first]
        while queue or any(name for _, name in pending.values()):
            while idle and queue:
                actor, name = idle.pop(), queue.popleft()
                pending[actor.build.remote(name)] = (actor, name)
            progress(len(found) + len(built), len(names), "units")
            done, _ = self.ray.wait(list(pending), num_returns=1, timeout=1.0)
            for reference in done:
                actor, name = pending.pop(reference)
                try:
                    answer = self.ray.get(reference)
                except self.ray.exceptions.RayActorError:
                    self._bury(name)
                    fresh = self.remote.remote(*self.arguments)
                    pending[fresh.ready.remote()] = (fresh, "")
                except self.ray.exceptions.RayTaskError as error:
                    cause = error.cause if isinstance(error.cause, SteerstatsError) else None
                    self._retry(name, tries, cause or error)
                    idle.append(actor)
                else:
                    if not name and answer["problem"]:
                        # What one worker could do another cannot (a smaller GPU, a folder that it does not see).
                        self._bury("", answer["problem"])
                        self.ray.kill(actor)
                        if not idle and not pending:
                            raise CacheError(f"no Ray worker is left: {answer['problem']}")
                        continue
                    idle.append(actor)
                    if name:
                        built.append(name)
                    continue
                if name:
                    queue.append(name)
        progress(len(names), len(names), "done")
        return BuildReport(root, tuple(built), found, (), time.perf_counter() - begin, facts["parity"])

    def _start(self) -> tuple[Any, dict[str, Any]]:
        for _ in range(MAX_TRIES):
            actor = self.remote.remote(*self.arguments)
            try:
                facts = self.ray.get(actor.ready.remote())
            except self.ray.exceptions.RayActorError as error:
                last = error
                continue
            if facts["problem"]:
                raise InputError(facts["problem"])
            for note in facts["notes"] + ([] if facts["passed"] else [facts["parity"]]):
                self.notice(note)
            return actor, facts
        raise CacheError(f"no Ray worker could be started: {last}")

    def _bury(self, name: str, problem: str = "") -> None:
        self.deaths += 1
        if problem:
            self.notice(f"a Ray worker cannot take part: {problem}")
        else:
            self.notice(f"a Ray worker died{f' while building {name}; the unit is queued again' if name else ''}")
        if self.deaths > MAX_TRIES * self.count:
            raise CacheError(f"{self.deaths} Ray workers died; the last one while building {name or 'nothing yet'}")

    def _retry(self, name: str, tries: dict[str, int], error: BaseException) -> None:
        tries[name] = tries.get(name, 0) + 1
        if tries[name] >= MAX_TRIES or isinstance(error, SteerstatsError):
            raise CacheError(f"unit {name} failed: {' '.join(str(error).split())[-300:]}") from None
        self.notice(f"unit {name} failed and is tried again: {' '.join(str(error).split())[-200:]}")
