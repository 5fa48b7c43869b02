"""Rates that warnings, pages and docstrings state are those of the committed calibration table."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import steerstats
from analyses import linearity as linearity_page
from analyses import variance_id_ood
from analyses._curves import BY_QUESTION
from analyses._effects import SQUARES
from analyses._means import SKEWED
from analyses.variance_explained import TOO_HIGH
from cache_builder.vectors import draws
from steerstats.generalization import (
    AnswerMass,
    SlopeGrid,
    figure7,
    fixed_datasets,
    from_disjoint_folds,
    margins,
    steerability_variance,
    two_groups,
    with_vector_error,
)
from steerstats.generalization.correlation import GROUPED
from steerstats.meta import SKEWED as SKEWED_DATASETS
from steerstats.meta import mean_over_datasets, with_few_units
from steerstats.mixed import compare, fit_mixed
from steerstats.mixed.population import twin_warnings
from steerstats.mixed.robust import few_df_warnings
from steerstats.nulls import null_table, shuffled_level, tail_doubt
from steerstats.power import difference_components, gap_components, smallest_detectable_effect
from steerstats.predictors import associations, d_prime, dataset_associations
from steerstats.random_effects import prediction_limits, random_effects_mean
from steerstats.resampling import question_weight
from steerstats.simulate.calibration import TABLE
from steerstats.simulate.calibration.cells import COVERAGE, ERROR
from steerstats.simulate.calibration.models import LAMBDA
from steerstats.spurious.explained import CHANCE_IN, FEW_IN_ORDERS, NOT_SKEWED
from steerstats.spurious.pooled import few_df_warning
from steerstats.steerability import LinearityTest, linearity_test, slope_spread
from steerstats.steerability.distribution import NOT_SKEWED as NOT_SKEWED_MEAN
from steerstats.steerability.replicates import corrected_anti_steerable
from steerstats.study.notes import TOO_LITTLE

MEASURED = pd.read_csv(TABLE)
RATE = re.compile(r"(?<![\w.])(?:\d+(?=(?:[–-]\d+)?%)|\.\d+(?!\w))")
SIMULATED = re.compile(r"\b(?:covered|rejected|held the truth|missed zero|[Ii]n simulation)\b")


def over(quantity: str, *settings: str, method: str = "", missed: bool = False) -> list[float]:
    """Measured rates of a quantity where the setting holds all of `settings`, in the table's order."""
    found = MEASURED[(MEASURED["quantity"] == quantity) & MEASURED["method"].str.startswith(method)]
    for words in settings:
        found = found[found["setting"].str.contains(words, regex=False)]
    assert len(found), f"the table has no row {quantity}, {settings}, {method}"
    return list(1 - found["measured"] if missed else found["measured"])


def ends(values: list[float]) -> list[float]:
    """Fewest and most; one number where they round to the same."""
    low, high = min(values), max(values)
    return [low, high] if round(100 * low) < round(100 * high) else [(low + high) / 2]


def every(quantity: str, places: Iterable[str], method: str = "") -> list[float]:
    """Measured rates at all of several places."""
    return [one for place in places for one in over(quantity, place, method=method)]


def at(quantity: str, places: Iterable[str], *settings: str, method: str = "") -> list[float]:
    """Fewest and most at each of several places."""
    return [end for place in places for end in ends(over(quantity, place, *settings, method=method))]


def plain(text: str) -> str:
    """On one line."""
    return re.sub(r"\s+", " ", text)


def said(text: str, after: str, until: str | None = None) -> list[float]:
    """Rates between the words of a text, in its order: 7-10%, 81% and .88-.92."""
    part = plain(text).partition(after)[2]
    assert part, f"the text does not say {after!r}: {text}"
    part = part.partition(until)[0] if until else part
    return [float(one) if one.startswith(".") else int(one) / 100 for one in RATE.findall(part)]


# --- warnings that only data bring about ------------------------------------------------------------


def few_questions() -> str:
    slopes = {f"d{k}": np.random.default_rng(k).standard_normal((1, 2, 4)) for k in range(5)}
    grid = SlopeGrid(train=("base",), evaluate=("base", "other"), slopes=slopes)
    (text,) = (one for one in gap_components(grid, "base->other").warnings if "fewer than" in one)
    return text


