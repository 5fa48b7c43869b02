"""Plan units, run them, write them, resume: the whole of `steerstats build`.

    report = run_build(load_spec("demo"), "demo-cache")

Units that are finished are never touched; units that another living builder holds are left to it. A build that is
killed at any moment goes on from where it was, with the budget and the threads of its first run, so that its arrays
are the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_builder.ahead import Writer
from cache_builder.announcements import announcements
from cache_builder.plan import UnitPlan
from cache_builder.session import Progress, Session, read_runtime, write_and_close
from cache_builder.spec import BuildSpec
from cache_builder.spec.sweep import sweep_spec
from cache_builder.workers.leases import Lease, claim, clear_leftovers
from steerstats.cache import UnitData, create_cache, finished_sidecar
from steerstats.cache.sidecar import UNITS
from steerstats.cache.writer import refuse_other_spec
from steerstats.errors import how_many
from steerstats.interrupts import deferred

__all__ = [
    "BuildReport",
    "Notice",
    "Progress",
    "Session",
    "begin",
    "build_claimed",
    "read_runtime",
    "run_build",
    "scratch_folder",
    "sweep_spec",
]

Notice = Callable[[str], None]
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did: units computed here, found finished, and done by others meanwhile.

    `parity` is the engine's proof in words, and empty where everything was found finished.
    """

    root: Path
    built: tuple[str, ...]
    found: tuple[str, ...]
    elsewhere: tuple[str, ...]
    seconds: float
    parity: str

    def summary(self) -> str:
        """One line for the terminal."""
        parts = [f"{how_many(len(self.built), 'unit')} built in {self.seconds:.0f} s"]
        if self.found:
            parts.append(f"{_were(self.found)} finished before")
        if self.elsewhere:
            parts.append(f"{_were(self.elsewhere)} built by others meanwhile")
        return f"{self.root}: {', '.join(parts)}{'; ' if self.parity else ''}{self.parity}"


def _were(names: tuple[str, ...]) -> str:
    return f"{len(names)} {'was' if len(names) == 1 else 'were'}"


def scratch_folder(root: Path) -> Path:
    """Where training activations lie while a unit is built: on the cache's own disk.

    The nearest folder that is there, since nothing is made before a build is known to be possible.
    """
    return next(folder for folder in (root / UNITS, root, *root.absolute().parents) if folder.is_dir())


def run_build(
    spec: BuildSpec,
    out: str | Path,
    *,
    progress: Progress = lambda *_: None,
    notice: Notice = lambda _: None,
    only: Callable[[str], bool] = lambda _: True,
    overlap: bool = True,
) -> BuildReport:
    """Build a cache, or go on with one.

    Parameters
    ----------
    spec : BuildSpec
    out : path
        Cache directory; made if it is not there.
    progress : callable (done, total, what)
        Called with units done (fractions included) and their number, None while the number means nothing.
    notice : callable (str)
        Called with each thing a user should know: the plain path, a folded system role, waiting for others.
    only : callable (str) -> bool
        Which units to build here; the cache still names them all.
    overlap : bool
        Encode the next inputs and write the last unit while the engine runs. The arrays are the same bits without.

    Returns
    -------
    BuildReport

    Raises
    ------
    CacheError
        If the directory holds another spec's cache.
    SpecError, InputError, ModelError
        One line each, before anything is written.
    """
    started, root = time.perf_counter(), Path(out)
    runtime = read_runtime(root)
    session = Session(spec, runtime, progress, scratch=scratch_folder(root), overlap=overlap)
    try:
        begin(session, root, runtime, progress)
        for text in announcements(session):
            notice(text)
        names = [unit.name for unit in session.units]
        found = tuple(name for name in names if finished_sidecar(root, name))
        with Writer(overlap=overlap) as writer:
            built = _work(session, root, [u for u in session.units if only(u.name)], writer, progress, notice)
    finally:
        session.close()
    elsewhere = tuple(n for n in names if n not in built and n not in found and finished_sidecar(root, n))
    parity = str(session.engine.parity or "")
    return BuildReport(root, built, found, elsewhere, time.perf_counter() - started, parity)


