"""The methods section beside what caches hold: no sentence on what was not done, or is not so of the data."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from example_table import example_rows
from reporting import TRUTH, hostile_cache, plain_cache, scratch, write_cache
from test_methods import demo, other_sizes, said_of, sweep, twins
from test_own_vectors import write

import steerstats
from analyses import comparison, linearity, multiplier_range, per_input_steerability
from analyses._claim import Claim, Finding
from reports.methods import _random_effects, methods
from reports.methods_data import cache_paragraphs
from reports.methods_doubts import _gaps
from reports.methods_factors import in_design, projected_out, with_own
from reports.provenance import provenance_rows
from reports.references import Cited
from steerstats.cache import UnitData, create_cache, write_unit
from steerstats.cache.table import import_table
from steerstats.generalization import gap_table
from steerstats.simulate import simulate_unit


def test_norms_are_said_of_the_vectors_that_were_given_them(monkeypatch):
    text, _ = demo()
    study = steerstats.open_cache(steerstats.demo_cache())
    unit = study.unit(study.datasets[0]).unit
    kinds, norm = unit.read("vector_kind").astype(str), unit.read("vector_norm")
    base = norm[list(unit.coords["vector"]).index("base")]
    same = {kind: bool(np.allclose(norm[kinds == kind], base, rtol=1e-5)) for kind in set(kinds)}
    assert {kind for kind, alike in same.items() if not alike} == {"resampled"}
    assert "training questions; a refitted base vector keeps its own norm." in text
    assert "exchanged, and given the same norm)" in text
    assert "out of each base vector, and rescaled what was left to the norm of that vector;" in text
    swept = steerstats.open_cache(sweep())
    monkeypatch.setattr(type(swept), "spec", {"vectors": {"method": "pca", "rescale": "base"}})
    paragraph = methods({"s": swept}, [], 0, {})[0][0]
    assert "a vector was made in the setting base" in paragraph
    assert "the first principal component (about zero, not centred) of the differences" in paragraph, "as `pca` is"
    assert "norm" not in paragraph, "the base vector has its own norm anyway"


A_IN_TURN = np.arange(20) // 2 % 2 == 1
A_MIXED = np.arange(20) % 5 < 2
LETTERS = {
    "persona": ("tan2024", [A_IN_TURN], ("under B equally often. A and B alternated by a question's place",)),
    "own file": ("tan2024", [A_MIXED], ("A in 40% of the test inputs. Choices already in a file stayed in",)),
    "all A": ("tan2024", [np.ones(20)], ("under A in all test inputs of d0, where position and behaviour therefore",)),
    "several": (
        "tan2024",
        [A_IN_TURN, A_MIXED, np.zeros(20)],
        (
            "In d0 and d1 the option that shows the behaviour stood under A in 40% to 50% of a dataset's test inputs.",
            "stood under B in all test inputs of d2,",
            "file in d0, as in the original code. Choices already in a file (d1 and d2) stayed in the order of",
        ),
    ),
    "dealt": ("balanced", [A_IN_TURN], ("under B equally often. Letters were assigned by a hash of the question, so",)),
    "own letters": ("balanced", [A_MIXED], ("A in 40% of the test inputs. Questions",)),
    "no letters": ("tan2024", [np.full(20, -1)], ()),
}


def test_how_every_reply_began_is_said_where_the_build_began_it(monkeypatch):
    study = steerstats.open_cache(steerstats.demo_cache())
    begun = "Every reply began with "
    assert begun not in cache_paragraphs({"demo": study}, Cited())[0]
    monkeypatch.setattr(type(study), "spec", {"prompt": {"prefill": "<think>\n\n</think>\n\n"}})
    said = cache_paragraphs({"demo": study}, Cited())[0]
    assert f'opposite (negative). {begun}"<think> </think>", and its answer came after that.' in said
    monkeypatch.setattr(type(study), "spec", {"prompt": {"prefill": "\n"}})
    assert f"{begun}white space, and" in cache_paragraphs({"demo": study}, Cited())[0]


def lettered(columns, *, spec=None, planned=(), **changes):
    """A cache without findings whose inputs have these letters, as its record of A and B says."""
    names, root = tuple(f"d{k}" for k in range(len(columns))), scratch() / "letters"
    truth = replace(TRUTH, datasets=names, mean_steerability=[0.5] * len(names), n_val=0, n_resampled=0, **changes)
    manifest = {"kind": "grid", "spec_hash": "ab", "model": "m", "units": [*names, *planned], "spec": spec or {}}
    create_cache(root, manifest)
    for name, column in zip(names, columns):
        data, _ = simulate_unit(truth, name, seed=7, model="m")
        arrays = data.arrays if column is None else data.arrays | {"input_pos_is_a": np.array(column, np.int8)}
        write_unit(root, name, UnitData(arrays, {**data.attrs, "model": "m", "spec_hash": "ab"}))
    return root


@pytest.mark.parametrize("kind", LETTERS)
def test_what_is_said_of_letters_is_so_of_the_inputs(kind):
    order, columns, said = LETTERS[kind]
    study = steerstats.open_cache(lettered(columns, spec={"order": order}))
    text = methods({"c": study}, [], 0, {})[0][0]
    assert all(words in text for words in said), text
    assert ("alternated" in text) == any(column is A_IN_TURN for column in columns) * (order == "tan2024")
    assert ("stayed in the order" in text) == (kind in ("own file", "all A", "several"))
    assert ("assigned" in text) == (kind == "dealt")
    assert ("stood under" in text) == bool(said)
    assert "exchanged" not in text
    assert "asked in both orders" not in text
    assert "Every question was asked in both orders of its options." in said_of(twins())[0]


def test_factors_that_no_dataset_has_are_not_said_to_have_been_used(monkeypatch):
    text, _ = said_of(lettered([None], yes_defined=0.0, debiased=False))
    assert "we regressed steerability on whether the option that shows the behaviour is A or B, by least" in text
    for words in ("Yes or No", "letter before word"):
        assert words not in text
        assert words in said_of(lettered([None]))[0]
    some, _ = said_of(lettered([A_MIXED, np.ones(20)]))
    assert "is A or B (in 1 of 2 datasets) and whether it is Yes or No, by" in some
    study = steerstats.open_cache(steerstats.demo_cache())
    assert projected_out({"demo": study}) == "the directions of the letter and of the word"
    unit = study.unit(study.datasets[0]).unit
    read = unit.read
    monkeypatch.setattr(study, "units", {name: study.units[name] for name in study.datasets[:1]})
    monkeypatch.setattr(unit, "read", lambda name: np.full(48, -1) if name == "pair_pos_is_yes" else read(name))
    assert projected_out({"demo": study}) == "the direction of the letter"


def test_what_gave_no_number_is_not_said_to_have_been_done():
    def found(script, numbers, **estimates):
        rest = {"statement": "", "ci_low": np.nan, "ci_high": np.nan, "interval": "t", "n": 9, "n_of": "datasets"}
        rest["facts"] = {"judged": True}
        claims = tuple(Claim(key=key.replace("__", "."), estimate=value, **rest) for key, value in estimates.items())
        return Finding(script=script, title="", claims=claims, numbers=numbers)

    studies = {name: steerstats.open_cache(path) for name, path in (("a", plain_cache()), ("cache", hostile_cache()))}
    figure7, none = {"threshold": 0.25}, np.nan
    some = found("propensity_difference", figure7, figure7__original=none, figure7__transfer_loss=0.4)
    text = " ".join(methods(studies, [some], 0, {})[0])
    assert "The loss under another prompt was correlated with the difference in unsteered propensity." in text
    assert "figure 7" not in text
    whole = found("propensity_difference", figure7, figure7__original=0.1)
    text = " ".join(methods(studies, [whole], 0, {})[0])
    assert "effect at home is above 0.25) was correlated" in text
    assert "propensity, with pairs of a prompt with itself." in text
    assert "The loss under" not in text
    nothing = found("propensity_difference", figure7, figure7__original=none, figure7__transfer_loss=none)
    assert "unsteered propensity" not in " ".join(methods(studies, [nothing], 0, {})[0])
    one = found("predictors", {"n_permutations": 500}, predictors__auc=none)
    many = found("predictors", {"n_permutations": 1000}, predictors__auc=0.3)
    assert "p-values from 1,000 permutations)" in " ".join(methods(studies, [one, many], 0, {})[0])
    zero = found("predictors", {"n_permutations": 0}, predictors__auc=0.3)
    assert "permutations" not in " ".join(methods(studies, [zero], 0, {})[0])


def test_numbers_of_several_caches_stay_apart_and_sentences_are_said_once():
    study = steerstats.open_cache(steerstats.demo_cache())
    refits = [Claim(key="x", statement="", estimate=1, ci_low=0, ci_high=2, interval="t", n=9, n_of="datasets")]
    found = Finding(script="vector_sampling_error", title="", claims=tuple(refits))
    caches = {"cache": study, "sizes": steerstats.open_cache(other_sizes())}
    paragraphs, _ = methods(caches, [found], 0, {})
    text = " ".join(paragraphs)
    assert 'with 10 (in "cache") and 4 (in "sizes") refits of the base' in text
    assert "4 to 10" not in text
    assert 'about the cache "cache".' in text
    assert "Cache cache" not in text
    assert text.count("The steerability of an input is") == 1
    assert paragraphs[1].endswith('Everything else that it records was as for "cache".')
    twice = " ".join(methods({"a": study, "b": study}, [], 0, {})[0])
    assert 'The cache "b" was made as "a" was.' in twice
    assert re.search(r'The caches "a" \(identity \w+\) and "b" \(identity \w+\) were built with torch', twice)


def test_a_half_built_cache_says_what_was_planned():
    study = steerstats.open_cache(lettered([None, None], planned=("later", "last", "never")))
    text = methods({"c": study}, [], 0, {})[0][0]
    assert " The build was not finished: 5 datasets were planned, and 3 of them are not there yet." in text
    assert "The data were 2 datasets (d0, d1)" in text
    assert "planned" not in said_of(plain_cache())[0]


def test_flags_of_ones_own_count_where_they_vary(tmp_path):
    rows = pd.DataFrame(list(example_rows()))
    rows["factor_seen"] = rows["input"].isin(["q0", "q3"])
    rows["factor_same"], rows["factor_alone"] = True, rows["input"] == "q1"
    rows.to_csv(tmp_path / "scores.csv", index=False)
    study = steerstats.open_cache(import_table(tmp_path / "scores.csv", tmp_path / "cache", model="m"))
    assert with_own({"c": study}, "factor_seen") == {"c": ["kindness"]}
    assert with_own({"c": study}, "factor_same") == {}
    assert with_own({"c": study}, "factor_alone") == {}, "one question alone gives no variance, and is in no design"


def test_the_factors_of_a_regression_are_those_of_its_designs():
    study = steerstats.open_cache(lettered([A_MIXED, np.arange(20) == 3]))
    results = study.spurious_factors(n_resamples=20).results
    held = {
        factor: {"c": names}
        for factor in ("pos_is_a", "pos_is_yes")
        if (names := [name for name, one in results.items() if factor in one.design.names])
    }
    assert in_design({"c": study}, robust=True) == held
    assert held["pos_is_a"] == {"c": ["d0"]}, "one input of d1 has A"
    assert in_design({"c": study})["pos_is_a"] == {"c": ["d0", "d1"]}, "whose share of the variance is told"


def test_vectors_of_ones_own_are_named_with_what_they_were_compared_with(tmp_path):
    path = write(tmp_path / "own", ("one", "second"), ("mine", "weak"))
    text, _ = said_of(path)
    assert (
        "Vectors made elsewhere (mine, weak) had the same measures, and each was compared with the base vector" in text
    )
    assert "made elsewhere" not in said_of(plain_cache())[0]
    both, _ = said_of(path, plain_cache())
    assert 'In the cache "own" vectors made elsewhere (mine, weak) had the same measures' in both


def test_the_vectors_error_is_in_intervals_over_datasets_and_in_no_other():
    """A mean over datasets has an interval from their spread, to which the error of each one's own vector adds."""
    mean = Claim(key="x.mean", statement="Mean:", estimate=0.2, ci_low=0.1, ci_high=0.3, n=8, n_of="datasets",
                 interval="t(7) interval over equally weighted datasets, on the logit scale (delta method)",
                 )  # fmt: skip
    own = replace(mean, n_of="questions", interval="t interval over 8 questions")
    studies = {"h": steerstats.open_cache(hostile_cache())}
    weighted = replace(mean, interval="Hartung–Knapp t(D − 1) over datasets")
    swept = replace(mean, interval="t(D − 1) over datasets, for others such as these")
    told, alone, *others = (
        methods(studies, [Finding(script="x", title="x", claims=(one,))], 0, {})[0][-1]
        for one in (mean, own, weighted, swept)
    )
    assert "All intervals" not in told
    assert "except in means over datasets, where it counts as difference between datasets." in told
    assert all("too short where a few datasets are unlike the rest" in text for text in (told, *others))
    assert "All intervals hold for these very vectors: they do not include the vectors' own sampling error." in alone
    assert "unlike the rest" not in alone


