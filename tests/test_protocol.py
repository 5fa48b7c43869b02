"""Caches that were made in different ways are said to be, wherever their slopes are held against each other."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from reporting import TRUTH, hostile_cache, plain_cache, write_cache

import analyses
import steerstats
from reports.operators import glossary
from steerstats.protocol import NAMES, differences, protocol_of


def a_study(multipliers=(-1.0, 0.0, 1.0), score="logit_diff", operator="add", vectors=None, **spec):
    unit = SimpleNamespace(
        multipliers=np.array(multipliers), unit=SimpleNamespace(attrs={"score": score}), operator=operator
    )
    values = {"scope": "last_prompt", "split": "content", "order": "tan2024", **spec}
    made = {"method": "pca", "read": "answer", "rescale": "base", **(vectors or {})}
    return SimpleNamespace(
        spec=values | {"vectors": made}, datasets=("one",), operators=(operator,), unit=lambda name: unit
    )


def test_caches_that_were_made_alike_are_not_remarked_on():
    assert differences({"a": a_study(), "b": a_study(), "c": a_study()}) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scope": "first_answer"}, "scope (a: last_prompt; b: first_answer)"),
        ({"split": "tan2024-literal"}, "split (a: content; b: tan2024-literal)"),
        ({"order": "balanced"}, "order of the options (a: tan2024; b: balanced)"),
        ({"score": "logprob_sum"}, "score (a: logit_diff; b: logprob_sum)"),
        ({"operator": "ablate"}, "operator (a: add; b: ablate)"),
        ({"vectors": {"method": "logistic"}}, "vectors' method (a: pca; b: logistic)"),
        ({"vectors": {"read": "last_token"}}, "token that vectors are read at (a: answer; b: last_token)"),
        ({"vectors": {"rescale": "unit"}}, "vectors' length (a: base; b: unit)"),
        ({"multipliers": (0.0, 2.0)}, "multipliers (a: -1, 0, 1; b: 0, 2)"),
    ],
)
def test_each_condition_is_named_with_both_sides(change, said):
    (text,) = differences({"a": a_study(), "b": a_study(**change)})
    assert text.endswith(f"between them: {said}")


def test_what_one_side_does_not_record_is_no_difference():
    silent = a_study()
    silent.spec = {}
    assert differences({"a": a_study(), "b": silent}) == ()
    assert protocol_of(silent)["scope"] is None
    assert set(protocol_of(silent)) == set(NAMES)


def test_comparisons_of_caches_with_other_multipliers_say_so(tmp_path):
    other = write_cache(tmp_path / "other", replace(TRUTH, multipliers=(-1.0, 0.0, 1.0)))
    finding = analyses.run("comparison", [hostile_cache(), other], tmp_path / "out")
    said = "multipliers (hostile: -1.5, -1, -0.5, 0, 0.5, 1, 1.5; other: -1, 0, 1)"
    assert sum(said in text for text in finding.warnings) == 1
    one, two = (steerstats.open_cache(path) for path in (hostile_cache(), other))
    table = one.cross_model(two, n_resamples=200)
    assert sum("multipliers" in text for text in table.warnings) == 1
    alike = analyses.run("comparison", [hostile_cache(), plain_cache()], tmp_path / "alike")
    assert not any("multipliers" in text for text in alike.warnings)


@pytest.mark.parametrize(
    ("scores", "odds", "none"),
    [
        (["logit_diff"], True, False),
        (["logprob_sum", "logit_diff"], True, False),
        (["logit_sum"], False, True),
        (["imported"], False, True),
        (["logit_diff", "logit_sum"], True, True),
    ],
)
def test_the_glossary_speaks_of_odds_where_scores_are(scores, odds, none):
    meaning = dict(glossary([a_study(score=score) for score in scores]))["nat"]
    assert ("multiplies the odds between the two answers" in meaning) == odds
    assert ("need not be the logarithm of odds" in meaning) == none
