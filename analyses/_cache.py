"""What scripts ask of a cache: opened once, checked for what a claim needs, and described for verdicts and captions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from inspect import signature
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyses._claim import NotInCache
from steerstats import open_cache
from steerstats.errors import CannotEstimate, InputError, first_few, how_many
from steerstats.figures.theme import nice_shift
from steerstats.generalization import PAPER_SHIFTS, SteerabilityTable, shift_name
from steerstats.protocol import UNNAMED, protocol_of
from steerstats.resampling.questions import logit_limits, question_means
from steerstats.resampling.ranks import ONE_DATASET, TWO_DATASETS
from steerstats.results import Estimate
from steerstats.spurious.coding import UNDEFINED
from steerstats.steerability import mean_slope
from steerstats.study import Study
from steerstats.study.results import SpuriousTable
from steerstats.study.study import DEFAULT_FACTORS

Cache = Study | str | Path
# One seed for all estimators, so that a number is the same wherever it stands; the command line sets another.
_SEED: ContextVar[int] = ContextVar("steerstats_seed", default=0)


def current_seed() -> int:
    """Seed of every resampling in this run."""
    return _SEED.get()


@contextmanager
def using_seed(seed: int) -> Iterator[None]:
    """Run scripts inside this block with another seed."""
    token = _SEED.set(int(seed))
    try:
        yield
    finally:
        _SEED.reset(token)


def study_of(cache: Cache | Sequence[Cache]) -> Study:
    """One cache as a study; the first where several are given."""
    if isinstance(cache, (list, tuple)):
        cache = cache[0]
    return cache if isinstance(cache, Study) else _opened(Path(cache))


def studies_of(cache: Cache | Sequence[Cache]) -> list[Study]:
    """All caches given, as studies."""
    return [study_of(one) for one in (cache if isinstance(cache, (list, tuple)) else [cache])]


def several_studies(cache: Cache | Sequence[Cache], what: str) -> list[Study]:
    """The caches that a comparison takes, two or more, or the reason why there is none."""
    found = studies_of(cache)
    if len(found) < 2:
        raise NotInCache(f"{what}; give it as a second cache")
    if not any(set(one.datasets) & set(other.datasets) for one, other in combinations(found, 2)):
        who = "the two caches share no dataset" if len(found) == 2 else "no two of the caches share a dataset"
        raise CannotEstimate(who)
    return found


def two_studies(cache: Cache | Sequence[Cache], what: str) -> tuple[Study, Study]:
    """The two caches that a comparison of no more takes, or the reason why there is none."""
    found = several_studies(cache, what)
    if len(found) > 2:
        raise InputError(f"{len(found)} caches are given, and two are compared here; give them two by two")
    return found[0], found[1]


def same_model(one: Study, other: Study) -> bool:
    """Whether two caches are of one and the same model, however they were made.

    The hash of the weights decides where both caches have it, since a name may stand for several revisions and a
    folder be written anew. Tables that do not name their model say nothing of this.
    """
    facts = [(study.reader.manifest.get("facts") or {}).get("model") for study in (one, other)]
    for name in ("weights", "revision"):
        first, second = (each.get(name) if isinstance(each, Mapping) else None for each in facts)
        if first and second:
            return first == second
    return one.model == other.model != UNNAMED


def check_distinct(caches: Iterable[str | Path]) -> None:
    """Raise `InputError` where one cache is given twice, by the same path or as a copy, or a sweep beside others.

    A cache beside itself differs in nothing and agrees with itself perfectly, which would read as a finding. A sweep
    has one vector for each layer, of which no comparison would know which to take.
    """
    caches, seen = list(caches), {}
    for path in caches:
        study = study_of(path)
        if len(caches) > 1 and study.kind == "sweep":
            raise InputError(f"{path} is a sweep over layers, which has a report of its own: give it alone")
        reader = study.reader
        content = [(name, reader[name].sidecar.get("content_sha256")) for name in sorted(reader.units)]
        keys = [Path(path).resolve()]
        if all(sha for _, sha in content):
            keys.append((reader.spec_hash, *content))
        for key in keys:
            if key in seen:
                twice = f"{path} is given twice" if key == keys[0] else f"{seen[key]} and {path} are the same cache"
                raise InputError(f"{twice}; give each cache once")
        seen.update(dict.fromkeys(keys, path))


def label_caches(caches: Sequence[str | Path]) -> dict[str, str]:
    """A short distinct name for every cache -> its path as given."""
    labels: dict[str, str] = {}
    for path in map(Path, caches):
        stem = path.stem if path.is_file() else path.name
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem or path.resolve().name).strip("-.") or "cache"
        name, count = stem, 2
        while name in labels:
            name, count = f"{stem}-{count}", count + 1
        labels[name] = str(path)
    return labels


@lru_cache(maxsize=8)
def _opened(path: Path) -> Study:
    return open_cache(path)


_ANSWERS: dict[tuple[int, str, str], tuple[tuple[Any, ...], Any]] = {}


def ask(study: Study, question: str, **options: Any) -> Any:
    """`getattr(study, question)(**options)` under the current seed, answered once per study and process."""
    method = getattr(study, question)
    if "seed" in signature(method).parameters:
        options.setdefault("seed", current_seed())
    # Two studies of one model read alike: what they are is their identity, never their repr.
    told = {name: f"study {id(value)}" if isinstance(value, Study) else repr(value) for name, value in options.items()}
    key = (id(study), question, repr(sorted(told.items())))
    if key not in _ANSWERS:
        # Studies are kept beside the answer, so that an id cannot pass to another one.
        _ANSWERS[key] = ((study, *options.values()), method(**options))
    return _ANSWERS[key][1]


def letter_and_word(study: Study) -> SpuriousTable:
    """What A/B and Yes/No do to slopes, or what a table that knows neither has to add."""
    columns = [column for unit in study.units.values() for column in unit.factors(DEFAULT_FACTORS).values()]
    if study.kind == "import" and not columns:
        raise lacking(study, "", ", ".join(DEFAULT_FACTORS))
    if columns and not any(np.isfinite(column).any() for column in columns):
        raise CannotEstimate(UNDEFINED[DEFAULT_FACTORS])
    return ask(study, "spurious_factors")


def need_shifts(study: Study, *, ranked: bool = False) -> tuple[tuple[str, str], ...]:
    """Those of the paper's four shifts that every dataset has, or the reason why there is none.

    `ranked`: also the reason why datasets have no ranking under them, where they are too few.
    """
    found = tuple(shift for shift in PAPER_SHIFTS if all(unit.has(shift) for unit in study.units.values()))
    if not found:
        absent = dict.fromkeys(name for shift in PAPER_SHIFTS for name in shift if name not in study.settings)
        if absent:
            raise lacking(study, ", ".join(absent))
        if study.kind == "import":
            raise lacking(study, f"any of {', '.join(map(shift_name, PAPER_SHIFTS))} in every dataset")
        raise NotInCache("built without the paper's shifts; its vectors were evaluated in their own setting only")
    if ranked:
        need_datasets(study)
    return found


def need_datasets(study: Study) -> None:
    """Raise `CannotEstimate` where no correlation over datasets says anything, for a script that is of nothing else."""
    if (n := len(study.datasets)) < 3:
        raise CannotEstimate(ONE_DATASET if n == 1 else TWO_DATASETS)


def absent_shifts(study: Study) -> dict[tuple[str, str], str]:
    """Those of the paper's four shifts that this cache does not have for every dataset, each with the reason."""
    found = {}
    for shift in PAPER_SHIFTS:
        lack = [name for name, unit in study.units.items() if not unit.has(shift)]
        names = [name for name in dict.fromkeys(shift) if name not in {*study.settings, *study.vectors}]
        trained = [f"vectors of {shift[0]}"] if shift[0] not in study.vectors else []
        what = ", ".join(names or trained) or f"{shift_name(shift)} in {first_few(lack, 3)}"
        if lack:
            found[shift] = str(lacking(study, what))
    return found


