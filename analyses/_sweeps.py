"""What the sweep over layers is made of: its table, and the words that its rule needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from analyses._cache import plain_mean
from analyses._claim import Claim
from analyses._words import percent
from steerstats import open_cache
from steerstats.operators import ABLATE
from steerstats.results import SLOPE_UNIT
from steerstats.study import Study
from steerstats.sweeps import LayerChoice

DOWN = " Below 0, taking the direction out lowers propensity: the lower, the stronger."


def layer_rows(study: Study, layers: Iterable[int]) -> pd.DataFrame:
    """Mean steerability of every dataset at every layer; rows without a dataset are the plain mean over datasets."""
    rows = []
    for layer in layers:
        result = open_cache(study.path, layer=layer).steerability()
        for name, mean in ((name, one["mean"]) for name, one in result.results.items()):
            rows.append((layer, name, mean.estimate, mean.ci_low, mean.ci_high, mean.n))
        if len(result.results) > 1:
            # Not the unweighted mean of the meta-analysis, which leaves out a dataset without a standard error: one
            # that this layer does not move at all.
            over = plain_mean(result.means(), "mean steerability")
            rows.append((layer, None, over.estimate, over.ci_low, over.ci_high, over.n))
    return pd.DataFrame(rows, columns=["layer", "dataset", "estimate", "ci_low", "ci_high", "n"])


def extreme(choice: LayerChoice) -> str:
    """Whether the rule takes the "highest" layer or, where directions are taken out, the "lowest"."""
    return "lowest" if choice.operator == ABLATE else "highest"


def layer_claim(choice: LayerChoice, best: Mapping[str, Any]) -> Claim:
    """The chosen layer's mean over datasets, with how sure the choice is."""
    ablated = choice.operator == ABLATE
    share = choice.share[choice.layers == choice.chosen][0]
    text = f"Layer {choice.chosen} is the best{' (lowest)' if ablated else ''} of {len(choice.layers)} in "
    text += f"{percent(share)} of resamples of these datasets' questions, the vectors as given{choice.doubts()}; "
    if choice.alone:
        text = f"Layer {choice.chosen} is the only one that was tried, and none was chosen; "
    # "There" would be the layers that the text names last.
    text += f"mean {'slope' if ablated else 'steerability'} at layer {choice.chosen}"
    text += ", the vector's direction taken out (operator ablate):" if ablated else ":"
    several = choice.n_datasets > 1
    how = "t(D − 1) over datasets, for others such as these" if several else "t over questions"
    how += "" if choice.alone else f"; the choice of the {extreme(choice)} is not in it"
    counted = "datasets" if several else "questions"
    return Claim.row("sweep.best", text, best, counted, unit=SLOPE_UNIT, interval=how)
