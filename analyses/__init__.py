"""One short script for each claim: `main(cache, out)` writes a figure, a table and a claim record. README.md maps them.

Here is only the order in which a report tells them. Scripts never import each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyses._claim import Finding


@dataclass(frozen=True)
class Section:
    """A chapter of the report: its anchor, title, a sentence on what it answers, and its scripts in order."""

    id: str
    title: str
    lead: str
    scripts: tuple[str, ...]


SECTIONS: tuple[Section, ...] = (
    Section(
        "variability",
        "How variable is steering?",
        "Steerability is the slope of an input's propensity on the multiplier: how far one unit of the vector moves "
        "the answer. A good mean can hide inputs that do not move, or move the wrong way.",
        (
            "per_input_steerability",
            "own_vectors",
            "propensity_curves",
            "linearity",
            "multiplier_range",
            "answer_mass",
        ),
    ),
    Section(
        "chance",
        "Is it more than chance?",
        "Would a vector that knows nothing of the behaviour do the same? Would another draw of training pairs give "
        "another vector?",
        ("null_vectors", "vector_sampling_error"),
    ),
    Section(
        "spurious",
        "How much of it is spurious?",
        "Some of what looks like steering of a behaviour is a pull towards the letter A or B, or towards the words Yes "
        "or No, no matter which of them stands for the behaviour in that question.",
        ("positive_option", "variance_explained", "spurious_effects", "own_factors", "debiased_vectors"),
    ),
    Section(
        "transfer",
        "How well does it transfer?",
        "The vector was made under one prompt. Here it is used under others: a system or user message that describes "
        "the behaviour or its opposite.",
        (
            "id_vs_ood",
            "gap_parts",
            "propensity_difference",
            "variance_id_ood",
            "vector_cosines",
        ),
    ),
    Section(
        "models",
        "Across models and caches",
        "The same datasets in another cache: another model, another layer, another vector, or a before and an after.",
        ("cross_model", "comparison", "split_leakage", "layer_sweep"),
    ),
    Section(
        "reach",
        "What could be predicted and detected",
        "Could steerability have been predicted from the training data, and could a study of this size have detected "
        "what this one did not find?",
        ("predictors", "power"),
    ),
)

SCRIPTS: tuple[str, ...] = tuple(name for section in SECTIONS for name in section.scripts)
COMPARING: tuple[str, ...] = ("cross_model", "comparison", "split_leakage")  # take two caches or more
ALL_AT_ONCE: tuple[str, ...] = ("comparison",)  # takes as many as there are, for one family of bands


def run(script: str, cache: Any, out: str | Path, seed: int = 0) -> Finding:
    """Run one script; what a cache does not allow comes back as a finding that says so, and is written as one.

    Parameters
    ----------
    script : str
        One of `SCRIPTS`.
    cache : path, Study, or a list of them
        A list for scripts that compare.
    out : path
        Directory for figure, table and record.
    seed : int
        Of every resampling.

    Raises
    ------
    SteerstatsError
        Where the cache itself is damaged; that is no finding.
    """
    from analyses._cache import study_of, using_seed
    from analyses._claim import Finding, NotInCache, publish
    from steerstats.errors import Absent, CannotEstimate, InputError

    module = import_module(f"analyses.{script}")
    try:
        if script != "layer_sweep" and study_of(cache).kind == "sweep":
            raise Absent("not in this cache: a sweep over layers; build a grid at one of them")
        with using_seed(seed):
            return module.main(cache, out)
    except (CannotEstimate, InputError) as error:
        # Paths and seed were checked before; an estimator that refuses these data is an answer, not a crash.
        absent, reason = isinstance(error, NotInCache), str(error)
    except Absent as error:
        absent, reason = True, error.reason
    reason = reason if absent else f"cannot be estimated here: {reason}"
    return publish(out, Finding(script=script, title=module.TITLE, paper=module.PAPER, missing=reason))