def test_bands_of_losses_are_said_to_hold_for_the_families_that_they_hold_for():
    """A part has bands of its own: they are the same without the other parts."""
    study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain", "plans-ahead"])
    grid, shift = study.grid(), [("base", "user_neg")]
    with_parts, without = (
        gap_table(one, shift, rng=np.random.default_rng(0), n_resamples=300)
        for one in (grid, study.grid([("base", "base"), *shift]))
    )
    assert (len(with_parts.components), len(without.components)) == (3, 1)
    np.testing.assert_array_equal(with_parts.band_low[0], without.band_low[0])
    at_once = "bands and p-values for all datasets and shifts at once"
    assert f"{at_once} (of the loss, and of each part by itself) are from single-step" in said_of(hostile_cache())[0]
    alone = SimpleNamespace(keys=lambda *_: [], says=lambda *_: False, number=lambda *_: "9")
    assert f"{at_once} are from single-step" in _gaps(alone, Cited())[1]


@pytest.mark.parametrize(
    ("ran", "told"),
    [
        ("", "by REML (Viechtbauer, 2005), with Hartung–Knapp intervals (Hartung & Knapp, 2001)."),
        ("Q-profile", "; the standard deviation between datasets has its Q-profile interval (Viechtbauer, 2007)."),
        ("prediction interval", "; prediction intervals for a new dataset are those of Nagashima et al. (2019)."),
        ("t(4), floored", "widened to the model's own error (Röver et al., 2015)."),
        ("mean over datasets, unweighted", "the unweighted mean is given instead (Ibragimov & Müller, 2010)."),
    ],
)
def test_of_random_effects_what_ran_is_said_with_its_source_and_nothing_else(ran, told):
    text = _random_effects(SimpleNamespace(says=lambda words: words in ran), Cited())
    assert text.endswith(told)
    assert text.count(";") == (ran != "")


