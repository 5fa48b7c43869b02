"""Gaps: by hand, decomposed, paired, complete, and over datasets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from slope_grids import SETTINGS, make_grid

from steerstats.errors import CannotEstimate, InputError
from steerstats.generalization import (
    PAPER_SHIFTS,
    SlopeGrid,
    gap,
    gap_table,
    id_ood_correlation,
    overall_gap,
    parse_shift,
    steerability_table,
    steerability_variance,
    with_vector_error,
)
from steerstats.generalization.slopes import NO_WIDTH
from steerstats.meta import mean_over_datasets


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
    found = gap(np.array([1.0, 2.0]), np.zeros(2), questions=np.array(["q", "q"]), rng=np.random.default_rng(0))
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


@pytest.mark.parametrize("ask", [gap_table, id_ood_correlation, steerability_variance])
def test_home_is_the_reference_that_was_named(ask):
    grid, home = make_grid(9), ("sys_pos", "sys_pos")
    names = tuple({"base": "sys_pos", "sys_pos": "base"}.get(name, name) for name in SETTINGS)
    called = SlopeGrid(train=names, evaluate=names, slopes=grid.slopes)
    one, other = (
        ask(g, [f"{train}->user_neg"], rng=np.random.default_rng(0), reference=there, n_resamples=60).to_frame()
        for g, train, there in ((grid, "base", ("base", "base")), (called, "sys_pos", home))
    )
    pd.testing.assert_frame_equal(one.select_dtypes(float), other.select_dtypes(float))


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


def test_without_eval_on_eval_the_gap_stands_alone_and_says_so():
    grid = SlopeGrid(
        train=("base",), evaluate=("base", "user_neg"), slopes={"d": np.random.default_rng(0).normal(size=(1, 2, 12))}
    )
    found = gap_table(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=50)
    assert found.components == ("gap",)
    assert any("without their two parts" in text for text in found.warnings)


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
        "intervals of sys_pos->sys_pos hold for these very vectors: no refits were measured there"
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


@pytest.mark.parametrize("loss", [0.3, 0.001])
@pytest.mark.parametrize("odd", [0, 1])
def test_gaps_that_are_equal_but_for_the_rounding_of_stored_propensities_have_no_spread(odd, loss):
    """float32 propensities part them by 1e-8: limits of -70000 without a warning, and bands as wide for all."""
    lam, heights = np.array([-0.5, 0, 1, 2]), np.sin(np.arange(16))[:, None]
    lost = np.full((16, 1), loss)
    lost[:odd] = 0.0
    curves = np.stack([heights + lam, heights + (1 - lost) * lam]).astype(np.float32).astype(float)
    centred = lam - lam.mean()
    home, away = curves @ (centred / (centred @ centred))
    assert 0 < np.ptp((home - away)[odd:]) < 1e-6
    slopes = np.stack([home, away])[None]
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes={"tied": slopes})
    table = gap_table(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=500)
    assert table.components == ("gap",)
    limits = np.ravel([table.ci_low, table.ci_high])
    if odd:
        # 36% of resamples lack the one question that differs, and show no spread.
        assert limits[0] == -np.inf
        assert any("no variance" in text for text in table.warnings)
    else:
        np.testing.assert_allclose(limits, loss, atol=1e-7)
        assert table.se.item() == 0
        assert any(NO_WIDTH in text for text in table.warnings)


def test_infinite_limits_and_bands_name_the_cells_that_they_come_from():
    rng = np.random.default_rng(0)
    lost = {"tied": np.full(16, 0.3), "spread": rng.normal(0.3, 0.1, 16)}
    lost["tied"][0] = 0.0  # 36% of resamples lack it, and show no spread
    slopes = {name: np.stack([np.ones(16), 1 - gap])[None] for name, gap in lost.items()}
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes)
    table = gap_table(grid, ["base->user_neg"], rng=rng, n_resamples=500)
    assert np.isinf(table.band_low).all()
    infinite = [text for text in table.warnings if "infinite" in text]
    assert [text.partition(":")[0] for text in infinite] == [
        "limits of base->user_neg in tied are infinite",
        "simultaneous bands of all gaps are infinite because of base->user_neg in tied",
    ]
