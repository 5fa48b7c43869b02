"""Relative steerability: Fieller's set by inverting t tests, its three shapes, the other intervals, and figure 7."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.generalization import SlopeGrid, propensity_shift, ratio, relative_steerability
from steerstats.resampling import bootstrap_ratio, fieller, interval

SETTINGS = ("base", "sys_pos", "sys_neg", "user_pos", "user_neg")
POINTS = np.concatenate([-np.geomspace(1e4, 1e-3, 400), [0.0], np.geomspace(1e-3, 1e4, 400)])


def in_set(found, value: float) -> bool:
    if found.shape == "bounded":
        return found.ci_low <= value <= found.ci_high
    return found.shape == "whole line" or not found.excluded_low < value < found.excluded_high


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.floats(-0.6, 0.6), st.floats(-2, 2))
def test_fiellers_set_is_what_t_tests_do_not_reject(seed, below, above):
    rng = np.random.default_rng(seed)
    d = below + rng.normal(0, 1, 12)
    n = above + 0.5 * d + rng.normal(0, 0.7, 12)
    found = ratio(n, d)
    inside = stats.ttest_1samp(n[:, None] - POINTS * d[:, None], 0).pvalue
    for value, p in zip(POINTS, inside):
        if abs(p - 0.05) > 1e-6:
            assert in_set(found, value) == (p > 0.05)


@pytest.mark.parametrize(
    ("below", "above", "shape"), [(2.0, 1.0, "bounded"), (0.1, 3.0, "two rays"), (0.1, 0.1, "whole line")]
)
def test_the_three_shapes_are_told_apart(below, above, shape):
    rng = np.random.default_rng(3)
    d, n = (v - v.mean() for v in rng.normal(size=(2, 25)))
    found = ratio(n + above, d + below)
    assert found.shape == shape
    assert np.isfinite([found.ci_low, found.ci_high]).all() == (shape == "bounded")
    assert np.isfinite([found.excluded_low, found.excluded_high]).all() == (shape == "two rays")
    assert any("near zero" in text for text in found.warnings) == (shape != "bounded")
    edges = {"bounded": [found.ci_low, found.ci_high], "two rays": [found.excluded_low, found.excluded_high]}
    for edge in edges.get(shape, []):
        assert stats.ttest_1samp(n + above - edge * (d + below), 0).pvalue == pytest.approx(0.05, abs=1e-9)


def test_fieller_with_a_denominator_known_exactly_is_a_scaled_t_interval():
    found = fieller(3.0, 2.0, 0.04, 0.0, 0.0, 10)
    margin = stats.t.ppf(0.975, 10) * 0.2
    np.testing.assert_allclose([found.low, found.high], [(3 - margin) / 2, (3 + margin) / 2])


def test_a_ratio_of_nothing_but_zeros_is_zero_without_width():
    found = fieller(0.0, 1.0, 0.0, 0.01, 0.0, 9)
    assert (found.shape, found.low, found.high) == ("bounded", 0, 0)


def test_fieller_flips_and_inverts_with_the_ratio():
    y, x, vy, vx, c = 3.0, 2.0, 0.05, 0.03, 0.01
    one = fieller(y, x, vy, vx, c, 20)
    flipped = fieller(-y, x, vy, vx, -c, 20)
    inverted = fieller(x, y, vx, vy, c, 20)
    np.testing.assert_allclose([flipped.low, flipped.high], [-one.high, -one.low])
    np.testing.assert_allclose([inverted.low, inverted.high], [1 / one.high, 1 / one.low])


@pytest.mark.parametrize("sign", [-1, 1])
def test_both_limits_keep_their_digits_when_one_is_near_zero(sign):
    # 4 R² − 2 (2 sign) R + 1e-12 = 0 has a root at sign · 2.5e-13 that subtraction would lose.
    t2 = stats.t.ppf(0.975, 10) ** 2
    found = fieller(sign, 2.0, (1 - 1e-12) / t2, 0.0, 0.0, 10)
    assert min(abs(found.low), abs(found.high)) == pytest.approx(2.5e-13, rel=1e-3)
    assert max(abs(found.low), abs(found.high)) == pytest.approx(1, rel=1e-9)


def test_without_a_variance_the_set_is_undefined():
    found = ratio(np.array([1.0]), np.array([2.0]))
    assert (found.estimate, found.shape) == (0.5, "undefined")
    assert np.isnan([found.ci_low, found.ci_high]).all()


@pytest.mark.parametrize("method", ["studentised", "percentile", "basic", "bca"])
def test_resampled_intervals_are_the_engines(method):
    rng = np.random.default_rng(0)
    d = rng.normal(2, 1, 30)
    n = d * 0.5 + rng.normal(0, 0.3, 30)
    found = ratio(n, d, method=method, rng=np.random.default_rng(4), n_resamples=200)
    known = interval(bootstrap_ratio(n, d, rng=np.random.default_rng(4), n_resamples=200), method)
    np.testing.assert_allclose([found.ci_low, found.ci_high], np.ravel(known))


def test_fieller_and_delta_meet_when_the_denominator_is_far_from_zero():
    rng = np.random.default_rng(0)
    d = rng.normal(50, 1, 60)
    n = 0.5 * d + rng.normal(0, 1, 60)
    sets = [ratio(n, d, method=method) for method in ("fieller", "delta")]
    np.testing.assert_allclose([sets[0].ci_low, sets[0].ci_high], [sets[1].ci_low, sets[1].ci_high], rtol=1e-4)
    assert not sets[0].warnings


@pytest.mark.parametrize(("denominator", "fewest", "most"), [(0.4, 0.935, 0.965), (0.05, 0.935, 0.965)])
def test_fieller_covers_whatever_the_denominator(denominator, fewest, most):
    rng = np.random.default_rng(5)
    d = denominator + rng.normal(0, 1, (4000, 30))
    n = 0.7 * denominator + 0.5 * (d - denominator) + rng.normal(0, 1, (4000, 30))
    cov = [np.cov(a, b) / 30 for a, b in zip(n, d)]
    vy, c, vx = np.array([[m[0, 0], m[0, 1], m[1, 1]] for m in cov]).T
    found = fieller(n.mean(axis=1), d.mean(axis=1), vy, vx, c, 29)
    inside = (found.low <= 0.7) & (found.high >= 0.7)
    inside &= ~((found.excluded_low < 0.7) & (found.excluded_high > 0.7))
    assert fewest <= inside.mean() <= most
    assert set(found.shape) == {"bounded", "two rays", "whole line"}


def make_grid(seed: int = 0, n_datasets: int = 10, n: int = 20, n_refits: int = 0) -> SlopeGrid:
    rng, slopes, resting, refits = np.random.default_rng(seed), {}, {}, {}
    for k in range(n_datasets):
        slopes[f"d{k}"] = rng.normal(1, 0.5, (5, 5, 1)) + rng.normal(0, 0.5, (5, 5, n))
        resting[f"d{k}"] = rng.normal(0, 1, (5, 1)) + rng.normal(0, 1, (5, n))
        refits[f"d{k}"] = slopes[f"d{k}"] + rng.normal(0, 0.2, (n_refits, 5, 5, 1))
    given = {"unsteered": resting, "refits": refits if n_refits else None}
    return SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=slopes, **given)


def make_bare(grid: SlopeGrid) -> SlopeGrid:
    return SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=grid.slopes)


def test_relative_steerability_divides_by_the_vector_of_the_prompt_itself():
    grid = make_grid()
    found = relative_steerability(grid)
    s = grid.slopes["d3"]
    one = ratio(s[1, 4], s[4, 4])
    assert found.shifts[2] == "sys_pos->user_neg"
    row = [found.estimate[3, 2], found.ci_low[3, 2], found.ci_high[3, 2], found.denominator[3, 2]]
    np.testing.assert_allclose(row, [one.estimate, one.ci_low, one.ci_high, s[4, 4].mean()])
    assert found.to_frame()["shape"].isin(["bounded", "two rays", "whole line"]).all()


def test_a_self_pair_is_one_without_width():
    found = relative_steerability(make_grid(), ["base->base"])
    np.testing.assert_allclose(found.estimate, 1)
    np.testing.assert_array_equal([found.ci_low, found.ci_high], np.ones((2, 10, 1)))
    assert (found.shape == "bounded").all()
    assert not any("no width" in text for text in found.warnings), "by definition"


def test_vector_error_widens_the_set():
    grid = make_grid(n_refits=20)
    wide, narrow = (relative_steerability(g, method="delta") for g in (grid, make_bare(grid)))
    assert wide.includes_vector_error.all()
    assert not narrow.includes_vector_error.any()
    widths = (wide.ci_high - wide.ci_low) / (narrow.ci_high - narrow.ci_low)
    assert np.median(widths) > 1.5  # the vectors' error is 1.8 times the inputs' here
    assert (widths > 1.1).all()
    np.testing.assert_allclose(wide.estimate, narrow.estimate)
    r, s, again = wide.estimate[1, 2], grid.slopes["d1"], grid.refits["d1"].mean(axis=3)  # sys_pos->user_neg
    parts = np.array([(s[1, 4] - r * s[4, 4]).var(ddof=1) / 20, (again[:, 1, 4] - r * again[:, 4, 4]).var(ddof=1)])
    df = parts.sum() ** 2 / (parts**2 / 19).sum()
    half = stats.t.ppf(0.975, df) * np.sqrt(parts.sum()) / s[4, 4].mean()
    assert wide.ci_high[1, 2] - r == pytest.approx(half)
    drawn = relative_steerability(grid, method="percentile", rng=np.random.default_rng(0), n_resamples=20)
    assert not drawn.includes_vector_error.any()


def test_a_ratio_takes_vector_error_where_both_of_its_vectors_have_it():
    grid = make_grid(n_refits=20, n_datasets=2)
    one_side = np.full_like(grid.refits["d1"], np.nan)
    one_side[:, 0, 4] = grid.refits["d1"][:, 0, 4]
    part = SlopeGrid(
        train=SETTINGS, evaluate=SETTINGS, slopes=grid.slopes, refits={"d0": grid.refits["d0"], "d1": one_side}
    )
    full, found, bare = (relative_steerability(g) for g in (grid, part, make_bare(grid)))
    assert found.includes_vector_error.tolist() == [[True] * 4, [False] * 4]
    np.testing.assert_array_equal(found.ci_low, np.stack([full.ci_low[0], bare.ci_low[1]]))
    assert any(text.startswith("d1: intervals of base->user_neg, ") for text in found.warnings)


@pytest.mark.parametrize("method", ["fieller", "delta", "bca"])
@pytest.mark.parametrize("below", [np.zeros(9), np.array([0.1, 0.2, -0.3] * 3), np.tile([1.0, -1.0], 5)[:8]])
def test_a_denominator_of_zero_has_no_ratio_and_says_so(method, below):
    above = np.random.default_rng(0).normal(1, 0.1, len(below))
    found = ratio(above, below, method=method, rng=np.random.default_rng(0), n_resamples=200)
    assert np.isnan(found.estimate)
    assert any("the denominator is zero: the ratio is not defined" in text for text in found.warnings)
    if method == "fieller" and below.any():
        assert found.shape in ("two rays", "whole line")
    else:
        assert found.shape == "undefined"
        assert np.isnan([found.ci_low, found.ci_high]).all()


def test_few_questions_and_a_ratio_without_spread_are_said():
    few = ratio(np.array([1.0, 2.0]), np.array([0.1, -0.3]))
    assert any("only 2 questions" in text for text in few.warnings)
    assert ratio(np.arange(10.0), np.arange(10.0) + 20).warnings == ()
    for middle, near in ((0.7, True), (0.8, False)):  # 2.7 and 3.1 standard errors from 0
        found = ratio(np.arange(16.0), middle + np.tile([1.0, -1.0], 8))
        assert any("denominator is near zero" in text for text in found.warnings) is near
    below = np.arange(1.0, 13.0)
    flat = ratio(0.5 * below, below)
    assert flat.estimate == 0.5
    assert any("no width" in text for text in flat.warnings)
    for share in (0.3, 1 / 3, -0.7, 12.9):  # rounded at each input, which is no spread
        for below in (np.full(40, 0.7), np.random.default_rng(0).normal(1, 0.1, 40)):
            found = ratio(share * below, below)
            assert found.ci_low == found.estimate == found.ci_high
            assert any("no width" in text for text in found.warnings)


def test_one_cell_alone_takes_vector_error():
    rng = np.random.default_rng(0)
    slopes = {"d": rng.normal(1, 1, (1, 1, 9))}
    grid = SlopeGrid(train=("base",), evaluate=("base",), slopes=slopes, refits={"d": rng.normal(1, 1, (3, 1, 1, 9))})
    assert relative_steerability(grid, ["base->base"]).estimate == [[1]]


def test_refusals_name_the_method_and_the_missing_generator():
    with pytest.raises(InputError, match="'exact' is unknown for a ratio"):
        ratio(np.ones(3), np.ones(3), method="exact")
    with pytest.raises(InputError, match="rng is needed"):
        ratio(np.arange(3.0), np.ones(3), method="bca")


def test_figure_seven_follows_its_definition_and_its_parts_are_separate():
    grid = make_grid()
    found = propensity_shift(grid)
    points = found.points().set_index(["dataset", "train", "evaluate"])
    assert len(points) == 10 * 25
    s, m = grid.slopes["d2"], grid.unsteered["d2"]
    point = points.loc[("d2", "sys_neg", "user_pos")]
    assert point["propensity_difference"] == pytest.approx(np.abs(m[3] - m[2]).mean())
    assert point["ratio"] == pytest.approx(s[2, 3].mean() / abs(s[3, 3].mean()))
    assert point["loss"] == pytest.approx(s[3, 3].mean() - s[2, 3].mean())
    kept = points[points["own"] > 0.25]
    rows = found.to_frame().set_index(["definition", "kind"])
    known = stats.spearmanr(kept["propensity_difference"], kept["ratio"])[0]
    assert rows.loc[("original", "spearman"), "estimate"] == pytest.approx(known)
    others = kept[~kept["self_pair"]]
    known = np.corrcoef(others["propensity_difference"], others["ratio"])[0, 1]
    assert rows.loc[("without self-pairs", "pearson"), "estimate"] == pytest.approx(known)
    assert (rows["ci_low"] < rows["estimate"]).all()
    assert (rows["estimate"] < rows["ci_high"]).all()


def test_figure_seven_leaves_out_inputs_without_an_unsteered_propensity_in_either_prompt():
    grid = make_grid()
    grid.unsteered["d2"][3, :4] = np.nan
    points = propensity_shift(grid).points().set_index(["dataset", "train", "evaluate"])
    s, m = grid.slopes["d2"][..., 4:], grid.unsteered["d2"][..., 4:]
    point = points.loc[("d2", "sys_neg", "user_pos")]
    assert point["propensity_difference"] == pytest.approx(np.abs(m[3] - m[2]).mean())
    assert point["loss"] == pytest.approx(s[3, 3].mean() - s[2, 3].mean())


def test_figure_seven_counts_the_datasets_that_contribute():
    grid = make_grid()
    weak = {name: s if k < 5 else np.full_like(s, 0.1) for k, (name, s) in enumerate(grid.slopes.items())}
    few = SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=weak, unsteered=grid.unsteered)
    found = propensity_shift(few)
    rows = found.to_frame().set_index(["definition", "kind"])
    points = found.points()
    kept = points[(points["own"] > 0.25) & ~points["self_pair"]]
    row = rows.loc[("without self-pairs", "spearman")]
    assert (row["n"], row["n_points"]) == (kept["dataset"].nunique(), len(kept))
    assert row["n"] == 5
    assert np.isnan([row["ci_low"], row["ci_high"]]).all()
    assert any("only 5 of 10 datasets contribute" in text for text in found.warnings)
    assert rows.loc[("transfer loss", "spearman"), "n"] == 10
    three = {name: grid.slopes[name] for name in list(grid.slopes)[:3]}
    unsteered = {name: grid.unsteered[name] for name in three}
    every = propensity_shift(SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=three, unsteered=unsteered)).warnings
    assert every == ("3 datasets, fewer than 8: no interval is given",)


def test_self_pairs_alone_induce_a_negative_correlation():
    # Slopes have nothing to do with m(0) here; transfer always loses.
    rng, slopes, resting = np.random.default_rng(0), {}, {}
    for k in range(40):
        mean = np.full((5, 5, 1), 0.6) + 0.4 * np.eye(5)[..., None]
        slopes[f"d{k}"] = mean * rng.uniform(1, 3) * rng.normal(1, 0.1, (5, 5, 1)) + np.zeros(6)
        resting[f"d{k}"] = rng.normal(size=(5, 6))
    grid = SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=slopes, unsteered=resting)
    rows = propensity_shift(grid).to_frame().set_index(["definition", "kind"])
    assert rows.loc[("original", "spearman"), "ci_high"] < -0.2
    honest = rows.loc[("without self-pairs", "spearman")]
    assert honest["ci_low"] < 0 < honest["ci_high"]


def test_a_mean_vector_has_no_prompt_and_is_left_out_of_figure_seven():
    grid = make_grid()
    more = {k: np.concatenate([v, v[:1]]) for k, v in grid.slopes.items()}
    wider = SlopeGrid(train=(*SETTINGS, "mean"), evaluate=SETTINGS, slopes=more, unsteered=grid.unsteered)
    assert "mean" not in set(propensity_shift(wider).train)
    with pytest.raises(InputError, match="no unsteered"):
        propensity_shift(make_bare(grid))
    slopes, resting = {"d": np.ones((1, 1, 3))}, {"d": np.ones((1, 3))}
    alone = SlopeGrid(train=("mean",), evaluate=("base",), slopes=slopes, unsteered=resting)
    with pytest.raises(CannotEstimate, match="both a training and an evaluation"):
        propensity_shift(alone)


@pytest.mark.parametrize(
    ("values", "method", "shape"),
    [
        (([0.0, 0, 0, 1], [1.0, 1, 1, 1]), "studentised", "half line"),  # three zeros in a resample have no variance
        (([1.0, 2], [1.0, 3]), "studentised", "whole line"),
        (([1.0, 2, 3, 4], [1.0, -1, 1, 1]), "percentile", "half line"),  # denominators that add up to zero
        (([0.0, 0, 0, 1], [1.0, 1, 1, 1]), "percentile", "bounded"),
    ],
)
def test_a_resampled_set_with_an_infinite_limit_is_not_called_bounded(values, method, shape):
    above, below = (np.array(v) for v in values)
    found = ratio(above, below, rng=np.random.default_rng(0), method=method, n_resamples=500)
    assert found.shape == shape
    assert np.isinf([found.ci_low, found.ci_high]).sum() == {"half line": 1, "whole line": 2, "bounded": 0}[shape]
