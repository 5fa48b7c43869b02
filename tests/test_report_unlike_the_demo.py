"""What a report must not show: a model agreeing with itself, shares past 100%, a range against itself, cut numbers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from browser import Page, find_chromium
from example_table import example_rows
from reporting import TRUTH, hostile_cache, plain_cache, scratch, write_cache

import analyses
import steerstats
from analyses._cache import UNNAMED, check_distinct, same_model, vectors_of_kind
from analyses._claim import Claim
from analyses._compared import difference_error
from analyses._effects import share_words
from analyses._shares import CUT, in_range
from reports.notices import begun, notices_between, warned
from reports.render import _facts, render_report
from reports.reproduce import reproduce
from reports.words import summary
from steerstats import figures
from steerstats.cache.table import import_table
from steerstats.errors import InputError
from steerstats.generalization import SlopeGrid
from steerstats.simulate import SimulationTruth, simulate_cache
from steerstats.study.doubt_results import VectorCosines

BARE = {"n_resampled": 0, "n_random": 0, "n_shuffled": 0, "debiased": False, "logits": False}


def cache(name: str, model: str = "m", **changes):
    return write_cache(scratch() / name, replace(TRUTH, **{**BARE, **changes}), model=model)


# --- two caches of one model ----------------------------------------------------------------------


def test_two_caches_of_one_model_have_no_agreement_between_models(tmp_path):
    pair = [cache("one"), cache("two", mean_steerability=[0.9, 0.6, 0.4])]
    finding = analyses.run("cross_model", pair, tmp_path)
    assert finding.missing == "not in this cache: a second model; both caches are of m"
    assert not finding.claims
    assert analyses.run("comparison", pair, tmp_path).claims, "what differs between them is still told"


def test_caches_that_do_not_name_their_model_are_not_called_by_its_absence(tmp_path):
    pair = [cache("unnamed", UNNAMED), cache("unnamed-too", UNNAMED, mean_steerability=[0.9, 0.6, 0.4])]
    agreement, difference = (analyses.run(script, pair, tmp_path) for script in ("cross_model", "comparison"))
    assert agreement.method.startswith("of the first cache and the second cache: Spearman")
    assert "a table does not name its model: the two caches may be of one model" in agreement.warnings
    assert difference.reading.endswith(
        "the model of unnamed is not recorded; the model of unnamed-too is not recorded."
    )
    masthead = dict(_facts({"one": steerstats.open_cache(pair[0]), "two: b": steerstats.open_cache(pair[1])}))
    assert masthead["one"].startswith("model not recorded, ")
    assert masthead["two: b"].startswith("model not recorded, "), "whatever a cache is called"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("m", {}), ("m", {}), True),
        (("m", {}), ("n", {}), False),
        (("m", {"revision": "a"}), ("m", {"revision": "b"}), False),
        (("m", {"weights": "a", "revision": None}), ("copy/of/m", {"weights": "a", "revision": None}), True),
        (("m", {"weights": "a"}), ("m", {"weights": "b"}), False),
        (("m", {"weights": "a", "revision": "1"}), ("m", {"weights": "a", "revision": "2"}), True),
        (("m", {"weights": None}), ("m", {"weights": "b"}), True),
        ((UNNAMED, None), (UNNAMED, None), False),
    ],
)
def test_weights_decide_which_model_it_is_and_then_its_name(one, other, same):
    studies = [
        SimpleNamespace(model=name, reader=SimpleNamespace(manifest={"facts": {"model": facts}}))
        for name, facts in (one, other)
    ]
    assert same_model(*studies) is same


@pytest.mark.parametrize(("other", "same"), [(("copy/of/m", "1"), True), (("m", "2"), False)])
def test_leakage_is_told_of_one_model_by_its_weights_and_never_of_two(other, same, tmp_path, monkeypatch):
    paths = []
    for (model, weights), split in ((("m", "1"), "content"), (other, "tan2024-literal")):
        paths.append(tmp_path / split)
        truth = SimulationTruth(datasets=3, n_inputs=12, n_pairs=4)
        simulate_cache(paths[-1], truth, model=model)
        manifest = json.loads((paths[-1] / "manifest.json").read_text("utf-8"))
        manifest["facts"] = {"model": {"weights": weights}}
        (paths[-1] / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    monkeypatch.setattr("analyses.split_leakage.facts_of", lambda study: {"split": study.path.name})
    finding = analyses.run("split_leakage", paths, tmp_path / "out")
    assert (finding.missing == "") is same
    assert len(finding.claims) == same


@pytest.mark.parametrize("order", [1, -1])
def test_leakage_is_the_overlapping_split_less_the_clean_one_in_whichever_order_they_are_given(
    order, tmp_path, monkeypatch
):
    paths = [tmp_path / "content", tmp_path / "tan2024-literal"]
    for path, mean in zip(paths, (0.5, 0.9)):
        simulate_cache(path, SimulationTruth(datasets=3, n_inputs=12, n_pairs=4, mean_steerability=[mean] * 3))
    monkeypatch.setattr("analyses.split_leakage.facts_of", lambda study: {"split": study.path.name})
    (claim,) = analyses.run("split_leakage", paths[::order], tmp_path / "out").claims
    assert claim.estimate == pytest.approx(0.4, abs=0.01)


def split(slopes, rows):
    questions = np.array([f"q{row}" for row in rows], dtype=object)
    cell = {"d": slopes[rows][None, None]}
    return SlopeGrid(train=("base",), evaluate=("base",), slopes=cell, question={"d": questions})


def test_leakage_counts_questions_that_both_splits_test_once():
    rng, found, errors, apart = np.random.default_rng(0), [], [], []
    for _ in range(800):
        questions = rng.normal(size=100)
        one, other = questions + 0.2 * rng.normal(size=(2, 100))
        grids = split(one, np.arange(50)), split(other, rng.permutation(100)[:95])
        means = [grid.slopes["d"].ravel() for grid in grids]
        found.append(means[1].mean() - means[0].mean())
        errors.append(difference_error(*grids, "d"))
        apart.append(np.sqrt(sum(own.var(ddof=1) / own.size for own in means)))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(found), rel=0.06)
    assert np.mean(apart) > 1.4 * np.std(found)  # of two independent splits


def test_leakage_of_splits_without_a_question_in_common_adds_their_errors_and_one_question_has_none():
    slopes = np.random.default_rng(1).normal(size=400)
    error = difference_error(split(slopes, np.arange(200)), split(slopes, np.arange(200, 400)), "d")
    parts = [slopes[rows].var(ddof=1) / 200 for rows in (np.arange(200), np.arange(200, 400))]
    assert error == pytest.approx(np.sqrt(sum(parts)), rel=0.003)
    assert np.isnan(difference_error(split(slopes, np.arange(200)), split(slopes, np.array([3])), "d"))


def study(kind, spec_hash, operator="add", score="logit_diff"):
    unit = SimpleNamespace(unit=SimpleNamespace(attrs={"score": score}))
    reader = SimpleNamespace(spec_hash=spec_hash)
    return SimpleNamespace(kind=kind, reader=reader, operators=(operator,), units={"d": unit})


def test_slopes_of_two_kinds_are_said_not_to_be_one_thing():
    added, scored = study("grid", "1"), study("grid", "2", score="logprob_sum")
    (said,) = notices_between({"a": added, "b": study("grid", "2", operator="ablate")})
    assert said.startswith("operators differ (a: add; b: ablate): under ablate a slope is what taking")
    (said,) = notices_between({"a": added, "b": scored})
    assert said.startswith("scores differ (a: logit_diff; b: logprob_sum): ")
    assert notices_between({"a": added, "b": study("grid", "2", operator="ablate_add")}) == []


def test_two_builds_of_one_spec_are_said_to_be_one_study():
    (said,) = notices_between({"a": study("grid", "1"), "b": study("grid", "2"), "c": study("grid", "1")})
    assert said.startswith("a and c are caches of one and the same spec")
    assert notices_between({"a": study("simulated", "1"), "b": study("simulated", "1")}) == []


def test_what_is_to_be_read_first_begins_with_a_capital_or_with_a_name_as_it_is_written():
    assert begun("this cache is simulated.", ["openness"]) == "This cache is simulated."
    assert begun("openness and x hold the same.", ["openness"]) == "openness and x hold the same."
    assert begun("all datasets hold the same.", ["a"]) == "All datasets hold the same.", "no cache is called all"


def test_warnings_are_sentences_and_say_a_long_reason_once():
    why = "standard errors are uncertain, and tau takes them as known (with 1 in one 19%); read the unweighted mean"
    texts = [
        f"over datasets, effect of factor_topic={one} vs art on steerability: few df: {why}" for one in ("law", "tax")
    ]
    texts += ["openness: dropped", "mean_cosine, auc: no interval is given", "a spec can say. Or not."]
    effect = "Over datasets, effect of topic: {} rather than art on steerability: few df: {}."
    assert warned(texts, ["openness"]) == [
        effect.format("law", why),
        effect.format("tax", "see above"),
        "openness: dropped.",
        "Cosine agreement, held-out AUC: no interval is given.",
        "A spec can say. Or not.",
    ]


def test_a_cache_given_twice_is_refused_by_path_and_as_a_copy(run, tmp_path):
    path, copy = plain_cache(), tmp_path / "copy"
    shutil.copytree(path, copy)
    for command, second, words in (("report", path, "is given twice"), ("reproduce", copy, "are the same cache")):
        code, _, errors = run(command, path, second, "-o", tmp_path / "out")
        assert code == 2
        assert f"{words}; give each cache once" in errors
        assert not (tmp_path / "out").exists()
    for make in (render_report, reproduce):
        with pytest.raises(InputError, match="given twice"):
            make([path, str(path)], tmp_path / "out")
    check_distinct([path, hostile_cache()])


# --- shares ---------------------------------------------------------------------------------------


def claim(estimate: float, low: float, high: float) -> Claim:
    return Claim(key="explained.mean", statement="Share, mean over datasets:", estimate=estimate, ci_low=low,
                 ci_high=high, interval="t", n=3, n_of="datasets", unit="share",
                 facts=share_words({}, ())[1] | {"dataset": "d"})  # fmt: skip


@pytest.mark.parametrize(
    ("given", "limits", "cut"),
    [
        ((0.68, -0.44, 1.8), (0.0, 1.0), True),
        ((0.85, 0.64, 1.05), (0.64, 1.0), True),
        ((0.1, -0.02, 0.3), (0.0, 0.3), True),
        ((0.1, 0.05, 0.3), (0.05, 0.3), False),
        ((-0.02, -0.05, 0.01), (-0.05, 0.01), False),
        ((-0.017, -0.019, -0.015), (np.nan, np.nan), False),
        ((0.5, np.nan, np.nan), (np.nan, np.nan), False),
        ((0.0, -1e-17, 0.2), (-1e-17, 0.2), False),
    ],
)
def test_limits_of_a_share_are_cut_at_what_a_share_can_be_and_say_so(given, limits, cut, tmp_path):
    found = in_range(claim(*given))
    assert (found.ci_low, found.ci_high) == pytest.approx(limits, abs=0, nan_ok=True)
    assert (CUT in found.interval) is cut
    bare = analyses.run("layer_sweep", plain_cache(), tmp_path)
    card = summary([replace(bare, script="x", missing="", claims=(found,))])["cards"][1]
    assert ("cut at 0 and 100%" in card["words"]) is cut


@pytest.mark.parametrize(("shares", "how"), [([0.6, 0.9, 0.97], "logit"), ([-0.02, 0.9, 0.97], CUT)])
def test_the_share_that_heads_the_report_has_possible_limits(shares, how, monkeypatch, tmp_path):
    from analyses import variance_explained

    real = variance_explained.letter_and_word

    class Shares:
        def __init__(self, result):
            self._result = result

        def __getattr__(self, name):
            return getattr(self._result, name)

        def explained_frame(self):
            frame = self._result.explained_frame()
            own = (frame["split"] == "shapley_adjusted_r2") & (frame["component"] == "explained")
            frame.loc[own, ["share", "ci_low", "ci_high"]] = np.array([shares, shares, shares]).T
            return frame

    monkeypatch.setattr(variance_explained, "letter_and_word", lambda study: Shares(real(study)))
    mean, most = variance_explained.main(hostile_cache(), tmp_path).claims[:2]
    assert mean.estimate == pytest.approx(np.mean(shares))
    assert 0 <= mean.ci_low < mean.estimate < mean.ci_high <= 1
    assert how in mean.interval
    assert most.estimate == 0.97


# --- vectors made elsewhere -----------------------------------------------------------------------


def test_cosines_between_settings_leave_out_vectors_that_no_setting_trained(monkeypatch, tmp_path):
    from analyses import vector_cosines

    study = steerstats.open_cache(hostile_cache())
    unit = type(study.unit(study.datasets[0]).unit)
    read = unit.read

    def imported(self, name, **where):
        found = read(self, name, **where)
        if name == "vector_kind" and "vector" in where:  # the last main vector comes from a file
            found = np.array([*found[:-1], "imported"], dtype=object)
        return found

    monkeypatch.setattr(unit, "read", imported)
    names = list(study.unit(study.datasets[0]).vectors)
    trained = vectors_of_kind(study, "trained")
    assert trained == [name for name in names[:-1] if name != "mean"]
    assert len(trained) >= 2

    cosine = np.full((len(study.datasets), len(study.vectors), len(study.vectors)), -0.9)
    places = [study.vectors.index(name) for name in trained]
    for row in cosine:
        row[np.ix_(places, places)] = 0.8
    result = VectorCosines(
        datasets=study.datasets, vectors=study.vectors, cosine=cosine, norm=cosine[:, 0],
        stability=np.full((*cosine.shape[:2], 3), np.nan), method="", assumptions=(), warnings=(),
    )  # fmt: skip
    monkeypatch.setattr(vector_cosines, "ask", lambda *_: result)
    finding = vector_cosines.main(study, tmp_path)
    assert finding.claims[0].estimate == pytest.approx(0.8)
    assert names[-1] in finding.reading.partition("Not counted above: ")[2].partition(", which no single setting")[0]


# --- one range of multipliers ---------------------------------------------------------------------


@pytest.mark.parametrize(("multipliers", "there"), [((-1.0, 0.0, 1.0), False), ((-1.0, -0.5, 0.0, 0.5, 1.0), True)])
def test_a_grid_of_one_range_is_not_set_against_itself(multipliers, there, tmp_path):
    finding = analyses.run("multiplier_range", cache(f"g{there}", multipliers=multipliers), tmp_path)
    said = "not in this cache: multipliers of more than one size, so there is no narrower range to compare"
    assert finding.missing == ("" if there else said)
    assert (tmp_path / "multiplier_range.svg").exists() is there


def test_the_key_of_a_few_datasets_does_not_lie_on_their_lines(tmp_path, monkeypatch):
    from analyses import multiplier_range

    drawn = []
    monkeypatch.setattr(multiplier_range, "publish", lambda out, found, figure, frame: drawn.append(figure) or found)
    multiplier_range.main(cache("gkey", multipliers=(-1.0, -0.5, 0.0, 0.5, 1.0)), tmp_path)
    figure = drawn[0]
    figure.canvas.draw()
    assert [ax.get_legend() for ax in figure.axes] == [None, None]
    key = figure.legends[0].get_window_extent()
    assert not any(key.overlaps(ax.get_window_extent()) for ax in figure.axes)


# --- figures --------------------------------------------------------------------------------------


def test_ratios_stand_on_a_logarithmic_axis_with_1_in_it_unless_one_is_0():
    rows = pd.DataFrame({"dataset": ["a", "b"], "shift": "base->user_neg", "estimate": [0.8, 440.0],
                         "ci_low": [0.6, 410.0], "ci_high": [np.nan, 470.0]})  # fmt: skip
    for frame, scale in ((rows, "log"), (rows.assign(estimate=[0.0, 2.0]), "linear")):
        with figures.style():
            figure, ax = figures.canvas(width=5, height=2)
            figures.spread_rows(frame, ax=ax, xlabel="ratio", ratios=True)
            figure.canvas.draw()
        assert ax.get_xscale() == scale
        assert any(list(line.get_xdata()) == [1, 1] for line in ax.lines)
    with figures.style():
        figure, ax = figures.canvas(width=5, height=2)
        figures.spread_rows(rows.assign(estimate=[1.2, 1.5], ci_low=1.1, ci_high=1.9), ax=ax, xlabel="", ratios=True)
        figure.canvas.draw()
    low, high = ax.get_xlim()
    assert low < 1
    assert 1.9 < high < 3
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert ticks == [1.0, 2.0], "plain numbers between 1 and 2 as well, where no decade is whole"


@pytest.mark.parametrize("known", [False, True])
def test_the_caption_of_the_predictors_speaks_of_bars_where_there_are_any(known, monkeypatch, tmp_path):
    from analyses import predictors

    real = predictors.ask

    def asked(study, question, **options):
        result = real(study, question, **options)
        over = result.over_datasets
        rho = np.asarray(over.rho, float)
        limits = {"ci_low": rho - 0.1, "ci_high": rho + 0.1} if known else {}
        return replace(result, over_datasets=replace(over, **limits))

    monkeypatch.setattr(predictors, "ask", asked)
    bars = predictors.main(hostile_cache(), tmp_path).bars
    assert bars.startswith("95% percentile intervals") is known
    assert bars.startswith("none are drawn") is not known


# --- in a browser ---------------------------------------------------------------------------------

CUT_OFF = """[...document.querySelectorAll('details.dataset .scroll')].flatMap(box => {
    const edge = box.getBoundingClientRect().right + 1
    return [...box.querySelectorAll('tr > :nth-child(-n+3)')].filter(c => c.getBoundingClientRect().right > edge)
}).map(cell => cell.textContent)"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    # Without resampled vectors every label is short, and none was wrapped.
    return render_report([plain_cache()], tmp_path_factory.mktemp("plain"), jobs=1)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1100, 1400])