def begin(
    session: Session, root: Path, runtime: Mapping[str, Any] | None, progress: Progress = lambda *_: None
) -> None:
    """Make a session's cache, or join it: the engine is proved, its budget settled, and what the dead left removed.

    Where every unit is finished there is nothing to prove, and nothing is written.

    Parameters
    ----------
    session : Session
    root : path
    runtime : mapping or None
        What the session was made with (`read_runtime`).
    progress : callable (done, total, what)
    """
    if runtime is not None:
        # Another spec is refused at once.
        create_cache(root, {"kind": "grid", "spec_hash": session.spec_hash}, why=session.what_differs)
        session.settle(root)
    finished = {unit.name: finished_sidecar(root, unit.name) for unit in session.units}
    for name, side in finished.items():  # a manifest may be gone, and a unit copied
        if side is not None:
            refuse_other_spec(root / UNITS / f"{name}.h5", side, session.spec_hash)
    if runtime is None or not all(finished.values()):
        session.prove(progress)
    if runtime is None:
        progress(0, None, "measuring the best token budget and mask")
        measured = session.tune()
        create_cache(root, session.manifest(measured), why=session.what_differs)
        # Where several builders begin at once the first manifest wins, and all work with its budget.
        session.settle(root)
        session.prove_row()
    clear_leftovers(root)


def _work(
    session: Session, root: Path, units: list[UnitPlan], writer: Writer, progress: Progress, notice: Notice
) -> tuple[str, ...]:
    total, built, waiting = len(session.units), [], False

    def written(name: str, error: Exception | None) -> None:
        if error is not None:
            raise error
        built.append(name)

    while True:
        todo = [unit for unit in units if not finished_sidecar(root, unit.name)]
        done = len(units) - len(todo)
        progress(done, total, "done" if not todo else "")
        if not todo:
            return tuple(built)
        worked = False
        for place, unit in enumerate(todo):
            lease = claim(root, unit.name)
            if lease is None:
                continue
            with lease:
                if finished_sidecar(root, unit.name):  # by its last holder, between the look and the claim
                    continue
                following = next((one for one in todo[place + 1 :] if not finished_sidecar(root, one.name)), None)
                start = len(units) - sum(not finished_sidecar(root, one.name) for one in units) + writer.busy

                def report(part: float, what: str, at: int = start) -> None:
                    writer.check()
                    progress(at + part, total, what)

                build_claimed(session, root, unit, lease, writer, written, report, following)
                worked = True
        # Only when everything is on disk can another builder's work be told from our own.
        writer.join()
        if not worked:
            if not waiting:
                what = "the last unit is" if len(todo) == 1 else f"the remaining {len(todo)} units are"
                notice(f"{what} being built by another process; waiting for it")
                waiting = True
            time.sleep(POLL_S)


def build_claimed(
    session: Session,
    root: Path,
    unit: UnitPlan,
    lease: Lease,
    writer: Writer,
    written: Callable[[str, Exception | None], None],
    progress: Progress = lambda *_: None,
    following: UnitPlan | None = None,
) -> None:
    """Compute a unit, and begin to write it once the one before is written.

    The lease goes with it, and is given back when the unit has its name; until then it is the caller's.

    Parameters
    ----------
    session : Session
    root : path
    unit : UnitPlan
    lease : Lease
    writer : Writer
    written : callable (name, error or None)
        Called in the writer's thread with how it ended; what it raises the writer's next call raises.
    progress : callable (share done, what)
    following : UnitPlan, optional
        What will probably be built next.
    """
    data, run = session.compute(unit, progress, following)
    writer.join()
    with deferred():
        writer.submit(_Finish(root, unit.name, data, run, lease, written))
        lease.kept = True


@dataclass(frozen=True, slots=True)
class _Finish:
    """What is left of a unit once it is computed: to be written, and its lease given back after the rename."""

    root: Path
    name: str
    data: UnitData
    run: Mapping[str, Any]
    lease: Lease
    written: Callable[[str, Exception | None], None]

    def __call__(self) -> None:
        problem = None
        try:
            try:
                write_and_close(self.root, self.name, self.data, self.run)
            except Exception as error:  # whatever it is, it has to reach who waits for this unit
                problem = error
            self.written(self.name, problem)
        finally:
            self.lease.release()
