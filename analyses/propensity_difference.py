"""Figure 7: does a vector transfer worse between prompts that move the unsteered model further?"""

from analyses import _published as published
from analyses._cache import ask, datasets_of, facts_of, lacking, need_shifts, study_of
from analyses._claim import Claim, Finding, command_line, publish
from analyses._words import number
from steerstats import figures
from steerstats.errors import how_many

TITLE = "Difference in propensity against relative steerability"
PAPER = "figure 7"
SHOWN = ("original", "without self-pairs", "transfer loss")
WORDS = {
    "original": "Spearman correlation of the paper's figure 7 as published, self-pairs included:",
    "without self-pairs": "Spearman correlation of the paper's figure 7 without self-pairs (ratio 1 by construction):",
    "transfer loss": "Spearman correlation of the propensity difference with the loss itself, without self-pairs:",
}


def main(cache, out):
    """Correlation with and without self-pairs, and with the loss instead of the ratio."""
    study = study_of(cache)
    need_shifts(study)
    result = ask(study, "propensity_shift")
    if result.self_pair.all():
        raise lacking(study, "a vector made in one setting and used in another that has a vector of its own")
    rank, claims = (frame := result.to_frame()).query("kind == 'spearman'").set_index("definition"), []
    for name in SHOWN:
        row, key = rank.loc[name], f"figure7.{name.replace(' ', '_')}"
        of, how = f"datasets ({how_many(int(row['n_points']), 'pair')})", "jackknife, whole datasets left out in turn"
        claims.append(Claim.row(key, WORDS[name], row, of, interval=how))
    theirs = published.published_for(published.PROPENSITY, study.model)
    claims[0] = claims[0].against(theirs, facts_of(study), shift=published.ALL_PAIRS, limits=published.NO_LIMITS)
    points = result.points().rename(columns={"propensity_difference": "x", "ratio": "y"})
    kept = points[points["own"] > result.numbers["threshold"]]
    with figures.style():
        figure, (left, right) = figures.canvas(1, 2, width=8.2, height=3.9)
        across, up = "mean |difference in unsteered\npropensity| (nat)", "steerability lost\n(nat per unit multiplier)"
        text = f"as published: {number(claims[0].estimate)}; without self-pairs: {number(claims[1].estimate)}"
        figures.propensity_and_relative(kept, ax=left, xlabel=across, ylabel="relative steerability", remark=text)
        data, text = points[~points["self_pair"]], f"without self-pairs: {number(claims[2].estimate)}"
        figures.foretelling(data.assign(y=data["loss"]), ax=right, xlabel=across, ylabel=up, remark=text)
        figures.key_outside(figure, left, columns=2)
    found = Finding.of(
        result, script="propensity_difference", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Each dot is a dataset and a pair of prompts. Across: how differently the unsteered model leans under "
        "the two. Up, left: the part of a vector's effect at home that the other prompt leaves; self-pairs are 0 and 1 "
        "by construction, a falling trend by themselves. Right: the loss itself, which no small denominator inflates.",
        bars="none are drawn; the intervals above, where there are any, leave whole datasets out in turn.",
        counted=f"{len(points)} pairs of prompts in {datasets_of(result.n)}; {len(kept)} in "
        f"{datasets_of(kept['dataset'].nunique())} pass the published threshold.",
        alt=f"Two scatters of {len(points)} pairs. " + " ".join(f"{c.statement} {c.shown[0]}." for c in claims),
        facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
