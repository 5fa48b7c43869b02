"""Sizes for a mean and for a difference between caches: against loops, and against the tests that they are of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from study_caches import written

import steerstats
from steerstats.errors import CannotEstimate, InputError
from steerstats.generalization import SlopeGrid, compare_slopes
from steerstats.meta import reml_tau2
from steerstats.power import difference_components, mean_components, smallest_detectable_effect
from steerstats.simulate import SimulationTruth, simulate_unit
from steerstats.study import open_cache

BASE = ("base", "base")


def two(datasets="abc", n=20, refits=0, draws=("p", "p"), seed=0) -> tuple[dict[str, SlopeGrid], dict]:
    """Two caches of the same inputs, with refits of resamples named by `draws`."""
    rng, grids = np.random.default_rng(seed), {}
    shared = {name: rng.normal(k, 1, n) for k, name in enumerate(datasets)}
    for label, draw, shift in zip(("one", "two"), draws, (0.0, 0.3)):
        slopes = {
            name: (own + rng.normal(shift * rng.normal(1, 1), 0.5, n))[None, None] for name, own in shared.items()
        }
        again = {name: own + rng.normal(0, 0.2, (refits, 1, 1, 1)) for name, own in slopes.items()} if refits else None
        named = {name: [f"{draw}{k}" for k in rng.permutation(refits)] for name in slopes} if refits else None
        grids[label] = SlopeGrid(train=("base",), evaluate=("base",), slopes=slopes, refits=again, refit_draw=named)
    ids = {name: list(range(n)) for name in datasets}
    return grids, {"one": ids, "two": ids}


def compared(grids, inputs):
    return compare_slopes(grids, inputs, [BASE], rng=np.random.default_rng(0), n_resamples=20)


def turned(grids, of):
    """The same with every slope of every cache put through a function of the cache's name and the slopes."""
    return {
        label: replace(
            grid,
            slopes={name: of(label, one) for name, one in grid.slopes.items()},
            refits=None if grid.refits is None else {name: of(label, one) for name, one in grid.refits.items()},
        )
        for label, grid in grids.items()
    }


