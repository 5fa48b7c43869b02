"""Several caches side by side: matched by input, one family of bands, both vectors' errors added."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

import steerstats
from steerstats.errors import CannotEstimate, InputError
from steerstats.generalization import SlopeGrid
from steerstats.generalization.compared import _question_draws, compare_slopes, shared_datasets
from steerstats.generalization.matched import match

BASE, NEG = ("base", "base"), ("base", "user_neg")


def grid(slopes, refits=None, question=None, evaluate=("base", "user_neg"), draw=None) -> SlopeGrid:
    """{dataset: (n_eval, n)} -> a grid with one training setting."""
    wide = {name: np.asarray(values, float)[None] for name, values in slopes.items()}
    again = None if refits is None else {name: np.asarray(v, float)[:, None] for name, v in refits.items()}
    return SlopeGrid(train=("base",), evaluate=evaluate, slopes=wide, refits=again, question=question, refit_draw=draw)


def three(seed=0, n=12):
    rng = np.random.default_rng(seed)
    names = ("x", "y")
    grids = {label: grid({name: rng.normal(k, 1, (2, n)) for name in names}) for k, label in enumerate("abc")}
    inputs = {label: {name: [f"{name}{i}" for i in range(n)] for name in names} for label in grids}
    return grids, inputs


def test_all_pairs_all_shifts_second_minus_first_matched_by_identity():
    grids, inputs = three()
    order = np.random.default_rng(1).permutation(12)
    grids["b"] = grid({name: v[0][:, order] for name, v in grids["b"].slopes.items()})
    inputs["b"] = {name: [ids[i] for i in order] for name, ids in inputs["b"].items()}
    inputs["c"]["x"] = [*inputs["c"]["x"][:9], "other1", "other2", "other3"]
    found = compare_slopes(
        grids, inputs, [BASE, NEG, ("sys_pos", "base")], rng=np.random.default_rng(2), n_resamples=300
    )
    assert found.pairs == (("a", "b"), ("a", "c"), ("b", "c"))
    assert found.shifts == ("base->base", "base->user_neg"), "a shift that nobody has is left out"
    assert found.n_inputs.tolist() == [[12, 12], [9, 12], [9, 12]]
    back = np.argsort(order)
    for s in range(2):
        a, b, c = (grids[k].slopes["x"][0, s] for k in "abc")
        assert found.estimate[0, 0, s] == pytest.approx((b[back] - a).mean(), rel=1e-12)
        assert found.estimate[2, 0, s] == pytest.approx((c[:9] - b[back][:9]).mean(), rel=1e-12)
    frame = found.to_frame()
    assert len(frame) == 12
    assert (frame["band_low"] < frame["ci_low"]).mean() > 0.9, "bands hold for the whole family"
    assert set(found.means_frame()["shift"]) == set(found.shifts)
    low, high = found.over_bands[("a", "c"), "base->base"]
    one = found.over_datasets[("a", "c"), "base->base"]
    told = one.quoted
    assert (one.to_read, low + high) == ("unweighted", pytest.approx(2 * told.mean)), "twelve questions are few"
    assert high - told.mean == pytest.approx(told.se * stats.t.ppf(1 - 0.025 / 6, 1)), "three pairs, two shifts"


def test_a_cell_that_one_side_lacks_is_nan_and_outside_the_family():
    grids, inputs = three()
    grids["c"] = grid({name: v[0][:1] for name, v in grids["c"].slopes.items()}, evaluate=("base",))
    found = compare_slopes(grids, inputs, rng=np.random.default_rng(0), n_resamples=200)
    assert np.isnan(found.estimate[1, :, 1]).all()
    assert np.isnan(found.band_low[1, :, 1]).all()
    assert np.isfinite(found.band_low[0]).all()
    assert len(found.to_frame()) == 2 * 2 + 2 + 2


def test_differences_that_rest_on_few_refits_of_either_cache_are_averaged_unweighted():
    rng = np.random.default_rng(5)
    names, n = ("x", "y", "z"), 30
    slopes = {label: {name: rng.normal(size=(1, n)) for name in names} for label in "ab"}

    def read(*refits):
        grids = {
            label: grid(own, {name: rng.normal(size=(k, 1, n)) for name in own}, evaluate=("base",))
            for (label, own), k in zip(slopes.items(), refits)
        }
        inputs = {label: {name: [f"{name}{i}" for i in range(n)] for name in names} for label in grids}
        found = compare_slopes(grids, inputs, [BASE], rng=np.random.default_rng(0), n_resamples=50)
        return found.over_datasets[("a", "b"), "base->base"]

    assert read(10, 10).to_read != "unweighted"
    few = read(10, 4)
    assert few.why_to_read == "standard errors of some rest on few refits"
    assert "3 of 3 datasets have fewer than 10 refits (x, y, z; the fewest: 4)" in few.warnings[-1]


def test_the_vectors_variances_add_and_only_where_both_have_refits():
    rng = np.random.default_rng(3)
    n, k = 30, 15
    slopes = [{"x": rng.normal(size=(2, n))} for _ in range(2)]
    refits = [{"x": rng.normal(size=(k, 2, n)) + 0.5 * rng.normal(size=(k, 1, 1))} for _ in range(2)]
    refits[1]["x"][:, 1] = np.nan
    grids = {"a": grid(slopes[0], refits[0]), "b": grid(slopes[1], refits[1])}
    inputs = {key: {"x": list(range(n))} for key in grids}
    found = compare_slopes(grids, inputs, rng=np.random.default_rng(0), n_resamples=200)
    assert found.includes_vector_error[0, 0].tolist() == [True, False]
    difference = slopes[1]["x"][0] - slopes[0]["x"][0]
    parts = difference.var(ddof=1) / n, *(one["x"][:, 0].mean(axis=1).var(ddof=1) for one in refits)
    assert found.se[0, 0, 0] == pytest.approx(np.sqrt(sum(parts)), rel=1e-9)
    plain = (slopes[1]["x"][1] - slopes[0]["x"][1]).std(ddof=1) / np.sqrt(n)
    assert found.se[0, 0, 1] == pytest.approx(plain, rel=1e-9)
    df = sum(parts) ** 2 / (np.square(parts) / [n - 1, k - 1, k - 1]).sum()
    half = stats.t.ppf(0.975, df) * found.se[0, 0, 0]
    assert [found.ci_low[0, 0, 0], found.ci_high[0, 0, 0]] == pytest.approx(difference.mean() + np.array([-half, half]))
    assert "Satterthwaite t where both caches have refits" in found.method
    refits[0]["x"][4, 0, 7] = np.nan
    grids["a"] = grid(slopes[0], refits[0])
    again = compare_slopes(grids, inputs, rng=np.random.default_rng(0), n_resamples=200)
    assert (again.n_inputs[0, 0], again.includes_vector_error[0, 0].tolist()) == (n - 1, [True, False])


def test_three_caches_of_the_same_questions_are_resampled_together():
    grids, inputs = three()
    pairs = list(combinations(grids, 2))
    found = {
        p: match(pair, [grids[k] for k in pair], [inputs[k] for k in pair], "x", [BASE, NEG])
        for p, pair in enumerate(pairs)
    }
    ab, ac, bc = (one.replicates for one in _question_draws(found, np.random.default_rng(0), 50).values())
    np.testing.assert_allclose(ab + bc, ac)


def test_twins_are_one_question():
    rng = np.random.default_rng(4)
    values = np.repeat(rng.normal(size=(2, 8)), 2, axis=1)
    question = {"x": np.repeat([f"q{k}" for k in range(8)], 2)}
    grids = {"a": grid({"x": values * 0}, question=question), "b": grid({"x": values}, question=question)}
    inputs = {key: {"x": list(range(16))} for key in grids}
    found = compare_slopes(grids, inputs, rng=np.random.default_rng(0), n_resamples=200)
    assert found.n[0, 0] == 8
    assert found.se[0, 0, 0] == pytest.approx(values[0, ::2].std(ddof=1) / np.sqrt(8), rel=1e-9)


def test_what_cannot_be_compared_is_a_named_error():
    grids, inputs = three()
    with pytest.raises(InputError, match="two or more"):
        compare_slopes({"a": grids["a"]}, inputs, rng=np.random.default_rng(0))
    other = {"a": grids["a"], "b": grid({"z": np.ones((2, 3))})}
    with pytest.raises(CannotEstimate, match="share no input"):
        compare_slopes(other, {"a": inputs["a"], "b": {"z": [1, 2, 3]}}, rng=np.random.default_rng(0))
    assert shared_datasets(other) == ()
    assert shared_datasets({**grids, "d": grid({"y": np.ones((2, 3)), "z": np.ones((2, 3))})}) == ("x", "y")
    with pytest.raises(InputError, match="names base->base twice"):
        compare_slopes(grids, inputs, [BASE, "base->base"], rng=np.random.default_rng(0))
    rng = np.random.default_rng(0)
    assert compare_slopes(grids, inputs, "base->user_neg", rng=rng, n_resamples=20).shifts == ("base->user_neg",)
    with pytest.raises(InputError, match="has 2 labels for 12 slopes"):
        compare_slopes(grids, {**inputs, "b": {"x": [1, 2], "y": [1]}}, rng=np.random.default_rng(0))


def test_one_question_has_a_difference_and_no_interval():
    grids = {"a": grid({"x": [[1.0], [2.0]]}), "b": grid({"x": [[3.0], [5.0]]})}
    found = compare_slopes(grids, {key: {"x": ["i"]} for key in grids}, rng=np.random.default_rng(0), n_resamples=50)
    assert found.estimate[0, 0].tolist() == [2.0, 3.0]
    assert np.isnan([found.se, found.ci_low, found.band_low]).all()


@pytest.mark.parametrize("vector_sd", [0.0, 0.3])
def test_bands_cover_all_differences_at_once(vector_sd):
    """Three caches of the same questions, 5 datasets: nominal 95% for the family, known truth 0."""
    rng = np.random.default_rng(5)
    names, n, k, times = [f"d{i}" for i in range(5)], 40, 20, 150
    inputs = {key: {name: list(range(n)) for name in names} for key in "abc"}
    held, cells = 0, []
    for _ in range(times):
        shared = {name: rng.normal(size=n) for name in names}
        grids = {}
        for label in "abc":
            off = {name: vector_sd * rng.normal() for name in names}
            slopes = {name: (shared[name] + rng.normal(size=n) + off[name])[None] for name in names}
            again = None
            if vector_sd:
                again = {name: slopes[name] + vector_sd * rng.normal(size=(k, 1, 1)) for name in names}
            grids[label] = grid(slopes, again, evaluate=("base",))
        found = compare_slopes(grids, inputs, [BASE], rng=rng, n_resamples=400)
        held += bool(((found.band_low < 0) & (found.band_high > 0)).all())
        cells.append(((found.ci_low < 0) & (found.ci_high > 0)).mean())
    # Monte Carlo error of the family's coverage: 1.8 points.
    assert 0.90 <= held / times <= 0.99
    assert 0.93 <= np.mean(cells) <= 0.97


def two_refitted(rng, n=30, k=12, rho=0.9, draws=(None, None)):
    """Two caches whose vectors' errors correlate, replicate by replicate and in the vectors themselves."""
    root = np.linalg.cholesky([[1, rho], [rho, 1]])
    vectors, refits = 0.5 * root @ rng.normal(size=2), 0.5 * root @ rng.normal(size=(2, k))
    shared, grids = rng.normal(size=n), {}
    for m, label in enumerate("ab"):
        slopes = shared + 0.3 * rng.normal(size=n) + vectors[m]
        again = slopes + refits[m][:, None, None]
        named = None if draws[m] is None else {"x": draws[m]}
        grids[label] = grid({"x": slopes[None]}, {"x": again}, evaluate=("base",), draw=named)
    return grids, {label: {"x": list(range(n))} for label in grids}, refits


