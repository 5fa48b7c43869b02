"""Figures 3 and 16: steerability by what the positive option is, A or B, Yes or No, and how many inputs each has."""

from analyses._cache import by_median, datasets_of, facts_of, letter_and_word, study_of
from analyses._claim import Claim, Finding, command_line, publish
from analyses._effects import cell_claims, of_shown
from analyses._words import in_words
from steerstats import figures
from steerstats.study.study import DEFAULT_FACTORS

TITLE = "Steerability by position and token of the positive option"
PAPER = "figures 3 and 16"


def main(cache, out):
    """Mean steerability and counts in every cell of A/B and Yes/No."""
    study = study_of(cache)
    result = letter_and_word(study)
    frame = by_median(result.cells_frame(), study)
    levels = [name for name in DEFAULT_FACTORS if name in frame]
    frame = frame[frame.groupby(levels, dropna=False)["n"].transform("sum") > 0]  # the key lists kinds that are there
    frame["cell"] = frame[levels].fillna("").agg(lambda row: ", ".join(filter(None, row)), axis=1)
    claims = []
    if result.over_datasets is not None:
        pooled = result.over_datasets.datasets
        for term in DEFAULT_FACTORS:
            rows = pooled[(pooled["response"] == "slope") & (pooled["term"] == term) & pooled["p_fdr"].notna()]
            if len(rows):
                text = "Datasets by whether steerability differs when the positive option is "
                text += f"{in_words(term)} (FDR 0.05):"
                differ = int((rows["p_fdr"] <= 0.05).sum())
                kinds = {"differ": differ, "not shown to differ": len(rows) - differ}
                why = "a count of decisions, Benjamini–Hochberg over datasets"
                claims.append(Claim.counted(f"option.{term}", text, kinds, "datasets", why))
    names = list(dict.fromkeys(frame["dataset"]))
    if len(names) == 1:
        claims += cell_claims(frame)
    letters = "; full colours are A, muted ones B" if frame["cell"].str.startswith("B").any() else ""
    with figures.style():
        figure, (left, right) = figures.canvas(1, 2, width=8.2, height=1.3 + 0.34 * len(names), width_ratios=[3, 1.2])
        figures.by_option(frame, ax=left)
        figures.option_counts(frame, ax=right)
        figures.key_outside(figure, left, columns=6, title="the positive option is")
    found = Finding(
        script="positive_option", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Left: mean steerability of the inputs of each kind. If marks of one dataset lie apart, part of what "
        "looks like steering of a behaviour is a pull to a letter or a word. Right: how many inputs are of each kind, "
        f"in the order of the key{letters}. Kinds without inputs have no marks.",
        bars="95% t intervals of the mean over the questions of that kind.",
        counted=f"{frame['n'].sum():,} inputs in {datasets_of(len(names))}.",
        alt=f"Mean steerability by kind of positive option in {datasets_of(len(names))}, with counts per kind.",
        method=f"means by cell; {result.over_datasets.method if result.over_datasets else result.method}",
        assumptions=result.assumptions, warnings=of_shown(result.warnings), facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
