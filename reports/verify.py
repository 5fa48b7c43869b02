"""Hold a delivered directory against its manifest, and its numbers against the cache they came from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses._cache import study_of
from reports.collect import default_workers, plan, run_jobs
from reports.record import CLAIMS, MANIFEST, RUN, claims_record, outputs_of, read_json, sha256_of
from steerstats.cache import Check, content_hash
from steerstats.errors import InputError, SteerstatsError

RELATIVE = 1e-9  # two machines may differ in the last bits of a sum, and in no more


def verify_reproduction(directory: str | Path, caches: Sequence[str | Path] | None = None) -> Iterator[Check]:
    """Check a delivered directory: its files against the manifest, its numbers against the cache.

    Parameters
    ----------
    directory : path
        What `reproduce` wrote.
    caches : sequence of path, optional
        Where the caches are now. By default where they were, beside the directory, or inside it.

    Yields
    ------
    Check
        Hashes of all outputs; files the manifest does not name; content of every cache; every number recomputed,
        equal to 1e-9 relative.

    Raises
    ------
    InputError
        If the directory holds no manifest.
    """
    folder = Path(directory)
    manifest = read_json(folder / MANIFEST)
    yield from _check_files(folder, manifest)
    places = _find_caches(folder, manifest, caches)
    for label, entry in manifest["caches"].items():
        path = places.get(label)
        if path is None:
            yield Check(label, "cache", False, f"not found; put {entry['name']} beside {folder.name}")
            return
        try:
            check = _check_cache(label, path, entry)
        except SteerstatsError as error:
            check = Check(label, "cache", False, str(error))
        yield check
        if not check.ok:
            return
    with tempfile.TemporaryDirectory(prefix="steerstats-verify-") as scratch:
        labels = {label: str(path) for label, path in places.items()}
        seed = int(manifest["seed"])
        done = run_jobs(plan(labels), Path(scratch), seed=seed, workers=default_workers(), figures=False)
        again = json.loads(json.dumps(claims_record(labels, done, seed)))
    yield from check_numbers(read_json(folder / CLAIMS), again)


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Check]:
    wrong = []
    for name, digest in manifest["outputs"].items():
        target = (folder / name).resolve()
        if not target.is_relative_to(folder.resolve()):
            wrong.append(f"{name} leaves the directory")
        elif not target.is_file():
            wrong.append(f"{name} is missing")
        elif sha256_of(target) != digest:
            wrong.append(f"{name} has another content")
    total = len(manifest["outputs"])
    yield Check(folder.name, "files", not wrong, "; ".join(wrong[:5]) or f"{total} files have the manifest's hashes")
    strangers = sorted(set(outputs_of(folder)) - set(manifest["outputs"]))
    detail = (
        f"not in the manifest: {', '.join(strangers[:5])}" if strangers else "nothing that the manifest does not name"
    )
    yield Check(folder.name, "no other files", not strangers, detail)


def _check_cache(label: str, path: Path, entry: Mapping[str, Any]) -> Check:
    reader = study_of(path).reader
    if reader.spec_hash != entry["spec_hash"]:
        return Check(label, "cache", False, f"{path} is another build: {reader.spec_hash[:12]}")
    wrong = []
    for name, digest in entry["units"].items():
        if name not in reader.units:
            wrong.append(f"{name} is missing")
            continue
        whole = reader[name].load()
        attrs = {key: value for key, value in whole.attrs.items() if key != "sidecar"}
        if content_hash(type(whole)(whole.arrays, attrs)) != digest:
            wrong.append(f"{name} has another content")
    return Check(
        label, "cache", not wrong, "; ".join(wrong[:5]) or f"{len(entry['units'])} units have the same content"
    )


def check_numbers(before: Any, now: Any) -> Iterator[Check]:
    """One check a finding: the numbers of a `claims.json` against those of another, 1e-9 relative."""
    ours = {(one["cache"], one["script"]): one for one in now["findings"]}
    for finding in before["findings"]:
        where = f"{finding['cache']}: {finding['script']}"
        other = ours.get((finding["cache"], finding["script"]))
        if other is None:
            yield Check(where, "numbers", False, "was not recomputed: this steerstats has no such script")
            continue
        worst, place = largest_difference(finding["claims"], other["claims"])
        same_words = finding["missing"] == other["missing"]
        detail = (
            finding["missing"] or f"{len(finding['claims'])} claims, largest relative difference {worst:.1e}{place}"
        )
        yield Check(where, "numbers", worst <= RELATIVE and same_words, detail)


def largest_difference(before: Any, now: Any, place: str = "") -> tuple[float, str]:
    """Largest relative difference between two pieces of JSON; text and shape have to be equal."""
    if isinstance(before, (int, float)) and isinstance(now, (int, float)) and not isinstance(before, bool):
        scale = max(abs(before), abs(now))
        return (abs(before - now) / scale if scale > 1e-12 else 0.0), place
    if isinstance(before, Mapping) and isinstance(now, Mapping) and before.keys() == now.keys():
        parts = [largest_difference(before[key], now[key], f" at {key}") for key in before]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        parts = [largest_difference(a, b, f"{place}[{k}]") for k, (a, b) in enumerate(zip(before, now))]
    else:
        # Sentences may hold a rounded number that falls to the other side of a half; only numbers are compared.
        same = before == now or (isinstance(before, str) and isinstance(now, str))
        return (0.0 if same else float("inf")), place
    return max(parts, default=(0.0, ""), key=lambda part: part[0])


def _find_caches(folder: Path, manifest: Mapping[str, Any], given: Sequence[str | Path] | None) -> dict[str, Path]:
    names = list(manifest["caches"])
    if given is not None:
        if len(given) != len(names):
            raise InputError(f"{len(given)} caches are given; {folder / MANIFEST} names {len(names)}")
        return dict(zip(names, map(Path, given)))
    run = read_json(folder / RUN) if (folder / RUN).is_file() else {"caches": {}}
    found = {}
    for label, entry in manifest["caches"].items():
        was = run["caches"].get(label, {})
        places = [folder / was["relative"]] if "relative" in was else []
        places += [Path(was["path"])] if "path" in was else []
        places += [folder.parent / entry["name"], folder / entry["name"]]
        path = next((place for place in places if place.exists()), None)
        if path is not None:
            found[label] = path
    return found
