"""Figures 1 and 18: steerability differs between the inputs of one dataset, down to the wrong sign."""

import numpy as np

from analyses import _published as published
from analyses._cache import ask, by_dataset, datasets_of, facts_of, plain_mean, study_of
from analyses._claim import Claim, Finding, command_line, publish
from analyses._means import SKEWED, mean_claim, mean_warnings, sign_claims
from analyses._shares import FALLS, WRONG, share_claims
from analyses._words import number
from steerstats import figures
from steerstats.operators import ABLATE
from steerstats.results import SLOPE_UNIT

TITLE = "Steerability of every input"
PAPER = "figures 1 and 18"


def main(cache, out):
    """Share of anti-steerable inputs and spread of steerability, dataset by dataset."""
    study = study_of(cache)
    result = ask(study, "steerability")
    table, order, n = result.to_frame(), list(result.results), len(result.results)
    anti = by_dataset(table.query("name == 'anti_steerable'"), order)
    slopes = {name: study.slopes(name).at("base->base") for name in order}
    share = plain_mean(anti["estimate"], "share of anti-steerable inputs", "share")
    spread = plain_mean(table.query("name == 'sd'")["estimate"], "SD over inputs", SLOPE_UNIT, bounds=(0.0, np.inf))
    worst = anti.loc[anti["estimate"].idxmax()]
    wrong = FALLS if (ablated := ABLATE in study.operators) else WRONG
    claims = share_claims(("per_input.anti_share", "per_input.worst"), wrong, share, worst, worst["method"])
    where, of = ("mean over datasets", "datasets") if n > 1 else (f"in {order[0]}", "questions")
    spread = spread if n > 1 else result[order[0]]["sd"]
    how = spread.method if n > 1 else f"{spread.method}; {SKEWED}"
    spread = Claim.of("per_input.spread", f"SD of steerability between inputs, {where}:", spread, of, interval=how)
    claims += [mean_claim(result), spread, *sign_claims(result)]
    for row in table.query("name == 'published_nonpositive' and dataset == 'myopic-reward'").to_dict("records"):
        claim = Claim.row("per_input.myopic", published.COUNTED, row, "questions", unit="share", interval=row["method"])
        claims.append(claim.against(published.MYOPIC_ANTI, facts_of(study), shift=published.HOME))
    with figures.style():
        figure, (left, right) = figures.canvas(1, 2, height=0.9 + 0.24 * len(order), width=8.2, width_ratios=[3, 1.3])
        figures.per_input(slopes, {name: result[name]["median"].estimate for name in order}, ax=left)
        figures.anti_share(anti, ax=right)
    found = Finding.of(
        result, script="per_input_steerability", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Each dot is one input: how much one unit of multiplier moves its answer. Dots left of zero "
        + ("fall as the direction is taken out" if ablated else "are steered the wrong way")
        + ". Datasets are ordered by their median, the upright stroke; dots are spread within a row only to keep "
        "them apart. Right: the share left of zero by more than numerical error; the broken line is one half.",
        bars="95% Wilson intervals of the share, by question.", warnings=mean_warnings(result),
        counted=f"{sum(map(len, slopes.values())):,} test inputs in {datasets_of(n)}.", facts=facts_of(study),
        alt=f"Steerability of every input in {datasets_of(n)}, ordered by median. Medians run from "
        f"{number(result[order[-1]]['median'].estimate)} to {number(result[order[0]]['median'].estimate)} nats per λ. "
        f"Anti-steerable shares run from {anti['estimate'].min():.0%} to {anti['estimate'].max():.0%}.",
    )  # fmt: skip
    return publish(out, found, figure, table.drop(columns=["method"]))


if __name__ == "__main__":
    command_line(main, __doc__)
