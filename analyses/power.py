"""How small a gap could this study have detected, and how large would the next one have to be?"""

from dataclasses import replace

import numpy as np

from analyses._cache import ask, datasets_of, facts_of, need_shifts, questions_each, study_of
from analyses._claim import Claim, Finding, command_line, publish
from analyses._words import number
from steerstats import figures
from steerstats.generalization import shift_name
from steerstats.results import SLOPE_UNIT

TITLE = "What a study of this size can detect"
PAPER = ""
INPUTS = (25, 50, 100, 200, 400, 800)
LIMITS = "the gap at the 95% limits of the variance between datasets, the other components as fitted"
NO_LIMITS = "a design figure from components whose uncertainty is not known"


def main(cache, out):
    """Smallest detectable gap by number of inputs and datasets, from the variance components of this cache."""
    study = study_of(cache)
    first = need_shifts(study)[0]
    shift, words = shift_name(first), figures.nice_shift(*first)
    here = ask(study, "power", shift=shift)
    n, inputs = len(study.datasets), int(here.n_inputs[0])
    datasets = sorted({5, 10, 20, 40, n}) if n > 1 else [1]
    design = ask(study, "power", shift=shift, n_inputs=INPUTS, n_datasets=datasets)
    text = f"Smallest mean gap under {words} that a study of this size detects with power {here.power:g} "
    text += f"(two-sided test at {here.alpha:g}):"
    claim = Claim.bare("power.gap", text, here.effect[0], n, "datasets", NO_LIMITS, unit=SLOPE_UNIT,
                       facts={"vector_error": here.includes_vector_error})  # fmt: skip
    bars = f"none: {NO_LIMITS}."
    if limited := bool(np.isfinite([here.effect_low[0], here.effect_high[0]]).all()):
        claim = replace(claim, ci_low=float(here.effect_low[0]), ci_high=float(here.effect_high[0]), interval=LIMITS)
        bars = f"band, for the number of datasets of this study: {LIMITS}."
    gaps = ask(study, "generalization").gaps
    seen = float(np.mean(gaps.estimate[0, :, gaps.shifts.index(shift)]))
    with figures.style():
        figure, ax = figures.canvas(width=6.2, height=3.6)
        figures.detectable_effect(design.to_frame(), ax=ax, observed=abs(seen), current=inputs,
                               banded=n if limited else None)  # fmt: skip
        figures.key_outside(figure, ax, columns=4)
    found = Finding.of(
        here, script="power", title=TITLE, paper=PAPER, claims=(claim,),
        reading=f"Each line is a number of datasets: the smallest true mean gap that {here.power:.0%} of such studies "
        "detect. Where it levels off, more questions do not help: differences between datasets, or the vector's own "
        "error, set a floor. The broken line is the gap seen here; gaps are significant from about 0.7 of their line.",
        bars=bars, facts=facts_of(study),
        counted=f"components fitted on {datasets_of(n)} with {questions_each(study, inputs)}.",
        alt=f"Smallest detectable gap under {words} against questions per dataset; {number(here.effect[0])} nats per "
        f"unit multiplier at the size of this study, where the gap seen is {number(seen)}.",
    )  # fmt: skip
    return publish(out, found, figure, design.to_frame())


if __name__ == "__main__":
    command_line(main, __doc__)
