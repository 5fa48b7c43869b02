"""What the scripts on shifts share: the gap's claims and rows, m(0) by prompt, and the shifts that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analyses._cache import absent_shifts, by_dataset
from analyses._claim import Claim
from analyses._means import NO_MEAN, quoted_row
from steerstats import figures
from steerstats.generalization import GapTable, VarianceTable, overall_gap, parse_shift, shift_name
from steerstats.resampling.ranks import ONE_DATASET
from steerstats.results import SLOPE_UNIT
from steerstats.steerability import mean_slope
from steerstats.study import Study

UNSTEERED = "m(0)"
PAIRED = "of the mean over questions, paired by input"
ERROR = {True: "; the vectors' own error is in it", False: "; for these very vectors"}


LOST = {
    "gap": "Steerability lost under {}, ",
    "prompt": "Steerability lost to the prompt {} itself, ",
    "transfer": "Steerability lost in transfer under {}, ",
}


def gap_claims(study: Study, gaps: GapTable) -> list[Claim]:
    """The loss under each shift and its two parts, over datasets or in the one there is; then absent shifts.

    What a prompt costs even a vector made for it is the same for every shift to that prompt, and told once.
    """
    overall = overall_gap(gaps) if len(study.datasets) > 1 else None
    rows, told = gaps.to_frame(), {}
    for part, words in LOST.items():
        for shift in gaps.shifts if part in gaps.components else ():
            made, used = parse_shift(shift)
            key, facts = f"{part}.{used if part == 'prompt' else shift}", {}
            text = words.format(figures.nice_setting(used) if part == "prompt" else figures.nice_shift(made, used))
            if overall is None:
                row = rows[(rows["shift"] == shift) & (rows["component"] == part)].iloc[0]
                text, how, of = f"{text}in {study.datasets[0]}:", PAIRED, "questions"
                if rows["includes_vector_error"].any():  # then each interval says whether it holds that error
                    facts = {"vector_error": bool(row["includes_vector_error"])}
                    how += ERROR[facts["vector_error"]]
            elif (fit := overall.of(part, shift)) is None:
                told.setdefault(key, Claim.absent(key, f"{text}mean over datasets:", NO_MEAN))
                continue
            else:
                row = quoted_row(fit)
                text, of, how = f"{text}{fit.quoted.name} over datasets:", "datasets", fit.quoted.interval
            told.setdefault(key, Claim.row(key, text, row, of, unit=SLOPE_UNIT, interval=how, facts=facts))
    return [*told.values(), *absent_claims(study, "gap", "Steerability lost under")]


def gap_warnings(result: Any) -> tuple[str, ...]:
    """Warnings on gaps and means alone: those on ratios, correlations and variances stand where these are shown.

    Parameters
    ----------
    result : Generalization
    """
    own = {*result.gaps.warnings, *result.settings.warnings}
    parts = (result.ratios, result.correlations, result.variances)
    others = {text for part in parts if part is not None for text in part.warnings}
    return tuple(text for text in result.warnings if text in own or text not in others)


def variance_claims(result: VarianceTable, doubt: str) -> list[Claim]:
    """Over datasets, whether those that steer unevenly at home do so under a shift; of one dataset the ratio itself."""
    claims, one = [], len(result.datasets) == 1
    for row in (result.to_frame() if one else result.correlations()).to_dict("records"):
        words = figures.nice_shift(*parse_shift(row["shift"]))
        if one:
            text = f"Variance of steerability under {words} over that at base → base, in {row['dataset']}:"
            row, how = row | {"estimate": row["ratio"]}, f"jackknife of its logarithm over questions, {doubt}"
            claims.append(Claim.row(f"variance_ratio.{row['shift']}", text, row, "questions", interval=how))
        else:
            row |= {"estimate": row["rho"], "ci_low": row["rho_ci_low"], "ci_high": row["rho_ci_high"]}
            text = f"Spearman correlation over datasets of the variance at base → base with that under {words}:"
            claims.append(Claim.ranking(f"variance.{row['shift']}", text, row, "percentile over datasets"))
    return claims


def variance_warnings(result: VarianceTable) -> tuple[str, ...]:
    """Warnings on variances, but that one dataset has no correlation, where none is shown."""
    return tuple(text for text in result.warnings if text != ONE_DATASET)


def absent_claims(study: Study, key: str, text: str) -> list[Claim]:
    """One claim for each of the paper's shifts that this cache lacks, with the reason in place of a number."""
    return [
        Claim.absent(f"{key}.{shift_name(shift)}", f"{text} {figures.nice_shift(*shift)}:", why)
        for shift, why in absent_shifts(study).items()
    ]


def gap_rows(frame: pd.DataFrame, order: Sequence[str], unsteered: pd.DataFrame | None = None) -> pd.DataFrame:
    """Rows of a gap table by dataset, shift and component, so that a part of it shows all components.

    Parameters
    ----------
    frame : DataFrame
        As `GapTable.to_frame` gives it.
    order : sequence of str
        Datasets.
    unsteered : DataFrame, optional
        As `unsteered_means` gives it; its rows come last in each dataset, component "m(0)", in nats.
    """
    frame = by_dataset(frame, order)
    ranks = {name: list(dict.fromkeys(frame[name])) for name in ("dataset", "shift", "component")}
    keys = [frame[name].map(known.index) for name, known in ranks.items()]
    frame = frame.iloc[pd.concat(keys, axis=1).sort_values(list(ranks), kind="stable").index]
    if unsteered is not None:
        own = unsteered.rename(columns={"setting": "shift"})
        own = own.assign(component=UNSTEERED, includes_vector_error=False, se_type="t over questions")
        frame = by_dataset(pd.concat([frame, own], ignore_index=True), order)
    return frame[["dataset", "shift", "component", *frame.columns.drop(["dataset", "shift", "component"])]].reset_index(
        drop=True
    )


def unsteered_means(study: Study) -> pd.DataFrame | None:
    """Mean unsteered propensity m(0) of every dataset in every prompt, in nats, with a t interval over questions.

    None where the cache holds no unsteered model (operator ablate_add).
    """
    grid, rows = study.grid(), []
    if grid.unsteered is None:
        return None
    for name in study.datasets:
        for k, setting in enumerate(grid.evaluate):
            values = grid.unsteered[name][k]
            known = values == values
            if known.any():
                one = mean_slope(values[known], questions=grid.question[name][known])
                lost = int((~known).sum())
                rows.append((name, setting, one.estimate, one.se, one.ci_low, one.ci_high, one.n, lost, one.level))
    names = ["dataset", "setting", "estimate", "se", "ci_low", "ci_high", "n", "n_excluded", "level"]
    return pd.DataFrame(rows, columns=names)


def draw_unsteered(unsteered: pd.DataFrame | None, settings: Sequence[str], *, ax: Axes) -> None:
    """The row of m(0) below a table of settings, mean over datasets; nothing where the cache holds none."""
    if unsteered is None:
        ax.set_axis_off()
        return
    at = unsteered.groupby("setting", sort=False)["estimate"].mean().reindex(settings)
    figures.setting_row(at, settings, ax=ax, name="unsteered, m(0)")
