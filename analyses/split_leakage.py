"""What an overlapping split does: the same model on a clean split and on the published code's literal one."""

import numpy as np

from analyses._cache import facts_of, same_model, side_by_side, two_studies
from analyses._claim import Claim, Finding, NotInCache, command_line, publish
from analyses._compared import difference_error
from analyses._means import quoted_row
from analyses._words import number
from steerstats import figures
from steerstats.generalization import ID_SHIFT, steerability_table
from steerstats.meta import mean_over_datasets, with_few_units

TITLE = "Leakage between training and test questions"
PAPER = "the published code's test split"
NEEDED = 'a cache of the same model built with split = "tan2024-literal"'


def main(cache, out):
    """Mean steerability of every dataset on both splits."""
    one, other = two_studies(cache, NEEDED)
    splits = [facts_of(study)["split"] for study in (one, other)]
    if not same_model(one, other) or sorted(map(str, splits)) != ["content", "tan2024-literal"]:
        raise NotInCache(f"the second cache is not {NEEDED}, beside one on split = \"content\"")  # fmt: skip
    if splits[0] != "content":
        one, other = other, one
    grids = [study.grid([ID_SHIFT]) for study in (one, other)]
    clean, literal = map(steerability_table, grids)
    pairs = side_by_side(clean, ID_SHIFT, literal, ID_SHIFT)
    counts = [table.to_frame().dropna(subset=["mean"]).set_index("dataset")["n"] for table in (clean, literal)]
    names = list(pairs["dataset"])
    variance = np.array([difference_error(*grids, name) for name in names]) ** 2
    n = np.minimum(counts[0][names], counts[1][names]).astype(int)
    pooled = with_few_units(mean_over_datasets(pairs["y"] - pairs["x"], variance, names=names), dict(n))
    told, row = pooled.quoted, quoted_row(pooled)
    text = f"Steerability on the overlapping split minus that on the clean one, {told.name} over datasets:"
    claim = Claim.row("leakage.mean", text, row, "datasets", unit=pooled.unit,
                      interval=f"{told.interval}; errors by question, over both splits")  # fmt: skip
    with figures.style():
        figure, ax = figures.canvas(width=4.6, height=4.4)
        figures.agreement(pairs, ax=ax, xlabel="clean split", ylabel="overlapping split")
    found = Finding.of(
        pooled, script="split_leakage", title=TITLE, paper=PAPER, claims=(claim,),
        reading="Each dot is a dataset. Across: mean steerability where no test question was trained on; up: on the "
        "split that the published code literally makes, where nearly half of the test questions were. Above the broken "
        "line, leakage flatters the vector.",
        bars="hair lines are 95% t intervals of each mean, over questions.",
        counted=f"{len(pairs)} datasets that both caches have.",
        alt=f"Mean steerability on the clean against the overlapping split, {len(pairs)} datasets; the mean "
        f"difference is {number(told.mean)} nats per unit multiplier.",
        facts={"clean": facts_of(one), "overlapping": facts_of(other)},
    )  # fmt: skip
    return publish(out, found, figure, pairs)


if __name__ == "__main__":
    command_line(main, __doc__)