@pytest.mark.parametrize("draws", [("p", "p"), ("p", "q")])
def test_components_of_a_difference_are_those_of_loops_over_inputs_and_refits(draws):
    grids, inputs = two("ab", 12, refits=5, draws=draws)
    order = np.random.default_rng(1).permutation(12)
    second = grids["two"]
    grids["two"] = replace(
        second,
        slopes={name: one[..., order] for name, one in second.slopes.items()},
        refits={name: one[..., order] for name, one in second.refits.items()},
    )
    inputs["two"] = {name: [*order[:9].tolist(), "x", "y", "z"] for name in "ab"}  # nine are in both
    question = {name: np.arange(12) // 2 for name in "ab"}
    grids["one"] = replace(grids["one"], question=question)
    found = difference_components(grids, inputs, n_pairs=30)
    means, squares, inside, vectors, dfs, counts = [], [], [], [], [], []
    for name in "ab":
        apart = {i: second.slopes[name][0, 0, i] - grids["one"].slopes[name][0, 0, i] for i in order[:9]}
        mean = np.mean(list(apart.values()))
        by_question = {}
        for i, one in apart.items():
            by_question[i // 2] = by_question.get(i // 2, 0.0) + one - mean
        q = len(by_question)
        squares.append(sum(total**2 for total in by_question.values()) * q / (q - 1) / 9**2)
        means.append(mean)
        inside.append(squares[-1] * q)
        counts.append(q)
        again = [
            {
                k: np.mean([grid.refits[name][r, 0, 0, i] for i in order[:9]])
                for r, k in enumerate(grid.refit_draw[name])
            }
            for grid in (grids["one"], second)
        ]
        if draws[0] == draws[1]:
            vectors.append(np.var([again[1][k] - again[0][k] for k in again[0]], ddof=1))
            dfs.append(4)
        else:
            parts = [np.var(list(one.values()), ddof=1) for one in again]
            vectors.append(sum(parts))
            dfs.append(sum(parts) ** 2 / sum(part**2 / 4 for part in parts))
    assert found.between_inputs == pytest.approx(np.mean(inside))
    assert found.of_vector == pytest.approx(np.mean(vectors))
    assert found.vector_df == pytest.approx(min(dfs))
    assert found.between_datasets == pytest.approx(reml_tau2(means, np.add(squares, vectors)))
    assert found.n_inputs == round(2 / sum(1 / q for q in counts))
    assert any("independently" in text for text in found.assumptions) == (draws[0] != draws[1])


@pytest.mark.parametrize(("refits", "draws"), [(0, "pp"), (6, "pp"), (6, "pq")])
def test_a_difference_has_the_spread_between_datasets_that_its_comparison_has(refits, draws):
    grids, inputs = two("abcdefgh", 25, refits, draws)
    found = difference_components(grids, inputs, n_pairs=30 if refits else None)
    (fit,) = compared(grids, inputs).over_datasets.values()
    assert found.between_datasets > 0
    assert np.sqrt(found.between_datasets) == pytest.approx(fit.tau, rel=1e-6)
    assert np.sqrt([found.between_low, found.between_high]) == pytest.approx([fit.tau_ci_low, fit.tau_ci_high])


@pytest.mark.parametrize("draws", ["pp", "pq"])
def test_the_interval_of_one_datasets_difference_is_as_wide_as_the_table_says(draws):
    grids, inputs = two("a", 25, 6, draws)
    table = smallest_detectable_effect(difference_components(grids, inputs, n_pairs=30), n_inputs=25)
    found = compared(grids, inputs)
    assert table.se[0] == pytest.approx(found.se[0, 0, 0])
    assert table.half_width[0] == pytest.approx((found.ci_high - found.ci_low)[0, 0, 0] / 2)


@pytest.mark.parametrize("refits", [0, 6])
def test_the_interval_of_one_datasets_mean_is_as_wide_as_the_table_says(tmp_path, refits):
    truth = SimulationTruth(datasets=["a"], n_inputs=30, n_pairs=12, n_resampled=refits, vector_sd=0.2)
    study = open_cache(written(tmp_path, {"a": simulate_unit(truth, "a", seed=3)[0]}))
    table, found = study.power(of="mean"), study.steerability()
    mean = found.vector_error["a"] if refits else found["a"]["mean"]
    assert table.effect_of == "mean steerability under base->base"
    assert table.half_width[0] == pytest.approx((mean.ci_high - mean.ci_low) / 2)
    assert table.includes_vector_error == (refits > 0)


def test_a_mean_over_datasets_has_the_spread_of_its_meta_analysis(tmp_path):
    truth = SimulationTruth(datasets=list("abcd"), n_inputs=30, n_pairs=12, n_resampled=6, vector_sd=0.2)
    study = open_cache(written(tmp_path, {name: simulate_unit(truth, name, seed=3)[0] for name in "abcd"}))
    found = mean_components(study.grid(refits=True), n_pairs=12)
    fit = study.steerability().over_datasets
    assert np.sqrt(found.between_datasets) == pytest.approx(fit.tau)
    assert np.sqrt(found.between_high) == pytest.approx(fit.tau_ci_high)


def test_what_is_halved_takes_half_the_difference_to_be_found_and_the_order_of_caches_is_no_matter():
    grids, inputs = two(refits=5)
    sizes = {"n_inputs": [20, 80], "n_datasets": [1, 8], "n_pairs": [30, 120]}
    whole = smallest_detectable_effect(difference_components(grids, inputs, n_pairs=30), **sizes)
    half = turned(grids, lambda label, slopes: slopes / 2)
    halved = smallest_detectable_effect(difference_components(half, inputs, n_pairs=30), **sizes)
    np.testing.assert_allclose(halved.effect, whole.effect / 2)
    back = difference_components(dict(reversed(grids.items())), inputs, n_pairs=30)
    np.testing.assert_allclose(smallest_detectable_effect(back, **sizes).effect, whole.effect)
    for name in sizes:
        rest = [one for one in ("n_inputs", "n_pairs", "n_datasets") if one != name]
        steps = whole.to_frame().sort_values(name).groupby(rest)["effect"]
        assert steps.apply(lambda rows: (rows.diff().dropna() < 0).all()).all(), name


def test_inputs_that_two_caches_share_are_worth_what_pairing_makes_of_them():
    grids, inputs = two("ab", 400)
    found = difference_components(grids, inputs)
    one = mean_components(grids["one"])
    assert found.between_inputs == pytest.approx(0.5, rel=0.15), "twice .25, and nothing of what inputs share"
    assert one.between_inputs == pytest.approx(1.25, rel=0.15)


@pytest.mark.parametrize("apart", [0.0, 0.2])
def test_a_cache_beside_a_copy_of_itself_cannot_say_what_would_be_found(apart):
    grids, inputs = two("ab", refits=4)
    copies = {"one": grids["one"], "two": grids["one"]}
    moved = turned(copies, lambda label, slopes: slopes + apart * (label == "two"))
    with pytest.raises(CannotEstimate, match="every question has the same difference in every dataset"):
        difference_components(moved, inputs, n_pairs=30)


def test_a_dataset_that_did_not_change_counts_as_in_the_comparison():
    grids, inputs = two("abcd")
    slopes = dict(grids["two"].slopes, d=grids["one"].slopes["d"])
    grids["two"] = replace(grids["two"], slopes=slopes)
    found = difference_components(grids, inputs)
    (fit,) = compared(grids, inputs).over_datasets.values()
    assert found.n == 4
    assert np.sqrt(found.between_datasets) == pytest.approx(fit.tau)
    assert any("the same difference in d: all datasets weigh alike in" in text for text in found.warnings)


def test_what_is_no_comparison_is_a_named_error():
    grids, inputs = two()
    with pytest.raises(InputError, match="1 caches are given"):
        difference_components({"one": grids["one"]}, inputs)
    with pytest.raises(CannotEstimate, match="share no input of any dataset in base->base"):
        difference_components(grids, {"one": inputs["one"], "two": {name: [*"abcdefghijklmnopqrst"] for name in "abc"}})
    with pytest.raises(InputError, match="has 3 labels for 20 slopes"):
        difference_components(grids, {**inputs, "two": {**inputs["two"], "b": [1, 2, 3]}})
    with pytest.raises(InputError, match="n_pairs is needed"):
        difference_components(*two(refits=3))


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two caches of one build's seed: a, b, c and b, c, d, the second of other vectors."""
    found = []
    for k, names in enumerate(("abc", "bcd")):
        truth = SimulationTruth(datasets=list("abcd"), n_inputs=20, n_pairs=16, n_resampled=5, vector_sd=0.1)
        units = {name: simulate_unit(truth, name, seed=9 * k)[0] for name in names}
        found.append(open_cache(written(tmp_path_factory.mktemp(names), units, spec={"seed": 0})))
    return found


def test_a_study_asks_for_a_difference_over_what_both_caches_hold(studies):
    one, other = studies
    table = one.power(other=other.path, n_datasets=[1, 2, 9])
    assert table.effect_of == (
        "difference in mean steerability under base->base, the second cache minus the first cache"
    )
    assert (table.n_inputs[0], table.n_pairs[0], table.includes_vector_error) == (20, 16, True)
    assert one.power(other=other).n_datasets.tolist() == [2]
    assert "only in the first cache, and left out: a" in table.warnings
    assert "only in the second cache, and left out: d" in table.warnings
    assert one.power("base->user_neg", other=other, n_datasets=3).effect[0] > 0
    alone = [open_cache(study.path, datasets=[name]) for study, name in zip(studies, "ad")]
    with pytest.raises(CannotEstimate, match="share no input of any dataset"):
        alone[0].power(other=alone[1])
    single = [open_cache(study.path, datasets=["b"]) for study in studies]
    assert single[0].power(other=single[1]).about == ("this dataset",)
    with pytest.raises(CannotEstimate, match="the difference that several could show"):
        single[0].power(other=single[1], n_datasets=2)


def test_a_study_without_refits_says_what_its_difference_lacks(studies, tmp_path):
    truth = SimulationTruth(datasets=list("abc"), n_inputs=20, n_pairs=16)
    bare = open_cache(written(tmp_path, {name: simulate_unit(truth, name, seed=4)[0] for name in "abc"}))
    table = studies[0].power(other=bare)
    assert not table.includes_vector_error
    assert any(text.startswith("no refitted vectors in both caches: ") for text in table.warnings)
    with pytest.raises(CannotEstimate, match="in both caches"):
        studies[0].power(other=bare, n_pairs=100)


def test_what_power_is_not_of_is_refused():
    study = steerstats.open_cache(steerstats.demo_cache())
    with pytest.raises(InputError, match="of is 'median'; 'gap'"):
        study.power(of="median")
    with pytest.raises(InputError, match="of is 'gap' beside another cache"):
        study.power(of="gap", other=study)
    with pytest.raises(CannotEstimate, match="every question has the same difference"):
        study.power(other=study)
