"""What every script in this folder hands in: a finding with its claims, a figure, a table, and one JSON record.

    out/NAME.svg  out/NAME.pdf   the figure
    out/NAME.csv  .parquet  .tex the table (LaTeX with booktabs)
    out/NAME.json                the finding: statements, estimates, intervals, n, method, seed, verdicts

The same cache gives the same bytes: no dates, no host names, fixed seeds.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyses import COMPARING
from analyses._published import Published, judge
from analyses._tables import for_paper, to_latex
from analyses._words import number, tidy, together
from steerstats.errors import CannotEstimate, SteerstatsError
from steerstats.figures.theme import save
from steerstats.meta import NOT_SKEWED, SKEWED
from steerstats.resampling.ranks import MIN_FOR_INTERVAL, TWO_DATASETS
from steerstats.results import Estimate

OF_MEANS = re.compile(r"equally weighted datasets|Hartung.Knapp|t\(D − 1\) over datasets")  # intervals over datasets


class NotInCache(CannotEstimate):
    """The cache was built without something that a claim needs; the message says what."""

    def __init__(self, what: str) -> None:
        super().__init__(f"not in this cache: {what}")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence with its number.

    Parameters
    ----------
    key : str
        Stable name, `script.what`, under which `claims.json` holds it.
    statement : str
        In words, ending where the number goes ("Share of anti-steerable inputs, mean over datasets:").
    estimate, ci_low, ci_high : float
        In `unit`; limits may be NaN (none given) or infinite.
    interval : str
        What the interval is, in words.
    n : int
    n_of : str
        What is counted ("datasets", "inputs").
    unit : str
    level : float
        Of the interval.
    published : float or None
    published_text : str
        The published value as transcribed, digit for digit.
    source : str
        Where the published value is from.
    verdict, reason : str
        As `judge` gives them; empty without a published value.
    counts : dict of str to int
        Where the claim is a division of `n` into kinds, how many each has; shown in place of the estimate, which is
        the first of them.
    facts : dict
        What the statement's words say beside the number ("dataset", "shift", ...), for who writes words of their own.
    """

    key: str
    statement: str
    estimate: float
    ci_low: float
    ci_high: float
    interval: str
    n: int
    n_of: str
    unit: str = "1"  # "share" is shown in per cent
    level: float = 0.95
    published: float | None = None
    published_text: str = ""
    source: str = ""
    verdict: str = ""
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n == 1:
            object.__setattr__(self, "n_of", re.sub(r"^(dataset|question|input)s\b", r"\1", self.n_of))
        named = self.interval.startswith(("percentile", "jackknife", "Hartung"))
        if np.isnan(self.ci_low) and np.isnan(self.ci_high) and named:
            # With more there is another reason, such as a perfect ranking; and none where questions are counted.
            few = self.n < MIN_FOR_INTERVAL and self.n_of.startswith("dataset")
            why = "too few datasets for an interval" if few else "no interval, for the reason in the warnings"
            why = why if np.isfinite(self.estimate) else "cannot be estimated here"
            object.__setattr__(self, "interval", why)

    @classmethod
    def of(cls, key: str, statement: str, estimate: Estimate, n_of: str, **more: Any) -> Claim:
        """A claim from an `Estimate`, with its method as the interval's name."""
        shared = {name: getattr(estimate, name) for name in ("estimate", "ci_low", "ci_high", "n", "unit", "level")}
        return cls(key=key, statement=statement, n_of=n_of, **{"interval": estimate.method, **shared, **more})

    @classmethod
    def over_datasets(cls, key: str, text: str, mean: Estimate, *, over: str = "", end: str = "", **more: Any) -> Claim:
        """A claim on a mean over datasets, or `over` "inputs" of each and datasets; where one has it, it is its own.

        `text` is without its end, `end` what the statement says last.
        """
        means = " and ".join(filter(None, [over, "datasets" * (mean.n != 1)]))
        return cls.of(key, f"{text}{means and f', mean over {means}'}{end}:", mean, "datasets", **more)

    @classmethod
    def ranking(cls, key: str, text: str, row: Any, interval: str, **more: Any) -> Claim:
        """A claim on a rank correlation over datasets, which two of them do not have."""
        claim = cls.row(key, text, row, "datasets", interval=interval, **more)
        nothing = dict.fromkeys(("estimate", "ci_low", "ci_high"), float("nan"))
        return replace(claim, **nothing, interval=TWO_DATASETS) if claim.n == 2 else claim

    @classmethod
    def row(cls, key: str, statement: str, row: Any, n_of: str, **more: Any) -> Claim:
        """A claim from a row of a result's frame (estimate, ci_low, ci_high, n, level where it has them)."""
        found = {name: row[name] for name in ("estimate", "ci_low", "ci_high", "n", "level") if name in row}
        found = {name: int(value) if name == "n" else float(value) for name, value in found.items()}
        return cls(key=key, statement=statement, n_of=n_of, **{**found, **more})

    @classmethod
    def counted(cls, key: str, statement: str, counts: dict[str, int], n_of: str, why: str, **more: Any) -> Claim:
        """How many of `n_of` are of each kind, with the reason why there is no interval."""
        total = sum(counts.values())
        first = float(next(iter(counts.values())))
        return cls.bare(key, statement, first, total, n_of, why, unit=n_of, counts=dict(counts), **more)

    @classmethod
    def bare(cls, key: str, statement: str, value: float, n: int, n_of: str, why: str, **more: Any) -> Claim:
        """A number that has no interval, with the reason in place of one."""
        nan = float("nan")
        rest = {"ci_low": nan, "ci_high": nan, "interval": why, **more}
        return cls(key=key, statement=statement, estimate=float(value), n=int(n), n_of=n_of, **rest)

    def against(
        self,
        published: Published,
        *facts: Any,
        shift: str,
        limits: Sequence[float] | None = None,
        vector_error: bool = False,
    ) -> Claim:
        """The claim beside a published value, ours under `shift`.

        `limits` is the interval to judge by, for these very datasets, where the shown one is for a population of them.
        A verdict by limits that do not hold the vectors' own error (`vector_error`) says so: of a share that differs
        between vectors, those over many inputs come out inconsistent far too often.
        """
        low, high = (self.ci_low, self.ci_high) if limits is None else limits
        judged = {"ci_low": float(low), "ci_high": float(high), "n": self.n, "level": self.level}
        ours = Estimate(name=self.key, estimate=self.estimate, method=self.interval, **judged)
        verdict, reason = judge(ours, published, facts, shift)
        if verdict in ("consistent", "inconsistent") and not vector_error:
            reason += "; for these very vectors, whose own error is not in the interval"
        theirs = {"published": published.value, "published_text": published.text, "source": published.source}
        return replace(self, **theirs, verdict=verdict, reason=reason)

    @classmethod
    def absent(cls, key: str, statement: str, why: str) -> Claim:
        """A claim that a cache does not allow, beside those of the same kind that it does."""
        return cls.bare(key, statement, float("nan"), 0, "datasets", why)

    @classmethod
    def read(cls, record: dict[str, Any]) -> Claim:
        """A claim from its JSON: null is NaN, "inf" an infinite limit."""
        found = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        for name in ("estimate", "ci_low", "ci_high"):
            found[name] = float("nan") if found[name] is None else float(found[name])
        return cls(**found)

    @property
    def shown(self) -> tuple[str, str]:
        """Number and interval as people read them: ("0.180", "[0.140, 0.210]"); no interval is ""."""
        if self.counts:
            return ", ".join(f"{count} {kind}" for kind, count in self.counts.items()), ""
        if np.isnan(self.estimate):
            return self.interval if self.interval.startswith("not in this cache") else "cannot be estimated here", ""
        value, low, high = together([self.estimate, self.ci_low, self.ci_high], self.unit)
        return value, f"[{low}, {high}]" if np.isfinite([self.ci_low, self.ci_high]).any() else ""

    @property
    def shown_unit(self) -> str:
        """The unit where the number does not say it itself."""
        return "" if self.unit in ("1", "share") or self.counts else self.unit

    @property
    def shown_published(self) -> str:
        """The published value as transcribed, with a real minus sign."""
        return self.published_text.replace("-", "−") or ("" if self.published is None else number(self.published))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one script found on one cache.

    Parameters
    ----------
    script, title, paper : str
        Module name; heading; which figure or claim of the paper ("figure 1, 18"), empty where it is ours.
    reading, bars, counted : str
        The caption's parts: how to read the figure, what its bars are, what was counted.
    alt : str
        The figure in words, for those who do not see it.
    claims : tuple of Claim
    method : str
    assumptions, warnings : tuple of str
    seed : int or None
        Seed of the script's generator, None where nothing is drawn.
    missing : str
        Why there is no finding; everything else but the headings is then empty.
    facts : mapping
        Model, layer, ... of the cache.
    numbers : mapping of str to float
        Those that `method` gives in words, as a `Result` has them ("n_resamples", ...).
    absent : tuple of str
        Parts of the finding that the cache does not allow, each with its reason.
    pages : tuple of str
        Heading of each figure where there is more than one: `NAME.svg`, `NAME-2.svg`, ...
    """

    script: str
    title: str
    paper: str = ""
    reading: str = ""
    bars: str = ""
    counted: str = ""
    alt: str = ""
    claims: tuple[Claim, ...] = ()
    method: str = ""
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seed: int | None = None
    missing: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()

    @classmethod
    def of(cls, result: Any, **more: Any) -> Finding:
        """A finding with method, its numbers, assumptions and warnings of the result that it rests on."""
        shared = {name: getattr(result, name) for name in ("method", "assumptions", "warnings")}
        return cls(**{**shared, "numbers": dict(result.numbers), **more})

    def record(self) -> dict[str, Any]:
        """As JSON has it: NaN is null, infinities are "inf" and "-inf"."""
        return _plain(asdict(self))


def publish(out: str | Path, finding: Finding, figure: Any = None, table: pd.DataFrame | None = None) -> Finding:
    """Write figure, table and record under `out`, and hand the finding on.

    One with means over datasets says what their intervals assume beside what its own result does.

    Parameters
    ----------
    out : path
        Directory; made where it is missing.
    finding : Finding
    figure : matplotlib Figure or list of them, optional
    table : DataFrame, optional
        Written whole to CSV, and with the columns that a paper has room for to LaTeX.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    means = [one.interval for one in finding.claims if np.isfinite(one.ci_low) and OF_MEANS.search(one.interval)]
    if means:
        # The rates stand where a page has its mean effects, and not in every section.
        rates = f" ({SKEWED})" if any("equally weighted" not in interval for interval in means) else ""
        said = tuple(dict.fromkeys((*finding.assumptions, f"{NOT_SKEWED}{rates}")))
        finding = replace(finding, assumptions=said)
    if figure is not None:
        for name, one in zip(figure_names(finding), figure if isinstance(figure, list) else [figure], strict=True):
            save(one, folder / name)
    if table is not None:
        (folder / f"{finding.script}.csv").write_text(table.to_csv(index=False, lineterminator="\n"), encoding="utf-8")
        table.to_parquet(folder / f"{finding.script}.parquet", index=False)
        caption = f"{finding.title}. {sentence(tidy(finding.method))}"
        latex = to_latex(for_paper(table, finding.script), caption=caption, label=finding.script)
        (folder / f"{finding.script}.tex").write_text(latex, encoding="utf-8")
    text = json.dumps(finding.record(), indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True)
    (folder / f"{finding.script}.json").write_text(text + "\n", encoding="utf-8")
    return finding


