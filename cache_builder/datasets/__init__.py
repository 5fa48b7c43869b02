"""Sources to contrast pairs: loaders, option order, nuisance factors, splits.

    dataset = load_dataset("openness", data_dir="data")
    parts = split_pairs(dataset.pairs)

`load_dataset` is the door; the rooms behind it are `catalogue` (the paper's forty), `fetch` (their bytes),
`loaders` (formats), `order` (which option is A), `split`, and `pairs` (what a contrast pair is).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cache_builder.datasets.catalogue import Source, find_source, paper_datasets
from cache_builder.datasets.fetch import read_source
from cache_builder.datasets.loaders import SourceItem, read_items
from cache_builder.datasets.order import Order, make_pairs
from cache_builder.datasets.pairs import ContrastPair
from cache_builder.datasets.split import Split, split_pairs
from steerstats.errors import InputError

__all__ = [
    "ContrastPair",
    "Dataset",
    "Order",
    "Source",
    "Split",
    "bundled_datasets",
    "find_source",
    "load_dataset",
    "make_pairs",
    "paper_datasets",
    "read_items",
    "split_pairs",
]

_BUNDLED = "bundled:"


@dataclass(frozen=True, slots=True)
class Dataset:
    """The contrast pairs of one dataset, and what has to be known about their origin.

    Parameters
    ----------
    name : str
    pairs : tuple of ContrastPair
    order : str
        Option order that the pairs were made with.
    file, sha256 : str
        Source file (name, no directory) and the hash of its bytes.
    records : int
        Records in the source file.
    duplicates_exact, duplicates : int
        Records that repeat an earlier one exactly; the same, up to option order, case and punctuation.
    refused : int
        Records left out because their options cannot be swapped.
    attribution : str
        Whom to cite.
    notes : tuple of str
        Whatever else a reader of the cache should hear.
    """

    name: str
    pairs: tuple[ContrastPair, ...]
    order: str
    file: str
    sha256: str
    records: int
    duplicates_exact: int
    duplicates: int
    refused: int
    attribution: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def describe(self) -> dict[str, object]:
        """Everything but the pairs, for provenance."""
        keys = (
            "name", "order", "file", "sha256", "records", "duplicates_exact", "duplicates", "refused",
            "attribution", "notes",
        )  # fmt: skip
        return {key: getattr(self, key) for key in keys} | {"pairs": len(self.pairs), "notes": list(self.notes)}


def load_dataset(
    name: str,
    *,
    path: str | Path | None = None,
    order: Order = "tan2024",
    seed: int = 0,
    data_dir: str | Path | None = None,
) -> Dataset:
    """Load one dataset.

    Parameters
    ----------
    name : str
        One of the paper's forty, `bundled:demo/NAME` for one of the demo's, or any name with `path`.
    path : path, optional
        A file of one's own, in any of the formats of `loaders`; may itself be `bundled:demo/data/X.jsonl`.
    order : {"tan2024", "balanced", "counterbalance"}
        See `order.make_pairs`.
    seed : int
        For `balanced`.
    data_dir : path, optional
        Directory of public sources; what it lacks is fetched by URL.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        One line: unknown name, missing file, hash mismatch, or a malformed line with its place.
    """
    attribution, note, form = "", "", None
    if path is not None:
        data, file = _read(str(path)), Path(str(path)).name
    elif name.startswith(_BUNDLED):
        demo, _, stem = name.removeprefix(_BUNDLED).partition("/")
        file = f"{stem}.jsonl"
        data = _read(f"{_BUNDLED}{demo}/data/{file}")
    else:
        source = find_source(name)
        data, note = read_source(source, data_dir)
        attribution, form, file = source.attribution, source.form, source.file
    items = read_items(data, file, form)
    pairs, refused = make_pairs(items, order, seed)
    if not pairs:
        raise InputError(
            f"dataset {name!r}: no record is left, all {refused} name choices outside their final block, or more "
            'than two; order = "tan2024" asks them as they stand'
        )
    notes = [note] if note else []
    if refused:
        notes.append(
            f"{refused} records name choices outside their final block, or more than two, and were left out "
            f"({order} order)"
        )
    fixed = sum(pair.pos_is_a is not None and items[pair.row].layout == "free" for pair in pairs)
    if fixed and order != "tan2024":
        notes.append(
            f"{fixed} records answer A or B and do not end in choices written (A) and (B): they are asked as they "
            f"stand, in one order only ({order} order)"
        )
    blank = sum(not (item.option_positive.strip() and item.option_negative.strip()) for item in items)
    if blank:
        notes.append(f"{blank} records have an empty option")
    nul = sum(any("\0" in part for part in item.content) for item in items)
    if nul:
        notes.append(f"{nul} records hold NUL characters, which cannot be stored: they are asked with U+FFFD instead")
    exact, loose = count_duplicates(items)
    return Dataset(
        name=name.rpartition("/")[2] if name.startswith(_BUNDLED) else name,
        pairs=tuple(pairs),
        order=order,
        file=Path(file).name,
        sha256=hashlib.sha256(data).hexdigest(),
        records=len(items),
        duplicates_exact=exact,
        duplicates=loose,
        refused=refused,
        attribution=attribution,
        notes=tuple(notes),
    )


def bundled_datasets(demo: str = "demo") -> tuple[str, ...]:
    """Names of the datasets that ship with the micro model, as `load_dataset` takes them."""
    folder = resources.files("cache_builder").joinpath(demo, "data")
    if not folder.is_dir():
        raise InputError(f"nothing is bundled as {demo!r}")
    stems = sorted(entry.name.removesuffix(".jsonl") for entry in folder.iterdir() if entry.name.endswith(".jsonl"))
    return tuple(f"{_BUNDLED}{demo}/{stem}" for stem in stems)


def count_duplicates(items: Sequence[SourceItem]) -> tuple[int, int]:
    """Records that repeat an earlier one: exactly, and up to option order, case and punctuation."""
    exact = Counter(item.content for item in items)
    loose = Counter(item.question for item in items)
    return len(items) - len(exact), len(items) - len(loose)


def _read(path: str) -> bytes:
    try:
        if path.startswith(_BUNDLED):
            return resources.files("cache_builder").joinpath(*path.removeprefix(_BUNDLED).split("/")).read_bytes()
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
