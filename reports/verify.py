"""Hold a delivered directory against its manifest, and its numbers against the cache they came from."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyses._cache import study_of
from reports.collect import default_workers, plan, run_jobs
from reports.record import (
    CLAIMS,
    MANIFEST,
    PAGE,
    RUN,
    claims_record,
    outputs_of,
    read_json,
    sha256_of,
    versions_here,
    write_claim_tables,
)
from reports.render import write_page
from steerstats.cache import Check, content_hash
from steerstats.errors import InputError, SteerstatsError, first_few

KINDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
SHAPES: dict[str, tuple[dict[str, type], str, dict[str, type]]] = {
    MANIFEST: (
        {"outputs": dict, "versions": dict, "seed": int, "caches": dict},
        "caches",
        {"name": str, "spec_hash": str, "units": dict},
    ),
    CLAIMS: ({"findings": list}, "findings", {"cache": str, "script": str, "claims": list, "missing": str}),
}
"""What each file has to hold before it is compared, and what each part of one of these."""
RELATIVE = 1e-9  # two machines may differ in the last bits of a sum, and in no more
# Text of a claim that is no sentence: nothing in it is computed, so that no number in it can have been rounded.
EXACT = ("key", "unit", "n_of", "published_text", "source", "verdict", "reason")
_NUMBER = re.compile(r"\d+(?:\.\d+)?%?")


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
        Hashes of all outputs; files the manifest does not name; content of every cache; every claim recomputed, its
        numbers equal to 1e-9 relative and its words the same; every table cell by cell; with the versions that wrote
        them, the page and the figures byte for byte.

    Raises
    ------
    InputError
        If the directory holds no manifest.
    """
    folder = Path(directory)
    manifest = _read_whole(folder / MANIFEST)
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
        again, seed = Path(scratch) / "again", int(manifest["seed"])
        done = run_jobs(plan(labels), again, seed=seed, workers=default_workers())
        record = json.loads(json.dumps(claims_record(labels, done, seed)))
        yield from check_numbers(_read_whole(folder / CLAIMS), record)
        write_claim_tables(again, done)
        write_page(labels, done, again, seed=seed)
        yield from check_tables(folder, again)
        yield from check_page(folder, again, manifest["versions"])


def _read_whole(path: Path) -> dict[str, Any]:
    """A JSON file of a reproduction; InputError names what is not there as `reproduce` writes it."""
    found, (keys, holder, each) = read_json(path), SHAPES[path.name]
    _hold(path, "", found, keys)
    parts = found[holder]
    for name, one in parts.items() if isinstance(parts, dict) else enumerate(parts):
        _hold(path, f"{holder}[{name!r}].", one, each)
    return found


