"""What the methods section says of single inputs: their slopes, and the features that slopes go with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analyses._cache import vectors_of_kind, with_several_wrong
from analyses._words import in_words, listed
from reports.methods_doubts import caches_named
from reports.methods_factors import LEVELS, Holders, in_design, projected_out, where, with_controls, with_own
from reports.methods_order import OPTION
from reports.ran import Ran
from reports.references import Cited

EFFECTS = ("spurious_effects", "own_factors")


def inputs_paragraph(ran: Ran, studies: Mapping[str, Any], cite: Cited) -> str:
    """Slopes of single inputs within a dataset, and what explains their differences; "" where none was asked for."""
    units = [unit for study in studies.values() for unit in study.units.values()]
    lines = []
    if "per_input_steerability" in ran:
        lines.append(
            "Unless said otherwise, numbers are for the vector of the base setting used in the base setting "
            "(base → base). For each dataset we give the mean steerability of its inputs with a t interval over "
            "questions, their median with an interval between order statistics, their standard deviation with a "
            f"jackknife interval on the log scale{cite('miller')}, and the share of anti-steerable inputs, whose slope "
            f"is below 0 by more than its numerical error, with Wilson's interval{cite('wilson')}."
        )
        if any(len(set(unit.question)) < len(unit.inputs) for unit in units):
            lines.append(
                "Where a question has several inputs, shares and medians count them by the design effect"
                f"{cite('woodruff')}."
            )
    if "propensity_curves" in ran:
        lines.append(
            "How steadily propensity rises with the multiplier was measured by Kendall's τ within each input"
            f"{cite('kendall')}."
        )
    if "linearity" in ran:
        contrasts = ran.number("n_contrasts", "linearity") or "all"  # of as many as each dataset's multipliers have
        contrasts += " non-linear contrast" + "s" * (contrasts != "1")
        lines.append(
            f"Whether the mean curve of a dataset is straight was tested by Hotelling's T² on {contrasts} "
            f"of the multiplier{cite('hotelling')}."
        )
    if "multiplier_range" in ran:
        lines.append("Slopes on narrower ranges of the multiplier were compared with those on its whole range.")
    if "answer_mass" in ran:
        answers = "answers" if any(map(with_several_wrong, studies.values())) else "two answers"
        lines.append(f"At every multiplier we summed the probability of the {answers}, to check that they keep it.")
    return " ".join([*lines, *_features(ran, studies, cite)])


def _features(ran: Ran, studies: Mapping[str, Any], cite: Cited) -> list[str]:
    """Sentences on effects of features, on their share of the variance, and on vectors without them."""
    lines = []
    regressed = any(script in ran for script in EFFECTS)
    known = in_design(studies)
    if regressed:
        lines += [_regression(ran, studies, in_design(studies, robust=True), cite), _mixed(ran, cite)]
    if "variance_explained" in ran or ran.keys("own_factors", "own."):
        resamples = ran.number("n_resamples", "variance_explained")
        what = (
            "these factors explain"
            if regressed
            else f"goes with {OPTION} being {listed([LEVELS[name] for name in known])}"
        )
        lines.append(
            f"The share of the variance between inputs that {what} is the Shapley share of adjusted R²"
            f"{cite('groemping', 'lindeman')}, with percentile intervals from {f'{resamples} ' if resamples else ''}"
            f"bootstrap resamples of questions{cite('efron')}."
        )
    # With one factor there is no order in which to take two.
    if ran.says("published sequential", "variance_explained") and len(known) > 1:
        lines.append("The published sequential split of R² (letter before word) is given beside it.")
    if "debiased_vectors" in ran:
        resamples = ran.number("n_resamples", "debiased_vectors")
        lines.append(
            f"We also projected {projected_out(studies)} out of each base vector"
            f"{where(with_controls(studies, 'debiased'), studies)}, and rescaled what was left to the norm of that "
            "vector; what this costs is the mean difference of slopes, paired by input (studentised intervals, "
            f"{resamples} resamples of questions)."
        )
    if "own_vectors" in ran:
        lines.append(_made_elsewhere(ran, studies))
    return list(filter(None, lines))


def _made_elsewhere(ran: Ran, studies: Mapping[str, Any]) -> str:
    """Vectors of the user's own, in the caches that have any."""
    own = list(dict.fromkeys(key.rsplit(".", 2)[0] for key in ran.keys("own_vectors", "own_vectors.")))
    grids = {label: study for label, study in studies.items() if study.kind != "sweep"}
    holders = [label for label, study in grids.items() if vectors_of_kind(study, "imported")]
    what = f"{'Vectors' if own[1:] else 'A vector'} made elsewhere ({', '.join(own)})"
    if len(holders) < len(studies):
        what = f"In {caches_named(holders)} {what[:1].lower()}{what[1:]}"
    return (
        f"{what} had the same measures, and {'each ' * bool(own[1:])}was compared with the base vector by the mean "
        "difference of slopes in the same setting, paired by input (studentised intervals, "
        f"{ran.number('n_resamples', 'own_vectors')} resamples of questions)."
    )


def _regression(ran: Ran, studies: Mapping[str, Any], known: Mapping[str, Holders], cite: Cited) -> str:
    own = dict.fromkeys(key.rpartition(".")[0] for key in ran.keys("own_factors", "own."))
    what = []
    for name, holders in known.items():
        what.append(f"whether {'it' if what else OPTION} is {LEVELS[name]}{where(holders, studies)}")
    what += [f"{in_words(name)}{where(with_own(studies, name), studies)}" for name in own]
    robust = []
    if ran.says("HC2 standard errors", *EFFECTS):
        robust.append(f"HC2 standard errors{cite('mackinnon')}")
    if ran.says("CR2 standard errors", *EFFECTS):
        robust.append(f"CR2 standard errors by question{cite('pustejovsky')}")
    errors = f" with {' or '.join(robust)} and Bell–McCaffrey degrees of freedom{cite('bell')}" if robust else ""
    return f"In each dataset we regressed steerability on {listed(what)}, by least squares{errors}."


def _mixed(ran: Ran, cite: Cited) -> str:
    if not ran.says("linear mixed model", "spurious_effects"):
        return ""
    return (
        "A linear mixed model of propensity (random intercept and slope for every input), fitted by REML"
        f"{cite('laird', 'patterson')}, is given beside this regression in the tables."
    )
