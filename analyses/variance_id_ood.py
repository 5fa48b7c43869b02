"""Is steering less even under a shift? Variance of steerability between inputs, in distribution and out of it."""

from analyses._cache import absences, by_median, current_seed, datasets_of, facts_of, need_shifts, study_of
from analyses._claim import Claim, Finding, command_line, publish
from analyses._words import number
from steerstats import figures
from steerstats.generalization import parse_shift, steerability_variance
from steerstats.resampling.ranks import ONE_DATASET
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
    claims = [_ratio(row) for row in frame.to_dict("records")] if n == 1 else _ranks(result)
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
        seed=current_seed(), facts=facts_of(study), warnings=_shown(result),
    )  # fmt: skip
    return publish(out, found, figure, frame)


def _shown(result):
    """Warnings, but that one dataset has no correlation, where none is shown."""
    return tuple(text for text in result.warnings if text != ONE_DATASET)


def _ranks(result):
    """Over datasets: do those that steer unevenly at home do so under the shift?"""
    claims = []
    for row in result.correlations().to_dict("records"):
        row |= {"estimate": row["rho"], "ci_low": row["rho_ci_low"], "ci_high": row["rho_ci_high"]}
        text = "Spearman correlation over datasets of the variance at base → base with that under"
        text += f" {figures.nice_shift(*parse_shift(row['shift']))}:"
        claims.append(Claim.ranking(f"variance.{row['shift']}", text, row, "percentile over datasets"))
    return claims


def _ratio(row):
    """Of one dataset, which has no such correlation, the ratio itself."""
    words = figures.nice_shift(*parse_shift(row["shift"]))
    text = f"Variance of steerability under {words} over that at base → base, in {row['dataset']}:"
    row = row | {"estimate": row["ratio"]}
    how = f"jackknife of its logarithm over questions, {TOO_SHORT}"
    return Claim.row(f"variance_ratio.{row['shift']}", text, row, "questions", interval=how)


if __name__ == "__main__":
    command_line(main, __doc__)
