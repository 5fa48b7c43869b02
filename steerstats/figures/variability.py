"""How much steering differs between the inputs of one dataset: figures 1, 2 and 18 of the paper, and the line's fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from steerstats.figures.parts import cloud, curve, dataset_axis, dots, finite, intervals, key
from steerstats.figures.theme import (
    ANTI,
    BLUE,
    DOT_BLUE,
    DOT_RED,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    light_grid,
    shorts,
    zero_line,
)

SLOPE = "steerability (nat per unit multiplier)"
LEAST_RMSE = 0.001  # nat; an axis of rounding errors would make straight lines look bent


def per_input(slopes: Mapping[str, np.ndarray], medians: Mapping[str, float], *, ax: Axes) -> Axes:
    """Every input's steerability, one row per dataset (figure 1).

    Parameters
    ----------
    slopes : mapping of dataset to ndarray (n,)
        In the order of the rows.
    medians : mapping of dataset to float
        Drawn as a bar across the row.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> slopes = {name: study.slopes(name).at("base->base") for name in ("likes-rain", "plans-ahead")}
    >>> medians = {name: float(np.median(values)) for name, values in slopes.items()}
    >>> _, ax = figures.canvas()
    >>> ax = figures.per_input(slopes, medians, ax=ax)
    >>> sum(len(dots.get_offsets()) for dots in ax.collections)  # every input of both
    120
    """
    for row, (name, values) in enumerate(slopes.items()):
        dots(ax, row, values)
        ax.plot([medians[name]] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=1.8, zorder=3)
    zero_line(ax)
    return dataset_axis(ax, list(slopes), xlabel=SLOPE)


def anti_share(rows: pd.DataFrame, *, ax: Axes, labels: bool = False) -> Axes:
    """Share of anti-steerable inputs of each dataset with its interval.

    Parameters
    ----------
    rows : DataFrame
        Columns dataset, estimate, ci_low, ci_high; one row per dataset, in the order of the rows.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> rows = study.steerability().to_frame().query("name == 'anti_steerable'")
    >>> _, ax = figures.canvas()
    >>> figures.anti_share(rows, ax=ax).get_xlabel()
    'anti-steerable inputs'
    """
    places = np.arange(len(rows))
    right = max([0.5, *1.05 * finite(rows[["estimate", "ci_high"]])])
    ax.set_xlim(-0.03 * right, right)
    intervals(ax, places, rows["estimate"], rows["ci_low"], rows["ci_high"], color=ANTI, marker="s")
    ax.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return dataset_axis(ax, rows["dataset"], xlabel="anti-steerable inputs", labels=labels)


def propensity_curve(rows: pd.DataFrame, *, ax: Axes, band: str = "") -> Axes:
    """Mean propensity over the inputs of one dataset at each multiplier (figure 2).

    Parameters
    ----------
    rows : DataFrame
        Columns multiplier, estimate, ci_low, ci_high, and optionally `low`, `high`: the range over inputs that
        `band` names.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    >>> curves = study.curves_frame().groupby("lam")["y"].agg(["mean", "sem"]).reset_index()
    >>> limits = {"ci_low": curves["mean"] - 2 * curves["sem"], "ci_high": curves["mean"] + 2 * curves["sem"]}
    >>> rows = curves.rename(columns={"lam": "multiplier", "mean": "estimate"}).assign(**limits)
    >>> _, ax = figures.canvas()
    >>> [label.get_text() for label in figures.propensity_curve(rows, ax=ax).get_xticklabels()]
    ['−1.5', '−1', '−0.5', '0', '0.5', '1', '1.5']
    """
    zero_line(ax, "y")
    ax.axvline(0, color=MUTED, linewidth=0.6, zorder=1)
    if {"low", "high"} <= set(rows.columns):
        ax.fill_between(
            rows["multiplier"], rows["low"], rows["high"], color=MUTED, alpha=0.16, linewidth=0, zorder=1, label=band
        )
    curve(ax, rows["multiplier"], rows["estimate"], label="mean over inputs")
    ax.vlines(rows["multiplier"], rows["ci_low"], rows["ci_high"], color=BLUE, linewidth=1.2, zorder=2.9)
    ax.set_xticks(rows["multiplier"], [f"{v:g}".replace("-", "−") for v in rows["multiplier"]])
    return ax


def propensity_curves(frame: pd.DataFrame, axes: Sequence[Axes], *, band: str = "") -> Sequence[Axes]:
    """Small multiples of `propensity_curve`, one panel per dataset in the order of the frame.

    Parameters
    ----------
    frame : DataFrame
        As `propensity_curve`, with a column dataset.
    axes : sequence of Axes
        At least as many as datasets; the rest are switched off.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> rows = study.curves_frame().groupby(["dataset", "lam"])["y"].agg(["mean", "min", "max"]).reset_index()
    >>> names = {"lam": "multiplier", "mean": "estimate", "min": "ci_low", "max": "ci_high"}
    >>> _, axes = figures.canvas(3, 5, height=5)
    >>> [ax.get_visible() for ax in figures.propensity_curves(rows.rename(columns=names), axes.ravel())].count(True)
    14
    """
    names = list(dict.fromkeys(frame["dataset"]))
    for ax, name, title in zip(axes, names, shorts(names, 24)):
        propensity_curve(frame[frame["dataset"] == name], ax=ax, band=band)
        ax.set_title(title, fontsize=8, fontweight="normal", pad=3)
        ax.tick_params(labelsize=6.8)
        ax.set_xticks(*_ends(frame["multiplier"]))
    for ax in list(axes)[len(names) :]:
        ax.set_visible(False)
    for k, ax in enumerate(list(axes)[: len(names)]):
        below = [other for other in list(axes)[k + 1 : len(names)] if _column(other) == _column(ax)]
        ax.tick_params(labelbottom=not below)  # the lowest of each column, also where the last row is not full
    return axes


def slope_and_misfit(frame: pd.DataFrame, *, ax: Axes) -> Axes:
    """How far each input's curve is from its own line, beside its slope.

    Parameters
    ----------
    frame : DataFrame
        Columns slope and rmse, one row per input.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> _, ax = figures.canvas()
    >>> ax = figures.slope_and_misfit(study.slopes("plans-ahead").to_frame(), ax=ax)
    >>> ax.get_legend_handles_labels()[1]
    ['anti-steerable', 'steerable']
    """
    negative = frame["slope"] < 0
    for chosen, color, name in ((negative, DOT_RED, "anti-steerable"), (~negative, DOT_BLUE, "steerable")):
        part = frame[chosen]
        cloud(ax, part["slope"], part["rmse"], color=color, size=6, raster=True, label=name)
    zero_line(ax)
    ax.set_ylim(0, max(LEAST_RMSE, ax.get_ylim()[1]))
    ax.set_xlabel(SLOPE)
    ax.set_ylabel("RMSE about the line (nat)")
    key(ax, columns=2, place="lower left", bbox_to_anchor=(0.0, 1.01))
    for handle in ax.get_legend().legend_handles:
        # The cloud's own dots are too small and too pale to name a colour by.
        handle.set(sizes=[26], alpha=1)
    return ax


def misfit_rows(rows: pd.DataFrame, *, ax: Axes, labels: bool = True) -> Axes:
    """Distance of each dataset's mean curve from a line, in spreads over inputs, with its interval.

    Parameters
    ----------
    rows : DataFrame
        Columns dataset, distance, distance_low, distance_high.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> _, ax = figures.canvas()
    >>> len(figures.misfit_rows(study.linearity().to_frame(), ax=ax).get_yticklabels())
    14
    """
    right = max([1.0, *1.05 * finite(rows[["distance", "distance_high"]])])
    ax.set_xlim(-0.02 * right, right)
    intervals(ax, np.arange(len(rows)), rows["distance"], rows["distance_low"], rows["distance_high"])
    xlabel = "departure of the mean curve from a line\n(in SDs over inputs)"
    return dataset_axis(ax, rows["dataset"], xlabel=xlabel, labels=labels)


def range_sensitivity(frame: pd.DataFrame, *, ax: Axes, value: str, ylabel: str, share: bool = False) -> Axes:
    """A number of each dataset against the width of the multiplier range it was computed on.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, range and `value`; optional `ci_low`, `ci_high`.
    share : bool
        Whether the value is a share, shown in per cent from 0 up.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> frame = study.multiplier_range().to_frame()
    >>> _, ax = figures.canvas()
    >>> ax = figures.range_sensitivity(frame, ax=ax, value="mean", ylabel="mean steerability")
    >>> ax.get_xticks().tolist()
    [0.5, 1.0, 1.5]
    """
    names = list(dict.fromkeys(frame["dataset"]))
    few = len(names) <= 5
    for k, name in enumerate(names):
        rows = frame[frame["dataset"] == name]
        color = SERIES[k % len(SERIES)] if few else BLUE
        bars = (rows["ci_low"], rows["ci_high"]) if few and "ci_low" in rows else (None, None)
        marker, label = (MARKERS[k], name) if few else ("", None)
        curve(ax, rows["range"], rows[value], *bars, color=color, marker=marker, label=label)
        if not few:
            ax.lines[-1].set(alpha=0.45, linewidth=1.0)
    ax.set_xticks(sorted(set(frame["range"])))
    ax.set_xlabel("widest multiplier used, |λ| ≤")
    ax.set_ylabel(ylabel)
    low, high = ax.get_ylim()
    middle = (low + high) / 2
    ax.set_ylim(min(low, middle - 0.02 * abs(middle)), max(high, middle + 0.02 * abs(middle)))  # no axis of roundings
    if share:
        ax.set_ylim(-0.001, max(0.01, 1.05 * float(frame[value].max())))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    light_grid(ax, "y")
    return ax


def _column(ax: Axes) -> int:
    place = ax.get_subplotspec()
    return place.colspan.start if place is not None else 0


def _ends(multipliers: pd.Series) -> tuple[list[float], list[str]]:
    ticks = sorted({float(multipliers.min()), 0.0, float(multipliers.max())})
    return ticks, [f"{v:g}".replace("-", "−") for v in ticks]