def figure_names(finding: Finding) -> list[str]:
    """File names of a finding's figures, without ending."""
    return [finding.script, *(f"{finding.script}-{k}" for k in range(2, len(finding.pages) + 1))]


def short(claim: Claim) -> str:
    """Number and interval as they stand in a figure: "0.890 [0.780, 0.950]"."""
    value, limits = claim.shown
    return f"{value} {limits}" if limits else value if np.isnan(claim.estimate) else f"{value}, no interval"


def describe(claim: Claim) -> str:
    """A claim as one line of text for a terminal."""
    published = f"; published {claim.shown_published}: {claim.verdict}" if claim.published is not None else ""
    words = " ".join(filter(None, [claim.statement, *claim.shown, claim.shown_unit]))
    return f"{words} (n = {claim.n} {claim.n_of}{published})"


def sentence(text: str) -> str:
    """Text in sentences, each with a capital at its start; what begins with a letter of mathematics stays joined.

    Examples
    --------
    >>> sentence("mean over inputs; t interval, n = 1.5; resampled")
    'Mean over inputs; t interval, n = 1.5. Resampled.'
    """
    done = ""
    # A semicolon between brackets ends no sentence.
    for part in filter(None, map(str.strip, re.split(r";\s+(?![^(]*\))|\.\s+(?=[a-z])", text.strip().rstrip(".")))):
        if re.match(r"\w\b", part):
            done += f"{'; ' if done else ''}{part}"
        else:
            done += f"{'. ' if done else ''}{part[:1].upper()}{part[1:]}"
    return f"{done}." if done else ""


def command_line(main: Callable[..., Finding], description: str | None) -> None:
    """`python analyses/NAME.py CACHE [OTHER ...] -o OUT`: run one script by itself."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("cache", nargs="+", help="a cache, directory or packed; scripts that compare take several")
    parser.add_argument("-o", "--out", default="claims", help="directory for figure, table and record (claims)")
    arguments = parser.parse_args()
    if len(arguments.cache) > 1 and Path(sys.argv[0]).stem not in COMPARING:
        parser.exit(2, f"error: {len(arguments.cache)} caches are given, and this script compares none: give it one\n")
    try:
        finding = main(arguments.cache[0] if len(arguments.cache) == 1 else arguments.cache, arguments.out)
    except CannotEstimate as error:
        parser.exit(3, f"{error}\n")
    except (SteerstatsError, OSError) as error:
        parser.exit(2, f"error: {' '.join(str(error).split())}\n")
    print(f"{finding.title}\n")
    for claim in finding.claims:
        print(f"- {describe(claim)}")
    print(f"\n{Path(arguments.out) / finding.script}.svg, .pdf, .csv, .parquet, .tex, .json")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else ("inf" if value > 0 else "-inf")
    return value
