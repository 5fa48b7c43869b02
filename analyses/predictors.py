"""Could steerability have been predicted from the training activations? Cosine agreement, d′ and their relatives."""

from analyses._cache import ask, current_seed, datasets_of, facts_of, need_array, need_datasets, study_of
from analyses._candidates import DRAWN, OTHERS, REASONS, WORDS
from analyses._claim import Claim, Finding, command_line, publish
from analyses._words import in_words, number, p_words
from steerstats import figures

TITLE = "What predicts steerability"
PAPER = "beside Braun et al. 2025 and Bas and Novak 2025"


def main(cache, out):
    """Spearman correlation over datasets of each candidate with mean steerability."""
    study = study_of(cache)
    for name in ("crossfit_projection", "pair_difference_cosine"):
        need_array(study, name, "summaries of the training activations")
    need_datasets(study)
    result = ask(study, "predictors")
    frame, claims = result.over_datasets.to_frame(), []
    drawn = frame[["ci_low", "ci_high"]].notna().any(axis=None)
    for row in frame.to_dict("records"):
        name = row["predictor"]
        row |= {"estimate": row["rho"], "n": row["n_datasets"]}
        p = row["p_family"]
        text = f"Rank correlation between mean steerability and {WORDS[name]}; {p_words(p, 'family-wise ')}:"
        beside = {}
        if name in REASONS:
            beside = {"published": row["published"], "published_text": f"{row['published']:g}", "source": OTHERS,
                      "verdict": "not comparable", "reason": REASONS[name]}  # fmt: skip
        beside["facts"] = {"judged": bool(p == p)}
        claims.append(Claim.ranking(f"predictors.{name}", text, row, "percentile over datasets", **beside))
    points = result.datasets.rename(columns={"slope": "y"})
    shown = [name for name in DRAWN if name in points]
    label = "mean steerability\n(nat per unit multiplier)"
    with figures.style():
        figure, axes = figures.canvas(1, len(shown) + 1, width=8.4, height=3.1)
        for ax, name in zip(axes, shown):
            figures.foretelling(points.rename(columns={name: "x"}), ax=ax, xlabel=in_words(name), ylabel=label)
        rows = frame.assign(label=frame["predictor"].map(in_words), estimate=frame["rho"])
        figures.coefficient_rows(rows, ax=axes[-1], xlabel="Spearman correlation")
    found = Finding.of(
        result.over_datasets, script="predictors", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Left: each dot is a dataset. Across: a property of its training activations; up: its mean "
        "steerability. Right: the rank correlation of every candidate with mean steerability. Projections are held "
        "out, since noise alone would give a large d′ in-sample; cosine agreement is in-sample, as published, where n "
        "pairs of pure noise show about 1/√n.",
        bars="95% percentile intervals, resampling datasets." if drawn else "none are drawn: with so few datasets a "
        "correlation has no interval.",
        counted=f"{datasets_of(len(points))}.",
        alt=f"Candidates against mean steerability in {datasets_of(len(points))}. "
        + " ".join(f"{in_words(row.predictor)}: {number(row.rho)}." for row in frame.itertuples()),
        seed=current_seed(), facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