def test_refits_of_the_same_resamples_are_paired_whatever_their_order():
    names = [f"r{k}" for k in range(12)]
    grids, inputs, refits = two_refitted(np.random.default_rng(6), draws=(names, names))
    order = np.random.default_rng(7).permutation(12)
    turned = grids["b"].refits["x"][order][:, 0]
    grids["b"] = grid(
        {"x": grids["b"].slopes["x"][0]}, {"x": turned}, evaluate=("base",), draw={"x": [names[k] for k in order]}
    )
    found = compare_slopes(grids, inputs, [BASE], rng=np.random.default_rng(0), n_resamples=300)
    difference = (grids["b"].slopes["x"] - grids["a"].slopes["x"]).ravel()
    known = np.sqrt(difference.var(ddof=1) / 30 + (refits[1] - refits[0]).var(ddof=1))
    assert found.se.item() == pytest.approx(known, rel=1e-9)
    assert found.paired_vectors.all()
    assert any("are paired" in text for text in found.assumptions)
    assert not any("independently" in text for text in found.assumptions)


@pytest.mark.parametrize(
    "draws", [(None, None), (list("abcdefghijkl"), None), (list("abcdefghijkl"), list("ABCDEFGHIJKL"))]
)
def test_refits_that_are_not_known_to_be_of_the_same_resamples_add_their_variances(draws):
    grids, inputs, refits = two_refitted(np.random.default_rng(6), draws=draws)
    found = compare_slopes(grids, inputs, [BASE], rng=np.random.default_rng(0), n_resamples=300)
    difference = (grids["b"].slopes["x"] - grids["a"].slopes["x"]).ravel()
    known = np.sqrt(difference.var(ddof=1) / 30 + refits.var(axis=1, ddof=1).sum())
    assert found.se.item() == pytest.approx(known, rel=1e-9)
    assert not found.paired_vectors.any()
    assert any("err independently" in text for text in found.assumptions)


