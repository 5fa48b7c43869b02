"""Two caches side by side: what changed in the steerability of every dataset, paired by input."""

from analyses._cache import current_seed, facts_of, paired_gap, two_studies
from analyses._claim import Claim, Finding, command_line, publish
from steerstats import figures
from steerstats.meta import mean_over_datasets

TITLE = "Difference in steerability between two caches"
PAPER = ""


def main(cache, out):
    """Second minus first, mean over the inputs that both caches have, with simultaneous bands over datasets."""
    one, other = two_studies(cache, "a cache to compare with")
    result, matched = paired_gap(one, other)
    frame = result.to_frame()
    names = "first", "second"
    claims = []
    if len(result.datasets) > 1:
        pooled = mean_over_datasets(frame["estimate"], frame["se"] ** 2, names=list(result.datasets))
        row = {"estimate": pooled.mean, "ci_low": pooled.ci_low, "ci_high": pooled.ci_high, "n": pooled.n}
        text = "Steerability gained from the first cache to the second, random-effects mean over datasets:"
        claims.append(Claim.row("comparison.mean", text, row, "datasets", unit=pooled.unit,
                                interval="Hartung–Knapp t(D − 1) over datasets"))  # fmt: skip
    low, high = frame["band_low"], frame["band_high"]
    changed = int(((low > 0) | (high < 0)).sum())
    text = "Share of datasets whose simultaneous band leaves out 0:"
    claims.append(Claim.bare("comparison.changed", text, changed / len(frame), len(frame), "datasets",
                             "a count of bands, no interval", "share"))  # fmt: skip
    with figures.style():
        figure, ax = figures.canvas(width=7.0, height=1.4 + 0.25 * len(frame))
        figures.paired_rows(frame, ax=ax, xlabel=f"steerability, {names[1]} minus {names[0]} (nat per unit multiplier)")
        figures.key_outside(figure, ax)
    found = Finding.of(
        result, script="comparison", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading=f"First: {one.model} in {one.path.name}; second: {other.model} in {other.path.name}. Right of zero, "
        "the second steers more. Only inputs that both caches hold are used.",
        bars="thick: 95% studentised bootstrap interval of the mean paired difference; hair lines: bands that hold for "
        "all datasets at once.",
        counted=f"{matched} inputs that both caches hold, in {len(frame)} datasets.",
        alt=f"Paired difference in mean steerability of {len(frame)} datasets; {changed} bands leave out zero. "
        f"Differences run from {frame['estimate'].min():.2f} to {frame['estimate'].max():.2f}.",
        seed=current_seed(), facts={"first": facts_of(one), "second": facts_of(other)},
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
