"""What a study is asked with: one name where a list could stand, nothing twice, and named errors for the rest."""

from __future__ import annotations

import numpy as np
import pytest

from steerstats.errors import InputError
from steerstats.resampling import iter_counts, quantile_pair, resampled_sums, sign_flip_test, t_interval
from steerstats.study import open_cache

ASKED = [
    "steerability", "spurious_factors", "generalization", "predictors", "debiased", "reliability",
    "corrected_anti_steerable", "answer_mass", "linearity", "multiplier_range", "cross_model",
]  # fmt: skip
CLOSED = ("steerability", "reliability", "answer_mass", "linearity", "multiplier_range")
SEEDED = [name for name in ASKED if name not in CLOSED]


def ask(study, name, **arguments):
    return getattr(study, name)(*([study] if name == "cross_model" else []), **arguments)


@pytest.mark.parametrize("level", [95, 0, 1, "0.95", None])
@pytest.mark.parametrize("name", ASKED)
def test_a_level_is_a_share(study, name, level):
    with pytest.raises(InputError, match=f"level is {level!r}"):
        ask(study, name, level=level)


@pytest.mark.parametrize("seed", [-1, None, 0.5])
@pytest.mark.parametrize("name", SEEDED)
def test_a_seed_is_a_count(study, name, seed):
    with pytest.raises(InputError, match=f"seed is {seed}"):
        ask(study, name, seed=seed)


@pytest.mark.parametrize("count", [0, 10.0, "many"])
@pytest.mark.parametrize("name", SEEDED)
def test_resamples_are_counted(study, name, count):
    with pytest.raises(InputError, match=f"n_resamples is {count!r}"):
        ask(study, name, n_resamples=count)


@pytest.mark.parametrize("shift", [("a", "b", "c"), None, 3, "base", "a->b->c", ("base", 3)])
def test_what_is_no_shift_is_refused_as_one(study, shift):
    with pytest.raises(InputError, match=r"shift .* is not of the form 'train->eval'"):
        study.steerability(shift)


def test_one_name_may_stand_alone(study):
    one = study.generalization("base->user_neg", n_resamples=50)
    assert one.gaps.shifts == ("base->user_neg",)
    assert study.generalization(("base", "user_neg"), n_resamples=50).gaps.shifts == one.gaps.shifts
    assert open_cache(study.path, datasets="sim-03").datasets == ("sim-03",)
    assert set(study.spurious_factors(factors="pos_is_a", n_resamples=50)["sim-00"].to_frame()["term"]) == {
        "Intercept",
        "pos_is_a",
    }
    assert study.has_refits("base->base")
    assert study.cross_model(study, "base->base", n_resamples=50).comparison[0] == "base->base"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: open_cache(s.path, datasets=["sim-03", "sim-03"]), "datasets names 'sim-03' twice"),
        (lambda s: open_cache(s.path, datasets=[]), "datasets is empty"),
        (lambda s: open_cache(s.path, datasets=3), "datasets is 3; a name or a sequence of names"),
        (lambda s: open_cache(s.path, datasets=[3]), "datasets holds 3; names are text"),
        (lambda s: s.generalization(["base->user_neg", ("base", "user_neg")]), "base->user_neg twice"),
        (lambda s: s.generalization(["base->base"]), r"names base->base, .*name shifts away from it, such as"),
        (lambda s: s.generalization([]), "shifts is empty"),
        (lambda s: s.cross_model(s, ["base->base"] * 2), "base->base twice"),
        (lambda s: s.spurious_factors(factors=["pos_is_a"] * 2), "factors names 'pos_is_a' twice"),
        (lambda s: s.spurious_factors(factors=[]), "factors is empty"),
        (lambda s: s.answer_mass(threshold=7), "threshold is 7; a probability"),
        (lambda s: s.nulls(alpha=5), "alpha is 5"),
        (lambda s: s.power(power=80), "power is 80"),
        (lambda s: list(iter_counts(5, 2.5, np.random.default_rng(0))), "n_resamples is 2.5"),
        (lambda s: resampled_sums(np.ones(3), 5, np.random.default_rng(0)), r"columns has shape \(3,\)"),
        (lambda s: sign_flip_test(np.ones(3), rng=np.random.default_rng(0), n_permutations=0), "n_permutations is 0"),
        (lambda s: quantile_pair(np.ones((3, 1)), 95), "level is 95"),
        (lambda s: t_interval(1.0, 1.0, 3, level=95), "level is 95"),
    ],
)
def test_refusals_name_the_argument_and_the_value(study, call, message):
    with pytest.raises(InputError, match=message):
        call(study)
