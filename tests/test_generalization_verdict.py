"""Verdicts against published values, and where steering broke the answer format."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from steerstats.errors import InputError
from steerstats.generalization import SlopeGrid, answer_mass, id_ood_correlation, propensity_shift, verdict
from steerstats.generalization.verdict import MUST_MATCH
from steerstats.results import Estimate

ALL = dict.fromkeys(MUST_MATCH, True)


def estimate(low: float, high: float) -> Estimate:
    return Estimate(name="rho", estimate=(low + high) / 2, ci_low=low, ci_high=high, n=40, method="test")


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.85, 0.93, "consistent"),
        (0.79, 0.99, "consistent"),  # exactly the margin
        (0.60, 0.95, "cannot say"),  # contains the published value, and much else
        (0.78, 0.93, "cannot say"),
        (0.50, 0.78, "inconsistent"),
        (0.995, 0.999, "inconsistent"),
        (np.nan, np.nan, "cannot say"),
        (-np.inf, np.inf, "cannot say"),
        (0.995, np.inf, "cannot say"),
        (0.50, 0.89 - 0.1, "cannot say"),  # reaches the margin
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side_of_the_margin(low, high, found):
    assert verdict("rho", 0.89, estimate(low, high), margin=0.1, matches=ALL).verdict == found


def test_an_interval_wider_than_the_margin_says_that_nothing_could_be_consistent():
    wide, narrow = (verdict("rho", 0.89, estimate(low, 0.95), margin=0.1, matches=ALL).reason for low in (0.6, 0.78))
    assert "no value could come out consistent" in wide
    assert narrow == "the interval reaches both sides of the margin of 0.1, inside which the value itself lies"
    beside = verdict("rho", 0.89, estimate(0.7, 0.85), margin=0.1, matches=ALL).reason
    assert beside == "the interval reaches both sides of the margin of 0.1"


@pytest.mark.parametrize("condition", MUST_MATCH)
def test_one_condition_that_differs_makes_it_not_comparable(condition):
    found = verdict("rho", 0.89, estimate(0.85, 0.93), margin=0.1, matches=ALL | {condition: False})
    assert (found.verdict, found.differs_in) == ("not comparable", (condition,))
    unsaid = {name: True for name in MUST_MATCH if name != condition}
    assert verdict("rho", 0.89, estimate(0.85, 0.93), margin=0.1, matches=unsaid).verdict == "not comparable"


def test_a_margin_has_to_be_stated():
    with pytest.raises(InputError, match="margin is 0"):
        verdict("rho", 0.89, estimate(0.85, 0.93), margin=0, matches=ALL)
    with pytest.raises(InputError, match="names colour"):
        verdict("rho", 0.89, estimate(0.85, 0.93), margin=0.1, matches=ALL | {"colour": True})


def logits(mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answer logits and log-sum-exp, (m, 2, n) and (m, n), whose answers hold the given mass."""
    offset = np.random.default_rng(0).normal(20, 5, mass.shape)
    return np.log(np.stack([0.3 * mass, 0.7 * mass], axis=1)) + offset[:, None], offset


def test_mass_is_recovered_and_its_collapse_flagged():
    mass = np.array([[0.95, 0.9, 0.99], [0.9, 0.8, 0.7], [0.3, 0.6, 0.1]])
    answer, total = logits(mass)
    found = answer_mass(
        {"d": answer, "fine": answer[:2][[0, 1, 1]]}, {"d": total, "fine": total[[0, 1, 1]]}, [0, 1, 1.5]
    )
    np.testing.assert_allclose(found.mean[0], mass.mean(axis=1))
    assert found.collapsed.tolist() == [[False, False, True], [False, False, False]]
    np.testing.assert_allclose(found.share_low[0], [0, 0, 2 / 3])
    assert len(found.warnings) == 1
    assert "d: the answers hold less than 0.5 of the probability at multiplier 1.5" in found.warnings[0]
    known = stats.ttest_1samp(mass[1], 0).confidence_interval()
    half = (known.high - 0.8) / (0.8 * 0.2)
    np.testing.assert_allclose(
        [found.ci_low[0, 1], found.ci_high[0, 1]], special.expit(special.logit(0.8) + np.array([-half, half]))
    )


