"""The generalisation gap, divided into what the prompt does to any vector and what transfer costs."""

import numpy as np

from analyses._cache import ask, between, current_seed, facts_of, need_shifts, order_by_median, study_of
from analyses._claim import Claim, Finding, command_line, publish
from steerstats import figures
from steerstats.figures.transfer import PART_NAMES
from steerstats.generalization import overall_gap, parse_shift, steerability_table

TITLE = "What a shift costs: prompt or transfer"
PAPER = ""


def main(cache, out):
    """Gap and its parts per dataset for the first shift, all shifts in the table, and the train × eval means."""
    study = study_of(cache)
    need_shifts(study)
    result = ask(study, "generalization")
    frame = result.to_frame()
    several, claims = len(study.datasets) > 1, []
    pooled = overall_gap(result.gaps, category=study.category).to_frame() if several else frame
    for shift in result.gaps.shifts:
        row = pooled[(pooled["shift"] == shift) & (pooled["component"] == "gap")].iloc[1 if several else 0]
        text = f"Steerability lost under {figures.nice_shift(*parse_shift(shift))}, "
        text += "random-effects mean over datasets:" if several else f"in {study.datasets[0]}:"
        how = "Hartung–Knapp t(D − 1) over datasets" if several else "of the mean over questions, paired by input"
        of, unit = "datasets" if several else "questions", "nat per unit multiplier"
        claims.append(Claim.row(f"gap.{shift}", text, row, of, unit=unit, interval=how))
    means = steerability_table(study.grid())
    order = order_by_median(study)
    first = result.gaps.shifts[0]
    rows = frame[frame["shift"] == first].set_index("dataset").loc[order].reset_index()
    height = max(4.4, 1.5 + 0.3 * len(order))
    with figures.style():
        height = max(4.4, 1.5 + 0.3 * len(order))
        figure, (left, right) = figures.canvas(1, 2, width=9.4, height=height, width_ratios=[1.25, 1])
        figures.gap_rows(rows, ax=left, title=figures.nice_shift(*parse_shift(first)))
        figures.transfer_table(np.nanmean(means.mean, axis=0), means.train, means.evaluate, ax=right)
        right.set_title("mean steerability over datasets")
        figures.key_outside(figure, left, columns=3)
    error = "hold" if result.gaps.includes_vector_error else "do not hold"
    found = Finding.of(
        result, script="gap_parts", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Left: steerability that each dataset loses under this shift: what the prompt does even to a vector "
        "made for it, plus what it costs to bring a vector from another prompt. Right: mean steerability of every "
        "vector in every prompt; the diagonal is a vector at home.",
        bars=f"95% intervals of the mean over questions, paired by input; those of the gap {error} the vector's own "
        "error. The table has simultaneous bands and adjusted p-values for all shifts.",
        counted=f"{len(order)} datasets, {between(result.gaps.n, 'questions')} each.",
        alt=f"Gap, {' and '.join(list(PART_NAMES.values())[1:])} in {len(order)} datasets under {first}, and a table "
        "of mean steerability by training and evaluation setting.",
        seed=current_seed(), facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
