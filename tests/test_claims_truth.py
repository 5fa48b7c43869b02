"""Claims and the sentences made of them say what was computed: which error, which interval, which rows, which n."""

from __future__ import annotations

import pytest

from analyses._claim import Claim, Finding
from reports.words import summary


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
