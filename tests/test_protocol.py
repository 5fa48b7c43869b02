"""Caches that were made in different ways are said to be, wherever their slopes are held against each other."""

from __future__ import annotations

import html
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from reporting import TRUTH, hostile_cache, plain_cache, write_cache

import analyses
import steerstats
from reports.operators import glossary
from reports.render import write_page
from steerstats.cache.table import import_table
from steerstats.protocol import NAMES, differences, protocol_of


class Unit:
    """As much of a unit as says how it was made."""

    def __init__(self, multipliers, layer, **attrs):
        self.multipliers, self.steered_layers = np.array(multipliers), (layer,)
        self.attrs, self.unit = attrs, self


def a_study(multipliers=(-1.0, 0.0, 1.0), score="logit_diff", operator="add", vectors=None, model="m", layer=3, **spec):
    grids = multipliers if isinstance(multipliers, dict) else {"one": multipliers}
    units = {name: Unit(grid, layer, score=score, operator=operator) for name, grid in grids.items()}
    prompt = {"system_text": "Be kind.", "leading_space": True}  # of a build before there was a prefill
    values = {"scope": "last_prompt", "split": "content", "order": "tan2024", "prompt": prompt, **spec}
    made = {"method": "pca", "read": "answer", "rescale": "base", **(vectors or {})}
    return SimpleNamespace(
        spec=values | {"vectors": made}, datasets=tuple(units), operators=(operator,), units=units, model=model
    )


def test_caches_that_were_made_alike_are_not_remarked_on():
    assert differences({"a": a_study(), "b": a_study(), "c": a_study()}) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scope": "first_answer"}, "scope (a: last_prompt; b: first_answer)"),
        ({"split": "tan2024-literal"}, "split (a: content; b: tan2024-literal)"),
        ({"order": "balanced"}, "order of the options (a: tan2024; b: balanced)"),
        ({"prompt": {"system_text": "Be kind.", "prefill": "So\n"}}, "beginning of replies (a: none; b: 'So\\n')"),
        ({"prompt": {"system_text": None}}, "system text (a: Be kind.; b: none)"),
        ({"prompt": {"system_text": "So " * 30}}, f"system text (a: Be kind.; b: {'So ' * 18}So...)"),
        (
            {"prompt": {"system_text": "Be kind.", "prefill": "", "leading_space": False}},
            "space before an answer (a: yes; b: no)",
        ),
        ({"score": "logprob_sum"}, "score (a: logit_diff; b: logprob_sum)"),
        ({"operator": "ablate"}, "operator (a: add; b: ablate)"),
        ({"vectors": {"method": "logistic"}}, "vectors' method (a: pca; b: logistic)"),
        ({"vectors": {"read": "last_token"}}, "token that vectors are read at (a: answer; b: last_token)"),
        ({"vectors": {"rescale": "unit"}}, "vectors' length (a: base; b: unit)"),
        ({"multipliers": (0.0, 2.0)}, "multipliers (a: -1, 0, 1; b: 0, 2)"),
        ({"layer": 9}, "steered layer (a: 3; b: 9)"),
    ],
)
def test_each_condition_is_named_with_both_sides(change, said):
    (text,) = differences({"a": a_study(), "b": a_study(**change)})
    assert text.endswith(f"between them: {said}")


def test_long_conditions_that_part_late_are_told_whole():
    one, two = ({"system_text": f"{'So ' * 30}{end}."} for end in ("kind", "unkind"))
    (text,) = differences({"a": a_study(prompt=one), "b": a_study(prompt=two)})
    assert text.endswith(f"system text (a: {one['system_text']}; b: {two['system_text']})")


def test_layers_of_different_models_are_no_difference():
    assert differences({"a": a_study(), "b": a_study(layer=9, model="other")}) == ()


def test_datasets_are_compared_one_by_one_and_only_where_both_have_them():
    straight, wide = (-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0)
    a = a_study({"x": straight, "y": wide, "z": straight})
    (text,) = differences({"a": a, "b": a_study({"x": straight, "y": wide, "z": wide})})
    assert text.endswith("between them: multipliers of z (a: -1, 0, 1; b: -2, 0, 2)")
    more = a_study({"x": straight, "y": wide, "z": straight, "w": (0.0, 5.0)})
    assert differences({"a": a, "b": more}) == ()
    assert protocol_of(a)["multipliers"] == "-1, 0, 1 or -2, 0, 2"


def test_what_one_side_does_not_record_is_no_difference(tmp_path):
    """An imported table says nothing of operator, score, split or vectors."""
    lines = ["dataset,input,setting_train,setting_eval,multiplier,propensity"]
    names = ("myopic-reward", "interest-in-music")
    lines += [f"{name},i{k},base,base,{m},{k + m}" for name in names for k in range(4) for m in TRUTH.multipliers]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    table = steerstats.open_cache(import_table(tmp_path / "t.csv", tmp_path / "c", model="m"))
    found = protocol_of(table)
    assert list(found) == list(NAMES)
    assert {key for key, value in found.items() if value is not None} == {"multipliers"}
    assert differences({"a": steerstats.open_cache(hostile_cache()), "b": table}) == ()
    assert differences({"a": a_study({"myopic-reward": TRUTH.multipliers}, operator="ablate"), "b": table}) == ()


def test_comparisons_of_caches_with_other_multipliers_say_so(tmp_path):
    other = write_cache(tmp_path / "other", replace(TRUTH, multipliers=(-1.0, 0.0, 1.0)))
    finding = analyses.run("comparison", [hostile_cache(), other], tmp_path / "out")
    said = "multipliers (hostile: -1.5, -1, -0.5, 0, 0.5, 1, 1.5; other: -1, 0, 1)"
    assert sum(said in text for text in finding.warnings) == 1
    one, two = (steerstats.open_cache(path) for path in (hostile_cache(), other))
    table = one.cross_model(two, n_resamples=200)
    assert sum("multipliers (the first cache: -1.5" in text for text in table.warnings) == 1
    assert str(tmp_path) not in " ".join(table.warnings)
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


def test_a_page_says_first_that_its_caches_were_made_differently(tmp_path):
    other = write_cache(tmp_path / "other", replace(TRUTH, multipliers=(-1.0, 0.0, 1.0)))
    write_page({"a": str(hostile_cache()), "b": str(other)}, [], tmp_path, seed=0)
    page = html.unescape((tmp_path / "report.html").read_text("utf-8"))
    first = page[page.index("Read this first") : page.index("Words used on this page")]
    assert "The caches were made differently, which is part of every difference between them: multipliers (a: " in first
