"""Mixed-model effects of A/B and Yes/No on steerability, per dataset and over datasets."""

import pandas as pd

from analyses._cache import ask, between, by_median, facts_of, study_of
from analyses._claim import Claim, Finding, NotInCache, command_line, publish
from analyses._counts import effect_claims, one_for_both, p_words, plain_singular, recommended
from steerstats import figures

TITLE = "Effects of position and token on steerability"
PAPER = ""
MEAN = "mean over datasets"
NAMES = {"pos_is_a": "A rather than B", "pos_is_yes": "Yes rather than No"}


def main(cache, out):
    """Robust per-input regression in every dataset, two-stage mean over datasets."""
    study = study_of(cache)
    result = ask(study, "spurious_factors")
    whole = by_median(result.to_frame(), study)
    rows = whole[(whole["model"] == "per-input") & (whole["response"] == "slope") & whole["term"].isin(NAMES)]
    terms = [term for term in NAMES if (rows["term"] == term).any()]
    if not terms:
        raise NotInCache("built without the A/B and Yes/No of the positive option")
    claims, frames, pooled = [], {}, result.over_datasets
    for term in terms:
        own, key, name = rows[rows["term"] == term], ("slope", term), one_for_both(NAMES[term], result.results)
        if pooled is not None and key in pooled.pooled:
            fit = pooled.pooled[key]
            last = {"dataset": MEAN, **recommended(fit).row}
            claims += effect_claims(term, name, fit, pooled.p_value[key], pooled.method)
            own = pd.concat([own, pd.DataFrame([last])], ignore_index=True)
        elif len(own) == 1:
            one = own.iloc[0]
            text = f"Effect of {name} on steerability, in {one['dataset']} ({p_words(one['p'])}):"
            claims.append(Claim.row(f"effects.{term}", text, one, "inputs", unit=one["unit"], interval=one["se_type"]))
        frames[term] = own
    n = rows["dataset"].nunique()
    with figures.style():
        figure, axes = figures.canvas(1, len(terms), width=8.4, height=1.2 + 0.25 * (n + 1), squeeze=False)
        for k, (ax, term) in enumerate(zip(axes[0], terms)):
            label = f"effect of {NAMES[term]}\n(nat per unit multiplier)"
            names = k == 0 or len(frames[term]) != n + 1
            figures.effect_rows(frames[term], ax=ax, xlabel=label, labels=names, pooled=MEAN)
    found = Finding.of(
        result, script="spurious_effects", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Each dot is how much more an input steers when the positive option has that letter or word, the other "
        "factor held fixed. Away from zero, the vector moves letters or words as well as behaviour.",
        bars="95% intervals, HC2 (CR2 with twins) with Bell–McCaffrey degrees of freedom; the mean over datasets: "
        "Hartung–Knapp t(D − 1), or what the warnings say to read in its place.",
        counted=f"{n} datasets, {between(rows['n'], 'inputs')} each.",
        alt=f"Effects of {' and '.join(NAMES[term] for term in terms)} on steerability in {n} datasets.",
        warnings=plain_singular(result.warnings), facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, whole)


if __name__ == "__main__":
    command_line(main, __doc__)
