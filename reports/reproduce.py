"""One command that gets everything again, and one that checks a delivered directory.

`reproduce` writes, into one directory:

    report.html, results/LABEL/*   the page, every figure, table and claim record
    claims.json                    every claim of every cache, with its verdict
    manifest.json                  SHA-256 of inputs and outputs, versions, seed; the same bytes on every run
    run.json                       wall times, host, where the caches lay; differs between runs and is not hashed
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import analyses
from analyses._cache import study_of
from reports.collect import RESULTS, Done, default_workers, label_caches, plan, run_jobs
from reports.record import CLAIMS, MANIFEST, PAGE, RUN, claims_record, outputs_of, sha256_of
from reports.render import software_versions, write_page
from reports.verify import verify_reproduction
from steerstats.errors import InputError

__all__ = ["claims_record", "claims_table", "reproduce", "verify_reproduction"]


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
        The first is set beside each other one.
    out : path
        An earlier reproduction there is replaced; anything else there is an error.
    seed : int
    jobs : int, optional
        Processes; by default the cores of the machine, at most four.
    progress : rich.progress.Progress, optional

    Returns
    -------
    dict
        What `claims.json` holds.

    Raises
    ------
    InputError
        If `out` holds files that are no reproduction.
    CacheError
        If a path is no cache, or a cache is damaged.
    """
    start = time.perf_counter()
    folder, labels = Path(out), label_caches(caches)
    for path in labels.values():
        study_of(path)
    _clear(folder)
    done = run_jobs(plan(labels), folder, seed=seed, workers=jobs or default_workers(), progress=progress)
    write_page(labels, done, folder, seed=seed)
    record = claims_record(labels, done, seed)
    _write_json(folder / CLAIMS, record)
    _write_json(folder / MANIFEST, _manifest(folder, labels, seed))
    _write_json(folder / RUN, _run_facts(labels, folder, done, time.perf_counter() - start))
    return record


def claims_table(record: Mapping[str, Any]) -> Any:
    """The claims as a table for a terminal.

    Parameters
    ----------
    record : mapping
        As `reproduce` returns it, or `claims.json`.

    Returns
    -------
    rich.table.Table
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Numbers are never folded: the statements take the room that is left, at 80 columns as at 200.
    table = Table(title="Claims", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    several = len(record["caches"]) > 1
    table.add_column("claim", ratio=1, min_width=20)
    table.add_column("estimate [95%]", no_wrap=True)
    table.add_column("n", no_wrap=True)
    table.add_column("published")
    if several:
        table.add_column("cache")
    for finding in record["findings"]:
        place = [finding["cache"]] if several else []
        if finding["missing"]:
            row = [f"{finding['title']}: {finding['missing']}", "", "", "", *place]
            table.add_row(*(Text(cell, style="dim") for cell in row))
        for claim in finding["claims"]:
            limits = [_short(claim[key], claim["unit"]) for key in ("ci_low", "ci_high")]
            interval = "" if claim["ci_low"] is None else f" [{limits[0]}, {limits[1]}]"
            published = "" if claim["published"] is None else f"{claim['published']:g}: {claim['verdict']}"
            estimate = _short(claim["estimate"], claim["unit"]) + interval
            row = [claim["statement"].rstrip(":"), estimate, f"{claim['n']} {claim['n_of']}", published, *place]
            table.add_row(*(Text(cell) for cell in row))
    return table


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
        "versions": software_versions() | {"python": platform.python_version()},
        "caches": caches,
        "outputs": outputs,
    }


def _run_facts(labels: Mapping[str, str], folder: Path, done: Sequence[Done], seconds: float) -> dict[str, Any]:
    places = {label: os.path.relpath(Path(path).resolve(), folder.resolve()) for label, path in labels.items()}
    return {
        "caches": {
            label: {"path": str(Path(path).resolve()), "relative": places[label]} for label, path in labels.items()
        },
        "wall_seconds": round(seconds, 3),
        "scripts": [[one.job.script, one.job.label, round(one.seconds, 3)] for one in done],
        "host": {"system": platform.platform(), "machine": platform.machine(), "cores": os.cpu_count()},
    }


def _clear(folder: Path) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / MANIFEST).is_file() and not (folder / PAGE).is_file():
        raise InputError(f"{folder} is not empty and holds no earlier report; choose another directory")
    for name in (PAGE, CLAIMS, MANIFEST, RUN):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / RESULTS, ignore_errors=True)


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _short(value: Any, unit: str) -> str:
    from reports.words import number, percent

    if value is None:
        return "not known"
    value = float(value)  # "inf" is how an infinite limit is written
    return percent(value) if unit == "share" and np.isfinite(value) else number(value)