def absences(study: Study) -> tuple[str, ...]:
    """The same as lines for a caption: the shift, and why it is not there."""
    return tuple(f"{nice_shift(*shift)}: {why}" for shift, why in absent_shifts(study).items())


def need_controls(study: Study, *kinds: str, of: Callable[[Iterable[bool]], bool] = all) -> None:
    """Raise `NotInCache` unless all datasets (or `any`) have control vectors of one of these kinds, in distribution."""
    if not any(of(unit.has(("base", "base"), kind) for unit in study.units.values()) for kind in kinds):
        asked = kinds == ("debiased",) and (study.spec.get("controls") or {}).get("debiased")
        if asked and not any("debiased" in unit.unit.read("vector_kind") for unit in study.units.values()):
            raise NotInCache("debiased vectors, as no training pairs define A/B or Yes/No, or vectors are nothing else")
        raise lacking(study, f"{' or '.join(kinds)} vectors")


def vectors_of_kind(study: Study, kind: str) -> list[str]:
    """Names of main vectors that are of one kind ("trained", "mean", "imported") in every dataset that has them."""
    kinds: dict[str, set[str]] = {}
    for unit in study.units.values():
        for setting, own in zip(unit.vectors, unit.unit.read("vector_kind", vector=list(unit.vectors.values()))):
            kinds.setdefault(setting, set()).add(str(own))
    return [setting for setting in study.vectors if kinds[setting] == {kind}]