def test_datasets_that_are_counted_by_p_values_are_said_to_be_by_whose_false_discovery_rate():
    assert "for a false discovery rate of 0.05 (Benjamini & Hochberg, 1995); intervals of single" in demo()[0]


def test_means_over_datasets_are_told_of_a_comparison_that_has_some(tmp_path):
    truths = {"a": replace(TRUTH, n_resampled=0), "b": replace(TRUTH, n_resampled=0, input_sd=0.5)}
    paths = [write_cache(tmp_path / name, truth, model=name) for name, truth in truths.items()]
    for datasets, told in ((TRUTH.datasets[:1], False), (TRUTH.datasets[:2], True)):
        studies = [steerstats.open_cache(path, datasets=datasets) for path in paths]
        finding = comparison.main(studies, tmp_path / "out")
        text = " ".join(methods(dict(zip("ab", studies)), [finding], 0, {})[0])
        assert "the stepwise procedure (Romano & Wolf, 2005) on 10,000 resamples of questions" in text
        for words in ("Bonferroni", "Random-effects means", "means over datasets"):
            assert (words in text) == told, words
        assert ("random effects" in finding.method) == told


def test_multipliers_that_differ_between_datasets_are_told_of_each(tmp_path):
    grids = {"fine": (-1.0, -0.5, 0.0, 0.5, 1.0), "wide": (-2.0, -0.5, 0.0, 0.5, 2.0), "short": (0.0, 1.0, 2.0)}
    rng, row = np.random.default_rng(0), next(iter(example_rows()))
    rows = [
        {**row, "dataset": name, "input": f"q{k}", "multiplier": multiplier, "propensity": rng.normal(multiplier)}
        for name, grid in grids.items()
        for k in range(12)
        for multiplier in grid
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    study = steerstats.open_cache(import_table(tmp_path / "t.csv", tmp_path / "cache", model="m"))
    told = "−1, −0.5, 0, 0.5, 1 (fine); 0, 1, 2 (short); −2, −0.5, 0, 0.5, 2 (wide)"
    assert f"Scores are at the multipliers {told}." in cache_paragraphs({"t": study}, Cited())[0]
    assert dict(provenance_rows(study, 0))["multipliers"] == told
    straight = linearity.main(study, tmp_path / "out")
    assert "T² on 3 non-linear contrasts of the curve" in straight.method
    assert "T² on 1 non-linear contrast of the curve" in straight.method
    assert "Hotelling's T² on all non-linear contrasts of" in " ".join(methods({"t": study}, [straight], 0, {})[0])
    reading = multiplier_range.main(study, tmp_path / "out").reading
    assert "whole grid (|λ| ≤ 1 to 2)" in reading
    # Slopes of noise on −0.5, 0 and 0.5 have 0.5 of 2.5 of the whole grid's sum of squares, or 0.5 of 8.5.
    assert f"would correlate at {(np.sqrt(0.5 / 2.5) + np.sqrt(0.5 / 8.5)) / 2:.2f}." in reading


def test_refits_that_some_datasets_have_are_told_of_these(tmp_path):
    names, said = TRUTH.datasets[:2], []
    for own in ((3, 0), (3, 3), (0, 0)):
        root = create_cache(
            tmp_path / str(own), {"kind": "grid", "spec_hash": "ab", "model": "m", "units": list(names)}
        )
        for name, refits in zip(names, own):
            data, _ = simulate_unit(replace(TRUTH, n_resampled=refits), name, seed=7, model="m")
            write_unit(root, name, UnitData(data.arrays, {**data.attrs, "spec_hash": "ab"}))
        studies = {"c": steerstats.open_cache(root)}
        found = [per_input_steerability.main(studies["c"], tmp_path / "out")]
        said.append(" ".join(methods(studies, found, 0, {})[0]))
    some, every, none = said
    assert "was measured with 3 refits of the base" in some
    assert " vectors of the datasets that have any (in 1 of 2 datasets), on bootstrap resamples" in some
    assert " vectors of each dataset, on bootstrap resamples" in every
    assert "refits" not in none
    # Nothing was said of their reliability here, and some intervals are of other vectors too.
    assert all("reliability" not in text for text in said)
    assert [("ntervals hold for these very vectors: they" in text) for text in said] == [False, False, True]
