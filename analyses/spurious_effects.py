"""What A/B and Yes/No do to steerability: per-input regression in each dataset, and the mean over datasets."""

from analyses._cache import by_median, datasets_of, facts_of, lacking, letter_and_word, study_of
from analyses._claim import Finding, command_line, publish
from analyses._effects import BARS, MEAN, one_for_both, plain_singular, said_of
from analyses._words import in_words
from steerstats import figures
from steerstats.study.study import DEFAULT_FACTORS

TITLE = "Effects of position and token on steerability"
PAPER = ""


def main(cache, out):
    """Robust per-input regression in every dataset, two-stage mean over datasets."""
    study = study_of(cache)
    result = letter_and_word(study)
    whole = by_median(result.to_frame(), study)
    rows = whole[(whole["model"] == "per-input") & (whole["response"] == "slope") & whole["term"].isin(DEFAULT_FACTORS)]
    terms = [term for term in DEFAULT_FACTORS if (rows["term"] == term).any()]
    if not terms:
        raise lacking(study, "the A/B and Yes/No of the positive option")
    claims, frames = [], {}
    for term in terms:
        frames[term], said = said_of(result, rows, term, one_for_both(in_words(term), result.results))
        claims += said
    n = rows["dataset"].nunique()
    with figures.style():
        figure, axes = figures.canvas(1, len(terms), width=8.4, height=1.2 + 0.25 * (n + 1), squeeze=False)
        for k, (ax, term) in enumerate(zip(axes[0], terms)):
            label = f"effect of {in_words(term)}\n(nat per unit multiplier)"
            # Each panel has the datasets that know its factor: names are left out beside the same ones only.
            names = k == 0 or list(frames[term]["dataset"]) != list(frames[terms[0]]["dataset"])
            figures.effect_rows(frames[term], ax=ax, xlabel=label, labels=names, pooled=MEAN)
    found = Finding.of(
        result, script="spurious_effects", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Each dot is how much more an input is steered when the positive option has that letter or word, the "
        "other factor held fixed. Away from zero, the vector moves letters or words as well as behaviour.",
        bars=BARS,
        counted=f"{datasets_of(n, rows['n'], 'inputs')}.",
        alt=f"Effects of {' and '.join(map(in_words, terms))} on steerability in {datasets_of(n)}.",
        warnings=plain_singular(result.warnings), facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, whole)


if __name__ == "__main__":
    command_line(main, __doc__)
