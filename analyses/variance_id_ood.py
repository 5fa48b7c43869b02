"""Is steering less even under a shift? Variance of steerability between inputs, in distribution and out of it."""

from analyses._cache import absences, by_median, current_seed, datasets_of, facts_of, need_shifts, study_of
from analyses._claim import Finding, command_line, publish
from analyses._shifts import variance_claims, variance_warnings
from analyses._words import number
from steerstats import figures
from steerstats.generalization import steerability_variance
from steerstats.resampling.seeds import NamedStreams

TITLE = "Variance of steerability, in distribution and under a shift"
PAPER = "variance in and out of distribution"
TOO_SHORT = (
    "too short where few inputs hold most of the variance (with lognormal slopes 89–93% of them held the truth in "
    "simulation)"
)


def main(cache, out):
    """Ratio of the variances per dataset and shift, and their rank correlation over datasets."""
    study = study_of(cache)
    shifts, grid = need_shifts(study), study.grid()
    rng = NamedStreams(current_seed(), "variance", grid.datasets)
    result = steerability_variance(grid, shifts, rng=rng)
    frame, n = by_median(result.to_frame(), study), len(grid.datasets)
    claims = variance_claims(result, TOO_SHORT)
    with figures.style():
        figure, ax = figures.canvas(width=7.4, height=1.4 + 0.36 * n)
        figures.spread_rows(
            frame.assign(estimate=frame["ratio"]), ax=ax, ratios=True,
            xlabel="variance under the shift ÷ variance at base → base, logarithmic",
        )  # fmt: skip
        figures.key_outside(figure, ax, columns=2)
    found = Finding.of(
        result, script="variance_id_ood", title=TITLE, paper=PAPER, claims=tuple(claims), absent=absences(study),
        reading="Each mark is how many times larger the variance between inputs is under a shift than under "
        "base → base; right of 1, steering became less even.",
        bars=f"95% jackknife intervals of the logarithm of the ratio, over questions; {TOO_SHORT}.",
        counted=f"{datasets_of(n, result.n)}.",
        alt=f"Ratio of the variance of steerability under {len(shifts)} shifts to that in distribution, "
        f"{datasets_of(n)}; ratios from {number(frame['ratio'].min())} to {number(frame['ratio'].max())}.",
        seed=current_seed(), facts=facts_of(study), warnings=variance_warnings(result),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
