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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analyses._published import Published, judge
from analyses._tables import to_latex
from steerstats.errors import CannotEstimate
from steerstats.figures.theme import save
from steerstats.results import Estimate, format_number

_NUMBERS_ONLY: ContextVar[bool] = ContextVar("steerstats_numbers_only", default=False)


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
    published : float or None
    source : str
        Where the published value is from.
    verdict, reason : str
        As `judge` gives them; empty without a published value.
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
    source: str = ""
    verdict: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.n == 1 and self.n_of.startswith("datasets"):
            # One dataset has no mean over datasets, and a frozen claim is set once, here.
            statement = self.statement
            for words in (" over pairs and datasets", " over inputs and datasets"):
                statement = statement.replace(words, words.removesuffix(" and datasets"))
            object.__setattr__(self, "statement", statement.replace(", mean over datasets", ""))
            object.__setattr__(self, "n_of", self.n_of.replace("datasets", "dataset", 1))
        if np.isnan(self.ci_low) and np.isnan(self.ci_high) and self.interval.startswith(("percentile", "Hartung")):
            why = "too few datasets for an interval" if np.isfinite(self.estimate) else "cannot be estimated here"
            object.__setattr__(self, "interval", why)

    @classmethod
    def of(cls, key: str, statement: str, estimate: Estimate, n_of: str, **more: Any) -> Claim:
        """A claim from an `Estimate`, with its method as the interval's name."""
        shared = {name: getattr(estimate, name) for name in ("estimate", "ci_low", "ci_high", "n", "unit", "level")}
        return cls(key=key, statement=statement, n_of=n_of, **{"interval": estimate.method, **shared, **more})

    @classmethod
    def row(cls, key: str, statement: str, row: Any, n_of: str, **more: Any) -> Claim:
        """A claim from a row of a result's frame (estimate, ci_low, ci_high, n, level where it has them)."""
        found = {name: row[name] for name in ("estimate", "ci_low", "ci_high", "n", "level") if name in row}
        found = {name: int(value) if name == "n" else float(value) for name, value in found.items()}
        return cls(key=key, statement=statement, n_of=n_of, **{**found, **more})

    @classmethod
    def bare(cls, key: str, statement: str, value: float, n: int, n_of: str, why: str, unit: str = "1") -> Claim:
        """A number that has no interval, with the reason in place of one."""
        nan = float("nan")
        rest = {"ci_low": nan, "ci_high": nan, "interval": why, "unit": unit}
        return cls(key=key, statement=statement, estimate=float(value), n=int(n), n_of=n_of, **rest)

    def against(self, published: Published, *facts: Any, limits: Sequence[float] | None = None) -> Claim:
        """The claim beside a published value; `limits` is the interval to judge by where it is not the shown one."""
        low, high = (self.ci_low, self.ci_high) if limits is None else limits
        judged = {"ci_low": float(low), "ci_high": float(high), "n": self.n, "level": self.level}
        ours = Estimate(name=self.key, estimate=self.estimate, method=self.interval, **judged)
        verdict, reason = judge(ours, published, facts)
        return replace(self, published=published.value, source=published.source, verdict=verdict, reason=reason)


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

    def __post_init__(self) -> None:
        for name in ("reading", "bars", "counted", "alt"):
            object.__setattr__(self, name, _singular(getattr(self, name)))
        object.__setattr__(self, "method", _of_all(self.method))
        object.__setattr__(self, "warnings", tuple(map(_singular, self.warnings)))

    @classmethod
    def of(cls, result: Any, **more: Any) -> Finding:
        """A finding with method, assumptions and warnings of the result that it rests on."""
        shared = {name: getattr(result, name) for name in ("method", "assumptions", "warnings")}
        return cls(**{**shared, **more})

    def record(self) -> dict[str, Any]:
        """As JSON has it: NaN is null, infinities are "inf" and "-inf"."""
        return _plain(asdict(self))


@contextmanager
def numbers_only() -> Iterator[None]:
    """Inside this block figures are drawn and not written: a check needs the numbers alone."""
    token = _NUMBERS_ONLY.set(True)
    try:
        yield
    finally:
        _NUMBERS_ONLY.reset(token)


def publish(
    out: str | Path, finding: Finding, figure: Any = None, table: pd.DataFrame | None = None, digits: int = 3
) -> Finding:
    """Write figure, table and record under `out`, and hand the finding on.

    Parameters
    ----------
    out : path
        Directory; made where it is missing.
    finding : Finding
    figure : matplotlib Figure, optional
    table : DataFrame, optional
        Written whole to CSV, and with `digits` digits to LaTeX.
    digits : int
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if figure is not None and not _NUMBERS_ONLY.get():
        save(figure, folder / finding.script)
    if table is not None:
        (folder / f"{finding.script}.csv").write_text(table.to_csv(index=False, lineterminator="\n"), encoding="utf-8")
        table.to_parquet(folder / f"{finding.script}.parquet", index=False)
        latex = to_latex(table, caption=f"{finding.title}. {finding.method}", label=finding.script, digits=digits)
        (folder / f"{finding.script}.tex").write_text(latex, encoding="utf-8")
    text = json.dumps(finding.record(), indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True)
    (folder / f"{finding.script}.json").write_text(text + "\n", encoding="utf-8")
    return finding


def short(claim: Claim) -> str:
    """Number and interval as they stand in a figure: "0.89 [0.78, 0.95]"."""
    limits = f" [{claim.ci_low:.2f}, {claim.ci_high:.2f}]" if np.isfinite(claim.ci_low) else ", no interval"
    return f"{claim.estimate:.2f}{limits}"


def describe(claim: Claim) -> str:
    """A claim as one line of text for a terminal."""
    limits = f" [{format_number(claim.ci_low)}, {format_number(claim.ci_high)}]" if claim.ci_low == claim.ci_low else ""
    unit = "" if claim.unit in ("1", "share") else f" {claim.unit}"
    published = f"; published {claim.published:g}: {claim.verdict}" if claim.published is not None else ""
    return f"{claim.statement} {format_number(claim.estimate)}{limits}{unit} (n = {claim.n} {claim.n_of}{published})"


def command_line(main: Callable[..., Finding], description: str | None) -> None:
    """`python analyses/NAME.py CACHE [OTHER ...] -o OUT`: run one script by itself."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("cache", nargs="+", help="a cache, directory or packed; scripts that compare take several")
    parser.add_argument("-o", "--out", default="claims", help="directory for figure, table and record (claims)")
    arguments = parser.parse_args()
    try:
        finding = main(arguments.cache[0] if len(arguments.cache) == 1 else arguments.cache, arguments.out)
    except CannotEstimate as error:
        parser.exit(3, f"{error}\n")
    print(f"{finding.title}\n")
    for claim in finding.claims:
        print(f"- {describe(claim)}")
    print(f"\n{Path(arguments.out) / finding.script}.svg, .pdf, .csv, .tex, .json")


def _singular(text: str) -> str:
    return re.sub(r"\b1 datasets\b", "1 dataset", text)


def _of_all(text: str) -> str:
    """A method's words as they hold for every dataset: estimators name the size of the one that they saw."""
    text = re.sub(r"(\bover|\bof|,) \d+ (inputs|questions)\b", r"\1 each dataset's \2", text)
    return _singular(text)


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
