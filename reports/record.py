"""The files of a reproduction, and the record of its claims: what both its writer and its checker know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.collect import RESULTS, Done
from steerstats.errors import InputError

PAGE, CLAIMS, MANIFEST, RUN = "report.html", "claims.json", "manifest.json", "run.json"


def claims_record(labels: Mapping[str, str], done: Sequence[Done], seed: int) -> dict[str, Any]:
    """All findings of a run as plain data: what `claims.json` holds."""
    findings = [{"cache": one.job.label, **one.finding.record()} for one in done]
    return {"type": "steerstats.claims", "version": 1, "seed": seed, "caches": list(labels), "findings": findings}


def outputs_of(folder: Path) -> list[str]:
    """Every file that a reproduction writes and a manifest names, relative to its directory."""
    files = [folder / PAGE, folder / CLAIMS, *(folder / RESULTS).rglob("*")]
    return sorted(file.relative_to(folder).as_posix() for file in files if file.is_file())


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a reproduction; InputError names it where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path.parent} holds no {path.name}; `steerstats reproduce` writes one") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno} is not JSON: {error.msg}") from error
