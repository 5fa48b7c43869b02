"""Gaps: by hand, decomposed, paired, complete, with the vector's own error, and over datasets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.generalization import (
    PAPER_SHIFTS,
    SlopeGrid,
    from_disjoint_folds,
    gap,
    gap_table,
    overall_gap,
    parse_shift,
    steerability_table,
    with_vector_error,
)
from steerstats.generalization.vector_error import refit_draws
from steerstats.meta import mean_over_datasets

SETTINGS = ("base", "sys_pos", "sys_neg", "user_pos", "user_neg")


def make_grid(n_datasets: int = 3, n: int = 30, seed: int = 0, n_refits: int = 0, **extra) -> SlopeGrid:
    rng, slopes, refits = np.random.default_rng(seed), {}, {}
    for k in range(n_datasets):
        mean = rng.normal(2, 1) * rng.uniform(0.4, 1, (5, 5, 1))
        slopes[f"d{k}"] = mean + rng.normal(0, 1, n) + rng.normal(0, 0.5, (5, 5, n))
        if n_refits:
            refits[f"d{k}"] = slopes[f"d{k}"] + rng.normal(0, 0.2, (n_refits, 5, 5, 1))
    return SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=slopes, refits=refits or None, **extra)


def test_the_default_interval_is_studentised_and_paired():
    rng = np.random.default_rng(0)
    base = rng.normal(2, 3, 40)
    shifted = base - 0.5 - rng.normal(0, 0.2, 40)
    found = gap(base, shifted, rng=np.random.default_rng(1), n_resamples=400)
    d = base - shifted
    index = np.random.default_rng(1).integers(0, 40, (400, 40))
    t = (d[index].mean(axis=1) - d.mean()) / (d[index].std(axis=1, ddof=1) / np.sqrt(40))
    se = d.std(ddof=1) / np.sqrt(40)
    low, high = np.quantile(t, [0.025, 0.975])
    np.testing.assert_allclose([found.ci_low, found.ci_high], [d.mean() - se * high, d.mean() - se * low])
    assert (found.se, found.n) == (pytest.approx(se), 40)
    assert found.ci_low > 0.3  # unpaired, a spread of 3 would hide it


def test_positive_is_loss_and_swapping_the_sides_flips_the_sign():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 20), rng.normal(0, 1, 20)
    one = gap(a, b, rng=np.random.default_rng(1), method="t")
    other = gap(b, a, rng=np.random.default_rng(1), method="t")
    assert one.estimate == pytest.approx((a - b).mean())
    np.testing.assert_allclose([other.ci_low, other.ci_high], [-one.ci_high, -one.ci_low])


def test_incomplete_inputs_are_left_out_and_counted():
    found = gap(
        np.array([1.0, np.nan, 3, 4, 5]), np.array([0.0, 1, np.nan, 2, 1]), rng=np.random.default_rng(0), n_resamples=50
    )
    assert (found.estimate, found.n) == (pytest.approx(7 / 3), 3)
    assert any("2 inputs" in text for text in found.warnings)


def test_a_single_question_gives_a_number_and_no_interval():
    found = gap(np.array([1.0, 2.0]), np.zeros(2), question=np.array(["q", "q"]), rng=np.random.default_rng(0))
    assert (found.estimate, found.n) == (1.5, 1)
    assert np.isnan([found.ci_low, found.ci_high]).all()
    assert any("single question" in text for text in found.warnings)


def test_the_table_matches_single_gaps_and_its_parts_sum():
    grid = make_grid()
    table = gap_table(grid, rng=np.random.default_rng(5), n_resamples=300)
    assert table.components == ("gap", "prompt", "transfer")
    children = np.random.default_rng(5).spawn(3)
    s = grid.slopes["d1"]
    one = gap(s[0, 0], s[1, 4], rng=children[1], n_resamples=300)
    k = PAPER_SHIFTS.index(("sys_pos", "user_neg"))
    np.testing.assert_allclose([table.ci_low[0, 1, k], table.ci_high[0, 1, k]], [one.ci_low, one.ci_high])
    np.testing.assert_allclose(table.estimate[0], table.estimate[1] + table.estimate[2], atol=1e-12)
    assert table.estimate[1, 1, k] == pytest.approx((s[0, 0] - s[4, 4]).mean())
    assert table.estimate[2, 1, k] == pytest.approx((s[4, 4] - s[1, 4]).mean())


def test_bands_contain_the_intervals_and_p_values_agree_with_the_bands():
    table = gap_table(make_grid(), rng=np.random.default_rng(5), n_resamples=999)
    assert (table.band_low < table.ci_low).all()
    assert (table.band_high > table.ci_high).all()
    outside = (table.band_low > 0) | (table.band_high < 0)
    assert outside.any()
    assert (~outside).any()
    assert (table.p_adjusted[outside] < 0.051).all()  # step-down rejects at least what the band does


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(-20, 20), st.floats(0.1, 10))
def test_a_common_shift_cancels_and_the_scale_of_lambda_only_rescales(seed, shift, scale):
    grid = make_grid(2, 12, seed)
    moved = SlopeGrid(
        train=SETTINGS, evaluate=SETTINGS, slopes={k: scale * (v + shift) for k, v in grid.slopes.items()}
    )
    one, other = (gap_table(g, rng=np.random.default_rng(1), n_resamples=60) for g in (grid, moved))
    np.testing.assert_allclose(other.ci_low, scale * one.ci_low, rtol=1e-6, atol=1e-8 * scale)
    np.testing.assert_allclose(other.p_adjusted, one.p_adjusted)


def test_the_order_of_inputs_does_not_move_estimates():
    grid = make_grid(2, 25)
    order = np.random.default_rng(3).permutation(25)
    mixed = SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes={k: v[..., order] for k, v in grid.slopes.items()})
    one, other = (gap_table(g, rng=np.random.default_rng(1), n_resamples=4000) for g in (grid, mixed))
    np.testing.assert_allclose(one.estimate, other.estimate)
    np.testing.assert_allclose(one.se, other.se)
    width = one.ci_high - one.ci_low
    assert (np.abs(one.ci_low - other.ci_low) < 0.06 * width).all()


def test_twins_of_a_question_are_one_unit_of_every_table():
    grid = make_grid(1, 15)
    twice = {"d0": np.tile(grid.slopes["d0"], 2)}
    question = {"d0": np.tile([f"q{k}" for k in range(15)], 2)}
    doubled = SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=twice, question=question)
    one, other = (gap_table(g, rng=np.random.default_rng(1), n_resamples=60) for g in (grid, doubled))
    assert other.n[0] == 15
    np.testing.assert_allclose([other.se, other.ci_low], [one.se, one.ci_low])
    np.testing.assert_allclose(steerability_table(doubled).se, steerability_table(grid).se)


def test_inputs_must_be_complete_in_every_cell_compared_and_only_there():
    grid = make_grid(1, 10)
    s = grid.slopes["d0"].copy()
    s[0, 4, 2] = np.nan  # base->user_neg, compared
    s[3, 1, 5] = np.nan  # user_pos->sys_pos, not compared
    found = gap_table(
        SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes={"d0": s}), rng=np.random.default_rng(0), n_resamples=50
    )
    assert (found.n[0], found.n_excluded[0]) == (9, 1)
    keep = np.delete(np.arange(10), 2)
    assert found.estimate[0, 0, 1] == pytest.approx((s[0, 0] - s[0, 3])[keep].mean())


def test_an_input_missing_under_a_refit_is_left_out():
    grid = make_grid(1, 10, n_refits=3)
    grid.refits["d0"][1, 0, 4, 6] = np.nan
    found = gap_table(grid, rng=np.random.default_rng(0), n_resamples=20)
    assert (found.n[0], found.n_excluded[0]) == (9, 1)


def test_without_eval_on_eval_the_gap_stands_alone_and_says_so():
    grid = SlopeGrid(
        train=("base",), evaluate=("base", "user_neg"), slopes={"d": np.random.default_rng(0).normal(size=(1, 2, 12))}
    )
    found = gap_table(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=50)
    assert found.components == ("gap",)
    assert any("without their decomposition" in text for text in found.warnings)


def test_vector_error_is_included_and_said():
    grid = make_grid(2, 40, n_refits=15)
    bare = SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=grid.slopes)
    with_it, without = (gap_table(g, rng=np.random.default_rng(1), n_resamples=2000) for g in (grid, bare))
    assert with_it.includes_vector_error.all()
    assert not without.includes_vector_error.any()
    assert any("does not include the vector" in text for text in without.assumptions)
    assert any("includes the vector" in text for text in with_it.assumptions)
    s, r = grid.slopes["d1"], grid.refits["d1"]
    one = with_vector_error(s[0, 0] - s[0, 4], r[:, 0, 0] - r[:, 0, 4])
    np.testing.assert_allclose([with_it.ci_low[0, 1, 0], with_it.se[0, 1, 0]], [one.ci_low, one.se])
    np.testing.assert_allclose(with_it.estimate, without.estimate)
    assert (with_it.band_high - with_it.band_low > 1.2 * (without.band_high - without.band_low)).all()


def partly_refitted() -> tuple[SlopeGrid, SlopeGrid]:
    """d0 has refits everywhere, d1 in base->base and base->user_neg alone, d2 nowhere; and the same without d2."""
    whole = make_grid(3, 40, n_refits=15)
    some = np.full_like(whole.refits["d1"], np.nan)
    some[:, 0, 0], some[:, 0, 4] = whole.refits["d1"][:, 0, 0], whole.refits["d1"][:, 0, 4]
    refits = {"d0": whole.refits["d0"], "d1": some}
    return whole, SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=whole.slopes, refits=refits)


def test_vector_error_is_decided_cell_by_cell():
    whole, part = partly_refitted()
    bare = SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=whole.slopes)
    full, found, none = (gap_table(g, rng=np.random.default_rng(1), n_resamples=200) for g in (whole, part, bare))
    k = PAPER_SHIFTS.index(("base", "user_neg"))
    expected = np.zeros((3, 3, 4), dtype=bool)
    expected[:, 0], expected[0, 1, k] = True, True
    np.testing.assert_array_equal(found.includes_vector_error, expected)
    for name in ("se", "ci_low", "ci_high"):
        got, with_it, without = (getattr(table, name) for table in (found, full, none))
        np.testing.assert_allclose(got, np.where(expected, with_it, without))
    frame = found.to_frame().set_index(["component", "dataset", "shift"])["includes_vector_error"]
    assert frame["gap", "d1", "base->user_neg"]
    assert not frame["transfer", "d1", "base->user_neg"]
    assert "column includes_vector_error says so" in found.assumptions[1]
    said = [text for text in found.warnings if text.startswith("d1: ")]
    assert "base->user_pos, sys_pos->user_neg, sys_neg->user_pos" in said[0]
    assert any(text.startswith("d2: ") for text in found.warnings)
    assert not any(text.startswith("d0: ") for text in found.warnings)
    assert (found.band_high - found.band_low)[0, 1, k] > 1.2 * (none.band_high - none.band_low)[0, 1, k]


def test_cells_that_err_by_one_vector_are_one_in_the_family_of_bands():
    """Inputs err independently and little: the vector's error, all cells' alike, is what the bands have to follow."""
    rng, shifts = np.random.default_rng(2), [("base", name) for name in SETTINGS[1:]]
    slopes = rng.normal(1, 1e-3, (1, 5, 40))
    wobble = rng.normal(size=(40, 1, 1, 1)) * (np.arange(5) > 0)[None, None, :, None]
    grid = SlopeGrid(train=("base",), evaluate=SETTINGS, slopes={"d": slopes}, refits={"d": slopes + wobble})
    found = gap_table(grid, shifts, rng=rng, n_resamples=4000)
    critical = (found.band_high - found.estimate)[0, 0] / found.se[0, 0]
    np.testing.assert_allclose(critical, stats.t.ppf(0.975, 39), rtol=0.07)  # of four independent cells 2.6


def test_draws_of_refits_have_their_variance_and_know_it():
    means = np.random.default_rng(3).normal(size=(5, 3)) * [1.0, 2.0, 5.0]
    deviation, variance = refit_draws(means, 40_000, np.random.default_rng(4))
    spread = means.var(axis=0, ddof=1)
    np.testing.assert_allclose(deviation.mean(axis=0) / np.sqrt(spread), 0, atol=0.02)
    np.testing.assert_allclose(deviation.var(axis=0), spread, rtol=0.03)
    np.testing.assert_allclose(variance.mean(axis=0), spread * 4 / 5, rtol=0.03)  # of five about their own mean


def test_the_whole_table_uses_what_refits_there_are():
    whole, part = partly_refitted()
    found, full = steerability_table(part), steerability_table(whole)
    bare = steerability_table(SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=whole.slopes))
    expected = np.zeros((3, 5, 5), dtype=bool)
    expected[0], expected[1, 0, [0, 4]] = True, True
    np.testing.assert_array_equal(found.includes_vector_error, expected)
    np.testing.assert_allclose(found.se, np.where(expected, full.se, bare.se))
    one = with_vector_error(whole.slopes["d1"][0, 4], whole.refits["d1"][:, 0, 4])
    np.testing.assert_allclose([found.se[1, 0, 4], found.ci_low[1, 0, 4]], [one.se, one.ci_low])
    assert any(text.startswith("d2: ") for text in found.warnings)
    assert "does not include" in bare.assumptions[1]


def test_gaps_without_spread_and_few_questions_are_said():
    same = gap(np.full(6, 1.3), np.ones(6), rng=np.random.default_rng(0), n_resamples=50)
    assert (same.ci_low, same.ci_high) == (same.estimate, same.estimate)
    assert any("no width" in text for text in same.warnings)
    slopes = {"d0": np.stack([np.full(12, 1.3), np.ones(12), np.random.default_rng(0).normal(size=12)])[None]}
    grid = SlopeGrid(train=("base",), evaluate=("base", "a", "b"), slopes=slopes)
    table = gap_table(grid, ["base->a", "base->b"], rng=np.random.default_rng(0), n_resamples=50)
    assert next(text for text in table.warnings if "no width" in text).startswith("d0, base->a: ")
    constant = with_vector_error(np.full(6, 0.3), np.full((12, 6), 0.3))
    assert any("no width" in text for text in constant.warnings)


def test_the_whole_table_holds_cell_means_and_the_unsteered_propensity():
    rng = np.random.default_rng(0)
    unsteered = {"d0": rng.normal(size=(5, 30))}
    grid = make_grid(1, 30, unsteered=unsteered)
    found = steerability_table(grid)
    np.testing.assert_allclose(found.mean[0], grid.slopes["d0"].mean(axis=-1))
    known = stats.ttest_1samp(grid.slopes["d0"][3, 1], 0).confidence_interval()
    np.testing.assert_allclose([found.ci_low[0, 3, 1], found.ci_high[0, 3, 1]], known)
    np.testing.assert_allclose(found.unsteered_mean[0], unsteered["d0"].mean(axis=-1))
    frame = found.to_frame().set_index(["train", "evaluate"])
    assert frame.loc[("sys_pos", "user_neg"), "unsteered_mean"] == pytest.approx(unsteered["d0"][4].mean())
    assert len(frame) == 25


def test_cells_that_were_not_evaluated_stay_empty_in_the_table():
    grid = make_grid(1, 10)
    s = grid.slopes["d0"].copy()
    s[2, 3] = np.nan
    found = steerability_table(SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes={"d0": s}))
    assert np.isnan(found.mean[0]).sum() == 1
    assert (found.n[0], found.n_excluded[0]) == (10, 0)
    assert not any("vector's own error" in text or "very vectors" in text for text in found.warnings)  # no refits
    refits = {"d0": s + np.random.default_rng(1).normal(0, 0.2, (12, 5, 5, 1))}
    every = SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes={"d0": s}, refits={"d0": refits["d0"].copy()})
    refits["d0"][:, 1, 1] = np.nan
    assert steerability_table(every).assumptions[1] == "the interval includes the vector's own sampling error"
    told = steerability_table(SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes={"d0": s}, refits=refits)).warnings
    assert [text for text in told if "very vectors" in text] == [
        "intervals of sys_pos->sys_pos are about these very vectors: no refits were measured there"
    ]


def test_a_part_that_is_0_by_definition_costs_no_other_its_mean():
    """Back in the reference's own prompt the prompt's part is a cell minus itself."""
    table = gap_table(make_grid(4), ["user_neg->base", "base->user_neg"], rng=np.random.default_rng(0), n_resamples=50)
    found = overall_gap(table)
    assert found.of("prompt", "user_neg->base") is None
    assert found.of("gap", "user_neg->base").unweighted_mean == pytest.approx(table.estimate[0, :, 0].mean())
    assert found.of("prompt", "base->user_neg").n == 4
    assert [text for text in found.absences() if text.startswith("prompt user_neg->base: no mean over datasets")]
    lone = gap_table(make_grid(1), ["user_neg->base"], rng=np.random.default_rng(0), n_resamples=50)
    with pytest.raises(CannotEstimate, match="gap user_neg->base: no mean over datasets: 1 usable"):
        overall_gap(lone)


def test_the_overall_gap_is_a_meta_analysis_of_each_shift():
    grid = make_grid(6, category={f"d{k}": "xy"[k % 2] for k in range(6)})
    table = gap_table(grid, rng=np.random.default_rng(0), n_resamples=50)
    found = overall_gap(table, category=grid.category)
    frame = found.to_frame().set_index(["component", "shift", "quantity"])
    known = mean_over_datasets(table.estimate[2, :, 1], table.se[2, :, 1] ** 2)
    assert frame.loc[("transfer", "base->user_pos", "random-effects mean"), "ci_low"] == pytest.approx(known.ci_low)
    assert frame.loc[("gap", "base->user_neg", "unweighted mean"), "estimate"] == pytest.approx(
        table.estimate[0, :, 0].mean()
    )
    assert ("prompt", "sys_pos->user_neg", "without x") in frame.index


def test_vector_variance_is_that_of_the_refits_never_divided():
    rng = np.random.default_rng(0)
    values, refits = rng.normal(1, 1, 50), rng.normal(1, 0.3, (20, 1)) + rng.normal(0, 0.01, (20, 50))
    found = with_vector_error(values, refits)
    a, b = refits.mean(axis=1).var(ddof=1), values.var(ddof=1) / 50
    assert found.se == pytest.approx(np.sqrt(a + b))
    df = (a + b) ** 2 / (a**2 / 19 + b**2 / 49)
    assert found.ci_high - found.estimate == pytest.approx(stats.t.ppf(0.975, df) * found.se)
    assert found.estimate == pytest.approx(values.mean())
    assert found.warnings == with_vector_error(values, refits[:10]).warnings == ()
    assert with_vector_error(values, refits[:9]).warnings == ("only 9 refitted vectors",)


def test_intervals_with_vector_error_cover_and_those_without_do_not():
    rng, hits, bare, reps = np.random.default_rng(1), 0, 0, 600
    for _ in range(reps):
        vector, inputs = rng.normal(0, 0.2), rng.normal(0, 1, 60)
        values = 0.5 + vector + inputs
        refits = values + rng.normal(0, 0.2, (12, 1))
        found = with_vector_error(values, refits)
        hits += found.ci_low <= 0.5 <= found.ci_high
        bare += abs(values.mean() - 0.5) <= stats.t.ppf(0.975, 59) * values.std(ddof=1) / np.sqrt(60)
    assert 0.925 <= hits / reps <= 0.98
    assert bare / reps < 0.80


def test_disjoint_folds_cover_with_interaction():
    rng, hits, reps = np.random.default_rng(2), 0, 600
    for _ in range(reps):
        folds = 0.5 + rng.normal(0, 0.3, (6, 1)) + rng.normal(0, 1, 30) + rng.normal(0, 0.8, (6, 30))
        found = from_disjoint_folds(folds)
        hits += found.ci_low <= 0.5 <= found.ci_high
    assert 0.92 <= hits / reps <= 0.975


def test_disjoint_folds_subtract_the_interaction_once():
    folds = np.random.default_rng(0).normal(size=(6, 30)) + np.arange(6)[:, None] + np.arange(30) / 5
    ss_fold, ss_input = 30 * folds.mean(axis=1).var() * 6, 6 * folds.mean(axis=0).var() * 30
    ss_rest = folds.var() * 180 - ss_fold - ss_input
    parts = np.array([ss_fold / 5, ss_input / 29, -ss_rest / 145]) / 180
    found, known = from_disjoint_folds(folds), parts.sum()
    assert found.se**2 == pytest.approx(known)
    df = known**2 / (parts**2 / [5, 29, 145]).sum()
    assert found.ci_high - found.estimate == pytest.approx(stats.t.ppf(0.975, df) * found.se)
    few = np.random.default_rng(1).normal(size=(3, 4)) + 5 * np.arange(3)[:, None] + 4 * np.arange(4)
    ss_fold, ss_input = 4 * few.mean(axis=1).var() * 3, 3 * few.mean(axis=0).var() * 4
    parts = np.array([ss_fold / 2, ss_input / 3, -(few.var() * 12 - ss_fold - ss_input) / 6]) / 12
    df = parts.sum() ** 2 / (parts**2 / [2, 3, 6]).sum()
    found = from_disjoint_folds(few)
    assert found.ci_high - found.estimate == pytest.approx(stats.t.ppf(0.975, df) * found.se, rel=1e-9)


def test_disjoint_folds_never_claim_less_than_one_sample_alone_shows():
    folds = np.random.default_rng(0).normal(size=(4, 20))
    folds -= folds.mean(axis=1, keepdims=True)  # no fold variance left at all
    found = from_disjoint_folds(folds)
    assert found.se >= folds.mean(axis=0).std(ddof=1) / np.sqrt(20) - 1e-12


def test_one_refit_or_fold_cannot_show_a_variance():
    with pytest.raises(CannotEstimate, match="1 refitted"):
        with_vector_error(np.ones(4), np.ones((1, 4)))
    with pytest.raises(CannotEstimate, match="1 folds"):
        from_disjoint_folds(np.ones((1, 4)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.cells("d0", [("base", "french")]), "'french' is not in the grid"),
        (lambda g: g.cells("d9", [("base", "base")]), "'d9' is not in the grid"),
        (lambda g: parse_shift("base"), "not of the form"),
        (lambda g: parse_shift(("a", "b", "c")), r"shift \('a', 'b', 'c'\) is not of the form 'train->eval'"),
        (lambda g: parse_shift(None), "shift None is not of the form"),
        (lambda g: parse_shift(3), "shift 3 is not of the form"),
        (lambda g: gap_table(g, [], rng=np.random.default_rng(0)), "shifts is empty"),
        (lambda g: gap_table(g, 3, rng=np.random.default_rng(0)), "shifts is 3; a sequence such as"),
        (lambda g: gap_table(g, ["base->user_neg"] * 2, rng=np.random.default_rng(0)), "base->user_neg twice"),
        (lambda g: gap_table(g, ["base->base"], rng=np.random.default_rng(0)), "its gap is 0 .*by definition; name"),
        (lambda g: gap_table(g, rng=np.random.default_rng(0), n_resamples=0), "n_resamples is 0"),
        (lambda g: gap(np.ones(3), np.ones(3), rng=np.random.default_rng(0), level=95), "level is 95"),
        (lambda g: steerability_table(g, level=2), "level is 2"),
        (lambda g: SlopeGrid(train=("a",), evaluate=("b",), slopes={"d": np.ones((2, 1, 3))}), r"shape \(2, 1, 3\)"),
        (lambda g: SlopeGrid(train=("a", "a"), evaluate=("b",), slopes={}), "twice"),
        (lambda g: SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=g.slopes, question={}), "question lacks"),
        (lambda g: make_grid(1, 4, n_refits=1), "has 1; a variance"),
        (lambda g: gap(np.ones(3), np.ones(2), rng=np.random.default_rng(0)), "one length"),
        (lambda g: gap(np.ones(1), np.array([np.nan]), rng=np.random.default_rng(0)), "no input"),
    ],
)
def test_refusals_name_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call(make_grid(1, 4))


def test_results_are_frozen_and_their_frames_tidy():
    table = gap_table(make_grid(2, 12), rng=np.random.default_rng(0), n_resamples=20)
    frame = table.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 3 * 2 * 4
    row = frame[(frame["component"] == "prompt") & (frame["dataset"] == "d1") & (frame["shift"] == "sys_neg->user_pos")]
    assert row["estimate"].item() == table.estimate[1, 1, 3]
    with pytest.raises(ValueError, match="read-only"):
        table.estimate[0] = 0


def test_tables_pass_on_what_is_doubtful_in_refits():
    """Two refits, far off the full-data vector: both tables say so, once for a dataset and once for each cell."""
    rng = np.random.default_rng(0)
    slopes = {name: rng.normal(1, 0.3, (1, 2, 40)) for name in ("few", "many")}
    refits = {
        "few": slopes["few"] + rng.normal(0.8, 0.01, (2, 1, 2, 1)),
        "many": slopes["many"] + np.zeros((10, 1, 2, 1)),
    }
    refits["many"][:, :, 1] += rng.normal(0.8, 0.01, (10, 1, 1))
    grid = SlopeGrid(train=("base",), evaluate=("base", "a"), slopes=slopes, refits=refits)
    gaps = gap_table(grid, ["base->a"], rng=rng, n_resamples=50).warnings
    assert "few, base->a: only 2 refitted vectors" in gaps
    assert any(text.startswith("many, base->a") and "bootstrap bias" in text for text in gaps)
    table = steerability_table(grid).warnings
    assert "few: only 2 refitted vectors" in table
    assert [text for text in table if "bootstrap bias" in text and text.startswith("many, base->a: ")]
    assert not any(text.startswith("many, base->base") for text in table)


@pytest.mark.parametrize("refitted", [False, True])
def test_a_table_names_cells_whose_interval_has_no_width(refitted):
    slopes = {"d": np.stack([np.full(5, 0.3), np.arange(5.0)])[None]}
    refits = {"d": np.repeat(slopes["d"][None], 12, axis=0)} if refitted else None
    grid = SlopeGrid(train=("base",), evaluate=("base", "a"), slopes=slopes, refits=refits)
    said = [text for text in steerability_table(grid).warnings if "no width" in text]
    assert len(said) == 1
    assert said[0].startswith("d, base->base: ")


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 3), st.floats(0.01, 3), st.integers(3, 40), st.integers(2, 12))
def test_a_gap_that_is_equal_everywhere_has_one_p_with_and_without_refits(home, away, n, n_refits):
    """Rounding of the refits' mean is no error of the vector: it made the band infinite and p 1 in place of 1/100."""
    slopes = {"d": np.stack([np.full(n, home), np.full(n, home + away)])[None]}
    refits = {"d": np.repeat(slopes["d"][None], n_refits, axis=0)}
    for again in (None, refits):
        grid = SlopeGrid(train=("base",), evaluate=("base", "a"), slopes=slopes, refits=again)
        found = gap_table(grid, ["base->a"], rng=np.random.default_rng(0), n_resamples=99)
        assert (found.se[0, 0, 0], found.p_adjusted[0, 0, 0]) == (0, 0.01)
        assert found.band_low[0, 0, 0] == found.band_high[0, 0, 0]
