"""Null vectors: the p-value's definition, what cannot be resolved, type I error and false discovery rate."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from steerstats.errors import InputError
from steerstats.nulls import differ_at_least, null_table, null_vectors_needed, shown_together, tail_doubt
from steerstats.nulls.counts import with_t_tail


def study(rng, effects: np.ndarray, n_null: int, n: int = 40) -> tuple[dict, dict]:
    """Each vector shifts all inputs by its own draw; real ones by `effects` more."""
    slopes, null = {}, {}
    for k, effect in enumerate(effects):
        null[f"d{k}"] = rng.normal(size=(n_null, 1)) + rng.normal(size=(n_null, n))
        slopes[f"d{k}"] = effect + rng.normal() + rng.normal(size=n)
    return slopes, null


def test_the_p_value_counts_vectors_at_least_as_strong():
    null = {"d": np.array([[0.5, 0.5], [-2.0, -2.0], [1.0, 1.0], [-1.0, -1.0]])}
    found = null_table({"d": np.array([0.0, 2.0])}, null, kind="random", alpha=0.5)
    assert found.p[0] == pytest.approx(4 / 5)
    assert (found.null_abs_quantile[0], found.anti_steerable[0]) == (1.0, 0.0), "the median; a slope of 0 is not below"
    assert null_table({"d": np.array([-3.0, -2.0])}, null, kind="random", alpha=0.5).p[0] == pytest.approx(1 / 5)


@pytest.mark.parametrize(("n_datasets", "needed"), [(1, 19), (3, 59), (40, 799)])
def test_vectors_needed_let_the_smallest_p_value_pass(n_datasets, needed):
    assert null_vectors_needed(n_datasets) == needed
    assert 1 / (needed + 1) <= 0.05 / n_datasets < 1 / needed


def test_rounding_asks_for_no_vector_more():
    assert 9 / 0.072 > 125  # by one bit
    assert null_vectors_needed(9, 0.072) == 124
    assert shown_together(124, 9, 0.072) == 1


@pytest.mark.parametrize(("n_null", "decision"), [(58, "cannot resolve"), (59, "differs from the null")])
def test_too_few_null_vectors_resolve_nothing(n_null, decision):
    slopes, null = study(np.random.default_rng(0), np.array([50.0, 0, 0]), n_null)
    found = null_table(slopes, null, kind="random")
    assert found.decision[0] == decision
    assert any("59 are needed" in text for text in found.warnings) == (decision == "cannot resolve")
    assert found.p[0] == pytest.approx(1 / (n_null + 1))


def unlike(ranks: list[int], n_null: int) -> tuple[dict, dict]:
    """Datasets whose mean is reached by so many of 1..n_null."""
    null = {f"d{k}": np.arange(1.0, n_null + 1)[:, None] * np.ones(2) for k in range(len(ranks))}
    return {f"d{k}": np.full(2, n_null - rank + 0.5) for k, rank in enumerate(ranks)}, null


def test_many_datasets_at_the_smallest_p_value_pass_together():
    found = null_table(*unlike([0] * 14, 19), kind="random")
    np.testing.assert_allclose(found.p_fdr, 0.05)
    assert set(found.decision) == {"differs from the null"}  # though one alone would need 279 vectors
    assert any("279 are needed for one" in text for text in found.warnings)


def test_left_open_is_what_could_not_have_passed_with_so_few_vectors():
    found = null_table(*unlike([0, 0, 1, 10], 19), kind="random")
    assert set(found.decision) == {"cannot resolve"}
    assert any("4 of 4 datasets cannot be resolved" in text and "79 are needed" in text for text in found.warnings)
    # Fourteen at 1/20 pass together. One short of that, thirteen wait for more vectors; the other had its chance.
    almost = null_table(*unlike([0] * 13 + [10], 19), kind="random")
    assert almost.decision == ("cannot resolve",) * 13 + ("not shown to differ",)
    slopes, null = unlike([0, 0, 1, 10], 19)
    fewer = {name: values[:12] if name == list(slopes)[3] else values for name, values in null.items()}
    assert any("4 of 4" in text and "12 random" in text for text in null_table(slopes, fewer, kind="random").warnings)
    slopes, null = unlike([0, 10], 79)
    alone = null_table(slopes, null | {"d1": null["d1"][:12]}, kind="random")
    assert alone.decision == ("differs from the null", "cannot resolve"), "12 vectors of its own, whatever others have"
    enough = null_table(*unlike([0, 1, 10, 60], 79), kind="random")
    assert enough.decision == (
        "differs from the null",
        "differs from the null",
        "not shown to differ",
        "not shown to differ",
    )
    assert enough.warnings == ()


def test_type_one_error_is_the_level():
    rng = np.random.default_rng(3)
    slopes, null = study(rng, np.zeros(2000), 19)
    p = null_table(slopes, null, kind="shuffled").p
    assert 0.036 <= (p <= 0.05).mean() <= 0.064  # exact: 0.05, 2000 datasets
    assert p.mean() == pytest.approx(0.525, abs=0.02)


def test_the_false_discovery_rate_is_kept_and_strong_vectors_are_found():
    rng, rates, power = np.random.default_rng(4), [], []
    for _ in range(60):
        effects = np.repeat([0.0, 6.0], [14, 6])
        found = null_table(*study(rng, effects, 399, 5), kind="random", alpha=0.1)
        passed = np.array(found.decision) == "differs from the null"
        rates.append(passed[:14].sum() / max(passed.sum(), 1))
        power.append(passed[14:].mean())
    assert 0.02 <= np.mean(rates) <= 0.115  # 0.1 * 14/20 = 0.07 expected
    assert np.mean(power) > 0.9


def test_the_null_share_of_anti_steerable_inputs_is_a_distribution():
    slopes, null = study(np.random.default_rng(5), np.array([3.0]), 400)
    found = null_table(slopes, null, kind="random")
    low, median, high = found.null_anti_steerable[0]
    shares = (null["d0"] < 0).mean(axis=1)
    np.testing.assert_allclose([low, median, high], np.quantile(shares, [0.025, 0.5, 0.975]))
    assert low < 0.1
    assert high > 0.9


def test_inputs_missing_under_any_vector_are_left_out_and_counted():
    slopes, null = study(np.random.default_rng(5), np.array([1.0]), 30)
    slopes["d0"][3], null["d0"][7, 5] = np.nan, np.nan
    found = null_table(slopes, null, kind="random")
    assert (found.n[0], found.n_excluded[0]) == (38, 2)
    keep = np.delete(np.arange(40), [3, 5])
    assert found.mean[0] == pytest.approx(slopes["d0"][keep].mean())


def test_scale_does_not_matter_but_every_kind_stands_alone():
    slopes, null = study(np.random.default_rng(6), np.array([1.0, 2.0]), 60)
    plain = null_table(slopes, null, kind="random")
    scaled = null_table({k: -3 * v for k, v in slopes.items()}, {k: 3 * v for k, v in null.items()}, kind="random")
    np.testing.assert_allclose(plain.p, scaled.p)
    with pytest.raises(InputError, match="one at a time"):
        null_table(slopes, null, kind="both")
    with pytest.raises(InputError, match="lacks dataset 'd1'"):
        null_table(slopes, {"d0": null["d0"]}, kind="random")


def test_the_frame_has_a_row_per_dataset():
    slopes, null = study(np.random.default_rng(6), np.array([1.0, 2.0]), 60)
    frame = null_table(slopes, null, kind="random").to_frame()
    assert frame["dataset"].tolist() == ["d0", "d1"]
    assert (frame["kind"] == "random").all()


def test_null_vectors_that_are_the_vector_up_to_sign_say_nothing_whatever_rounding_does():
    own = 1 + np.random.default_rng(7).normal(size=12)
    signs = np.random.default_rng(8).choice([-1.0, 1.0], size=(39, 1))
    for rounding in (-1e-7, 0.0, 1e-7):
        found = null_table({"d": own}, {"d": signs * own * (1 + rounding)}, kind="shuffled")
        assert found.p[0] == 1
        assert "d: every shuffled vector is as strong as the vector itself" in found.warnings[0]
    other = null_table({"d": own}, {"d": signs * own * np.linspace(0.9, 0.99, 39)[:, None]}, kind="shuffled")
    assert (other.p[0], other.warnings) == (1 / 40, ())


def test_many_datasets_that_pass_far_out_are_named_by_the_first_few():
    null = {f"d{k}": np.arange(1.0, 100)[:, None] for k in range(40)}
    slopes = {name: np.array([100.0 if k < 10 else 50.0]) for k, name in enumerate(null)}
    text = tail_doubt(null_table(slopes, null, kind="shuffled"), dict.fromkeys(null, 22) | {"d3": 20})
    assert text.startswith(
        "d0, d1, d2, d3, d4 and 5 more: p-values are too small this far out (0.01 from 20 training questions stands "
        "for about 0.019, and 0.013 was needed)"
    )


@pytest.mark.parametrize("scale", [0.02, 0.1, 0.3, 1.0])
def test_how_many_differ_at_least_is_what_closed_testing_leaves(scale):
    """All but the largest set of which Fisher's combination does not reject that all know nothing, by brute force."""
    for seed in range(20):
        p = np.random.default_rng(seed).uniform(1e-4, scale, 7)
        kept = [
            size
            for size in range(1, 8)
            if any(stats.combine_pvalues(part, method="fisher").pvalue > 0.05 for part in combinations(p, size))
        ]
        assert differ_at_least(p) == 7 - max(kept, default=0)