def _hold(path: Path, place: str, found: Any, keys: Mapping[str, type]) -> None:
    for key, kind in keys.items():
        value = found.get(key) if isinstance(found, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{path}: {place}{key} is {value!r}; `steerstats reproduce` writes {KINDS[kind]} there")


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
    yield Check(folder.name, "files", not wrong, first_few(wrong) or f"{total} files have the manifest's hashes")
    strangers = sorted(set(outputs_of(folder)) - set(manifest["outputs"]))
    detail = f"not in the manifest: {first_few(strangers)}" if strangers else "nothing that the manifest does not name"
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
        if content_hash(reader[name].load()) != digest:
            wrong.append(f"{name} has another content")
    return Check(label, "cache", not wrong, first_few(wrong) or f"{len(entry['units'])} units have the same content")


def check_numbers(before: Any, now: Any) -> Iterator[Check]:
    """One check a finding: what a `claims.json` says against what another does, numbers at 1e-9 relative.

    Findings and claims have to be the same ones on both sides; keys, units, counts, published values, verdicts and
    reasons the same text; sentences the same but for a rounded number in them.
    """
    ours, theirs = ({(one["cache"], one["script"]): one for one in side["findings"]} for side in (now, before))
    for key in ("type", "version", "seed", "caches"):
        if before.get(key) != now[key]:
            yield Check("claims", key, False, f"{before.get(key)!r} is delivered, {now[key]!r} was found")
    if len(theirs) != len(before["findings"]):
        yield Check("claims", "findings", False, "a finding is delivered twice")
    for cache, script in [*theirs, *(name for name in ours if name not in theirs)]:
        where = f"{cache}: {script}"
        if (cache, script) not in ours:
            yield Check(where, "numbers", False, "was not recomputed: this steerstats has no such script")
        elif (cache, script) not in theirs:
            yield Check(where, "numbers", False, "was computed and is not in the delivered claims")
        else:
            yield _same_finding(where, theirs[cache, script], ours[cache, script])


def _same_finding(where: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Check:
    worst, place = largest_difference(before, now)
    if worst > RELATIVE:
        return Check(where, "numbers", False, f"differs{place}{_both(before, now, place)}")
    detail = before["missing"] or f"{len(before['claims'])} claims, largest relative difference {worst:.1e}{place}"
    return Check(where, "numbers", True, detail)


def largest_difference(before: Any, now: Any, place: str = "") -> tuple[float, str]:
    """Largest relative difference between two pieces of JSON; shape has to be equal, and text but for rounding.

    Returns
    -------
    (float, str)
        Infinite where something other than a number differs; where the largest difference is.
    """
    if all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in (before, now)):
        # A record has null and "inf" for these: a bare NaN would pass every comparison below.
        if not all(abs(side) <= sys.float_info.max for side in (before, now)):
            return float("inf"), place
        scale = max(abs(before), abs(now))
        return (abs(before - now) / scale if scale > 1e-12 else 0.0), place
    if isinstance(before, Mapping) and isinstance(now, Mapping) and before.keys() == now.keys():
        forged = next((key for key in EXACT if before.get(key) != now.get(key)), None)
        if forged is not None:
            return float("inf"), f"{place} at {forged}"
        parts = [largest_difference(before[key], now[key], f"{place} at {key}") for key in before]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        parts = [largest_difference(a, b, f"{place}[{k}]") for k, (a, b) in enumerate(zip(before, now))]
    else:
        alike = isinstance(before, str) and isinstance(now, str) and same_sentence(before, now)
        same = before == now and isinstance(before, bool) == isinstance(now, bool)  # True is 1 to Python
        return (0.0 if same or alike else float("inf")), place
    return max(parts, default=(0.0, ""), key=lambda part: part[0])


def same_sentence(before: str, now: str) -> bool:
    """Whether two sentences are the same but for numbers that fell to the other side of a half in their last digit."""
    if _NUMBER.sub("#", before) != _NUMBER.sub("#", now):
        return False
    for a, b in zip(_NUMBER.findall(before), _NUMBER.findall(now)):
        if a == b:
            continue
        digits = len(a.strip("%").partition(".")[2])
        same = digits == len(b.strip("%").partition(".")[2]) and a.endswith("%") == b.endswith("%")
        if not same or not (digits or a.endswith("%")):
            return False
        if abs(float(a.strip("%")) - float(b.strip("%"))) > 1.01 * 10.0**-digits:
            return False
    return True


def check_tables(folder: Path, again: Path) -> Iterator[Check]:
    """Every table cell by cell at 1e-9 relative, every record, and no result that the caches do not give."""
    made = outputs_of(again)
    more = sorted(set(outputs_of(folder)) - {*made, CLAIMS})
    yield Check(folder.name, "no other results", not more, f"not from these caches: {first_few(more)}" if more else
                f"{len(made)} files, all of them from these caches")  # fmt: skip
    for name in made:
        if Path(name).suffix in (".csv", ".parquet", ".tex", ".json"):
            found = _same_table(folder / name, again / name) if (folder / name).is_file() else (False, "is missing")
            yield Check(name, "table", *found)


def _same_table(before: Path, now: Path) -> tuple[bool, str]:
    if now.suffix == ".json":
        worst, place = largest_difference(read_json(before), read_json(now))
        return worst <= RELATIVE, f"differs{place}" if worst > RELATIVE else "the same"
    if now.suffix == ".tex":
        same = same_sentence(before.read_text(encoding="utf-8"), now.read_text(encoding="utf-8"))
        return same, "the same" if same else "differs from the table that the cache gives"
    read = pd.read_csv if now.suffix == ".csv" else pd.read_parquet
    try:
        old, new = read(before), read(now)
    except (ValueError, OSError) as error:
        return False, f"cannot be read: {error}"
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return False, "has other rows or columns than the cache gives"
    worst = 0.0
    for column in new:
        values = [frame[column].to_numpy() for frame in (old, new)]
        if pd.api.types.is_numeric_dtype(new[column]) and pd.api.types.is_numeric_dtype(old[column]):
            a, b = (side.astype(float) for side in values)
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            with np.errstate(invalid="ignore"):
                apart = np.where(same, 0.0, np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), 1e-12))
            apart = np.nan_to_num(apart, nan=np.inf)  # a number on one side alone
            largest = float(apart.max(initial=0.0))
            if largest > RELATIVE:
                return False, f"column {column} differs by {largest:.1e}, row {int(apart.argmax()) + 1}"
            worst = max(worst, largest)
        elif not all(a == b or (pd.isna(a) and pd.isna(b)) for a, b in zip(*values)):
            return False, f"column {column} holds other text"
    return True, f"{new.size} cells, largest relative difference {worst:.1e}"


