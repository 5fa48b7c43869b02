"""Where the numbers come from: the cache's own record of its build, in words, and what analysed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reports.methods_data import grids_of
from reports.record import software_versions
from steerstats.errors import by_text

WORDS = {"dirty": "uncommitted changes"}


def provenance_rows(study: Any, seed: int) -> list[tuple[str, str]]:
    """(name, value) of everything that is known about a cache, for the end of the page."""
    manifest, first = study.reader.manifest, study.units[study.datasets[0]].unit
    rows = [
        ("model", study.model),
        ("kind of cache", study.kind),
        ("identity of the build", study.reader.spec_hash),
        ("datasets", ", ".join(study.datasets)),
        ("score", str(first.attrs.get("score"))),
        *([("operator", ", ".join(study.operators))] if "operator" in first.attrs else []),
        ("multipliers", grids_of(study)),
    ]
    built = sorted((manifest.get("provenance") or {}).items())
    rows += [(f"build: {key.replace('_', ' ')}", _flat(value)) for key, value in built if _flat(value)]
    parity = (first.sidecar.get("run") or {}).get("parity")
    if parity:
        rows.append(("engine parity, first dataset", _flat(parity)))
    digests = {name: str(unit.unit.sidecar.get("content_sha256"))[:16] for name, unit in study.units.items()}
    rows.append(("content hashes", ", ".join(f"{name} {digest}" for name, digest in digests.items())))
    sources = dict.fromkeys(str(unit.unit.attrs.get("attribution") or "") for unit in study.units.values())
    rows += [("attribution", text) for text in sources if text]
    notes = {name: json.loads(unit.unit.attrs.get("notes") or "[]") for name, unit in study.units.items()}
    rows += [("noted by the builder", text) for text in by_text(notes)]
    rows.append(("seed of the analysis", str(seed)))
    rows.append(("analysed with", ", ".join(f"{name} {number}" for name, number in software_versions().items())))
    return rows


def _flat(value: Any) -> str:
    """A value in words: what is not recorded is left out, and a flag is yes or no."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        known = {key: _flat(one) for key, one in value.items()}
        return ", ".join(f"{WORDS.get(key, str(key).replace('_', ' '))} {text}" for key, text in known.items() if text)
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(_flat, value)))
    if isinstance(value, float) and value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.1e}".replace("-", "−")
    return str(value)
