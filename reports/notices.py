"""What a reader has to know of a cache first: what it is, what it lacks, and what its numbers cannot mean."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from analyses._cache import with_several_wrong
from analyses._claim import Finding
from analyses._words import listed, plain_codes
from reports import words
from steerstats.errors import first_few, how_many
from steerstats.generalization import ID_SHIFT
from steerstats.generalization.answer_mass import COLLAPSED_BELOW
from steerstats.operators import ABLATE, has_unsteered, operator_caveats
from steerstats.resampling.ranks import MIN_FOR_INTERVAL
from steerstats.study.notes import flat_curves, grid_doubts, held_twice, one_sided

LONG = 100  # letters of what is not said twice


def notices_of(study: Any, findings: Sequence[Finding] = ()) -> list[str]:
    """Sentences about one cache.

    Parameters
    ----------
    study : Study
    findings : sequence of Finding
        Of this cache.
    """
    found = [f"{text}." for text in operator_caveats(study.operators)]
    if study.kind == "simulated":
        found.append("this cache is simulated: its numbers say nothing about a language model.")
    if study.missing:
        n = len(study.missing)
        found.append(
            f"{how_many(n, 'planned dataset')} {'is' if n == 1 else 'are'} not finished and not in these numbers."
        )
    claims = words.claims_by_key(findings)
    correlated = any(key.startswith(("id_ood.", "predictors.")) and claims[key].n for key in claims)
    if 1 < len(study.datasets) < MIN_FOR_INTERVAL and correlated:
        found.append(f"{len(study.datasets)} datasets are too few for an interval of a correlation over datasets.")
    flat = [] if study.kind == "sweep" else flat_curves(study, [ID_SHIFT])
    doubts = [*held_twice(study), *one_sided(study), *grid_doubts(study), *flat]
    found += [f"{plain_codes(text)}." for text in doubts]
    zero = "even unsteered" if all(map(has_unsteered, study.operators)) else "even at multiplier 0"
    mass = claims.get("mass.unsteered")
    if mass is not None and mass.estimate < COLLAPSED_BELOW:
        answers = "answers" if with_several_wrong(study) else "two answers"
        found.append(
            f"the {answers} hold {mass.shown[0]} of the probability {zero}: the model would answer with "
            "something else, and slopes do not describe what it does."
        )
    elif mass is not None and (lost := mass.facts["lost"]):
        found.append(
            f"in {listed(lost)} the answers hold less than half of the probability {zero}: the model would "
            "answer with something else, and slopes there do not describe what it does."
        )
    low = claims.get("mass.lowest")
    if low is not None and (broken := low.facts["lost"]):
        where = "every dataset" if len(broken) == len(study.datasets) > 1 else first_few(broken)
        found.append(
            f"in {where} steering leaves the answers less than half of the probability at some multipliers: slopes "
            "there do not describe what the model does."
        )
    explained = claims.get("explained.mean")
    if explained is not None and (untold := explained.facts["untold"]):
        where = "here" if explained.facts["untold_everywhere"] else f"in {', '.join(untold)}"
        found.append(
            f"letter (A or B) and word (Yes or No) of the answer cannot be told apart {where}: what is said "
            "of one may be due to the other."
        )
    return found


def by_cache(notices: Mapping[str, Sequence[str]]) -> list[str]:
    """What `notices_of` says of several caches, each sentence once with the names of those that it is about."""
    about: dict[str, list[str]] = {}
    for label, texts in notices.items():
        for text in texts:
            about.setdefault(text, []).append(label)
    return [f"{listed(labels)}: {text}" for text, labels in about.items()]


def notices_between(studies: Mapping[str, Any]) -> list[str]:
    """What to know of caches side by side: whether they are one study twice, and whether their slopes are of one thing.

    Those of one spec are one study, built twice or packed with less.

    Parameters
    ----------
    studies : mapping of str to Study
        Name of a cache in this run -> its study.
    """
    alike: dict[str, list[str]] = {}
    for label, study in studies.items():
        if study.kind not in ("grid", "sweep"):
            continue  # a spec that was built from has all that decides the numbers in its hash
        alike.setdefault(study.reader.spec_hash, []).append(label)
    found = [
        f"{listed(labels)} are caches of one and the same spec: what differs between them is the rounding of two "
        "builds, and their agreement is no finding."
        for labels in alike.values()
        if len(labels) > 1
    ]
    if len({ABLATE in study.operators for study in studies.values()}) > 1:
        found.append(
            f"operators differ ({_each(studies, lambda study: study.operators)}): under ablate a slope is what taking "
            "the direction out does, so that its difference from the slope of an added vector compares unlike things."
        )
    if len({_scores(study) for study in studies.values()}) > 1:
        found.append(
            f"scores differ ({_each(studies, _scores)}): a difference in steerability between these caches is also a "
            "difference of scores."
        )
    return found


def begun(text: str, names: Collection[str]) -> str:
    """A notice with a capital at its start, unless a cache's or a dataset's name stands there."""
    named = any(text.startswith(name) and not text[len(name) :][:1].isalnum() for name in names)
    return text if named else f"{text[:1].upper()}{text[1:]}"


def warned(texts: Sequence[str], names: Collection[str]) -> list[str]:
    """Warnings as sentences; what follows the last colon is said once, where several go on alike."""
    said: set[str] = set()
    found = []
    for text in map(plain_codes, texts):
        head, _, tail = text.rpartition(": ")
        again = tail in said and len(tail) > LONG and tail.count("(") == tail.count(")")
        said.add(tail)
        found.append(f"{begun(f'{head}: see above' if again else text.rstrip('.'), names)}.")
    return found


def _scores(study: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(unit.unit.attrs.get("score")) for unit in study.units.values()))


def _each(studies: Mapping[str, Any], of: Callable[[Any], Sequence[str]]) -> str:
    return "; ".join(f"{label}: {listed(of(study))}" for label, study in studies.items())
