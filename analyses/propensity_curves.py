"""Figure 2: propensity against the multiplier, the curve whose slope is steerability."""

import math

from analyses._cache import between, by_dataset, datasets_of, each_of, facts_of, mean_curves, order_by_median, study_of
from analyses._claim import Finding, command_line, publish
from analyses._means import inputs_claim
from analyses._words import number
from steerstats import figures
from steerstats.operators import ABLATE

TITLE = "Propensity curves"
PAPER = "figure 2"


def main(cache, out):
    """Mean propensity of every dataset at every multiplier, and how monotone the inputs' curves are."""
    study = study_of(cache)
    order = order_by_median(study)
    frame = by_dataset(mean_curves(study), order)
    fits = {name: study.slopes(name).fit for name in order}
    places = {name: (fit.coords["setting_eval"].index("base"), fit.coords["vector"].index("base"))
              for name, fit in fits.items()}  # fmt: skip
    tau = {name: fits[name].monotonicity[places[name]] for name in order}
    text = "How steadily an input's propensity rises with the multiplier (Kendall's τ; 1: always, 0: no trend)"
    claim, monotone = inputs_claim(study, "curves.monotonicity", text, tau, (-1.0, 1.0))
    columns = min(4, len(order))
    rows = math.ceil(len(order) / columns)
    with figures.style():
        figure, axes = figures.canvas(rows, columns, width=1.9 * columns + 0.4, height=1.35 * rows + 0.5, sharex=True)
        panels = axes.ravel() if len(order) > 1 else [axes]
        figures.propensity_curves(frame, panels, band="middle 80% of inputs")
        figure.supxlabel("multiplier λ", fontsize=8.5)
        figure.supylabel("propensity (nat)", fontsize=8.5)
    n = frame.groupby("dataset")["n"].first()
    acts = "with the vector added at each multiplier. A straight rising line is a vector that works"
    if ABLATE in study.operators:
        acts = "as the vector's direction is taken out (1 is all of it). A falling line is a direction that held it up"
    found = Finding(
        script="propensity_curves", title=TITLE, paper=PAPER, claims=(claim,),
        reading="How far the model leans towards the answer that shows the behaviour (above zero) or the other one "
        f"(below), {acts}; datasets are ordered by their median steerability, as in the paper's figure 1, and each has "
        "its own scale.",
        bars="upright bars are 95% t intervals of the mean over questions; the grey band holds the middle 80% of "
        "inputs and is not an interval.",
        counted=f"{between(n, 'questions')} in {each_of(len(order))}.",
        alt=f"Mean propensity against the multiplier in {datasets_of(len(order))}, one panel each. Curves are "
        f"monotone by Kendall's τ of {number(monotone.estimate)} on average.",
        method="mean over inputs at each multiplier, t interval over questions; Kendall's tau-a within each input",
        assumptions=("questions are independent",), facts=facts_of(study),
    )  # fmt: skip
    names = {"low": "inputs_10_percent", "high": "inputs_90_percent"}
    return publish(out, found, figure, frame.rename(columns=names))


if __name__ == "__main__":
    command_line(main, __doc__)
