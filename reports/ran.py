"""What ran: the findings of a run as the methods section asks them.

Numbers that no cache holds (how many resamples) come with the findings. Which technique ran is told by its name in the
words of a finding's method and intervals, so that the section names none that no other part of the page does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from analyses._claim import Claim, Finding

SIGNS_REFITS = "per_input.signs_refits"  # intervals of means that hold the vectors' own error, where there are refits


class Ran:
    """Findings that are there, by script; asked for words, for claims and for numbers.

    Parameters
    ----------
    findings : iterable of Finding
        Those that are missing are left out.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.by: dict[str, list[Finding]] = {}
        for finding in findings:
            if not finding.missing:
                self.by.setdefault(finding.script, []).append(finding)

    def __contains__(self, script: str) -> bool:
        """Whether a script said anything with a number: one dataset has no correlation over datasets."""
        return bool(script in self.by and self.claims(script))

    def claims(self, *scripts: str) -> list[Claim]:
        """Claims that have a number or a count, of some scripts or of all."""
        found = [claim for one in self._findings(scripts) for claim in one.claims]
        return [claim for claim in found if _has_number(claim)]

    def keys(self, script: str, prefix: str = "") -> list[str]:
        """Keys of a script's claims that start with a prefix, without it, each once."""
        keys = dict.fromkeys(claim.key for claim in self.claims(script))
        return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]

    def bounded(self, script: str, *keys: str) -> bool:
        """Whether any claim of a script, or any of these keys, has an interval."""
        claims = [one for one in self.claims(script) if one.key in keys or not keys]
        return any(np.isfinite([one.ci_low, one.ci_high]).all() for one in claims)

    def says(self, words: str, *scripts: str) -> bool:
        """Whether methods, or what claims say of their intervals, hold these words."""
        return words in self._text(scripts)

    def matches(self, pattern: re.Pattern[str]) -> bool:
        """Whether methods, or what claims say of their intervals, hold what a pattern is of."""
        return bool(pattern.search(self._text(())))

    def number(self, name: str, script: str) -> str:
        """A number of a script's method: "10,000", or "0.2 or 0.25" where caches differ; "" where there is none, or 0,
        since what ran 0 times did not run."""
        having = [one for one in self.by.get(script, ()) if any(map(_has_number, one.claims))]
        found = sorted({float(one.numbers.get(name, 0)) for one in having} - {0.0})
        return " or ".join(f"{number:,g}" if number < 1e6 else f"{number:,.0f}" for number in found)

    def _findings(self, scripts: Iterable[str]) -> list[Finding]:
        return [one for script in tuple(scripts) or self.by for one in self.by.get(script, ())]

    def _text(self, scripts: Iterable[str]) -> str:
        """The words of what has a number: a method that gave none on one cache must not speak for another."""
        words = []
        for one in self._findings(scripts):
            claims = [claim for claim in one.claims if _has_number(claim)]
            words += [one.method, *(claim.interval for claim in claims)] if claims else []
        return (
            " ".join(words)
            .replace("Hartung-Knapp", "Hartung–Knapp")
            .replace("Benjamini-Hochberg", "Benjamini–Hochberg")
        )


def _has_number(claim: Claim) -> bool:
    return bool(claim.counts) or bool(np.isfinite(claim.estimate))
