"""Does steerability survive another prompt or another model: figures 5, 6 and 7 of the paper, and the gap's parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from steerstats.figures.parts import cloud, dataset_axis, diagonal, finite, intervals, matrix, nothing
from steerstats.figures.theme import (
    GREEN,
    INK,
    MARKERS,
    MUTED,
    PURPLE,
    SERIES,
    nice_setting,
    nice_shift,
    zero_line,
)

FAR = 100  # times as far as the other axis
PART_COLOURS = {"gap": INK, "prompt": PURPLE, "transfer": GREEN}
PART_MARKERS = {"gap": "o", "prompt": "s", "transfer": "D"}
PART_NAMES = {"gap": "loss, in all", "prompt": "what the prompt does to any vector", "transfer": "what transfer costs"}


def agreement(frame: pd.DataFrame, *, ax: Axes, xlabel: str, ylabel: str, remark: str = "") -> Axes:
    """Mean steerability of each dataset under two conditions, with the line of equality (figures 5 and 6).

    Parameters
    ----------
    frame : DataFrame
        Columns x, y and optionally x_low, x_high, y_low, y_high; one row per dataset.
    remark : str
        Written in the corner ("Spearman 0.89 [0.78, 0.95]"): handed in, not computed.

    Examples
    --------
    >>> import pandas as pd
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> slopes = [study.slopes(name) for name in study.datasets]
    >>> frame = pd.DataFrame({"x": [own.at("base->base").mean() for own in slopes]})
    >>> frame["y"] = [own.at("base->user_neg").mean() for own in slopes]
    >>> _, ax = figures.canvas()
    >>> ax = figures.agreement(frame, ax=ax, xlabel="base", ylabel="user (negative)")
    >>> len(ax.collections[0].get_offsets())  # one dot for each dataset
    14
    """
    limits = {
        f"{side}_limits": (frame[f"{side}_low"], frame[f"{side}_high"]) for side in "xy" if f"{side}_low" in frame
    }
    cloud(ax, frame["x"], frame["y"], **limits)
    ax.axhline(0, color=MUTED, linewidth=0.6, zorder=1)
    ax.axvline(0, color=MUTED, linewidth=0.6, zorder=1)
    reach = np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())
    if max(reach) < FAR * min(reach):  # of scores in other units, one scale would lay all dots on one line
        diagonal(ax)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))  # one scale, one set of ticks
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if remark:
        ax.set_title(remark, fontsize=8, fontweight="normal", pad=4)
    return ax


def gap_rows(frame: pd.DataFrame, *, ax: Axes, labels: bool = True) -> Axes:
    """The generalisation gap of each dataset under one shift with its two parts.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, component, estimate, ci_low, ci_high; components "gap", "prompt", "transfer".

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> gaps = study.generalization(["base->user_neg"], n_resamples=50)
    >>> _, ax = figures.canvas()
    >>> ax = figures.gap_rows(gaps.to_frame(), ax=ax)
    >>> ax.get_legend_handles_labels()[1]
    ['loss, in all', 'what the prompt does to any vector', 'what transfer costs']
    """
    names = list(dict.fromkeys(frame["dataset"]))
    place = {name: row for row, name in enumerate(names)}
    present = [part for part in PART_NAMES if (frame["component"] == part).any()]
    for k, part in enumerate(present):
        rows = frame[frame["component"] == part]
        at = [place[name] + (k - (len(present) - 1) / 2) * 0.26 for name in rows["dataset"]]
        limits = rows["estimate"], rows["ci_low"], rows["ci_high"]
        style = {"color": PART_COLOURS[part], "marker": PART_MARKERS[part], "label": PART_NAMES[part]}
        intervals(ax, at, *limits, size=3.4, **style)
    zero_line(ax)
    return dataset_axis(ax, names, xlabel="loss of steerability (nat per unit multiplier)", labels=labels)


def transfer_table(values: np.ndarray, train: Sequence[str], evaluate: Sequence[str], *, ax: Axes) -> Axes:
    """Mean steerability of every vector (rows) in every evaluation setting (columns).

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> own = study.slopes("likes-rain")
    >>> means = np.array([[own.at((t, e)).mean() for e in study.settings] for t in study.vectors])
    >>> _, ax = figures.canvas()
    >>> ax = figures.transfer_table(means, study.vectors, study.settings, ax=ax)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['base', 'system (positive)', 'system (negative)', 'user (positive)', 'user (negative)', 'mean vector']
    """
    rows = [nice_setting(name) for name in train]
    matrix(ax, values, rows, _in_two_lines(evaluate))
    ax.set_xlabel("evaluated in")
    ax.set_ylabel("vector trained in")
    return ax


def setting_row(values: Sequence[float], settings: Sequence[str], *, ax: Axes, name: str) -> Axes:
    """One number for each evaluation setting, as a row to stand under `transfer_table`.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> unsteered = study.slopes("likes-rain").unsteered.mean(axis=1)
    >>> _, ax = figures.canvas(height=1.0)
    >>> ax = figures.setting_row(unsteered, study.settings, ax=ax, name="m(0)")
    >>> [number.get_text() for number in ax.texts]
    ['1.76', '2.79', '−2.75', '2.83', '−2.76']
    """
    matrix(ax, np.asarray(values, float)[None], [name], _in_two_lines(settings))
    ax.set_xlabel("unsteered propensity (nat)")
    return ax


def propensity_and_relative(frame: pd.DataFrame, *, ax: Axes, xlabel: str, ylabel: str, remark: str = "") -> Axes:
    """Difference in unsteered propensity against relative steerability (figure 7).

    Parameters
    ----------
    frame : DataFrame
        Columns x, y and `self_pair` (bool); one row per dataset and pair of settings.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> points = study.propensity_shift().points()
    >>> frame = points.rename(columns={"propensity_difference": "x", "ratio": "y"})
    >>> _, ax = figures.canvas()
    >>> ax = figures.propensity_and_relative(frame, ax=ax, xlabel="propensity moved by", ylabel="relative steerability")
    >>> ax.get_legend_handles_labels()[1]
    ["another setting's vector", 'self-pairs, exactly 1']
    """
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if nothing(ax, frame["x"], frame["y"], why="no pair of prompts qualifies"):
        return ax
    own = frame["self_pair"].astype(bool)
    cloud(ax, frame.loc[~own, "x"], frame.loc[~own, "y"], size=12, label="another setting's vector")
    if own.any():
        part = frame[own]
        cloud(ax, part["x"], part["y"], size=14, color=INK, marker="X", label="self-pairs, exactly 1")
    ax.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    ax.axhline(0, color=MUTED, linewidth=0.6, zorder=1)
    if remark:
        ax.set_title(remark, fontsize=8, fontweight="normal", pad=4)
    return ax


def coefficient_rows(frame: pd.DataFrame, *, ax: Axes, xlabel: str) -> Axes:
    """Correlations with their intervals, one row each.

    Parameters
    ----------
    frame : DataFrame
        Columns label, estimate, ci_low, ci_high.

    Examples
    --------
    >>> import pandas as pd
    >>> from steerstats import figures
    >>> frame = pd.DataFrame({"label": ["ID-OOD"], "estimate": [0.89], "ci_low": [0.78], "ci_high": [0.95]})
    >>> _, ax = figures.canvas()
    >>> ax = figures.coefficient_rows(frame, ax=ax, xlabel="Spearman correlation")
    >>> ax.lines[0].get_xdata().tolist()  # the interval
    [0.78, 0.95]
    """
    ax.set_xlabel(xlabel)
    if nothing(ax, frame["estimate"], why="none can be estimated"):
        return ax
    ax.set_xlim(-1.0, 1.0)
    intervals(ax, np.arange(len(frame)), frame["estimate"], frame["ci_low"], frame["ci_high"])
    zero_line(ax)
    return dataset_axis(ax, frame["label"], limit=60)


def paired_rows(frame: pd.DataFrame, *, ax: Axes, xlabel: str, labels: bool = True) -> Axes:
    """Differences between two caches, one row per dataset: interval, and the simultaneous band as a hair line.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, estimate, ci_low, ci_high, band_low, band_high.

    Examples
    --------
    >>> import pandas as pd
    >>> from steerstats import figures
    >>> limits = {"ci_low": [0.1], "ci_high": [0.3], "band_low": [0.0], "band_high": [0.4]}
    >>> frame = pd.DataFrame({"dataset": ["kindness"], "estimate": [0.2]} | limits)
    >>> _, ax = figures.canvas()
    >>> ax = figures.paired_rows(frame, ax=ax, xlabel="difference between two models")
    >>> ax.get_legend_handles_labels()[1]
    ['band for all at once', 'difference, 95% interval']
    """
    places = np.arange(len(frame))
    drawn = np.abs(finite(frame[["estimate", "band_low", "band_high", "ci_low", "ci_high"]]))
    span = max(drawn, default=0.0) or 1.0
    ax.set_xlim(-span * 1.05, span * 1.05)
    ax.hlines(
        places,
        frame["band_low"],
        frame["band_high"],
        color=MUTED,
        linewidth=0.8,
        zorder=2,
        label="band for all at once",
    )
    intervals(ax, places, frame["estimate"], frame["ci_low"], frame["ci_high"], label="difference, 95% interval")
    zero_line(ax)
    return dataset_axis(ax, frame["dataset"], xlabel=xlabel, labels=labels)


def spread_rows(frame: pd.DataFrame, *, ax: Axes, xlabel: str, labels: bool = True, ratios: bool = False) -> Axes:
    """The same number in several shifts, one row per dataset, one mark per shift.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, shift ("train->eval"), estimate, ci_low, ci_high.
    ratios : bool
        Numbers are ratios: a logarithmic axis, on which a half is as far from 1 as a double, with 1 marked. Where a
        ratio is 0 the axis stays linear, since 0 has no place on the other.

    Examples
    --------
    >>> import pandas as pd
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> tables = {shift: study.steerability(shift).to_frame() for shift in ("base->base", "base->user_neg")}
    >>> frame = pd.concat([table.assign(shift=shift) for shift, table in tables.items()])
    >>> _, ax = figures.canvas()
    >>> ax = figures.spread_rows(frame.query("name == 'sd'"), ax=ax, xlabel="SD over inputs")
    >>> ax.get_legend_handles_labels()[1]
    ['base → base', 'base → user (negative)']
    """
    names = list(dict.fromkeys(frame["dataset"]))
    shifts = list(dict.fromkeys(frame["shift"]))
    step = 0.8 / max(len(shifts), 1)
    if ratios:
        ax.axvline(1, color=INK, linewidth=0.8, zorder=1.5)
        if not (frame["estimate"] <= 0).any():
            _ratio_axis(ax, frame[["estimate", "ci_low", "ci_high"]].to_numpy(float))
    for k, shift in enumerate(shifts):
        rows = frame[frame["shift"] == shift]
        at = [names.index(name) + (k - (len(shifts) - 1) / 2) * step for name in rows["dataset"]]
        style = {"color": SERIES[k % len(SERIES)], "marker": MARKERS[k % len(MARKERS)]}
        limits = rows["estimate"], rows["ci_low"], rows["ci_high"]
        intervals(ax, at, *limits, label=nice_shift(*shift.split("->")), size=3.4, **style)
    return dataset_axis(ax, names, xlabel=xlabel, labels=labels)


def _ratio_axis(ax: Axes, values: np.ndarray) -> None:
    """A logarithmic x axis that holds the values and 1, with ticks in plain numbers."""
    known = np.log10([*values[np.isfinite(values) & (values > 0)], 1.0])
    low, high = known.min(), known.max()
    room = max(0.04 * (high - low), 0.03)
    ax.set_xscale("log")
    ax.set_xlim(10 ** (low - room), 10 ** (high + room))
    # Over few decades 2 and 5 are named too, so that an axis has more than one number.
    ticks = LogLocator(subs=(1.0, 2.0, 5.0) if high - low < 2 else (1.0,))
    if low - room > np.log10(0.5) and high + room < np.log10(2):  # all near 1, which would be the only one of them
        ticks = MaxNLocator(6, steps=[1, 2, 5, 10])
    ax.xaxis.set_major_locator(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def cosine_table(values: np.ndarray, names: Sequence[str], *, ax: Axes) -> Axes:
    """Cosine similarity between the vectors of all settings, mean over datasets.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> found = study.vector_cosines()
    >>> _, ax = figures.canvas()
    >>> ax = figures.cosine_table(found.cosine.mean(axis=0), found.vectors, ax=ax)
    >>> ax.texts[1].get_text()  # between the first two
    '0.91'
    """
    labels = [nice_setting(name) for name in names]
    return matrix(ax, values, labels, _in_two_lines(names), reach=1.0)


def _in_two_lines(settings: Sequence[str]) -> list[str]:
    """Names of settings for the narrow columns of a table."""
    return [nice_setting(name).replace(" (", "\n(") for name in settings]