def need_array(study: Study, name: str, what: str) -> None:
    """Raise `NotInCache` unless every unit holds an array."""
    if not all(name in unit.unit for unit in study.units.values()):
        if study.kind == "import":
            raise NotInCache(f"a table of propensities does not hold {what}")
        raise lacking(study, what)


def with_several_wrong(study: Study) -> list[str]:
    """The datasets whose questions set the right answer against more than one wrong one."""
    units = {name: unit.unit for name, unit in study.units.items()}
    return [
        name
        for name, unit in units.items()
        if "input_negative_2" in unit or ("answer" in unit and len(unit.read("answer")) > 2)
    ]


def facts_of(study: Study) -> dict[str, Any]:
    """What decides whether a number can be held against a published one; None where the cache does not say."""
    steered = {layer for unit in study.units.values() for layer in unit.steered_layers}
    layer = sorted(steered) if len(steered) > 1 else steered.pop() if steered else study.spec.get("layer")
    return {"model": study.model, **protocol_of(study), "layer": layer, "datasets": sorted(study.datasets)}


def plain_mean(
    values: Sequence[float], name: str, unit: str = "1", bounds: tuple[float, float] | None = None
) -> Estimate:
    """Plain mean over datasets, every dataset counting alike, with a t interval from their spread.

    Parameters
    ----------
    values : sequence of float
        One a dataset; those that are not finite are left out.
    name, unit : str
    bounds : (float, float), optional
        Range of the quantity, `(0, 1)` by default where the unit is "share"; `(0, inf)` is a positive one. The
        interval is then made on the scale of log((x − low)/(high − x)) (for a correlation, Fisher's z), or of
        log(x − low), with the delta method at the mean and t(D − 1), so that it cannot leave the range. It is not
        given below three datasets, nor where the mean itself is not inside the range. Values that are skewed between
        datasets make intervals too short (`steerstats.meta.SKEWED`), those on such a scale somewhat less so. Of a
        share that is small but in few of the datasets, nothing shows that these exist where none of them was drawn.
    """
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    if not finite.size:
        where = "the one dataset" if values.size == 1 else f"any of {values.size} datasets"
        raise CannotEstimate(f"{name} is not defined in {where}: it takes two inputs of one")
    found = mean_slope(finite)
    shared = {"name": name, "unit": unit, "assumptions": ("datasets are independent",)}
    mean, n = found.estimate, found.n
    low, high = bounds or ((0.0, 1.0) if unit == "share" else (-np.inf, np.inf))
    if n == 1:
        return replace(found, method="one dataset: no interval over datasets", **shared)
    if np.isinf(low):
        return replace(found, method=f"t({n - 1}) interval over equally weighted datasets", **shared)
    why = "no interval: two datasets are too few for one that stays in its range" if n < 3 else ""
    if not why and not low < mean < high:
        where = f"strictly between {low:g} and {high:g}" if np.isfinite(high) else f"above {low:g}"
        why = f"no interval: the mean is not {where}"
    if why:
        return replace(found, ci_low=np.nan, ci_high=np.nan, method=why, **shared)
    margin = (found.ci_high - found.ci_low) / 2
    if np.isinf(high):
        scale, factor = "log", np.exp(margin / (mean - low))
        limits = low + (mean - low) / factor, low + (mean - low) * factor
    else:
        scale = "Fisher z" if (low, high) == (-1.0, 1.0) else "logit"
        limits = logit_limits(mean, margin, (low, high))
    method = f"t({n - 1}) interval over equally weighted datasets, on the {scale} scale (delta method)"
    return replace(found, ci_low=float(limits[0]), ci_high=float(limits[1]), method=method, **shared)