def test_nothing_is_said_of_the_errors_of_vectors_that_are_in_no_interval():
    grids, inputs, _ = two_refitted(np.random.default_rng(6))
    bare = {label: replace(one, refits=None) for label, one in grids.items()}
    found = compare_slopes(bare, inputs, [BASE], rng=np.random.default_rng(0), n_resamples=300)
    assert not found.includes_vector_error.any()
    assert not any("err independently" in text or "too wide" in text for text in found.assumptions)


def test_paired_vectors_cover_and_are_narrower():
    """Vectors fitted to the same pairs (errors correlate .9), 12 refits: nominal 95%, pairing unknown 99-100%."""
    names = [f"r{k}" for k in range(12)]
    widths, hits, bands = [[], []], [0, 0], 0
    for seed in range(300):
        for j, draws in enumerate([(names, names), (None, None)]):
            grids, inputs, _ = two_refitted(np.random.default_rng([8, seed]), draws=draws)
            found = compare_slopes(grids, inputs, [BASE], rng=np.random.default_rng(0), n_resamples=200)
            hits[j] += found.ci_low.item() <= 0 <= found.ci_high.item()
            widths[j].append(found.ci_high.item() - found.ci_low.item())
            bands += (found.band_low.item() <= 0 <= found.band_high.item()) * (j == 0)
    assert 0.925 <= hits[0] / 300 <= 0.98
    assert 0.92 <= bands / 300 <= 0.985
    assert hits[1] / 300 > 0.985
    assert np.mean(widths[0]) < 0.5 * np.mean(widths[1])


