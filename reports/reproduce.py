"""One command that gets everything again, and one that checks a delivered directory.

`reproduce` writes, into one directory:

    report.html, results/LABEL/*   the page, every figure, table and claim record
    claims.json                    every claim of every cache, with its verdict
    claims.csv, claims.tex         the same as one table, with every digit and as a paper prints it
    manifest.json                  SHA-256 of inputs and outputs, versions, seed; the same bytes on every run
    run.json                       wall times, host, where the caches lie from here; differs between runs, not hashed
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import analyses
from analyses._cache import check_distinct, label_caches, study_of
from reports.collect import Done, default_workers, plan, run_jobs
from reports.record import (
    CLAIMS,
    MANIFEST,
    RUN,
    claims_record,
    outputs_of,
    sha256_of,
    staged,
    versions_here,
    write_claim_tables,
)
from reports.render import write_page
from steerstats.errors import check_count


def reproduce(
    caches: Sequence[str | Path],
    out: str | Path,
    *,
    seed: int = 0,
    jobs: int | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Run every script on every cache, and write the report, the claims and the manifest.

    Parameters
    ----------
    caches : sequence of path
        With two or more they are also set side by side, each pair of them.
    out : path
        An earlier reproduction or report there is replaced, once the new one is whole; files without either are an
        error.
    seed : int
    jobs : int, optional
        Processes; by default, and with 0, the cores of the machine, at most four.
    progress : rich.progress.Progress, optional

    Returns
    -------
    dict
        What `claims.json` holds.

    Raises
    ------
    InputError
        If `out` is a file or a cache, or holds files and no earlier report or reproduction.
    CacheError
        If a path is no cache, or a cache is damaged.
    """
    check_count("seed", seed, at_least=0)
    start = time.perf_counter()
    folder, labels = Path(out), label_caches(caches)
    check_distinct(labels.values())
    with staged(folder, list(labels.values()), over=True) as stage:
        done = run_jobs(plan(labels), stage, seed=seed, workers=jobs or default_workers(), progress=progress)
        write_claim_tables(stage, done)
        write_page(labels, done, stage, seed=seed)
        record = claims_record(labels, done, seed)
        _write_json(stage / CLAIMS, record)
        _write_json(stage / MANIFEST, _manifest(stage, labels, seed))
        _write_json(stage / RUN, _run_facts(labels, folder, done, time.perf_counter() - start))
    return record


def _manifest(folder: Path, labels: Mapping[str, str], seed: int) -> dict[str, Any]:
    caches = {}
    for label, path in labels.items():
        reader = study_of(path).reader
        units = {name: str(reader[name].sidecar.get("content_sha256")) for name in reader.units}
        caches[label] = {"name": Path(path).name, "spec_hash": reader.spec_hash, "units": units}
    outputs = {name: sha256_of(folder / name) for name in outputs_of(folder)}
    return {
        "type": "steerstats.reproduction",
        "version": 1,
        "seed": seed,
        "scripts": list(analyses.SCRIPTS),
        "versions": versions_here(),
        "caches": caches,
        "outputs": outputs,
    }


def _run_facts(labels: Mapping[str, str], folder: Path, done: Sequence[Done], seconds: float) -> dict[str, Any]:
    # Relative paths only: what is delivered to a blind review should not say whose home it was made in.
    places = {label: os.path.relpath(Path(path).resolve(), folder.resolve()) for label, path in labels.items()}
    return {
        "caches": {label: {"relative": place} for label, place in places.items()},
        "wall_seconds": round(seconds, 3),
        "scripts": [[one.job.script, one.job.label, round(one.seconds, 3)] for one in done],
        "host": {"system": platform.platform(), "machine": platform.machine(), "cores": os.cpu_count()},
    }


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
