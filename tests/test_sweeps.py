"""The layer choice: the right layer, an honest share, and layers that cannot be told apart."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from scipy import stats
from tiny_sweep import write_sweep

from steerstats.cache import CacheReader, UnitData, write_unit
from steerstats.errors import CannotEstimate, InputError
from steerstats.sweeps import choose_layer, choose_sweep_layer

LAYERS = np.array([8, 10, 12, 14])


def stream():
    return np.random.default_rng(11)


def simulated(rng, means, n=60, spread=1.0, datasets=3):
    common = {f"d{k}": rng.normal(scale=spread, size=n) for k in range(datasets)}
    return {
        name: np.array(means)[:, None] + shared + rng.normal(scale=0.3, size=(len(means), n))
        for name, shared in common.items()
    }


def test_a_clear_winner_is_chosen_with_certainty_and_no_rival():
    slopes = simulated(np.random.default_rng(0), [0.5, 1.0, 2.0, 1.2])
    choice = choose_layer(slopes, LAYERS, rng=np.random.default_rng(1))
    assert choice.chosen == 12
    assert choice.share.tolist() == [0, 0, 1, 0]
    assert choice.rivals == ()
    assert choice.mean == pytest.approx(np.mean([values.mean(axis=1) for values in slopes.values()], axis=0))
    assert (choice.behind_low[[0, 1, 3]] > 0).all()
    assert choice.behind[2] == choice.behind_low[2] == choice.behind_high[2] == 0


@pytest.mark.parametrize(("seed", "said"), [(2, ()), (7, ("only 42% of resamples agree with the choice",))])
def test_equal_layers_are_rivals_and_the_choice_is_warned_about(seed, said):
    slopes = simulated(np.random.default_rng(seed), [1.0, 1.0, 1.0, 0.0])
    choice = choose_layer(slopes, LAYERS, rng=np.random.default_rng(3))
    assert set(choice.rivals) | {choice.chosen} == {8, 10, 12}
    assert choice.share.sum() == pytest.approx(1)
    assert choice.warnings == said


def test_pairing_by_input_tells_layers_apart_that_their_own_intervals_do_not():
    slopes = simulated(np.random.default_rng(4), [1.0, 1.3, 1.0, 1.0], spread=3.0)
    choice = choose_layer(slopes, LAYERS, rng=np.random.default_rng(5))
    assert choice.ci_low[1] < choice.ci_high[0]
    assert choice.chosen == 10
    assert choice.rivals == ()


def test_of_equal_layers_none_is_ruled_out_more_often_than_the_stated_rate():
    wrong = 0
    for seed in range(200):
        slopes = simulated(np.random.default_rng(seed), [1.0, 1.0, 1.0, 1.0], n=40, datasets=2)
        choice = choose_layer(slopes, LAYERS, rng=np.random.default_rng(seed + 1000), n_resamples=400)
        wrong += len(choice.rivals) < 3
    assert wrong / 200 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_twins_are_one_unit_and_the_seed_decides():
    values = {"d": np.repeat(np.random.default_rng(6).normal(1, 1, (4, 30)), 2, axis=1)}
    questions = {"d": np.repeat([f"q{k}" for k in range(30)], 2)}
    paired = choose_layer(values, LAYERS, rng=np.random.default_rng(0), questions=questions)
    alone = choose_layer(values, LAYERS, rng=np.random.default_rng(0))
    assert (paired.ci_high - paired.ci_low > 1.2 * (alone.ci_high - alone.ci_low)).all()
    once = choose_layer({"d": values["d"][:, ::2]}, LAYERS, rng=np.random.default_rng(0))
    for name in ("ci_low", "ci_high", "behind_low", "behind_high"):
        np.testing.assert_allclose(getattr(paired, name), getattr(once, name))
    some, asked = {"d": values["d"][:, :40]}, {"d": questions["d"][:40].copy()}
    asked["d"][:4] = "q0"  # one question of four inputs, which count four times
    found = choose_layer(some, LAYERS, rng=np.random.default_rng(0), questions=asked)
    np.testing.assert_allclose(found.mean, some["d"].mean(axis=1))
    again = choose_layer(values, LAYERS, rng=np.random.default_rng(0), questions=questions)
    assert again.to_frame().equals(paired.to_frame())


def test_the_summary_says_the_choice_first_and_fits_a_terminal():
    slopes = simulated(np.random.default_rng(2), [-1e-4, 1.0, 1.0, 0.0])
    choice = choose_layer(slopes, LAYERS, rng=np.random.default_rng(3), level=0.9)
    lines = choice.summary().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith(f"Layer {choice.chosen}: ")
    assert "not told apart from it here: layer" in " ".join(lines[2:5])
    table = next(k for k, line in enumerate(lines) if line.split()[:1] == ["layer"])
    assert "mean, these datasets [90%]" in lines[table], "not those that a report's interval is for"
    assert [line.split()[0] for line in lines[table + 1 : table + 5]] == ["8", "10", "12", "14"]
    assert lines[table + 1 + LAYERS.tolist().index(choice.chosen)].endswith("chosen")
    assert "best of several looks better than it is" in " ".join(line.strip() for line in lines)


def test_the_best_layer_of_other_datasets_is_ruled_out_at_the_stated_rate_only():
    """Layers differ by dataset and not on average; bands for these datasets know nothing of that."""
    held = here = 0
    for run in range(200):
        rng = np.random.default_rng([run, 7])
        slopes = {
            f"d{k}": 1 + rng.normal(scale=0.3, size=(6, 1)) + rng.normal(scale=0.5, size=(6, 30)) for k in range(8)
        }
        choice = choose_layer(slopes, np.arange(6), rng=rng, n_resamples=200)
        held += 0 in {choice.chosen, *choice.contenders}
        here += 0 in {choice.chosen, *choice.rivals}
    assert held / 200 > 0.95 - 2 * np.sqrt(0.05 * 0.95 / 200)
    assert here / 200 < 0.8


def test_a_layer_is_ruled_out_elsewhere_by_a_paired_t_over_datasets():
    rng = np.random.default_rng(8)
    shift = rng.normal(scale=2, size=9)
    means = shift[:, None] + [0.0, 1.5, 1.3, 0.0] + rng.normal(scale=0.3, size=(9, 4))
    slopes = {f"d{k}": row[:, None] + 0.01 * rng.normal(size=(4, 30)) for k, row in enumerate(means)}
    choice = choose_layer(slopes, LAYERS, rng=rng)
    assert choice.chosen == 10
    over = np.array([values.mean(axis=1) for values in slopes.values()])
    oracle = [3 * stats.ttest_rel(over[:, 1], over[:, k], alternative="greater").pvalue for k in (0, 2, 3)]
    assert choice.p_best == pytest.approx(np.minimum([oracle[0], 1, oracle[1], oracle[2]], 1), rel=1e-9)
    assert choice.contenders == (12,)
    assert "such as these, at 95%, as good could be: layer 12" in choice.sections()[0][0]


def test_a_layer_is_ruled_out_elsewhere_where_its_p_is_below_the_stated_rate():
    """One-sided, p times the other layers: at 95% a p of .03 rules a layer out, and one of .07 does not."""
    spread = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    se = spread.std(ddof=1) / np.sqrt(5)
    for p in (0.03, 0.07):
        lead = stats.t.isf(p, 4) * se + spread
        slopes = {
            f"d{k}": np.array([np.linspace(-1, 1, 20) + 9, np.linspace(-1, 1, 20) + 9 - lead[k]]) for k in range(5)
        }
        choice = choose_layer(slopes, [8, 10], rng=stream())
        assert choice.p_best[1] == pytest.approx(p)
        assert choice.contenders == ((10,) if p > 0.05 else ())


@pytest.mark.parametrize(
    ("contenders", "words"),
    [
        ((8, 10), "8, 10"),
        ((8, 10, 14), "8, 10, 14"),
        ((10, 12, 14), "10 to 14"),
        ((8, 10, 14, 16), "any layer could be as good"),
        ((), "no other layer"),
    ],
)
def test_layers_are_listed_by_stretches(contenders, words):
    choice = choose_layer(
        simulated(np.random.default_rng(0), [0.5, 1.0, 2.0, 1.2, 0]), [8, 10, 12, 14, 16], rng=stream()
    )
    choice = dataclasses.replace(choice, contenders=contenders)
    assert words in choice.doubts()


def test_one_dataset_says_nothing_of_others():
    slopes = simulated(np.random.default_rng(0), [0.5, 1.0, 2.0, 1.2], datasets=1)
    choice = choose_layer(slopes, LAYERS, rng=stream())
    assert np.isnan(choice.p_best).all()
    assert choice.contenders == ()
    assert choice.doubts() == ""
    assert choice.sections()[0][1].columns[1] == "mean, this dataset [95%]"


def test_layers_that_are_the_same_are_never_ruled_out_and_a_constant_lead_is_beyond_doubt():
    base = np.random.default_rng(0).normal(size=(3, 30))
    slopes = {f"d{k}": np.array([row, row, row - 1.0]) for k, row in enumerate(base)}
    choice = choose_layer(slopes, np.arange(3), rng=stream())
    assert choice.p_best.tolist() == [1, 1, 0]
    assert choice.contenders == choice.rivals == (1,)
    two = choose_layer({name: rows[:2] for name, rows in slopes.items()}, np.arange(2), rng=stream())
    assert two.p_best.tolist() == [1, 0.5], "that the chosen one is the best is no hypothesis"


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"dataset d: slopes have shape \(3, 5\)"):
        choose_layer({"d": np.ones((3, 5))}, LAYERS, rng=np.random.default_rng(0))
    with pytest.raises(CannotEstimate, match="dataset d has one question"):
        choose_layer({"d": np.ones((4, 1))}, LAYERS, rng=np.random.default_rng(0))
    holes = np.ones((4, 5))
    holes[2, 3] = np.nan
    with pytest.raises(InputError, match="input 3 at layer 12 is not finite"):
        choose_layer({"d": holes}, LAYERS, rng=np.random.default_rng(0))


def test_a_sweep_that_holds_test_inputs_too_is_judged_on_validation_inputs_alone(tmp_path):
    root = write_sweep(tmp_path / "sweep", ["a", "b"], [0.2, 0.9, 0.4], [-1.0, 0.0, 1.0])
    assert choose_sweep_layer(root).n_inputs == 60
    for unit in list(CacheReader(root)):
        data = unit.load()
        split = np.where(np.arange(30) < 20, "val", "test").astype(object)
        write_unit(root, unit.name, UnitData({**data.arrays, "input_split": split}, data.attrs))
    found = choose_sweep_layer(root)
    assert (found.n_inputs, found.chosen) == (40, 7)
    assert (choose_sweep_layer(root, seed=1).ci_low != found.ci_low).all()


def test_inputs_of_one_question_are_one_unit_of_a_sweep(tmp_path):
    root = write_sweep(tmp_path / "sweep", ["a"], [0.2, 0.9, 0.4], [-1.0, 0.0, 1.0])
    alone = choose_sweep_layer(root)
    for unit in list(CacheReader(root)):
        data = unit.load()
        question = np.array([f"q{k // 10}" for k in range(30)], dtype=object)
        write_unit(root, unit.name, UnitData({**data.arrays, "input_question": question}, data.attrs))
    assert any("datasets of 3 questions" in text for text in choose_sweep_layer(root).warnings)
    assert not any("questions" in text for text in alone.warnings)


def test_the_interval_of_a_layer_is_that_of_its_mean_over_datasets_of_these_questions():
    rng = np.random.default_rng(9)
    slopes = {"a": rng.normal(size=(2, 6)) * [[3], [1]], "b": rng.normal(size=(2, 5)) * [[1], [3]]}
    choice = choose_layer(slopes, [8, 10], rng=stream(), n_resamples=40_000)
    parts = np.array([values.var(axis=1, ddof=1) / values.shape[1] for values in slopes.values()]) / 4
    df = (parts.sum(axis=0) ** 2 / (parts**2 / np.array([[5], [4]])).sum(axis=0)).min()
    half = stats.t.ppf(0.975, df) * np.sqrt(parts.sum(axis=0))
    np.testing.assert_allclose(choice.ci_high - choice.mean, half, rtol=0.02)
    np.testing.assert_allclose(choice.mean - choice.ci_low, half, rtol=0.02)


def test_few_questions_widen_intervals_and_are_said():
    """With three questions a bootstrap's spread is a fifth too small and its quantiles are a normal's."""
    covered = excluded = 0
    for run in range(150):
        rng = np.random.default_rng([run, 3])
        choice = choose_layer({"d": rng.normal(size=(3, 3))}, np.arange(3), rng=rng, n_resamples=300)
        covered += choice.ci_low[0] <= 0 <= choice.ci_high[0]
        excluded += len(choice.rivals) < 2
    assert covered / 150 > 0.9  # .72 by percentiles
    assert excluded / 150 < 0.15  # .42 without
    assert any("3 questions" in one for one in choice.warnings)
    assert choose_layer({"d": rng.normal([[9], [0], [0]], 1, (3, 10))}, np.arange(3), rng=rng).warnings == ()


@pytest.mark.parametrize("operator", ["add", "ablate"])
def test_one_layer_alone_is_no_choice_and_is_not_said_to_be_the_best(operator):
    slopes = {name: values[:1] for name, values in simulated(np.random.default_rng(0), [0.5]).items()}
    choice = choose_layer(slopes, LAYERS[:1], rng=stream(), operator=operator)
    text = " ".join(choice.summary().split())
    assert "; no other layer was tried, and none was chosen" in text
    assert "best in 100%" not in text
    assert not re.search("no other layer could|told apart|Bonferroni|best is lowest|looks better", text)
    assert choice.doubts() == ""


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([1, 1], {}, "layers name 1 twice; each stands once"),
        ([[1], [2]], {}, r"layers have shape \(2, 1\)"),
        ([], {}, r"layers have shape \(0,\); they should be \(n_layers,\), one at least"),
        ([1, 2], {"questions": {"e": np.arange(5)}}, "questions of dataset d are missing"),
    ],
)
def test_layers_and_questions_that_fit_no_slopes_are_refused(layers, options, message):
    slopes = {"d": np.random.default_rng(0).normal(size=(len(layers), 5))}
    with pytest.raises(InputError, match=message):
        choose_layer(slopes, layers, rng=stream(), **options)