def test_estimate_and_interval_of_every_dataset_can_be_seen(report, width):
    if find_chromium() is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with Page() as page:
        page.open(report, width=width)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.querySelectorAll('details.dataset td').length") > 10
        assert page.evaluate(CUT_OFF) == []


def test_a_bend_is_called_small_where_it_is_and_noiseless_where_that_is_known(tmp_path):
    said = analyses.run("linearity", steerstats.demo_cache(), tmp_path / "made").reading
    assert "systematic, not large" in said
    assert "misfit is shape, not noise" in said
    said = analyses.run("linearity", plain_cache(), tmp_path / "straight").reading
    assert "; here no mean curve is shown to bend (RMS departure at most 0.000 nats)." in said
    rows = pd.DataFrame(list(example_rows()))
    rows["propensity"] = rows["multiplier"] ** 2 * (1 + 0.1 * rows.groupby("input").ngroup())  # a bend and no slope
    rows.to_csv(tmp_path / "scores.csv", index=False)
    table = import_table(tmp_path / "scores.csv", tmp_path / "imported", model="mine")
    finding = analyses.run("linearity", table, tmp_path / "table")
    assert finding.claims, finding.missing
    assert "systematic, not large" not in finding.reading
    assert "or as here 100" in finding.reading
    assert "noise" not in finding.reading, "of a table's scores nobody knows that"
