"""Figure 6: is steerability a property of the dataset or of the model? Agreement over datasets between two models."""

from analyses import _published as published
from analyses._cache import ask, current_seed, datasets_of, facts_of, same_model, side_by_side, two_studies
from analyses._claim import Claim, Finding, NotInCache, command_line, publish, short
from analyses._compared import axis_names
from steerstats import figures
from steerstats.generalization import parse_shift, steerability_table
from steerstats.generalization.correlation import FIXED, POPULATION

TITLE = "Agreement between two models"
PAPER = "figure 6"


def main(cache, out):
    """Spearman correlation over datasets of mean steerability between two caches, in distribution and per shift."""
    one, other = two_studies(cache, "a second model")
    if same_model(one, other):
        raise NotInCache(f"a second model; both caches are of {one.model}")
    result = ask(one, "cross_model", other=other)
    means = [steerability_table(study.grid()) for study in (one, other)]
    names, (x, y) = list(dict.fromkeys(result.comparison)), axis_names(cache)
    rows = -(-len(names) // 3)
    claims = []
    with figures.style():
        figure, axes = figures.canvas(rows, min(3, len(names)), width=8.4, height=3.3 * rows, squeeze=False)
        for ax, name in zip(axes.flat, names):
            row = result.row(name, POPULATION, "percentile over datasets")
            fixed, shift = result.row(name, FIXED), parse_shift(name)
            words = figures.nice_shift(*shift)
            text = f"Spearman correlation over datasets between the two models, {words}:"
            claim = Claim.ranking(f"cross_model.{name}", text, row, f"{row['interval']}, population")
            value = {"base->base": published.CROSS_ID, "sys_pos->user_neg": published.CROSS_OOD}.get(name)
            if value is not None:
                limits = fixed["ci_low"], fixed["ci_high"]
                how = {"shift": name, "limits": limits, "vector_error": bool(fixed["includes_vector_error"])}
                claim = claim.against(value, facts_of(one), facts_of(other), **how)
            claims.append(claim)
            pairs = side_by_side(means[0], shift, means[1], shift)
            figures.agreement(
                pairs, ax=ax, xlabel=f"{x} (nat/λ)", ylabel=f"{y} (nat/λ)", remark=f"{words}\nSpearman {short(claim)}"
            )
        for ax in axes.flat[len(names) :]:
            ax.set_visible(False)
    found = Finding.of(
        result, script="cross_model", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Each dot is a dataset, with its mean steerability in one model across and in the other up, nats per "
        "unit multiplier λ. A rising cloud says that what steers in one steers in the other.",
        bars="hair lines are 95% t intervals of each mean, over questions; the vectors' own error is not in them.",
        counted=f"{datasets_of(result.n)} that both caches have.",
        alt=f"{len(names)} scatters of {x} against {y}. "
        + " ".join(f"{claim.statement} {claim.shown[0]}." for claim in claims),
        seed=current_seed(), facts={"first": facts_of(one), "second": facts_of(other)},
    )  # fmt: skip
    return publish(out, found, figure, result.to_frame())


if __name__ == "__main__":
    command_line(main, __doc__)