def test_datasets_that_no_single_p_value_resolves_are_counted_together():
    found = null_table(*unlike([0] * 11 + [1, 2, 8], 19), kind="shuffled")
    assert (set(found.decision), found.at_least) == ({"cannot resolve"}, 11)
    assert any("all taken together, at least 11 of 14 datasets differ (95% confidence)" in w for w in found.warnings)
    assert "partial conjunctions" in found.method
    none = null_table(*unlike([9] * 14, 19), kind="shuffled")
    assert none.at_least == 0
    assert "together" not in f"{none.warnings}", "at least 0 says nothing"
    few = null_table(*unlike([0] * 11 + [1, 2, 8], 19), kind="shuffled", questions={f"d{k}": 6 for k in range(14)})
    assert few.at_least < 11, "p-values of six questions are too small"
    np.testing.assert_array_equal(few.p, found.p)


@pytest.mark.parametrize("n", [1, 2, 4, 6, 8])
def test_no_p_value_of_few_questions_is_below_how_often_they_beat_all_their_halves(n):
    halves = np.array([np.isin(range(n), half) for half in combinations(range(n), n // 2)])
    values = np.random.default_rng(0).normal(size=(4000, n))
    beaten = np.abs(values @ (1 - 2.0 * halves.T)) < np.abs(values.sum(axis=1, keepdims=True)) - 1e-9
    chance = beaten.all(axis=1).mean() if n > 1 else 1.0  # of a single question every shuffle is the vector up to sign
    assert 0.8 * chance < with_t_tail(np.array([1e-3]), np.array([n])) < 1.1 * chance
    assert with_t_tail(np.array([1e-3]), np.array([100])) == pytest.approx(2 * stats.t.sf(stats.norm.isf(5e-4), 99))


def test_vectors_that_may_share_a_direction_are_not_counted_together():
    found = null_table(*unlike([0] * 11 + [1, 2, 8], 19), kind="random")
    assert found.at_least is None
    assert "together" not in f"{found.method}{found.warnings[0]}"


def test_one_dataset_is_not_taken_together_with_others():
    found = null_table(*unlike([0], 19), kind="shuffled")
    assert (found.at_least, found.decision) == (None, ("differs from the null",))
    assert "partial conjunctions" not in found.method


def test_p_values_that_are_none_are_refused():
    for p in ([], [0.0, 0.5], [0.5, np.nan], [1.5]):
        with pytest.raises(InputError, match="p-values above 0 and at most 1 are needed"):
            differ_at_least(p)
