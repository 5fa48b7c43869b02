"""What refitted vectors add to a study: their own error in the intervals, cell by cell and dataset by dataset."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from study_caches import FAST, cache_of, written

import steerstats
from steerstats.cache import UnitData
from steerstats.errors import CacheError, CannotEstimate
from steerstats.generalization import with_vector_error
from steerstats.simulate import SimulationTruth, simulate_unit
from steerstats.study import open_cache


def test_refits_sit_in_their_cell_of_the_grid(study):
    grid = study.grid(["base->base", "sys_pos->user_neg"], refits=True)
    own = study.unit("sim-04").control_slopes("resampled", "sys_pos->user_neg")
    assert own.shape == (12, 40)
    i, j = grid.place(("sys_pos", "user_neg"))
    np.testing.assert_array_equal(grid.refits["sim-04"][:, i, j], own)
    assert np.isfinite(grid.refits["sim-04"]).sum() == 2 * 12 * 40
    assert np.isfinite(grid.slopes["sim-04"]).sum() == 2 * 40


def without_refits(tmp_path, dataset: str, shift: tuple[str, str], lost: int | None = None):
    """A copy of a cache with refits in which one dataset was not refitted under one shift, or not so many times."""
    truth = SimulationTruth(
        datasets=3, n_inputs=12, n_pairs=12, n_resampled=4, vector_sd=0.3, settings=("base", "user_neg")
    )
    units = {name: simulate_unit(truth, name)[0] for name in truth.datasets}
    arrays = {name: array.copy() for name, array in units[dataset].arrays.items()}
    e = list(truth.settings).index(shift[1])
    gone = np.flatnonzero((arrays["vector_kind"] == "resampled") & (arrays["vector_setting"] == shift[0]))[:lost]
    arrays["planned"][e, gone] = 0
    for name in ("propensity", "answer_logit", "logsumexp", "input_projection", "input_difference_cosine"):
        arrays[name][e, gone] = np.nan
    units[dataset] = UnitData(arrays, units[dataset].attrs)
    return open_cache(written(tmp_path, units))


def test_one_dataset_without_refits_takes_vector_error_from_itself_alone(tmp_path):
    study = without_refits(tmp_path, "sim-01", ("base", "user_neg"))
    assert not study.has_refits(["base->base", "base->user_neg"])
    found = study.generalization(["base->user_neg"], **FAST)
    assert found.gaps.includes_vector_error[0, :, 0].tolist() == [True, False, True]
    assert found.settings.includes_vector_error[:, 0, 0].all()
    assert found.settings.includes_vector_error[:, 0, 1].tolist() == [True, False, True]
    assert not found.correlations.includes_vector_error.any()
    text = "sim-01: intervals of base->user_neg hold for these very vectors: no refits were measured there"
    assert text in found.warnings
    table = study.steerability("base->user_neg")
    assert "sim-01" not in table.vector_error
    frame = table.to_frame()
    assert set(frame.query("includes_vector_error")["name"]) == {"mean, vector error included"}
    assert not frame.query("name == 'mean'")["includes_vector_error"].any()
    assert text in table.warnings
    assert "includes_vector_error says so" in " ".join(table.assumptions)
    assert not any("taken as given" in text for text in table.assumptions)
    said = "over datasets, the vector's own error is in the standard errors of 2 of 3 datasets, not in that of sim-01"
    assert any(said in text for text in table.over_datasets.warnings)
    assert any(said in text for text in table.warnings)


def test_refits_of_which_one_was_not_evaluated_count_as_none(tmp_path):
    study = without_refits(tmp_path, "sim-01", ("base", "user_neg"), lost=1)
    assert not study.has_refits(["base->user_neg"])
    assert study.has_refits(["base->base"])
    with pytest.raises(CacheError, match="resampled vectors of base evaluated in user_neg"):
        study.unit("sim-01").control_slopes("resampled", "base->user_neg")


@pytest.mark.parametrize(("questions", "said"), [(8, 1), (20, 0)])
def test_few_training_questions_behind_refits_are_said(tmp_path, questions, said):
    truth = SimulationTruth(datasets=2, n_inputs=12, n_pairs=questions, n_resampled=4, settings=("base", "user_neg"))
    units = {name: simulate_unit(truth, name)[0] for name in truth.datasets}
    study = open_cache(written(tmp_path, units, spec={"seed": 0}))  # as a builder writes it
    for found in (study.steerability(), study.generalization(["base->user_neg"], **FAST)):
        texts = [text for text in found.warnings if "training questions behind the vectors of sim-00 (8), sim" in text]
        assert len(texts) == said


@pytest.mark.parametrize("refits", [4, 10])
def test_means_over_datasets_are_read_unweighted_where_standard_errors_rest_on_few_refits(tmp_path, refits):
    shift = "base->user_neg"
    truth = SimulationTruth(datasets=4, n_inputs=30, n_resampled=refits, vector_sd=0.3, settings=("base", "user_neg"))
    units = {name: simulate_unit(truth, name)[0] for name in truth.datasets}
    study = open_cache(written(tmp_path / "one", units))
    told = study.steerability(shift)
    gap = study.generalization([shift], **FAST).overall.of("gap", shift)
    said = "4 of 4 datasets have fewer than 10 refits"
    for fit in (told.over_datasets, gap):
        assert (fit.to_read == "unweighted") == (refits < 10)
        assert any(said in text for text in fit.warnings) == (refits < 10)
    assert any(said in text for text in told.warnings) == (refits < 10)


def test_with_eight_training_questions_refits_show_too_little_of_the_vectors_error():
    rng, held = np.random.default_rng(0), []
    for _ in range(600):
        differences = rng.normal(0, 3, (8, 16))
        refits = rng.multinomial(8, np.full(8, 1 / 8), size=20) @ differences / 8
        effect = rng.normal(0.5, 0.3, (100, 16))
        found = with_vector_error(effect @ differences.mean(axis=0), refits @ effect.T)
        held.append(found.ci_low <= 0 <= found.ci_high)
    assert 0.87 < np.mean(held) < 0.93  # as the docstring and the warning say


def test_refits_are_matched_by_their_replicate(tmp_path):
    truth = SimulationTruth(datasets=1, n_inputs=6, n_pairs=6, n_resampled=4, vector_sd=0.3)
    data, _ = simulate_unit(truth, "sim-00")
    arrays = dict(data.arrays) | {"vector_replicate": data.arrays["vector_replicate"].copy()}
    of_sys = (arrays["vector_kind"] == "resampled") & (arrays["vector_setting"] == "sys_pos")
    arrays["vector_replicate"][of_sys] += 1  # 1-4, where base has 0-3
    study = open_cache(written(tmp_path / "some", {"sim-00": UnitData(arrays, data.attrs)}))
    grid, unit = study.grid(["base->base", "sys_pos->user_neg"], refits=True), study.unit("sim-00")
    i, j = grid.place(("sys_pos", "user_neg"))
    np.testing.assert_array_equal(
        grid.refits["sim-00"][:, i, j], unit.control_slopes("resampled", "sys_pos->user_neg")[:3]
    )
    np.testing.assert_array_equal(grid.refits["sim-00"][:, 0, 0], unit.control_slopes("resampled", "base->base")[1:])
    arrays["vector_replicate"][of_sys] += 10
    study = open_cache(written(tmp_path / "none", {"sim-00": UnitData(arrays, data.attrs)}))
    with pytest.raises(CacheError, match="share no two replicates"):
        study.grid(refits=True)


def test_refits_of_two_caches_are_of_one_draw_where_seed_dataset_and_pairs_in_order_are_the_same(tmp_path):
    data, _ = simulate_unit(SimulationTruth(datasets=1, n_inputs=6, n_pairs=6, n_resampled=2), "sim-00")
    turned = UnitData({**data.arrays, "pair_question": data.arrays["pair_question"][::-1]}, data.attrs)
    made = [("a", data, 0), ("a", data, 0), ("b", data, 0), ("a", turned, 0), ("a", data, 1), ("a", data, None)]
    drawn = []
    for k, (name, unit, seed) in enumerate(made):
        spec = {} if seed is None else {"seed": seed}
        grid = open_cache(written(tmp_path / f"{k}", {name: unit}, spec=spec)).grid(["base->base"], refits=True)
        drawn.append(None if grid.refit_draw is None else set(grid.refit_draw[name]))
    assert drawn[0] == drawn[1]
    assert len(set().union(*drawn[:-1])) == 4 * 2, "none of another's"
    simulated = open_cache(written(tmp_path / "simulated", {"a": data}, "simulated", {"seed": 0}))
    assert simulated.grid(["base->base"], refits=True).refit_draw is None, "nobody else's pairs"
    assert drawn[-1] is None, "nothing says what they are resamples of"


def test_reliability_takes_its_noise_from_refits(study):
    found = study.reliability()
    noise = np.mean([found[name].sd_noise for name in found.datasets])
    assert noise == pytest.approx(0.1, rel=0.1)


def test_the_corrected_share_is_below_the_raw_one_where_noise_makes_inputs_negative(tmp_path):
    noisy = cache_of(tmp_path, datasets=1, mean_steerability=[1.0], input_sd=1.0, vector_input_sd=1.0, n_resampled=10,
                     n_inputs=2500, logits=False, settings=('base',))  # fmt: skip
    study = open_cache(noisy.path)
    corrected = study.corrected_anti_steerable(n_resamples=20)["sim-00"]
    raw = study.steerability()["sim-00"]["negative"]
    assert raw.estimate == pytest.approx(stats.norm.cdf(-1 / np.sqrt(2)), abs=0.03)
    assert corrected.estimate == pytest.approx(stats.norm.cdf(-1), abs=0.03)


def test_power_knows_the_vectors_and_the_sizes(study):
    table = study.power("base->user_neg", n_inputs=[20, 400], n_datasets=[1, 40]).to_frame()
    assert table["includes_vector_error"].all()
    assert table["effect"].is_monotonic_decreasing or table.groupby("n_inputs")["effect"].min().is_monotonic_decreasing
    assert study.power().n_inputs.tolist() == [40]


def test_power_counts_unequal_training_sets_by_the_harmonic_mean_by_which_errors_go(tmp_path):
    units, pairs = {}, {"few": 10, "many": 90}
    for name, n in pairs.items():
        truth = SimulationTruth(datasets=[name], n_inputs=40, n_pairs=n, n_resampled=60, vector_sd=1 / n**0.5)
        units[name] = simulate_unit(truth, name)[0]
    found = open_cache(written(tmp_path, units)).power("base->user_neg", n_datasets=2)
    assert found.n_pairs.tolist() == [18]  # 1 / 18 is the mean of 1 / 10 and 1 / 90


def test_power_says_for_which_shifts_refits_were_measured():
    study = open_cache(steerstats.demo_cache())
    found = study.power("base->user_neg")
    assert any("measured only for base->base, not under this shift" in text for text in found.warnings)
    assert not any("no refitted vectors" in text for text in found.warnings)
    assert not found.includes_vector_error
    assert np.isnan(found.n_pairs).all()
    alone = open_cache(study.path, datasets=study.datasets[:1])
    assert alone.power("base->user_neg").about == ("this dataset",)
    with pytest.raises(CannotEstimate, match="between datasets is unknown"):
        alone.power("base->user_neg", n_datasets=[1, 10])
