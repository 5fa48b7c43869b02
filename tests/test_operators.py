"""How vectors act changes what a number means: ablated models are not unsteered ones, and ablation works downwards."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_sweep import write_sweep

from steerstats.cache import UnitData, create_cache, write_unit
from steerstats.errors import CannotEstimate
from steerstats.frames import slopes_frame
from steerstats.operators import CAVEATS, NO_UNSTEERED
from steerstats.simulate import SimulationTruth, simulate_unit
from steerstats.study import open_cache
from steerstats.sweeps import RULE_ABLATE, choose_layer, choose_sweep_layer

TRUTH = SimulationTruth(datasets=4, n_inputs=16, n_pairs=12, n_random=2, mean_steerability=[-0.6, -0.3, 0.4, -0.5])


def acting(root, operator, truth=TRUTH):
    """A simulated cache that says that its vectors act by an operator."""
    create_cache(root, {"kind": "grid", "spec_hash": "ab", "units": list(truth.datasets), "model": "m"})
    for name in truth.datasets:
        data, _ = simulate_unit(truth, name)
        write_unit(root, name, UnitData(data.arrays, {**data.attrs, "spec_hash": "ab", "operator": operator}))
    return root


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    root = tmp_path_factory.mktemp("operators")
    return {name: acting(root / name, name) for name in ("add", "add_keep_norm", "ablate", "ablate_add")}


@pytest.mark.parametrize("operator", ["add", "add_keep_norm", "ablate", "ablate_add"])
def test_unsteered_is_the_unsteered_model_or_missing(caches, operator):
    study = open_cache(caches[operator])
    assert study.operators == (operator,)
    missing = operator == "ablate_add"
    slopes = study.slopes("sim-00")
    assert np.isnan(slopes.unsteered).all() == np.isnan(slopes.fit.unsteered).all() == missing
    assert slopes.to_frame()["unsteered"].isna().all() == missing
    assert slopes_frame(study.unit("sim-00").unit)["unsteered"].isna().all() == missing
    assert (study.grid().unsteered is None) == missing
    bias = study.spurious_factors(n_resamples=20)
    assert ("unsteered" not in set(bias.to_frame()["response"])) == missing
    for result in (study.steerability(), bias, study.generalization(n_resamples=50), study.nulls(), study.linearity()):
        assert [text for text in result.warnings if text in CAVEATS.values()] == list(
            filter(None, [CAVEATS.get(operator)])
        )


def test_figure_7_and_predictors_do_without_an_unsteered_model_that_is_not_there(caches):
    study = open_cache(caches["ablate_add"])
    with pytest.raises(CannotEstimate, match="holds no unsteered propensity"):
        study.propensity_shift()
    found = study.predictors(n_resamples=20, n_permutations=5)
    assert NO_UNSTEERED in found.warnings
    assert CAVEATS["ablate"] in open_cache(caches["ablate"]).propensity_shift().warnings


def test_the_terminal_does_not_call_ablation_at_work_the_wrong_way(caches):
    taken, added = (open_cache(caches[name]).steerability().summary() for name in ("ablate", "add"))
    assert "inputs steered the wrong way" in added
    head = taken.partition("More, as tables")[0]
    assert "wrong way" not in head
    assert "inputs whose propensity falls, median over datasets" in head
    assert "the other way round" in " ".join(taken.split())


def pages(path, out):
    from reports.render import render_report

    page = render_report([path], out, jobs=1).read_text("utf-8")
    records = {one.stem: json.loads(one.read_text("utf-8")) for one in (out / "results").rglob("*.json")}
    return page, records


def test_a_report_on_ablation_says_first_what_a_slope_is(caches, tmp_path):
    page, records = pages(caches["ablate"], tmp_path / "out")
    assert page.index("Operator ablate: slopes are what taking") < page.index('class="answer"')
    answer = page.partition('class="answer">')[2].partition("</p>")[0]
    assert answer.startswith(
        "Taking the vector&#39;s direction out (operator ablate) lowers propensity on average in 2 of 4"
    )
    assert "of single inputs" in answer
    for wrong in ("intended way", "are steered the wrong way", "Inputs steered most", "are added to the output"):
        assert wrong not in page
    assert (
        "propensity falls as the direction is taken out" in records["per_input_steerability"]["claims"][0]["statement"]
    )
    assert any("operator ablate" in text for text in records["null_vectors"]["warnings"])


def test_a_report_under_ablate_add_names_the_ablated_model(caches, tmp_path):
    page, records = pages(caches["ablate_add"], tmp_path / "out")
    assert page.index("multiplier 0 is the ablated model") < page.index('class="answer"')
    assert "unsteered propensity m(0)" in records["propensity_difference"]["missing"]
    statements = [claim["statement"] for claim in records["answer_mass"]["claims"]]
    assert "at multiplier 0 (the ablated model)" in statements[0]
    assert "where the unsteered model stands" not in page
    assert "without steering" not in page
    assert "in place of the activation&#39;s own part along them" in page


def test_no_published_value_is_held_against_vectors_that_act_otherwise(caches):
    from analyses import _published as published
    from analyses._cache import facts_of
    from steerstats.results import Estimate

    paper = {"model": published.LLAMA, "layer": 13, "datasets": sorted(published.FORTY), **published.PROTOCOL}
    ours = Estimate(name="share", estimate=0.49, ci_low=0.48, ci_high=0.5, n=40, method="")
    value = published.MYOPIC_ANTI
    assert published.judge(ours, value, (paper,), published.HOME)[0] == "consistent"
    assert facts_of(open_cache(caches["add"]))["operator"] == "add"
    for operator in ("ablate", "add_keep_norm"):
        own = facts_of(open_cache(caches[operator]))
        found = published.judge(ours, value, (paper | {"operator": own["operator"]},), published.HOME)
        assert found == ("not comparable", f"operator is {operator}, there add")


LAYERS = np.array([1, 2, 3])


def downwards(rng, means, n=60):
    shared = rng.normal(size=n)
    return {"d": np.array(means)[:, None] + shared + rng.normal(scale=0.2, size=(len(means), n))}


def test_ablation_chooses_the_layer_whose_removal_lowers_propensity_most():
    slopes = downwards(np.random.default_rng(0), [-0.1, -1.0, 0.8])
    choice = choose_layer(slopes, LAYERS, rng=np.random.default_rng(1), operator="ablate")
    assert choice.chosen == 2
    assert choice.share.tolist() == [0, 1, 0]
    assert choice.behind == pytest.approx(choice.mean - choice.mean[1])
    assert (choice.behind_low[[0, 2]] > 0).all()
    assert choice.rivals == ()
    assert choice.method.startswith(RULE_ABLATE)
    assert "best is lowest" in " ".join(choice.summary().split())
    # Signs of all slopes and of the rule together change nothing else.
    slopes |= {name: slopes["d"] + downwards(np.random.default_rng(k), [0, 0, 0])["d"] for k, name in enumerate("ef")}
    choice = choose_layer(slopes, LAYERS, rng=np.random.default_rng(1), operator="ablate")
    mirror = choose_layer({name: -own for name, own in slopes.items()}, LAYERS, rng=np.random.default_rng(1))
    for name in ("share", "behind", "behind_low", "behind_high", "p_best"):
        np.testing.assert_allclose(getattr(choice, name), getattr(mirror, name), atol=1e-12)


def test_a_sweep_in_which_no_removal_lowers_propensity_says_so():
    slopes = downwards(np.random.default_rng(2), [2.0, 0.5, 3.0])
    choice = choose_layer(slopes, LAYERS, rng=np.random.default_rng(1), operator="ablate")
    assert choice.chosen == 2
    assert any("at no layer does taking the direction out lower" in text for text in choice.warnings)


@pytest.fixture
def sweep(tmp_path):
    """Two datasets, three layers; taking layer 7 out lowers propensity most."""
    return write_sweep(tmp_path / "cache", ["a", "b"], [-0.2, -0.9, 0.4], [0.0, 0.5, 1.0], operator="ablate")


def test_a_sweep_of_ablations_says_its_rule_in_words_figure_and_record(sweep, tmp_path):
    choice = choose_sweep_layer(sweep)
    assert (choice.chosen, choice.operator, choice.warnings) == (7, "ablate", ())
    page, records = pages(sweep, tmp_path / "out")
    record = records["layer_sweep"]
    (claim,) = record["claims"]
    assert claim["estimate"] == pytest.approx(-0.9, abs=0.1)
    assert "Layer 7 is the best (lowest) of 3 in 100% of resamples" in claim["statement"]
    assert claim["statement"].endswith("; mean slope at layer 7, the vector's direction taken out (operator ablate):")
    assert "the choice of the lowest is not in it" in claim["interval"]
    assert RULE_ABLATE in record["method"]
    assert "the lowest is 7" in record["alt"]
    assert "lowest: strongest removal" in page
    assert "Operator ablate: slopes are what taking" in page
