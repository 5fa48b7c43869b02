"""Does it help to project the A/B and Yes/No directions out of the vector?"""

from analyses._cache import ask, by_median, datasets_of, facts_of, need_controls, plain_mean, study_of
from analyses._claim import Finding, command_line, publish
from analyses._effects import SQUARED, SQUARES
from analyses._means import doubted, mean_or_own
from analyses._shifts import PAIRED
from analyses._words import in_words, number
from steerstats import figures
from steerstats.results import SLOPE_UNIT
from steerstats.study.study import DEFAULT_FACTORS

TITLE = "Vectors with the spurious directions projected out"
PAPER = ""


def main(cache, out):
    """Steerability lost by debiasing, and what it does to the effects of A/B and Yes/No."""
    study = study_of(cache)
    need_controls(study, "debiased", of=any)  # a dataset without A/B and Yes/No has nothing to project out
    result = ask(study, "debiased")
    loss, effects = by_median(result.to_frame(), study), result.effects
    lost = plain_mean(loss["estimate"], "steerability lost", SLOPE_UNIT)
    claims = [mean_or_own("debiased.loss", "Steerability lost by debiasing", lost, loss, PAIRED)]
    wide = effects.pivot(index=["dataset", "term"], columns="vector", values=["estimate", "se", "ci_low", "ci_high"])
    sides = {"own": "before", "debiased": "after"}
    wide.columns = [f"{sides[v]}{'' if q == 'estimate' else '_' + q.removeprefix('ci_')}" for q, v in wide.columns]
    wide, n = by_median(wide.reset_index(), study), len(loss)
    terms = [term for term in DEFAULT_FACTORS if (wide["term"] == term).any()]
    for term in terms:
        rows = wide[wide["term"] == term]
        # An estimate's size holds its noise, and debiased vectors have less of it: squares, their noise taken out.
        was, now = (rows[side] ** 2 - rows[f"{side}_se"] ** 2 for side in sides.values())
        change = doubted(plain_mean(was - now, "change", f"({SLOPE_UNIT})²"), SQUARED)
        text = f"Fall in the squared effect of {in_words(term)}, noise removed"
        own = rows.assign(estimate=was - now, n=rows["dataset"].map(loss.set_index("dataset")["n"]))
        claims.append(mean_or_own(f"debiased.{term}", text, change, own, end=" (below 0: it grew)"))
    with figures.style():
        figure, axes = figures.canvas(1, 1 + len(terms), width=8.4, height=1.3 + 0.25 * n, squeeze=False)
        figures.effect_rows(loss, ax=axes[0, 0], xlabel="steerability lost\n(nat per unit multiplier)")
        for ax, term in zip(axes[0, 1:], terms):
            rows = wide[wide["term"] == term].set_index("dataset").reindex(loss["dataset"]).reset_index()
            figures.before_and_after(rows, ax=ax, labels=False)
            ax.set_xlabel(f"effect of {in_words(term)}\n(nat per unit multiplier)")
        figures.key_outside(figure, axes[0, -1], columns=2, title="effects under the vector")
    found = Finding.of(
        result, script="debiased_vectors", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Left: what the dataset loses when the vector no longer holds the directions of the letter and of the "
        "word. Then the spurious effects under the vector as trained and under the debiased one: where marks move to "
        f"zero, bias was removed. {SQUARES}",
        bars="95% intervals: paired by input for the loss, robust for the effects.", facts=facts_of(study),
        counted=f"{datasets_of(n)}.", alt=f"Loss of steerability by debiasing in {datasets_of(n)} "
        f"({number(lost.estimate)} nats per unit multiplier on average), and spurious effects before and after.",
    )  # fmt: skip
    return publish(out, found, figure, loss)


if __name__ == "__main__":
    command_line(main, __doc__)