def mean_curves(study: Study) -> pd.DataFrame:
    """Mean propensity of every dataset at every multiplier, base -> base.

    Returns
    -------
    DataFrame
        dataset, multiplier, estimate, ci_low, ci_high (t over questions), low, high (10% and 90% quantile over
        inputs), n (questions).
    """
    parts = []
    for name, unit in study.units.items():
        curves = unit.propensity[unit.place(("base", "base"))]
        found = question_means(curves.T, unit.question, 0.95)
        low, high = np.quantile(curves, [0.1, 0.9], axis=0)
        columns = {"multiplier": unit.multipliers, "estimate": found.mean, "ci_low": found.ci_low}
        columns |= {"ci_high": found.ci_high, "low": low, "high": high, "n": found.n}
        parts.append(pd.DataFrame({"dataset": name, **columns}))
    return pd.concat(parts, ignore_index=True)


def side_by_side(
    first: SteerabilityTable, x: tuple[str, str], second: SteerabilityTable, y: tuple[str, str]
) -> pd.DataFrame:
    """Mean steerability of each dataset in two cells, as `figures.agreement` takes it: x, x_low, x_high, y, ..."""
    parts = []
    for table, (train, evaluate), side in ((first, x, "x"), (second, y, "y")):
        rows = table.to_frame().set_index(["train", "evaluate", "dataset"]).sort_index().loc[(train, evaluate)]
        names = {"mean": side, "ci_low": f"{side}_low", "ci_high": f"{side}_high"}
        parts.append(rows[list(names)].rename(columns=names))
    return pd.concat(parts, axis=1, join="inner").reset_index()


def order_by_median(study: Study) -> list[str]:
    """Datasets in the order of figure 1: highest median steerability first."""
    return list(ask(study, "steerability").results)


def by_median(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Rows of a frame in the order of figure 1."""
    return by_dataset(frame, order_by_median(study))


def datasets_of(count: int, sizes: Iterable[int] | None = None, what: str = "questions") -> str:
    """ "14 datasets", or with the sizes of each "14 datasets, 48 to 60 questions each"."""
    return how_many(count, "dataset") + ("" if sizes is None else f", {between(sizes, what)} each")


def each_of(count: int) -> str:
    """ "each of 14 datasets", or "the one dataset"."""
    return f"each of {count} datasets" if count > 1 else "the one dataset"


def lacking(study: Study, what: str, columns: str = "") -> NotInCache:
    """The error for something that this cache lacks: it was built without, or its table has no such rows or columns."""
    if study.kind != "import":
        return NotInCache(f"built without {what}")
    return NotInCache(f"add columns {columns} to the table" if columns else f"the table has no rows for {what}")


def between(counts: Iterable[int], what: str) -> str:
    """ "60 questions", "1 question", or "48 to 60 questions"."""
    counts = sorted(int(count) for count in counts)
    what = what.removesuffix("s") if counts[-1] == 1 else what
    return f"{counts[0]} {what}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]} {what}"


def questions_each(study: Study, harmonic: int) -> str:
    """ "60 questions each", or the range of the datasets' numbers of questions with their harmonic mean."""
    sizes = [len(set(unit.question)) for unit in study.units.values()]
    mean = f" ({harmonic} in the harmonic mean, by which errors go)" if len(set(sizes)) > 1 else ""
    return f"{between(sizes, 'questions')} each{mean}"


def by_dataset(frame: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Rows of a frame in the order of the datasets given; datasets that are not in it are skipped."""
    rank: Mapping[str, int] = {name: k for k, name in enumerate(order)}
    kept = frame[frame["dataset"].isin(rank)]
    return kept.iloc[kept["dataset"].map(rank).argsort(kind="stable")].reset_index(drop=True)
