"""Gaps with the vector's own error: refits, disjoint folds, and what they do not show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from slope_grids import SETTINGS, make_grid

from steerstats.errors import CannotEstimate
from steerstats.generalization import (
    PAPER_SHIFTS,
    SlopeGrid,
    from_disjoint_folds,
    gap_table,
    steerability_table,
    with_vector_error,
)
from steerstats.generalization.vector_error import refit_draws


def test_an_input_missing_under_a_refit_is_left_out():
    grid = make_grid(1, 10, n_refits=3)
    grid.refits["d0"][1, 0, 4, 6] = np.nan
    found = gap_table(grid, rng=np.random.default_rng(0), n_resamples=20)
    assert (found.n[0], found.n_excluded[0]) == (9, 1)


def test_vector_error_is_included_and_said():
    grid = make_grid(2, 40, n_refits=15)
    bare = SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=grid.slopes)
    with_it, without = (gap_table(g, rng=np.random.default_rng(1), n_resamples=2000) for g in (grid, bare))
    assert with_it.includes_vector_error.all()
    assert not without.includes_vector_error.any()
    assert any("does not include the vector" in text for text in without.assumptions)
    assert not any("refits" in text for text in (*with_it.warnings, *without.warnings)), "all or none have them"
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
    for away, said in ((2.0, False), (2.2, True)):  # two SD are 2.11
        again = values + away + np.tile([-1.0, 1.0], 5)[:, None]
        assert any("bootstrap bias" in text for text in with_vector_error(values, again).warnings) is said


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


@pytest.mark.parametrize(
    ("folds", "said"),
    [(2, ("only 2 folds: 95% intervals covered 91% in simulation",)), (4, ("only 4 folds",)), (5, ())],
)
def test_few_folds_are_said(folds, said):
    assert from_disjoint_folds(np.random.default_rng(0).normal(size=(folds, 20))).warnings == said


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


def test_tables_pass_on_what_is_doubtful_in_refits():
    """Two refits, far off the full-data vector: both tables say so, once for the datasets that share it."""
    rng = np.random.default_rng(0)
    slopes = {name: rng.normal(1, 0.3, (1, 2, 40)) for name in ("few", "poor", "many")}
    refits = {
        "few": slopes["few"] + rng.normal(0.8, 0.01, (2, 1, 2, 1)),
        "poor": slopes["poor"] + rng.normal(0.8, 0.01, (2, 1, 2, 1)),
        "many": slopes["many"] + np.zeros((10, 1, 2, 1)),
    }
    refits["many"][:, :, 1] += rng.normal(0.8, 0.01, (10, 1, 1))
    grid = SlopeGrid(train=("base",), evaluate=("base", "a"), slopes=slopes, refits=refits)
    gaps = gap_table(grid, ["base->a"], rng=rng, n_resamples=50).warnings
    assert "few, poor, base->a: only 2 refitted vectors" in gaps
    assert any(text.startswith("many, base->a") and "bootstrap bias" in text for text in gaps)
    table = steerability_table(grid).warnings
    assert "few, poor: only 2 refitted vectors" in table
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


def test_refits_that_are_one_vector_but_for_stored_rounding_have_no_variance_and_no_bias():
    rng = np.random.default_rng(0)
    slopes = rng.normal(0.3, 0.1, 50)
    stored = (slopes * (1 + rng.normal(scale=1e-7, size=(10, 50)))).astype(np.float32).astype(float) + 2e-7
    assert np.ptp(stored.mean(axis=1)) > 0
    found, alone = with_vector_error(slopes, stored), with_vector_error(slopes, np.tile(slopes, (10, 1)))
    assert found.warnings == alone.warnings == ()
    assert (found.se, found.ci_low) == (alone.se, alone.ci_low)
    assert refit_draws(stored.mean(axis=1)[:, None], 20, rng)[1].max() == 0