def few_units() -> tuple[str, str]:
    fit = with_few_units(mean_over_datasets([0.2, 0.5], [0.01, 0.02]), {"one": 5, "two": 5}, {"one": 5, "two": 5})
    return fit.warnings[-2:]


def small_p() -> str:
    null = {f"d{k}": np.arange(1.0, 200)[:, None] for k in range(10)}
    own = {name: np.array([200.0 if name == "d0" else 50.0]) for name in null}
    return tail_doubt(null_table(own, null, kind="shuffled"), {"d0": 30})


def curves() -> pd.DataFrame:
    lam, group = np.tile(LAMBDA, 12), np.repeat(np.arange(12), len(LAMBDA))
    y = np.random.default_rng(0).standard_normal(len(lam))
    return pd.DataFrame({"lam": lam, "a": group % 2, "input": group, "question": group // 2, "y": y})


def few_groups() -> str:
    fits = [fit_mixed(f"y ~ {fixed} + (1 + lam | input)", curves(), reml=False) for fixed in ("lam", "lam * a")]
    return compare(*fits).warnings[0]


def two_folds() -> str:
    (text,) = from_disjoint_folds(np.random.default_rng(0).standard_normal((2, 9))).warnings
    return text


def skewed_curves() -> LinearityTest:
    bend = np.exp(1.5 * np.random.default_rng(0).standard_normal((60, 1)))
    noise = 0.3 * np.random.default_rng(1).standard_normal((60, len(LAMBDA)))
    return linearity_test(bend * LAMBDA**2 + noise, LAMBDA)


def enough() -> str:
    source = inspect.getsource(question_weight)
    return source[source.index("ENOUGH = ") : source.index("FEW = ")]


PLAIN, DRAWN = "unweighted", "mean over datasets, slopes drawn, coverage"
UNLIKE = "mean over datasets, effects skewed, coverage"
ONE, UNEQUAL = "mean over datasets, one dominates, coverage", "mean over unequal questions, coverage"
MEAN, T = "mean gap, coverage", "t on n - 1"
EXPLAINED, SPREAD = "variance explained, coverage", "SD of steerability, coverage"
LETTER, BOTH = (f"published split, {name}, coverage" for name in ("the letter", "letter and word"))
STRAIGHT, SKEW = "mean curve straight, type I", "mean curve straight, all contrasts skewed, type I"
BENT, INPUTS = "departure from a line, coverage", "correlation over inputs, coverage"
RATIO, PAIRS = "ratio of variances, coverage", "Spearman over pairs, type I"
DIFFER = "datasets share one effect, errors uncertain, type I"
UNCERTAIN = "mean over datasets, errors uncertain, coverage"
HERE, NOISE_FREE = "Spearman of these datasets, coverage", "Spearman without noise, coverage"
GROUPS_HERE, GROUPS = (f"two groups, {quantity}" for quantity in (HERE, NOISE_FREE))
RARE, ORDERS = "A on the slope, few degrees of freedom, type I", "mean slope of both orders, type I"
VECTOR, FREE_SHARE = "mean gap, any vector, coverage", "anti-steerable share without noise, coverage"
FOLDS, FEW_INPUTS = "mean gap, any fold's vector, coverage", "fixed effects of few inputs, type I"
DIFFERENCE = "smallest detectable difference, power"
POWER, FALL = "smallest detectable gap, power", "fall of squared effects"
SETS, GAP = "spread of gaps between datasets, coverage", "detectable gap, coverage"
FAR, AREA = "d′ of projections, coverage", "AUC of projections, coverage"
ONE_LAW, CATEGORIES = "two groups where there is one, share", "Spearman over categories, type I"

LOGNORMAL = at(EXPLAINED, ("n = 60,", "n = 300,"), "lognormal")
IN_ORDERS = at("variance explained, both orders, coverage", ("10 questions", "30 questions", "100 questions"))
LARGE = ("5 of 329", "2 of 202")  # questions that hold much
NOT_OFFERED = ends(every(UNEQUAL, LARGE, "t on G - 1"))
SMALL_N = every(STRAIGHT, [f"{n} inputs, curvature over inputs: log" for n in (12, 20, 60)])
FROM_200 = over(STRAIGHT, "200 inputs, curvature over inputs: log") + over(SKEW, "200 inputs")
FEW_DF = over(DIFFER, "of freedom each") + over(UNCERTAIN, "of freedom each", method="Hartung", missed=True)

# Where it is said -> the text, the words after which its rates come, the words that end them, what was measured.
STATED: dict[str, tuple[str | Callable[[], str], str, str | None, list[float]]] = {
    # within one dataset
    "explained": (TOO_HIGH, "slopes", None, LOGNORMAL + IN_ORDERS),
    "explained, both orders": (FEW_IN_ORDERS, ".1-.7", None, IN_ORDERS),
    "explained, assumption": (
        NOT_SKEWED,
        "a share covered",
        None,
        LOGNORMAL + ends(over(EXPLAINED, ": normal slopes") + over(EXPLAINED, "two groups")),
    ),
    "published split": (
        CHANCE_IN,
        ".1-.7,",
        None,
        [end for n in (10, 30, 100) for end in ends(over(LETTER, f"{n} questions") + over(BOTH, f"{n} questions"))],
    ),
    "mean": (
        NOT_SKEWED_MEAN,
        "lognormal slopes",
        None,
        [*ends(over(MEAN, "n = 50,", "lognormal", method=T)), *ends(over(MEAN, "n = 500,", "lognormal", method=T))],
    ),
    "spread, claim": (SKEWED, "intervals", None, ends(over(SPREAD, "lognormal"))),
    "spread": (
        slope_spread.__doc__,
        "intervals covered",
        "Examples",
        at(SPREAD, (", normal", "two groups")) + at(SPREAD, ("n = 10,", "n = 50,", "n = 500,"), "lognormal"),
    ),
    "ratio of variances": (
        steerability_variance.__doc__,
        "intervals covered",
        "Examples",
        ends(over(RATIO, ", normal"))
        + ends(over(RATIO, "n = 10,", "lognormal") + over(RATIO, "n = 20,", "lognormal"))
        + at(RATIO, ("n = 60,", "n = 500,"), "lognormal"),
    ),
    "ratio of variances, figure": (variance_id_ood.TOO_SHORT, "slopes", None, ends(over(RATIO, "lognormal"))),
    "correlation over inputs": (
        BY_QUESTION,
        "covered",
        None,
        at(INPUTS, ("lognormal", "30 inputs, slopes on two ranges, a")),
    ),
    "departure": (linearity_page.HOW, "intervals", None, at(BENT, ("of 1 SD", "of 3 SD"), "lognormal")),
    "linearity": (
        linearity_test.__doc__,
        "in simulation with seven multipliers at 5%:",
        "Below 200",
        ends(SMALL_N[:2]) + SMALL_N[2:] + FROM_200[:1] + at(SKEW, ("12 ", "60 ", "200 ")),
    ),
    "linearity, warning": (
        lambda: skewed_curves().warnings[0],
        "too often",
        None,
        [*ends(SMALL_N), ERROR, max(over(SKEW)), *ends(FROM_200)],
    ),
    "linearity, assumption": (lambda: skewed_curves().assumptions[0], "questions:", None, [*ends(SMALL_N), ERROR]),
    "answer mass": (AnswerMass.__doc__, "intervals covered", "share_low", over("mass on the answers, coverage")),
    "vector error": (with_vector_error.__doc__, "intervals covered", "Parameters", over(VECTOR, "training questions")),
    "vector error, note": (TOO_LITTLE, "intervals covered", None, over(VECTOR, "training questions")),
    "folds": (from_disjoint_folds.__doc__, "intervals covered", "Parameters", over(FOLDS, "folds")),
    "folds, warning": (two_folds, "intervals", None, over(FOLDS, "2 folds")),
    "unequal questions": (
        question_weight.question_df.__doc__,
        "It covered",
        "Parameters",
        ends(every(UNEQUAL, LARGE, "t, degrees")) + NOT_OFFERED,
    ),
    "unequal questions, enough": (enough, "covered", None, ends(over(UNEQUAL, "30 of 330", method="t,")) + NOT_OFFERED),
    "unequal questions, warning": (
        lambda: question_weight.weight_warnings([30, 30] + 200 * [1])[0],
        "covered",
        None,
        ends(every(UNEQUAL, LARGE, "studentised") + every(UNEQUAL, LARGE, "percentile"))
        + ends(every("share of unequal questions, coverage", LARGE)),
    ),
    "corrected share": (
        corrected_anti_steerable.__doc__,
        "intervals covered",
        "Raises",
        over(FREE_SHARE, "refits", method="corrected"),
    ),
    "d prime": (
        d_prime.__doc__,
        "ones covered",
        "Examples",
        ends(over(FAR, ", normal") + over(FAR, "two groups"))
        + ends(over(FAR, "lognormal"))
        + ends(over(AREA))
        + ends([rate for name in ("d′", "AUC") for rate in over(f"{name} of cross-fitted projections, coverage")]),
    ),
    # factors
    "rare level": (few_df_warnings.__doc__, "at 5% rejected", None, at(RARE, ("ratio 3", "ratio 1"))),
    "rare level, warning": (
        lambda: few_df_warnings(["A"], np.array([3.0]))[0],
        "measured:",
        None,
        [*ends(over(RARE, "ratio 3")), ERROR],
    ),
    "both orders": (
        lambda: twin_warnings("y ~ lam + (1 + lam | input)", curves())[0],
        "the mean slope rejected",
        None,
        at(ORDERS, ("share 0.5", "share 0.9")),
    ),
    "few groups": (few_groups, "for 5%:", None, at(FEW_INPUTS, ("12 inputs", "25 inputs"))),
    # over datasets
    "dominance": (
        lambda: random_effects_mean([0.1, 0.9, 0.4], [1e-4, 1.0, 1.0], 0.95).dominance("one"),
        "they covered",
        None,
        at(ONE, ("of 1 tau²", "of 0.05 tau²"), method="Hartung") + ends(over(ONE, method=PLAIN)),
    ),
    "effects that go with their errors": (
        lambda: random_effects_mean([0.1, 0.2, 0.9], [0.01, 0.02, 0.2], 0.95).lean(),
        "intervals covered",
        None,
        [*over(DRAWN, "lognormal", method="Hartung")[1:], *ends(over(DRAWN, "lognormal", method=PLAIN))],
    ),
    "effects skewed": (
        SKEWED_DATASETS,
        "held it",
        None,
        [*ends(every(UNLIKE, ("D = 5,", "D = 8,", "D = 14,"))), *ends(over(UNLIKE, "D = 40,"))],
    ),
    "a new dataset": (
        prediction_limits.__doc__,
        "these limits covered",
        "Parameters",
        [
            *ends(over("gap of a new dataset, coverage")),
            COVERAGE,
            *ends(over("effect of a new dataset, one dominates, coverage")),
            *ends(over("effect of a new dataset, effects skewed, coverage")),
        ],
    ),
    "few questions": (lambda: few_units()[0], "5% test rejected", None, over(DIFFER, "questions each")),
    "few refits": (lambda: few_units()[1], "5% test rejected", None, over(DIFFER, "refits each")),
    "few refits, docstring": (
        mean_over_datasets.__doc__,
        "test of Q rejected",
        "names",
        [
            *over(DIFFER, "refits each"),
            COVERAGE,
            *over(UNCERTAIN, "refits each", method="Hartung"),
            *ends(over(UNCERTAIN, "refits each", method=PLAIN)),
        ],
    ),
    "few degrees of freedom": (
        lambda: few_df_warning({"one": 5.0})[0],
        "5% test rejected",
        None,
        FEW_DF + ends(over(UNCERTAIN, "of freedom each", method=PLAIN, missed=True)),
    ),
    "few questions, power": (
        few_questions,
        "95% limits",
        None,
        at(SETS, (f"of {n} questions" for n in (4, 6, 10))) + at(GAP, (f"of {n} questions" for n in (4, 6, 10))),
    ),
    "power": (
        smallest_detectable_effect.__doc__,
        "its power was",
        "The vector",
        [*over(POWER, "10 refits"), 0.8, *over(POWER, "3 refits")],
    ),
    "power, two caches": (
        difference_components.__doc__,
        "In simulation",
        "Parameters",
        [0.8, *ends(over(DIFFERENCE, "D = ")), *ends(over(DIFFERENCE, "vectors' error as large"))],
    ),
    "power, quoted": (
        smallest_detectable_effect.__doc__,
        "somewhat less",
        "One dataset",
        [*over(POWER, "tau 0 of", method="the one"), 0.8],
    ),
    "small p-values": (small_p, "without information,", "at 5%", over("some dataset among 40, type I")),
    "squares": (SQUARES, "differ,", None, ends(over(f"{FALL}, coverage")) + ends(over(f"{FALL}, type I"))),
    # correlations
    "figure 7": (
        figure7.__doc__,
        "zero in",
        None,
        ends(over(PAIRS, method="jack")) + ends(over(PAIRS, method="datas")) + ends(over(PAIRS, method="pairs")),
    ),
    "skewed means": (
        margins.__doc__,
        "datasets covered",
        None,
        [*over(HERE, "D = 40, lognormal"), *over(NOISE_FREE, "D = 40, lognormal", method="percentile, dis")],
    ),
    "these datasets": (
        fixed_datasets.__doc__,
        "that covered",
        "Groups that",
        [*at(HERE, ("D = 40, normal", "D = 40, lognormal")), *ends(over(HERE, "datasets,")), *ends(over(GROUPS_HERE))],
    ),
    "two groups, thresholds": (
        lambda: inspect.getsource(two_groups),
        "under one normal law,",
        "DOUBTFUL",
        [*ends(over(ONE_LAW, method="possible")), *ends(over(ONE_LAW, method="clear"))],
    ),
    "two groups": (GROUPED, "covered", None, at(GROUPS, ("0.3 of", "0.5 of"))),
    "categories": (
        associations.__doc__,
        "rejected",
        None,
        [ERROR, *over(CATEGORIES, "8 cat", method="datasets"), *over(CATEGORIES, "8 cat", method="categories")],
    ),
    "uneven categories": (
        dataset_associations.__doc__,
        "type I error",
        "Raises",
        [*over(CATEGORIES, "to 31", method="categories"), ERROR],
    ),
}


@pytest.mark.parametrize("place", STATED)
def test_stated_rates_are_the_measured_ones(place):
    text, after, until, measured = STATED[place]
    found = said(text() if callable(text) else text, after, until)
    np.testing.assert_allclose(found, measured, atol=0.00501)


def test_the_level_of_shuffles_that_builders_state_is_what_is_simulated():
    levels = [shuffled_level([1] * n, rng=np.random.default_rng(0)) for n in (6, 12, 40)]
    np.testing.assert_allclose(said(draws.__doc__, "information passes in", "Further"), levels, atol=0.01)


def simulated_rates() -> Iterable[tuple[Path, str]]:
    """Every piece of text in the product that gives a rate beside words for a simulation."""
    root = Path(steerstats.__file__).parents[1]
    for path in sorted(
        one for folder in ("steerstats", "analyses", "reports") for one in (root / folder).rglob("*.py")
    ):
        if not SIMULATED.search(source := path.read_text("utf-8")) or path.name.startswith("calibrate"):
            continue
        strings = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
        for text in (plain(one) for one in strings if isinstance(one, str)):
            for match in SIMULATED.finditer(text):
                if RATE.search(text[max(match.start() - 40, 0) : match.end() + 40]):
                    yield path, text[match.start() : match.end() + 20]


def test_every_rate_of_a_simulation_that_is_stated_is_held_to_the_table():
    held = [plain(text() if callable(text) else text) for text, *_ in STATED.values()]
    found = list(simulated_rates())
    assert len(found) > 40
    assert not [(path, text) for path, text in found if not any(text in one for one in held)]
