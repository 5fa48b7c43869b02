"""Claims as the summary of a report takes them, without a cache behind them, and what it tells of them."""

from __future__ import annotations

from analyses._claim import Claim, Finding
from reports.words import summary


def signs(key: str, above: int, below: int, open_: int) -> Claim:
    counts = {"above 0": above, "below 0": below, "undecided": open_}
    return Claim.counted(key, "Datasets by sign:", counts, "datasets", "counts")


SHARE = Claim.bare("per_input.anti_share", "Share, mean over datasets:", 0.1, 14, "datasets", "none", unit="share",
                   facts={"dataset": "d"})  # fmt: skip
INPUTS, REFITS = signs("per_input.signs", 14, 0, 0), signs("per_input.signs_refits", 13, 0, 1)


def told(*claims: Claim) -> dict:
    return summary([Finding(script="per_input_steerability", title="x", claims=claims)])


def interval(key: str, estimate: float, low: float, high: float, **more) -> Claim:
    return Claim(key=key, statement="", estimate=estimate, ci_low=low, ci_high=high, interval="t", n=14,
                 n_of="datasets", **more)  # fmt: skip
