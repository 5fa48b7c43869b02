"""Claims and the sentences made of them say what was computed: which error, which interval, which rows, which n."""

from __future__ import annotations

import numpy as np
import pytest

import analyses._shifts as shifts
from analyses._claim import Claim, Finding
from analyses._counts import effect_claims, recommended
from reports.words import summary
from steerstats import mean_over_datasets


def signs(key: str, above: int, below: int, open_: int) -> Claim:
    counts = {"above 0": above, "below 0": below, "open": open_}
    return Claim.counted(key, "Datasets by sign:", counts, "datasets", "counts")


SHARE = Claim.bare("per_input.anti_share", "Share, mean over datasets:", 0.1, 14, "datasets", "none", "share")
INPUTS, REFITS = signs("per_input.signs", 14, 0, 0), signs("per_input.signs_refits", 13, 0, 1)


def told(*claims: Claim) -> dict:
    return summary([Finding(script="per_input_steerability", title="x", claims=claims)])


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ((INPUTS, REFITS), "On average it moves answers the intended way in 13 of 14 datasets, and 10%"),
        (
            (INPUTS, signs("per_input.signs_refits", 1, 0, 1)),
            "On average it moves answers the intended way in 1 of 2 datasets that have refits, and 10%",
        ),
        ((INPUTS,), "On average these very vectors move answers the intended way in 14 of 14 datasets, and 10%"),
        (
            (signs("per_input.signs", 1, 0, 0),),
            "On average this very vector moves answers the intended way in the one dataset, and 10%",
        ),
        (
            (signs("per_input.signs", 1, 0, 0), signs("per_input.signs_refits", 0, 0, 1)),
            "On average it is not shown to move answers the intended way in the one dataset, and 10%",
        ),
    ],
)
def test_the_first_sentence_counts_the_vectors_own_error_or_says_these_very_vectors(claims, sentence):
    assert told(SHARE, *claims)["answer"].startswith(sentence)


DOMINATED = mean_over_datasets([0.15, 0.5, -0.4], np.array([0.01, 0.5, 0.5]) ** 2)
COLLAPSED = mean_over_datasets([0.101, 0.100, 0.099, 0.1, 0.1], np.full(5, 0.1) ** 2)
PLAIN = mean_over_datasets([0.3, 0.1, -0.1, 0.2, 0.4], np.full(5, 0.1) ** 2)


@pytest.mark.parametrize(
    ("fit", "limits", "named", "says"),
    [
        (DOMINATED, ("unweighted_ci_low", "unweighted_ci_high"), "unweighted mean", "read the unweighted mean"),
        (COLLAPSED, ("floored_ci_low", "floored_ci_high"), "random-effects mean", "read the floored one"),
        (PLAIN, ("ci_low", "ci_high"), "random-effects mean", ""),
    ],
)
def test_what_is_quoted_is_the_row_that_the_fits_own_warning_says_to_read(fit, limits, named, says):
    assert any(says in text for text in fit.warnings) if says else not fit.warnings
    low, high = (getattr(fit, name) for name in limits)
    told = recommended(fit)
    assert (told.low, told.high, told.name) == (low, high, named)
    assert (told.interval is None) == (says == "")
    signed = effect_claims("pos_is_a", "A rather than B", fit, 1e-6, "plain")[-1]
    assert (signed.ci_low, signed.ci_high) == (low, high)
    assert ("p < 0.001" in signed.statement) == (says == ""), "the plain p belongs to the plain interval"


def test_the_gap_that_heads_the_report_is_that_row_too(monkeypatch):
    class Table:
        shifts = ("base->user_neg",)

        def to_frame(self):
            return None

    class Overall:
        component, shift, analyses = ("gap",), ("base->user_neg",), (DOMINATED,)

    class Study:
        datasets, category = ("a", "b", "c"), None

    monkeypatch.setattr(shifts, "overall_gap", lambda *_, **__: Overall)
    monkeypatch.setattr(shifts, "absent_claims", lambda *_: [])
    (gap,) = shifts.gap_claims(Study, Table())
    assert DOMINATED.ci_low > 0 > DOMINATED.unweighted_ci_low
    assert "unweighted mean over datasets" in gap.statement
    assert (gap.ci_low, gap.ci_high) == (DOMINATED.unweighted_ci_low, DOMINATED.unweighted_ci_high)
    assert "is not shown to lose anything" in told(SHARE, INPUTS, gap)["answer"]
