"""Figure 4: how much of the variance of steerability goes with A/B and Yes/No, order-free and as published."""

from analyses._cache import by_median, current_seed, datasets_of, facts_of, letter_and_word, study_of
from analyses._claim import Finding, command_line, publish
from analyses._effects import mean_of_adjusted, myopic_variance, of_shown, share_words
from analyses._shares import share_claims
from analyses._words import percent
from steerstats import figures

TITLE = "Variance of steerability that spurious factors explain"
PAPER = "figure 4"
TOO_HIGH = (
    "which lie too high where questions are few or slopes skewed (with lognormal slopes 74–88% of them held the truth "
    "at 60 inputs, 84–91% at 300; with questions in both orders 67–89% at 10 questions, 86–93% at 30, 92–95% at 100)"
)
TOTALS = ("explained", "both", "pos_is_yes alone")
PUBLISHED = " Right: the split of the paper, which gives A/B all that the two share and grows with every factor added."


def main(cache, out):
    """Shapley shares of adjusted R² beside the sequential split of the paper."""
    result = letter_and_word(study := study_of(cache))
    frame = by_median(result.explained_frame(), study)
    ours, theirs = (frame[frame["split"] == name] for name in ("shapley_adjusted_r2", "published_sequential"))
    total = ours[ours["component"] == "explained"]
    mean = mean_of_adjusted(total["share"])
    n, most = total["dataset"].nunique(), dict(total.loc[total["share"].idxmax()])
    (share, known), most["estimate"] = share_words(result.results, {*ours["component"]}), most["share"]
    claims = share_claims(("explained.mean", "explained.most"), share, mean, most,
                          "percentile, by question", "inputs", known)  # fmt: skip
    if "myopic-reward" in result.explained:
        claims.append(myopic_variance(study))
    with figures.style():
        parts = theirs[~theirs["component"].isin(TOTALS) & theirs["dataset"].isin(total["dataset"])]  # rows with names
        both, ratios = len(parts) > 0, [2, 1.2, 2] if len(parts) else [2, 1.2]
        figure, axes = figures.canvas(1, 2 + both, width=8.4, height=1.4 + 0.24 * n, width_ratios=ratios)
        figures.variance_shares(ours[~ours["component"].isin(TOTALS)], ax=axes[0], title="order-free (Shapley)")
        figures.total_share(total, ax=axes[1])
        if both:
            figures.variance_shares(parts, ax=axes[2], labels=False, title="as published (sequential)")
        figures.key_outside(figure, axes[0], columns=5)
    found = Finding.of(
        result, script="variance_explained", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Left: each bar divides the variance of steerability between inputs of one dataset; the grey rest is "
        f"not explained. Shares left of zero mean less than a random factor would explain.{PUBLISHED if both else ''}",
        bars=f"at the points, 95% percentile intervals of the total, bootstrapping questions, {TOO_HIGH}; none on the "
        "stacked bars.", counted=f"{datasets_of(n, ours['n'], 'inputs')}.",
        alt=f"{share} in {datasets_of(n)}: {percent(mean.estimate)} on average, at most {percent(most['share'])}.",
        method=f"Shapley (LMG) shares of adjusted R²{'; beside it the published sequential split of R²' * both}; "
        f"percentile intervals, {result.numbers['n_resamples']} resamples of questions",
        seed=current_seed(), facts=facts_of(study), warnings=of_shown(result.warnings),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
