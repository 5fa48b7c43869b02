"""Figure 5: steerability in distribution against steerability under each shift of the prompt."""

from analyses import _published as published
from analyses._cache import absences, ask, current_seed, datasets_of, facts_of, need_shifts, side_by_side, study_of
from analyses._claim import Claim, Finding, command_line, publish, short
from analyses._shifts import absent_claims
from steerstats import figures
from steerstats.generalization import shift_name, steerability_table
from steerstats.generalization.correlation import FIXED, POPULATION

TITLE = "Steerability in distribution and under a shift"
PAPER = "figure 5"


def main(cache, out):
    """Mean steerability of every dataset, base → base against each shift, and the rank correlation over datasets."""
    study = study_of(cache)
    shifts = need_shifts(study, ranked=True)
    result = ask(study, "generalization").correlations
    means = steerability_table(study.grid())
    ours, claims = published.published_for(published.ID_OOD, study.model), []
    shape = -(-len(shifts) // 2), min(2, len(shifts))
    with figures.style():
        figure, axes = figures.canvas(*shape, width=6.8, height=3.5 * shape[0], squeeze=False)
        for ax, shift in zip(axes.flat, shifts):
            name, words = shift_name(shift), figures.nice_shift(*shift)
            row = result.row(f"base->base vs {name}", POPULATION, "percentile over datasets")
            fixed = result.row(f"base->base vs {name}", FIXED)
            text = f"Spearman correlation over datasets between base → base and {words}:"
            claim = Claim.ranking(f"id_ood.{name}", text, row, f"{row['interval']}, for a population")
            claims.append(claim.against(ours, facts_of(study), shift=name, limits=(fixed["ci_low"], fixed["ci_high"])))
            pairs = side_by_side(means, ("base", "base"), means, shift)
            figures.agreement(
                pairs, ax=ax, xlabel="base → base (nat/λ)", ylabel=f"{words} (nat/λ)", remark=f"Spearman {short(claim)}"
            )
        for ax in axes.flat[len(shifts) :]:
            ax.set_visible(False)
    claims += absent_claims(study, "id_ood", "Spearman correlation over datasets between base → base and")
    found = Finding.of(
        result, script="id_vs_ood", title=TITLE, paper=PAPER, claims=tuple(claims), absent=absences(study),
        reading="Each dot is a dataset. Across: mean steerability of the base vector under the base prompt; up: that "
        "of the vector and prompt named on the axis; nats per unit multiplier λ. On the broken line nothing is lost; "
        "below it the shift costs.",
        bars="hair lines are 95% t intervals of each mean, over questions; the vector's own error is not in them.",
        counted=f"{datasets_of(result.n, means.n)}.",
        alt=f"Scatter of steerability in distribution against {len(shifts)} shifts, {datasets_of(result.n)}. "
        + " ".join(f"{claim.statement} {claim.shown[0]}." for claim in claims),
        seed=current_seed(), facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, result.to_frame())


if __name__ == "__main__":
    command_line(main, __doc__)