def check_page(folder: Path, again: Path, versions: Mapping[str, str]) -> Iterator[Check]:
    """The page's words; and, where the versions are those that wrote it, page and figures byte for byte."""
    old, new = (
        (side / PAGE).read_text(encoding="utf-8") if (side / PAGE).is_file() else "" for side in (folder, again)
    )
    said = same_sentence(page_words(old), page_words(new))
    yield Check(PAGE, "words", said, "the same" if said else "says something else than the caches give")
    here = versions_here()
    if dict(versions) != here:
        other = [f"{name} {versions.get(name)}, here {here[name]}" for name in here if versions.get(name) != here[name]]
        yield Check(folder.name, "figures", True, f"bytes not compared, written with {'; '.join(other) or 'others'}")
        return
    names = [name for name in outputs_of(again) if Path(name).suffix in (".html", ".svg", ".pdf")]
    wrong = [n for n in names if not (folder / n).is_file() or sha256_of(folder / n) != sha256_of(again / n)]
    detail = f"not what the caches give: {first_few(wrong)}" if wrong else f"{len(names)} files, the same bytes"
    yield Check(folder.name, "page and figures", not wrong, detail)


def page_words(page: str) -> str:
    """What a page says: without its drawings, its style and the versions of the software that made it."""
    text = re.sub(r"<(svg|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    for name in versions_here():
        text = re.sub(rf"\b{re.escape(name)} \d[\w.+-]*", name, text)
    return text


def _both(before: Any, now: Any, place: str) -> str:
    """The two sides at a place such as " at claims[3] at verdict", for a message."""
    for step in re.findall(r" at (\w+)|\[(\d+)\]", place):
        try:
            before, now = (side[step[0] or int(step[1])] for side in (before, now))
        except (KeyError, IndexError, TypeError):
            return ""
    if isinstance(before, (Mapping, list)) or isinstance(now, (Mapping, list)):
        return ": not the same parts"
    return f": {str(before)[:80]!r} is delivered, {str(now)[:80]!r} was found"


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
        places += [folder.parent / entry["name"], folder / entry["name"]]
        path = next((place for place in places if place.exists()), None)
        if path is not None:
            found[label] = path
    return found
