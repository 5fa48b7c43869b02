"""The questions by which a study doubts itself, from caches with a known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from example_table import example_rows
from study_caches import cache_of, written

from steerstats.cache import BY_NAME, UnitData, create_cache, pack, write_unit
from steerstats.cache.schema import GRID, PLANNED_SUMMARIES
from steerstats.cache.table import import_table
from steerstats.errors import Absent, CannotEstimate
from steerstats.generalization import gap
from steerstats.nulls import differ_at_least
from steerstats.resampling.seeds import generator
from steerstats.rounding import STORED
from steerstats.simulate import SimulationTruth, simulate_unit
from steerstats.spurious import spurious_factors
from steerstats.steerability import linearity_test, replicates
from steerstats.study import demo_cache, open_cache
from steerstats.study.doubt_results import range_rows


def test_nulls_stay_apart_and_say_when_they_cannot_resolve(study, tmp_path):
    found = study.nulls()
    assert (found.random.kind, found.shuffled.kind) == ("random", "shuffled")
    assert set(found.random.decision) == {"cannot resolve"}
    assert found.random.n_null.tolist() == [6] * 10
    for table in (found.random, found.shuffled):
        own = study.unit("sim-03").control_slopes(table.kind, "base->base").mean(axis=1)
        assert table.null_abs_quantile[3] == pytest.approx(np.quantile(np.abs(own), 0.95))
    small, said = (
        cache_of(tmp_path, n_pairs=12, n_shuffled=6).path,
        "with 12 training questions, p-values of label-shuf",
    )
    few, untold = (
        open_cache(small).nulls(),
        open_cache(pack(small, tmp_path / "p.h5", leave_out="pair_question")).nulls(),
    )
    assert [any(said in text for text in one.warnings) for one in (few, untold, found)] == [True, False, False]
    strong = open_cache(study.path, datasets=["sim-09"]).nulls(alpha=0.2)
    assert strong.random.decision == ("differs from the null",)


def test_vectors_counted_together_rest_on_their_training_questions(tmp_path):
    small = cache_of(tmp_path, datasets=6, n_pairs=12, n_shuffled=6).path
    few, untold = open_cache(small), open_cache(pack(small, tmp_path / "p.h5", leave_out="pair_question"))
    assert few.nulls().shuffled.p.tolist() == [1 / 7] * 6
    assert differ_at_least([1 / 7] * 6) == 3
    assert [one.nulls().shuffled.at_least for one in (few, untold)] == [1, 1], "1 / 7 of 12 questions stands for more"


def test_the_debiased_vector_has_lost_the_bias_and_not_the_effect(study):
    found = study.debiased()
    effects = found.effects.query("term == 'pos_is_a'").groupby("vector")["estimate"].mean()
    assert effects["own"] == pytest.approx(0.8, abs=0.2)
    assert effects["debiased"] == pytest.approx(0.0, abs=0.2)
    assert found.to_frame()["estimate"].abs().max() < 0.1
    unit = study.unit("sim-04")
    lost = unit.slopes.at("base->base") - unit.control_slopes("debiased", "base->base")[0]
    assert found.loss["sim-04"].estimate == pytest.approx(lost.mean()), "positive is a loss"


def test_a_dataset_without_a_debiased_vector_is_left_out_by_name(study):
    some = open_cache(study.path, datasets=["sim-04", "sim-05"])
    has = some.unit("sim-05").has
    there = ("base", "user_neg")
    some.unit("sim-05").has = lambda shift, kind="main": (kind, shift) != ("debiased", there) and has(shift, kind)
    assert list(some.debiased(n_resamples=50).loss) == ["sim-04", "sim-05"]
    found = some.debiased(there, n_resamples=50)
    assert list(found.loss) == ["sim-04"]
    assert "without a debiased vector, and left out: sim-05" in found.warnings
    with pytest.raises(Absent, match="not in this cache: debiased vectors of sys_pos evaluated in user_neg"):
        some.debiased("sys_pos->user_neg")


def test_slopes_on_part_of_the_grid_are_held_against_those_on_all_of_it():
    slopes = np.array([[-1.0, 2.0, 1.0], [0.0, 1.0, 2.0], [3.0, -1.0, 4.0], [2.0, 3.0, -2.0]])
    frame = range_rows("d", slopes, np.array([0.5, 1.0, 1.5]), np.arange(4), 0.95)
    expected = [np.corrcoef(slopes[:, k], slopes[:, 2])[0, 1] for k in range(3)]
    np.testing.assert_allclose(frame["correlation_with_whole"], expected)
    assert frame["share_other_sign"].tolist() == [0.5, 0.5, 0.0], "a slope of 0 has no other sign"


def test_every_doubt_counts_questions_where_inputs_share_one(study):
    twins = open_cache(study.path, datasets=["sim-04"])
    twins.unit("sim-04").question = np.repeat(np.arange(20), 2)
    debiased = twins.debiased(n_resamples=50)
    assert set(debiased.effects["se_type"]) == {"CR2, Bell-McCaffrey df"}
    counts = {
        "debiased": debiased.loss["sim-04"].n,
        "reliability": twins.reliability()["sim-04"].reliability.n,
        "corrected": twins.corrected_anti_steerable(n_resamples=10)["sim-04"].n,
        "mass": twins.answer_mass().n[0],
        "range": twins.multiplier_range().to_frame()["n"].iloc[0],
        "linearity": twins.linearity()["sim-04"].n_questions,
        "steerability": twins.steerability()["sim-04"]["mean"].n,
    }
    assert counts == dict.fromkeys(counts, 20)


def test_answer_mass_flags_the_dataset_that_loses_it(tmp_path, study):
    assert not study.answer_mass().collapsed.any()
    weak = open_cache(cache_of(tmp_path, mass_decay=3.0).path)
    found = weak.answer_mass()
    assert found.collapsed[:, [0, -1]].all()
    assert not found.collapsed[:, 3].any()
    assert len(found.warnings) == 2
    assert study.answer_mass(threshold=0.9999).collapsed.all()
    assert (weak.answer_mass(level=0.5).ci_low > found.ci_low).all()


def without(arrays, axis, gone):
    """The arrays of a unit without some places of one axis."""
    axes = {name: BY_NAME[name].dims for name in arrays}
    return {
        name: np.delete(arrays[name], gone, dims.index(axis)) if axis in dims else arrays[name]
        for name, dims in axes.items()
    }


def test_datasets_with_other_multipliers_have_no_mass_in_one_table_and_no_number_of_contrasts_in_common(tmp_path):
    truth = SimulationTruth(datasets=2, n_inputs=8, n_pairs=6)
    one, other = (simulate_unit(truth, name)[0] for name in truth.datasets)
    for place, arrays, said in (
        ("twice", {**other.arrays, "multiplier": 2 * other.arrays["multiplier"]}, r"\[-3\.0, "),
        ("fewer", without(other.arrays, "multiplier", [0, 6]), r"\[-1\.0, "),
    ):
        units = dict(zip(truth.datasets, (one, UnitData(arrays, other.attrs))))
        study = open_cache(written(tmp_path / place, units))
        with pytest.raises(CannotEstimate, match=rf"dataset sim-01 has multipliers {said}.*, sim-00 \[-1\.5, "):
            study.answer_mass()
        assert study.linearity().numbers == ({"n_contrasts": 5} if place == "twice" else {})


def test_cosines_between_settings_and_with_refits(study):
    found = study.vector_cosines()
    at = {name: k for k, name in enumerate(found.vectors)}
    assert np.median(found.cosine[:, at["base"], at["user_neg"]]) == pytest.approx(0.6, abs=0.1)
    assert np.diagonal(found.cosine, axis1=1, axis2=2) == pytest.approx(1.0)
    unit = study.unit("sim-00").unit
    rows = unit.read("direction", vector=["base", *study.unit("sim-00").controls("resampled")])[:, 0].astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found.stability[0, at["base"]], np.quantile(rows[1:] @ rows[0], (0.025, 0.5, 0.975)))
    assert np.isnan(found.stability[:, at["user_pos"]]).all(), (
        "the simulation refits vectors of the paper's shifts only"
    )
    assert len(found.to_frame()) == 10 * 15
    assert not any("no resampled vectors" in text for text in found.warnings)


def test_cosines_of_a_dataset_that_lacks_a_vector_are_over_all_layers_and_stand_in_their_own_rows(tmp_path):
    truth = SimulationTruth(datasets=2, n_inputs=4, n_pairs=6)
    whole, other = (simulate_unit(truth, name)[0] for name in truth.datasets)
    direction = np.concatenate([other.arrays["direction"], other.arrays["direction"][:, :, ::-1] ** 3], axis=1)
    two = {"direction": direction, "slot": np.arange(2, dtype=np.int32)}
    two["vector_layer"] = np.tile(np.array([3, 5], dtype=np.int32), (len(direction), 1))
    less = without({**other.arrays, **two}, "vector", list(other.arrays["vector"]).index("sys_pos"))
    units = dict(zip(truth.datasets, (whole, UnitData(less, other.attrs))))
    found = open_cache(written(tmp_path, units)).vector_cosines()
    here = found.vectors.index("sys_pos")
    assert np.isnan(found.cosine[1, here]).all()
    assert np.isnan(found.norm[1, here])
    rest = [row for row in range(len(found.vectors)) if row != here]
    rows = [list(less["vector"]).index(found.vectors[row]) for row in rest]
    flat = less["direction"][rows].reshape(len(rows), -1).astype(float)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(found.cosine[1][np.ix_(rest, rest)], flat @ flat.T)
    np.testing.assert_allclose(found.norm[1][rest], less["vector_raw_norm"][rows])


def test_linearity_and_ranges_tell_straight_from_bent(tmp_path, study):
    bent = open_cache(cache_of(tmp_path, curvature=0.4, curvature_sd=0.1, wiggle_sd=0.05, n_inputs=30).path)
    assert (bent.linearity().to_frame()["p_value"] < 1e-3).all()
    straight = study.linearity()
    assert (straight.to_frame()["distance"] == 0).all()  # what is left is the rounding of float32
    assert (straight.to_frame()[["nonlinear_share", "rms_departure"]] == 0).all(axis=None)
    assert any("exactly linear, to within rounding" in text for text in straight.warnings)
    slight = open_cache(cache_of(tmp_path / "slight", curvature=1e-3, curvature_sd=1e-4, wiggle_sd=1e-4).path)
    assert (slight.linearity().to_frame()["distance"] > 1).all()
    narrow, found = study.multiplier_range(level=0.5).to_frame(), study.multiplier_range().to_frame()
    assert (narrow["ci_high"] < found["ci_high"]).all()
    whole = found[found["range"] == 1.5].set_index("dataset")
    np.testing.assert_allclose(whole["mean"], [study.slopes(n).at("base->base").mean() for n in study.datasets])
    np.testing.assert_allclose(whole["correlation_with_whole"], 1.0)
    assert (whole["share_other_sign"] == 0).all()


@pytest.mark.parametrize(
    ("path", "error"), [("trie", 6.0), ("plain", 3.0)], ids=["the trie's against plain", "the plain path's own noise"]
)
def test_engine_error_makes_a_class_of_its_own(tmp_path, path, error):
    data, _ = simulate_unit(SimulationTruth(datasets=1, n_inputs=8, n_pairs=6, mean_steerability=[2.0]), "sim-00")
    manifest = {"kind": "grid", "spec_hash": "ab", "units": ["sim-00"], "model": {"id": "m/x"}}
    root = create_cache(tmp_path / "c", manifest)
    parity = {"path": path, "difference": 3.5, "plain_difference": 1.75, "tolerance": 8.0}
    write_unit(root, "sim-00", UnitData(data.arrays, {**data.attrs, "spec_hash": "ab"}), {"parity": parity})
    study = open_cache(root)
    assert study.model == "m/x"
    # A propensity off by 2 * 3.5 nats: 7 * sum|lambda| / sum lambda^2 = 7 * 6 / 7
    assert study.unit("sim-00").slope_error == pytest.approx(error)
    inside = np.abs(study.slopes("sim-00").at("base->base")) <= error
    assert study.steerability()["sim-00"]["within_error"].estimate == inside.mean() > 0


def test_a_dataset_under_two_names_is_said_to_be_one(tmp_path):
    rows = pd.DataFrame(list(example_rows()))
    both = pd.concat([rows, rows.assign(dataset="again")])
    both.to_csv(tmp_path / "twice.csv", index=False)
    study = open_cache(import_table(tmp_path / "twice.csv", tmp_path / "twice", model="m"))
    said = [text for text in study.steerability().warnings if "one dataset" in text]
    assert [text[:61] for text in said] == ["again, kindness hold the same propensities to the bit: they a"]
    both.iloc[-1, both.columns.get_loc("propensity")] += 0.5
    both.to_csv(tmp_path / "near.csv", index=False)
    near = open_cache(import_table(tmp_path / "near.csv", tmp_path / "near", model="m"))
    assert not any("one dataset" in text for text in near.steerability().warnings)


def test_the_mass_of_the_answers_is_that_of_the_shift_that_is_asked_about():
    study, name = open_cache(demo_cache(), datasets="keeps-pets"), "keeps-pets"
    unit, found = study.unit(name), {}
    for train, evaluation in (("base", "base"), ("sys_pos", "base"), ("sys_pos", "user_neg")):
        cell = {"setting_eval": evaluation, "vector": train}
        logits, total = (unit.unit.read(array, **cell)[..., unit.kept] for array in ("answer_logit", "logsumexp"))
        mass = study.answer_mass((train, evaluation)).to_frame().set_index("dataset").loc[name, "mean"]
        found[train, evaluation] = np.exp(logits - total[:, None]).sum(axis=1).mean(axis=1)
        np.testing.assert_allclose(mass, found[train, evaluation], rtol=1e-5)
    apart = [
        np.abs(found["sys_pos", "base"] - other).max() for key, other in found.items() if key != ("sys_pos", "base")
    ]
    assert min(apart) > 1e-4, "cells that are alike would tell nothing"


def test_every_doubt_is_about_the_shift_at_the_level_and_with_the_seed_that_are_asked_for(study, tmp_path):
    name, shift, asked = "sim-03", ("base", "user_neg"), {"level": 0.8, "n_resamples": 50}
    data = study.unit(name).unit.load()
    arrays, kinds = dict(data.arrays), data.arrays["vector_kind"]
    elsewhere = np.isin(kinds, ["random", "shuffled", "debiased"])  # than in base->base
    for array in ("planned", *GRID, *PLANNED_SUMMARIES):
        if array in arrays:
            arrays[array] = arrays[array].copy()
            arrays[array][0, elsewhere] = 0 if array == "planned" else np.nan
    arrays["propensity"][4, kinds == "resampled"] *= 4
    one = open_cache(written(tmp_path, {name: UnitData(arrays, data.attrs)}))
    unit = one.unit(name)
    own = unit.slopes.at(shift)
    controls = {kind: unit.control_slopes(kind, shift) for kind in ("random", "shuffled", "resampled", "debiased")}

    nulls = one.nulls(shift, alpha=0.2)
    for table in (nulls.random, nulls.shuffled):
        assert table.mean[0] == pytest.approx(own.mean())
        expected = np.quantile(np.abs(controls[table.kind].mean(axis=1)), 0.8)
        assert table.null_abs_quantile[0] == pytest.approx(expected)

    debiased, other = one.debiased(shift, seed=3, **asked), controls["debiased"][0]
    loss = gap(own, other, rng=generator(3, "debiased", name), questions=unit.question, **asked)
    pd.testing.assert_frame_equal(debiased.loss[name].to_frame(), loss.to_frame())
    factors = unit.factors(("pos_is_a", "pos_is_yes"))
    for vector, slopes in (("own", own), ("debiased", other)):
        fit = spurious_factors(slopes, factors, questions=unit.question, level=0.8).robust_frame().set_index("term")
        found = debiased.effects[debiased.effects["vector"] == vector].set_index("term")
        for column in ("estimate", "ci_low", "ci_high"):
            np.testing.assert_allclose(found[column], fit.loc[found.index, column])

    refits = {"kind": "refits", "slopes": own, "questions": unit.question}
    reliability = replicates.slope_reliability(controls["resampled"], **refits, level=0.8)
    pd.testing.assert_frame_equal(one.reliability(shift, level=0.8)[name].to_frame(), reliability.to_frame())
    rng = generator(3, "corrected anti-steerable", name)
    share = replicates.corrected_anti_steerable(controls["resampled"], **refits, rng=rng, **asked)
    corrected = one.corrected_anti_steerable(shift, seed=3, **asked)
    pd.testing.assert_frame_equal(corrected[name].to_frame(), share.to_frame())
    assert {result.shift for result in (nulls, debiased)} == {"base->user_neg"}
    assert corrected.method.startswith("base->user_neg; ")


def test_curves_are_those_of_the_shift_that_is_asked_about():
    name, shift = "likes-rain", ("sys_pos", "user_neg")
    study = open_cache(demo_cache(), datasets=name)
    unit = study.unit(name)
    curves = unit.propensity[unit.place(shift)]
    straight = linearity_test(curves, unit.multipliers, questions=unit.question, level=0.8, resolution=STORED)
    pd.testing.assert_frame_equal(study.linearity(shift, level=0.8)[name].to_frame(), straight.to_frame())
    ranges = study.multiplier_range(shift).to_frame().set_index("range")
    for c, kept in ((0.5, [2, 3, 4]), (1.5, slice(None))):
        slopes = np.polyfit(unit.multipliers[kept], curves[:, kept].T, 1)[0]
        assert ranges.loc[c, "mean"] == pytest.approx(slopes.mean())
