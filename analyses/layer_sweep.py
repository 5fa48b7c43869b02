"""Which layer steers best? Mean steerability by steered layer, on the validation split of a sweep."""

import numpy as np
import pandas as pd

from analyses._cache import current_seed, facts_of, study_of
from analyses._claim import Claim, Finding, NotInCache, command_line, publish
from analyses._words import number
from steerstats import figures, open_cache
from steerstats.operators import ABLATE
from steerstats.sweeps import choose_sweep_layer

TITLE = "Layer sweep"
PAPER = "appendix: choice of layer"


def main(cache, out):
    """Mean steerability of every dataset at every layer, and the mean over datasets."""
    study = study_of(cache)
    if study.kind != "sweep":
        raise NotInCache("one layer only; `steerstats sweep` builds a cache that has them all")
    unit = study.unit(study.datasets[0]).unit
    layers = np.unique(unit.read("vector_layer"))
    rows = []
    for layer in layers.tolist():
        result = open_cache(study.path, layer=layer).steerability()
        for name, mean in ((name, one["mean"]) for name, one in result.results.items()):
            rows.append((layer, name, mean.estimate, mean.ci_low, mean.ci_high, mean.n))
        over = result.over_datasets
        if over is not None:
            limits = over.unweighted_mean, over.unweighted_ci_low, over.unweighted_ci_high
            rows.append((layer, None, *limits, over.n))
    frame = pd.DataFrame(rows, columns=["layer", "dataset", "estimate", "ci_low", "ci_high", "n"])
    whole = frame[frame["dataset"].isna()] if frame["dataset"].isna().any() else frame
    choice = choose_sweep_layer(study.path, seed=current_seed())
    layer = choice.chosen
    best = whole[whole["layer"] == layer].iloc[0]
    rivals = f"; not told apart from it: {', '.join(map(str, choice.rivals))}" if choice.rivals else ""
    share = choice.share[choice.layers == layer][0]
    ablated = choice.operator == ABLATE
    what, extreme = "Mean steerability at layer", "highest"
    if ablated:
        what, extreme = "Mean slope where the vector's direction is taken out (operator ablate) at layer", "lowest"
    best_of = f"the best{' (lowest)' if ablated else ''} of {len(layers)}"
    text = f"{what} {layer}, {best_of} in {share:.0%} of resamples{rivals}:"
    claim = Claim.row("sweep.best", text, best, "datasets", unit="nat per unit multiplier",
                      interval=f"t(D − 1) over datasets; the choice of the {extreme} is not in it")  # fmt: skip
    with figures.style():
        figure, ax = figures.canvas(width=6.2, height=3.4)
        shown = frame if whole is not frame else frame.drop(columns="dataset")
        figures.layer_profile(shown, ax=ax, chosen=layer, lowest=ablated)
    found = Finding.of(
        choice, script="layer_sweep", title=TITLE, paper=PAPER, claims=(claim,),
        reading="The line is the mean over datasets of steerability when this layer is steered, thin lines are the "
        f"datasets. The {extreme} layer of a sweep looks better than it is; judge it on the test split."
        + (" Below 0, taking the direction out lowers propensity: the lower, the stronger." if ablated else ""),
        bars="band: 95% t interval of the mean over datasets." if whole is not frame else "band: 95% t interval.",
        counted=f"{len(study.datasets)} datasets, {len(layers)} layers, validation inputs.",
        alt=f"Mean steerability by layer; the {extreme} is {layer} with {number(best['estimate'])} nats per unit λ.",
        method=f"mean steerability, base->base; t(D - 1) interval over datasets; the choice: {choice.method}",
        seed=current_seed(), facts=facts_of(open_cache(study.path, layer=layer)),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
