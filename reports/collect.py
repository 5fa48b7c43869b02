"""Run the scripts of `analyses/` on caches, side by side where asked, and hand back what they found.

Processes are spawned with BLAS held to one thread, so that the numbers do not depend on how many run at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from threadpoolctl import threadpool_limits

import analyses
from analyses._claim import Finding
from analyses._compared import naming
from steerstats.interrupts import deferred

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
RESULTS = "results"


@dataclass(frozen=True)
class Job:
    """One script on one cache, on a pair of them, or on all.

    Parameters
    ----------
    script : str
    label : str
        Name of the cache (or of the comparison) in this run; the folder under `results/`.
    caches : tuple of str
        Paths.
    names : tuple of str
        What those caches are called in this run.
    """

    script: str
    label: str
    caches: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A job with its finding and its wall time in seconds."""

    job: Job
    finding: Finding
    seconds: float


def plan(labels: dict[str, str]) -> list[Job]:
    """Every script for every cache; those that compare take each pair, and what compares them all takes all at once."""
    names = list(labels)
    jobs = []
    for script in analyses.SCRIPTS:
        if script in analyses.COMPARING and len(names) > 1:
            groups = [tuple(names)] if script in analyses.ALL_AT_ONCE else list(combinations(names, 2))
            jobs += [Job(script, group_label(g, labels), tuple(labels[name] for name in g), g) for g in groups]
        else:
            alone = names[:1] if script in analyses.COMPARING else names
            jobs += [Job(script, name, (labels[name],), (name,)) for name in alone]
    return jobs


def group_label(names: Sequence[str], labels: Iterable[str]) -> str:
    """The folder of a comparison: the names of two caches, "all-caches" of more; never that of a cache."""
    label = "-and-".join(names) if len(names) == 2 else "all-caches"
    while label in set(labels):
        label += "-"
    return label


def run_jobs(
    jobs: Sequence[Job],
    out: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    progress: Any = None,
) -> list[Done]:
    """Run all jobs, in the order of `jobs` in the answer whatever order they end in.

    Parameters
    ----------
    jobs : sequence of Job
    out : path
        Files go to `out/results/LABEL/`.
    seed : int
    workers : int
        Processes; with 1 everything runs in this one.
    progress : rich.progress.Progress, optional
    """
    task = progress.add_task("scripts", total=len(jobs), of="scripts") if progress is not None else None
    done: dict[int, Done] = {}
    if workers <= 1:
        for k, job in enumerate(jobs):
            done[k] = run_one(job, str(out), seed)
            _advance(progress, task, job)
    else:
        with _one_thread(), _workers(min(workers, len(jobs))) as pool:
            with deferred():  # Ctrl-C goes to them all, and is ours alone to hear
                waiting = {pool.submit(run_one, job, str(out), seed): k for k, job in enumerate(jobs)}
            for future in as_completed(waiting):
                done[waiting[future]] = future.result()
                _advance(progress, task, jobs[waiting[future]])
    return [done[k] for k in range(len(jobs))]


@contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose workers are ended, not waited for, where anything goes wrong here: Ctrl-C before all."""
    others = active_children()
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(active_children()) - set(others):
                child.terminate()
            raise


def end_with_parent() -> None:
    """In a worker: end when the process that asked for it is gone, however it ended.

    Workers hold both ends of the queue that they wait on, so that a kill of their parent would leave them waiting.
    """
    parent = parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        Thread(target=watch, daemon=True).start()


def run_one(job: Job, out: str, seed: int) -> Done:
    """One job in this process."""
    start = time.perf_counter()
    with threadpool_limits(1), naming(job.names):
        cache = job.caches[0] if len(job.caches) == 1 else list(job.caches)
        finding = analyses.run(job.script, cache, Path(out) / RESULTS / job.label, seed)
    return Done(job, finding, time.perf_counter() - start)


def default_workers() -> int:
    """The cores of this machine, at most four: a worker holds a cache's slopes in memory."""
    return min(4, os.cpu_count() or 1)


def _advance(progress: Any, task: Any, job: Job) -> None:
    if progress is not None:
        progress.update(task, advance=1, description=f"scripts: {job.script}")


@contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
