"""The files of a reproduction, and the record of its claims: what both its writer and its checker know."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from analyses._tables import BOTH, to_latex
from reports.collect import RESULTS, Done
from steerstats.cache.sidecar import json_value
from steerstats.errors import InputError

PAGE, CLAIMS, MANIFEST, RUN = "report.html", "claims.json", "manifest.json", "run.json"
CLAIMS_CSV, CLAIMS_TEX = "claims.csv", "claims.tex"
SOFTWARE = ("steerstats", "numpy", "scipy", "pandas", "statsmodels", "scikit-learn", "matplotlib", "seaborn")
GENERATOR = b'<meta name="generator" content="steerstats '
WRITTEN = (".csv", ".json", ".parquet", ".pdf", ".svg", ".tex")  # of a finding, in a folder of its cache
UNFINISHED = ".unfinished"  # where a run writes until all of it is there


def claims_record(labels: Mapping[str, str], done: Sequence[Done], seed: int) -> dict[str, Any]:
    """All findings of a run as plain data: what `claims.json` holds."""
    findings = [{"cache": one.job.label, **one.finding.record()} for one in done]
    return {"type": "steerstats.claims", "version": 1, "seed": seed, "caches": list(labels), "findings": findings}


def write_claim_tables(folder: Path, done: Sequence[Done]) -> None:
    """All claims of a run as one table: `claims.csv` with every digit, `claims.tex` as a paper prints it."""
    rows, printed = [], []
    several = len({one.job.label for one in done}) > 1
    for one in done:
        for claim in one.finding.claims:
            names = ("key", "statement", "estimate", "ci_low", "ci_high", "level", "unit", "n", "n_of", "interval")
            row = {"cache": one.job.label, "script": one.job.script, **{name: getattr(claim, name) for name in names}}
            row |= {"counts": ", ".join(f"{count} {kind}" for kind, count in claim.counts.items())}
            rows.append(row | {"published": claim.published_text, "verdict": claim.verdict, "reason": claim.reason})
            shown = {"cache": one.job.label} if several else {}
            shown |= {"claim": claim.statement.rstrip(":"), BOTH: " ".join(filter(None, claim.shown))}
            shown |= {"unit": claim.shown_unit, "n": f"{claim.n} {claim.n_of}", "published": claim.shown_published}
            printed.append(shown)
    if not rows:
        return
    pd.DataFrame(rows).to_csv(folder / CLAIMS_CSV, index=False, lineterminator="\n")
    caption = "Every claim, with its 95% interval where it has one. Published values as transcribed."
    table = to_latex(pd.DataFrame(printed), caption=caption, label="claims", widths={"claim": 0.42})
    (folder / CLAIMS_TEX).write_text(table, encoding="utf-8", newline="\n")


def software_versions() -> dict[str, str]:
    """Versions of what the numbers and the figures depend on."""
    found = {}
    for name in SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def versions_here() -> dict[str, str]:
    """The same and that of Python, as a manifest has them."""
    return software_versions() | {"python": platform.python_version()}


def outputs_of(folder: Path) -> list[str]:
    """Every file that a reproduction writes and a manifest names, relative to its directory."""
    files = [*(folder / name for name in (PAGE, CLAIMS, CLAIMS_CSV, CLAIMS_TEX)), *(folder / RESULTS).rglob("*")]
    return sorted(file.relative_to(folder).as_posix() for file in files if file.is_file())


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a reproduction; InputError names it where it is missing or broken."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path.parent} holds no {path.name}; `steerstats reproduce` writes one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return json_value(text, str(path), InputError)


@contextmanager
def staged(folder: Path, caches: Sequence[str | Path] = (), *, over: bool = False) -> Iterator[Path]:
    """A place to write a whole report to, which takes the earlier one's place at the end or leaves it as it was.

    Parameters
    ----------
    folder : path
        Where the report is to stand. What an earlier report left there is replaced.
    caches : sequence of path
        May lie in the folder.
    over : bool
        Whether a reproduction may be replaced, too: by another one, not by a report, which cannot be verified.

    Yields
    ------
    pathlib.Path
        An empty directory inside `folder`.

    Raises
    ------
    InputError
        If `folder` is a file, a cache, or holds files and no earlier report of ours.
    """
    refuse_strangers(folder, caches, over=over)
    stage, was_there = folder / UNFINISHED, folder.exists()
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        yield stage
        for name in (PAGE, CLAIMS, CLAIMS_CSV, CLAIMS_TEX, RUN, *([MANIFEST] if _is_ours(folder) else [])):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / RESULTS, ignore_errors=True)
        for made in sorted(stage.iterdir()):
            made.rename(folder / made.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if not was_there and not any(folder.iterdir()):
            folder.rmdir()


def refuse_strangers(folder: Path, caches: Sequence[str | Path] = (), *, over: bool = False) -> None:
    """Raise InputError where a report would be written over, or in between, what is no report; see `staged`."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a directory for the report")
    if not folder.exists():
        return
    if _is_ours(folder):
        if not over:
            raise InputError(f"{folder} holds a reproduction, which a report would replace; choose another directory")
        _refuse_notes(folder)
        return
    if (folder / MANIFEST).exists():
        raise InputError(f"{folder} is a cache, or something else with a {MANIFEST}; choose another directory")
    allowed = {Path(cache).resolve() for cache in caches}
    strangers = [path for path in folder.iterdir() if path.resolve() not in allowed and path.name != UNFINISHED]
    page = folder / PAGE
    if page.exists() and not _is_our_page(page):
        raise InputError(f"{page} was not written by steerstats and would be replaced; choose another directory")
    if strangers and not page.exists():
        raise InputError(f"{folder} is not empty and holds no earlier report; choose another directory")
    _refuse_notes(folder)


def _refuse_notes(folder: Path) -> None:
    """Raise InputError where someone keeps files of his own among an earlier report's results, which are replaced."""
    results = folder / RESULTS
    # What a script writes is named after it, and its record is always there: gap_parts.json, gap_parts-2.svg.
    records = {path.with_suffix("") for path in results.glob("*/*.json") if _is_record(path)}
    for path in sorted(results.rglob("*")):
        ours = path.suffix in WRITTEN and path.with_name(re.sub(r"-\d+$", "", path.stem)) in records
        if not (ours or path.is_dir()):
            raise InputError(f"{path} is not part of a report and would be lost; move it, or choose another directory")


def _is_record(path: Path) -> bool:
    """Whether a file is the record of a script's finding."""
    return _field(path, "script") == path.stem


def _is_our_page(page: Path) -> bool:
    """Whether the template's own mark is in the head of a page."""
    try:
        with open(page, "rb") as file:
            return GENERATOR in file.read(4096)
    except OSError:
        return False


def _is_ours(folder: Path) -> bool:
    """Whether the manifest there is that of a reproduction; caches have manifests too."""
    return _field(folder / MANIFEST, "type") == "steerstats.reproduction"


def _field(path: Path, name: str) -> Any:
    """One field of a JSON file, None where there is no such file or field."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get(name) if isinstance(found, Mapping) else None