def test_refits_are_named_one_by_one():
    with pytest.raises(InputError, match=r"refit_draw\['x'\] holds 1 names for 12 refits"):
        two_refitted(np.random.default_rng(0), draws=(["same"] * 12, None))


def test_a_built_cache_names_the_resamples_of_its_refits_and_others_do_not(tmp_path):
    study = steerstats.open_cache(steerstats.demo_cache())
    grid_of = study.grid(["base->base"], refits=True)
    names = grid_of.draws("likes-rain")
    assert len(set(names)) == len(grid_of.refits["likes-rain"]) == 10
    assert set(names).isdisjoint(grid_of.draws("keeps-pets"))
    assert names == steerstats.open_cache(steerstats.demo_cache()).grid(refits=True).draws("likes-rain")
    truth = steerstats.SimulationTruth(datasets=["d"], n_resampled=3, vector_sd=0.1)
    simulated = steerstats.open_cache(steerstats.simulate_cache(tmp_path / "c", truth, seed=1).path).grid(refits=True)
    assert simulated.refits is not None
    assert simulated.draws("d") is None


def test_a_dataset_that_did_not_change_stays_in_the_mean():
    """Four of six datasets exactly equal, two moved by about 1: the mean is near a third, not near 1."""
    rng = np.random.default_rng(0)
    first = {f"d{k}": rng.normal(1, 0.3, (1, 30)) for k in range(6)}
    second = {name: values + (name < "d2") * rng.normal(1, 0.2, values.shape) for name, values in first.items()}
    grids = {"a": grid(first, evaluate=("base",)), "b": grid(second, evaluate=("base",))}
    inputs = {key: {name: list(range(30)) for name in first} for key in grids}
    found = compare_slopes(grids, inputs, [BASE], rng=rng, n_resamples=200)
    effect = found.estimate[0, :, 0]
    assert effect[2:].tolist() == [0.0] * 4
    row = found.means_frame().iloc[0]
    assert row["n"] == 6
    assert row["estimate"] == pytest.approx(effect.mean(), rel=1e-9)
    margin = stats.t.ppf(0.975, 5) * effect.std(ddof=1) / np.sqrt(6)
    assert [row["ci_low"], row["ci_high"]] == pytest.approx([effect.mean() - margin, effect.mean() + margin], rel=1e-9)
    assert any(text.startswith("a and b, base->base, d2, d3, d4, d5: every question") for text in found.warnings)
    assert any("all datasets weigh alike" in text for text in found.warnings)
    equal = compare_slopes({"a": grids["a"], "b": grids["a"]}, inputs, [BASE], rng=rng, n_resamples=50)
    assert equal.means_frame().empty
    assert any("no mean over datasets" in text for text in equal.warnings)
    assert any(text.startswith("a and b, base->base, all datasets: every question") for text in equal.warnings)


