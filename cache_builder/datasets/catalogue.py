"""The paper's forty datasets: where each comes from, under which licence, and the bytes it must consist of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from typing import Literal

from cache_builder.datasets.loaders import Format
from steerstats.errors import InputError

Family = Literal["persona", "advanced-ai-risk", "sycophancy", "truthfulqa"]

_EVALS = "https://raw.githubusercontent.com/anthropics/evals/84fcc677e52e1902d696c32cd1a6b663e70d3993/"
_CAA = "https://raw.githubusercontent.com/dtch1997/repepo/68f650aa76275039903fde10c299f0b01fa5045f/raw_datasets/caa/"
_PEREZ = (
    "Perez et al. 2022, Discovering Language Model Behaviors with Model-Written Evaluations; "
    "anthropics/evals, CC BY 4.0"
)
_RIMSKY = "Rimsky et al. 2024, Steering Llama 2 via Contrastive Activation Addition; MIT"
_LIN = "Lin, Hilton and Evans 2022, TruthfulQA; sylinrl/TruthfulQA, Apache 2.0"
_FAMILIES: dict[str, tuple[Family, Format, str]] = {
    "anthropics-evals/persona/": ("persona", "mwe", _PEREZ),
    "anthropics-evals/advanced-ai-risk/": ("advanced-ai-risk", "mwe", _PEREZ),
    "caa/": ("sycophancy", "caa", _RIMSKY),
    "truthfulqa/": ("truthfulqa", "truthfulqa", _LIN),
}
"""First folders of a source's path: family, format, attribution."""


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset's origin.

    Parameters
    ----------
    name : str
        Name in the paper.
    file : str
        Path below the data directory.
    family : str
        persona, advanced-ai-risk, sycophancy or truthfulqa.
    form : str
        Reader, see `loaders`.
    url : str or None
        Where it is fetched; None where only a local file is accepted.
    sha256 : str or None
        What the fetched bytes must hash to; None where no official hash has been seen.
    attribution : str
        Whom to cite, and the licence.
    """

    name: str
    file: str
    family: Family
    form: Format
    url: str | None
    sha256: str | None
    attribution: str


def paper_datasets() -> tuple[str, ...]:
    """The forty names, in the paper's order."""
    return tuple(_sources())


def find_source(name: str) -> Source:
    """The source of a named dataset.

    Raises
    ------
    InputError
        With the nearest names, if there is none such.
    """
    table = _sources()
    if name not in table:
        near = get_close_matches(name, table, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`cache_builder.datasets.paper_datasets()` names them."
        hint += f" The demo's are bundled:demo/{name}." * _of_the_demo(name)
        raise InputError(f"dataset {name!r} is not known; {hint} Files of your own go under custom_datasets")
    return table[name]


def _of_the_demo(name: str) -> bool:
    return resources.files("cache_builder").joinpath("demo", "data", f"{name}.jsonl").is_file()


def _sources() -> dict[str, Source]:
    text = resources.files("cache_builder.datasets").joinpath("sources.json").read_text("utf-8")
    return {name: _source(name, entry["file"], entry.get("sha256")) for name, entry in json.loads(text).items()}


def _source(name: str, file: str, sha256: str | None) -> Source:
    prefix = next(prefix for prefix in _FAMILIES if file.startswith(prefix))
    family, form, attribution = _FAMILIES[prefix]
    url = None
    if file.startswith("anthropics-evals/"):
        url = _EVALS + file.removeprefix("anthropics-evals/")
    elif family == "sycophancy":
        url = _CAA + file.removeprefix("caa/")
    return Source(name, file, family, form, url, sha256, attribution)
