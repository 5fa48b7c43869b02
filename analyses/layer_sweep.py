"""Which layer steers best? Mean steerability by steered layer, on the validation split of a sweep."""

import numpy as np

from analyses._cache import current_seed, facts_of, study_of
from analyses._claim import Finding, NotInCache, command_line, publish
from analyses._sweeps import DOWN, extreme, layer_claim, layer_rows
from analyses._words import number
from steerstats import figures, open_cache
from steerstats.errors import how_many
from steerstats.sweeps import choose_sweep_layer

TITLE = "Layer sweep"
PAPER = "appendix: choice of layer"


def main(cache, out):
    """Mean steerability of every dataset at every layer, and the mean over datasets."""
    study = study_of(cache)
    if study.kind != "sweep":
        held = "layers steered together" if isinstance(facts_of(study)["layer"], list) else "one layer"
        raise NotInCache(f"{held} only; `steerstats sweep` builds a cache that has them all")
    unit = study.units[study.datasets[0]].unit
    layers = np.unique(unit.read("vector_layer"))
    frame = layer_rows(study, layers.tolist())
    whole = frame[frame["dataset"].isna()] if frame["dataset"].isna().any() else frame
    choice = choose_sweep_layer(study.path, seed=current_seed())
    layer = choice.chosen
    best = whole[whole["layer"] == layer].iloc[0]
    several = whole is not frame
    line, interval = "the mean steerability over inputs when this layer is steered", "t interval over questions"
    if several:
        line = "the mean over datasets of steerability when this layer is steered, thin lines are the datasets"
        interval = "t(D - 1) interval over datasets"
    warning = f" The {extreme(choice)} layer of a sweep looks better than it is; judge it on the test split."
    with figures.style():
        figure, ax = figures.canvas(width=6.2, height=3.4)
        shown = frame if several else frame.drop(columns="dataset")
        figures.layer_profile(shown, ax=ax, chosen=layer, lowest=extreme(choice) == "lowest")
    found = Finding.of(
        choice, script="layer_sweep", title=TITLE, paper=PAPER, claims=(layer_claim(choice, best),),
        reading=f"The line is {line}."
        + warning * (not choice.alone)
        + (DOWN if extreme(choice) == "lowest" else ""),
        bars="band: 95% t interval of the mean over datasets." if several else "band: 95% t interval over questions.",
        counted=f"{how_many(len(study.datasets), 'dataset')}, {how_many(len(layers), 'layer')}, "
        "validation inputs.",
        alt=f"Mean steerability by layer; the {'only one' if choice.alone else extreme(choice)} is {layer} with "
        f"{number(best['estimate'])} nats per unit λ.",
        method=f"mean steerability, base->base; {interval}; {'the choice: ' * (not choice.alone)}{choice.method}",
        seed=current_seed(), facts=facts_of(open_cache(study.path, layer=layer)),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
