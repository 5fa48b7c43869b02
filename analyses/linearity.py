"""Is steerability, a slope, a fair summary? How far propensity curves are from straight lines."""

import pandas as pd

from analyses._cache import ask, by_dataset, datasets_of, facts_of, order_by_median, plain_mean, study_of
from analyses._claim import Claim, Finding, command_line, publish
from analyses._curves import by_chance, how_bent
from analyses._means import inputs_claim, mean_or_own
from analyses._words import number
from steerstats import figures

TITLE = "Slope against misfit: are the curves straight?"
PAPER = "slope and RMSE; the published axis is √RSS"
HOW = "inverted non-central F, too short for skewed departures (95% intervals covered 87–95% at 1 SD, 54–75% at 3 SD)"


def main(cache, out):
    """Slope and RMSE of every input, and Hotelling's test of the mean curve of every dataset."""
    study = study_of(cache)
    tested = ask(study, "linearity")
    order = [name for name in order_by_median(study) if name in tested.results]
    frame = by_dataset(tested.to_frame(), order)
    fits = (study.slopes(name).to_frame() for name in order)
    parts = [one[(one["setting_eval"] == "base") & (one["vector"] == "base")] for one in fits]
    inputs = pd.concat(parts, ignore_index=True)
    values = {name: part["r_squared"].to_numpy() for name, part in zip(order, parts)}
    line, r2 = inputs_claim(study, "linearity.r2", "R² of an input's own line", values, (0.0, 1.0))
    bent = plain_mean(frame["nonlinear_share"], "non-linear share of the mean curve", "share")
    own = frame.assign(estimate=frame["nonlinear_share"], n=frame["n_questions"])  # n counts inputs, twins apart
    text = f"Share of the mean curve's variation that is not linear{by_chance(frame)}"
    claims = [line, mean_or_own("linearity.share", text, bent, own)]
    if len(order) == 1:
        names = {"distance": "estimate", "distance_low": "ci_low", "distance_high": "ci_high"}
        row = own.iloc[0].drop("estimate").rename(names)
        over = "inputs" if row["n"] == len(inputs) else "questions"  # twins are averaged first
        text = f"Departure of the mean curve of {order[0]} from a line, in SDs over {over}:"
        claims.append(Claim.row("linearity.distance", text, row, "questions", interval=HOW))
    with figures.style():
        figure, (left, right) = figures.canvas(1, 2, width=8.2, height=max(3.2, 0.9 + 0.24 * len(order)))
        figures.slope_and_misfit(inputs, ax=left)
        figures.misfit_rows(frame, ax=right)
    found = Finding.of(
        tested, script="linearity", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Left: each dot is an input: its slope against the distance of its curve from its own line. The slope "
        "of an input far up says little. Right: how far the mean curve of each dataset bends, in SDs of the bending "
        "between inputs; 0 is straight. Where inputs bend alike that SD is small, and a bend of several SDs can be a "
        f"small part of the curve{how_bent(study, frame)}",
        bars="95% intervals of the effect size, by inverting the non-central F of Hotelling's T².",
        counted=f"{len(inputs):,} inputs in {datasets_of(len(order))}.",
        alt=f"Scatter of slope against RMSE for {len(inputs)} inputs, and the departure from linearity of "
        f"{len(order)} mean curves. The mean R² of an input's line is {number(r2.estimate)}.",
        facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