def test_what_is_said_of_a_pair_is_of_its_own_datasets_and_questions():
    """B is A without d2; C has five questions of each dataset."""
    rng = np.random.default_rng(4)
    first = {f"d{k}": rng.normal(1, 0.3, (1, 30)) for k in range(3)}
    few = {name: values[:, :5] + rng.normal(0.5, 0.3, (1, 5)) for name, values in first.items()}
    slopes = {"a": first, "b": {name: first[name] for name in ("d0", "d1")}, "c": few}
    grids = {key: grid(own, evaluate=("base",)) for key, own in slopes.items()}
    inputs = {key: {name: list(range(values.shape[1])) for name, values in own.items()} for key, own in slopes.items()}
    found = compare_slopes(grids, inputs, [BASE], rng=rng, n_resamples=50)
    assert any(text.startswith("a and b, base->base, all datasets: every question") for text in found.warnings)
    (said,) = [text for text in found.warnings if text.startswith("a and c, base->base: 3 of 3 datasets have fewer")]
    assert "the fewest: 5" in said


def test_a_dataset_without_a_standard_error_is_named_as_left_out():
    rng = np.random.default_rng(1)
    sizes = {"x": 20, "y": 20, "lonely": 1}
    grids = {
        key: grid({name: rng.normal(size=(1, n)) for name, n in sizes.items()}, evaluate=("base",)) for key in "ab"
    }
    inputs = {key: {name: list(range(n)) for name, n in sizes.items()} for key in grids}
    found = compare_slopes(grids, inputs, [BASE], rng=rng, n_resamples=50)
    assert found.means_frame()["n"].item() == 2
    assert any("left out" in text and "lonely" in text for text in found.warnings)
    assert "lonely: a single question has no variance: no interval" in found.warnings
    slopes = {key: {name: value[0] for name, value in one.slopes.items() if name != "y"} for key, one in grids.items()}
    alone = {key: grid(value, evaluate=("base",)) for key, value in slopes.items()}
    without = compare_slopes(alone, inputs, [BASE], rng=rng, n_resamples=50)
    assert without.means_frame().empty
    assert any("fewer than two have a standard error above 0" in text for text in without.warnings)


@pytest.mark.parametrize("refitted", [False, True])
def test_an_unrelated_third_cache_does_not_narrow_a_pair(refitted):
    """A and B share 3 questions, A and C 100: the interval of A and B is that of the 3, as without C."""
    rng = np.random.default_rng(2)
    base, k = rng.normal(1, 0.3, 100), 20

    def of(values):
        again = values + rng.normal(0, 0.001, (k, 1, 1)) if refitted else None
        return grid({"d": values[None]}, None if again is None else {"d": again}, evaluate=("base",))

    grids = {"a": of(base), "b": of(base[:3] + np.array([0.1, 0.3, 0.8])), "c": of(base + rng.normal(0, 0.1, 100))}
    inputs = {key: {"d": list(range(3 if key == "b" else 100))} for key in grids}
    two = {key: grids[key] for key in "ab"}
    alone = compare_slopes(two, inputs, [BASE], rng=np.random.default_rng(3), n_resamples=2000)
    beside = compare_slopes(grids, inputs, [BASE], rng=np.random.default_rng(3), n_resamples=2000)
    for name in ("se", "ci_low", "ci_high"):
        assert getattr(beside, name)[0].item() == pytest.approx(getattr(alone, name)[0].item(), rel=1e-9), name
    assert "a and b, d: only 3 questions" in beside.warnings
    assert "d: only 3 questions" in alone.warnings
