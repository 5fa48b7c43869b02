"""The generalisation gap, divided into what the prompt does to any vector and what transfer costs."""

import numpy as np

from analyses._cache import absences, ask, current_seed, datasets_of, facts_of, need_shifts, order_by_median, study_of
from analyses._claim import Finding, command_line, publish
from analyses._shifts import draw_unsteered, gap_claims, gap_rows, gap_warnings, unsteered_means
from steerstats import figures
from steerstats.figures.transfer import PART_NAMES
from steerstats.generalization import parse_shift, steerability_table

TITLE = "What a shift costs: prompt or transfer"
PAPER = ""


def main(cache, out):
    """Gap and its parts per dataset and shift, the train × eval means, and the unsteered propensity m(0)."""
    study = study_of(cache)
    need_shifts(study)
    result = ask(study, "generalization")
    order, shifts = order_by_median(study), result.gaps.shifts
    frame, unsteered = gap_rows(result.gaps.to_frame(), order), unsteered_means(study)
    means, known = steerability_table(study.grid()), unsteered is not None
    n = len(shifts)
    with figures.style():
        size = {"width": 2.4 + 1.5 * n, "height": 1.7 + 0.32 * len(order)}
        parts, axes = figures.canvas(1, n, squeeze=False, sharex=True, **size)
        for k, (ax, shift) in enumerate(zip(axes[0], shifts)):
            figures.gap_rows(frame[frame["shift"] == shift], ax=ax, labels=k == 0)
            ax.set_title(figures.nice_shift(*parse_shift(shift)).replace(" → ", "\n→ "), fontsize=8)
            ax.set_xlabel("loss of steerability\n(nat per unit λ)")
        figures.key_outside(parts, axes[0, 0], columns=3)
        tables, (top, below) = figures.canvas(2, 1, width=7.4, height=4.6, height_ratios=[len(means.train), 1])
        cells = np.ma.masked_invalid(means.mean).mean(axis=0).filled(np.nan)  # empty where no dataset has the cell
        figures.transfer_table(cells, means.train, means.evaluate, ax=top)
        draw_unsteered(unsteered, means.evaluate, ax=below)
    error = result.gaps.includes_vector_error[0]
    error = "include" if error.all() else "include, where there are refits," if error.any() else "do not include"
    found = Finding.of(
        result, script="gap_parts", title=TITLE, paper=PAPER, absent=absences(study),
        claims=tuple(gap_claims(study, result.gaps)), pages=("by dataset and shift", "mean over datasets"),
        reading="First figure: steerability that each dataset loses under each shift: what the prompt does even to a "
        "vector made for it, plus what using a vector from another prompt costs. Second: mean steerability of "
        "every vector in every prompt, in nats per unit multiplier (the diagonal is a vector at home)"
        + (", and below it where the unsteered model stands in each prompt, m(0), in nats." if known else "."),
        bars="95% intervals of the mean over questions, paired by input; those of the total loss "
        f"{error} the vector's own error. The table has simultaneous bands and adjusted p-values for all shifts.",
        counted=f"{datasets_of(len(order), result.gaps.n)}.",
        alt=f"Loss of steerability, {' and '.join(list(PART_NAMES.values())[1:])} in {datasets_of(len(order))} "
        f"under {n} shifts, and a table of mean steerability by training and evaluation setting"
        + (" with the unsteered propensity." if known else "."),
        seed=current_seed(), facts=facts_of(study), warnings=gap_warnings(result),
    )  # fmt: skip
    return publish(out, found, [parts, tables], gap_rows(frame, order, unsteered))


if __name__ == "__main__":
    command_line(main, __doc__)