def test_a_mean_mass_near_one_is_not_said_to_be_higher_than_it_is():
    rng = np.random.default_rng(0)
    mass, truth = special.expit(rng.normal(4, 2, (2000, 60))), special.expit(rng.normal(4, 2, 400_000)).mean()
    found = answer_mass(
        {"d": np.log(mass / 2)[:, None].repeat(2, axis=1)}, {"d": np.zeros(mass.shape)}, np.arange(2000)
    )
    assert ((found.ci_low[0] <= truth) & (truth <= found.ci_high[0])).mean() > 0.915  # plain t .90
    assert (found.ci_high < 1).all()


def test_masses_that_are_all_one_have_an_interval_without_width():
    found = answer_mass({"d": np.log(np.full((1, 2, 5), 0.5 + 1e-6))}, {"d": np.zeros((1, 5))}, [0])
    assert found.ci_low[0, 0] == found.ci_high[0, 0] == 1


def test_an_input_without_logits_is_left_out_at_every_multiplier():
    answer, total = logits(np.full((2, 5), 0.9))
    answer[1, 0, 2] = np.nan
    found = answer_mass({"d": answer}, {"d": total}, [0, 1])
    assert (found.n[0], found.n_excluded[0]) == (4, 1)


def test_a_log_sum_exp_of_something_else_is_refused():
    answer, total = logits(np.full((2, 5), 0.9))
    with pytest.raises(InputError, match="does not belong"):
        answer_mass({"d": answer}, {"d": total - 1}, [0, 1])
    with pytest.raises(InputError, match=r"\(3, answers >= 2, n_inputs\)"):
        answer_mass({"d": answer}, {"d": total}, [0, 1, 2])


def test_a_verdict_says_that_its_interval_rests_on_a_transform_where_means_are_skewed():
    rng = np.random.default_rng(0)
    for skewed in (True, False):
        z = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 40)
        means = np.exp(z) if skewed else z
        slopes = {f"d{k}": (pair[:, None] + rng.normal(0, 0.5, (2, 30)))[None] for k, pair in enumerate(means)}
        grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes)
        table = id_ood_correlation(grid, ["base->user_neg"], rng=rng, n_resamples=50)
        ours = table.as_estimate("base->base vs base->user_neg")
        found = verdict("claim", 0.9, ours, margin=0.1, matches=ALL)
        assert (
            any("skewed over datasets: noise is taken out after a Yeo-Johnson" in text for text in found.warnings)
            == skewed
        )
        assert any("near normal" in text for text in found.assumptions)


def test_one_input_has_a_mass_without_an_interval_and_says_so():
    answer = np.log(np.full((2, 2, 1), 0.3))
    found = answer_mass({"d": answer}, {"d": np.zeros((2, 1))}, [0, 1])
    np.testing.assert_allclose(found.mean, 0.6)
    assert np.isnan(found.ci_low).all()
    assert "d: a single question has no variance: no interval" in found.warnings
    assert any("does not include the vector's own" in text for text in found.assumptions)


def test_inputs_without_logits_are_counted_and_the_first_is_named():
    answer = np.log(np.full((2, 2, 12), 0.3))
    answer[1, 0, [4, 7]] = np.nan
    found = answer_mass({"d": answer}, {"d": np.zeros((2, 12))}, [0.0, 1.5])
    assert (found.n[0], found.n_excluded[0]) == (10, 2)
    assert "2 of 12 inputs are left out" in found.warnings[0]
    assert "the first is input 4 at multiplier 1.5" in found.warnings[0]


@pytest.mark.parametrize("threshold", [7, 0, -0.1, "half", None])
def test_a_threshold_is_a_probability(threshold):
    answer = np.log(np.full((2, 2, 12), 0.3))
    with pytest.raises(InputError, match=r"threshold is .*; a probability strictly between 0 and 1"):
        answer_mass({"d": answer}, {"d": np.zeros((2, 12))}, [0, 1], threshold=threshold)


def test_figure_seven_says_where_the_vectors_error_is():
    rng = np.random.default_rng(0)
    slopes = {f"d{k}": rng.normal(1, 0.1, (2, 2, 5)) for k in range(3)}
    grid = SlopeGrid(
        train=("a", "b"), evaluate=("a", "b"), slopes=slopes, unsteered={k: v[0] for k, v in slopes.items()}
    )
    found = propensity_shift(grid)
    assert any("include the vectors' own sampling error" in text for text in found.assumptions)
