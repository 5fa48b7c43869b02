"""What steerability owes to the position and the wording of the answer: figures 3, 4 and 16 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from steerstats.figures.parts import dataset_axis, finite, intervals, shares
from steerstats.figures.theme import AMBER, BLUE, GREEN, INK, MARKERS, MUTED, PURPLE, SERIES, WASH, zero_line
from steerstats.figures.variability import SLOPE

COMPONENT_NAMES = {
    "pos_is_a": "A or B",
    "pos_is_yes": "Yes or No",
    "pos_is_yes after pos_is_a": "Yes or No, after A or B",
    "pos_is_a:pos_is_yes": "their interaction",
    "length_difference": "option length",
    "unexplained": "unexplained",
}
COMPONENT_COLOURS = {
    "pos_is_a": BLUE,
    "pos_is_yes": AMBER,
    "pos_is_yes after pos_is_a": AMBER,
    "pos_is_a:pos_is_yes": GREEN,
    "unexplained": WASH,
}
OTHER_COLOURS = (MUTED, INK)  # the length of the options, and factors of one's own


def by_option(frame: pd.DataFrame, *, ax: Axes, labels: bool = True) -> Axes:
    """Mean steerability of each dataset by what the positive option is (figure 3).

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, cell ("A, Yes"), mean, ci_low, ci_high; cells without inputs hold NaN and are not drawn.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    >>> cells = study.spurious_factors(n_resamples=20).cells["likes-rain"].to_frame()
    >>> frame = cells.assign(dataset="likes-rain", cell=cells["pos_is_a"] + ", " + cells["pos_is_yes"])
    >>> _, ax = figures.canvas()
    >>> ax = figures.by_option(frame, ax=ax)
    >>> ax.get_legend_handles_labels()[1]
    ['A, Yes', 'A, No', 'B, Yes', 'B, No']
    """
    names = list(dict.fromkeys(frame["dataset"]))
    cells = list(dict.fromkeys(frame["cell"]))
    step = 0.72 / max(len(cells), 1)
    for k, cell in enumerate(cells):
        rows = frame[(frame["cell"] == cell) & frame["mean"].notna()]
        at = [names.index(name) + (k - (len(cells) - 1) / 2) * step for name in rows["dataset"]]
        color, marker, filled = _cell_style(cell, k)
        style = {"color": color, "marker": marker, "filled": filled, "label": cell}
        intervals(ax, at, rows["mean"], rows["ci_low"], rows["ci_high"], size=3.4, **style)
    zero_line(ax)
    return dataset_axis(ax, names, xlabel=SLOPE, labels=labels)


def option_counts(frame: pd.DataFrame, *, ax: Axes, labels: bool = False) -> Axes:
    """How many inputs of each dataset are in each cell (figure 16).

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, cell, n.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    >>> cells = study.spurious_factors(n_resamples=20).cells["likes-rain"].to_frame()
    >>> frame = cells.assign(dataset="likes-rain", cell=cells["pos_is_a"] + ", " + cells["pos_is_yes"])
    >>> _, ax = figures.canvas()
    >>> [float(bar.get_width()) for bar in figures.option_counts(frame, ax=ax).patches]
    [15.0, 15.0, 15.0, 15.0]
    """
    names = list(dict.fromkeys(frame["dataset"]))
    table = frame.pivot(index="dataset", columns="cell", values="n").loc[names].fillna(0)
    cells = list(dict.fromkeys(frame["cell"]))
    parts = [(cell, _cell_style(cell, k)[0], table[cell].to_numpy()) for k, cell in enumerate(cells)]
    shares(ax, np.arange(len(names)), parts, height=0.62, hatched=[cell for cell in cells if cell.startswith("B")])
    return dataset_axis(ax, names, xlabel="inputs", labels=labels)


def variance_shares(frame: pd.DataFrame, *, ax: Axes, labels: bool = True, title: str = "") -> Axes:
    """Share of the variance of steerability that goes with each factor, stacked, one bar per dataset (figure 4).

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, component, share. Components are stacked in order, what is unexplained last; negative shares
        go to the left of 0.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    >>> frame = study.spurious_factors(n_resamples=20).explained["likes-rain"].to_frame().assign(dataset="likes-rain")
    >>> _, ax = figures.canvas()
    >>> ax = figures.variance_shares(frame[frame["component"] != "explained"], ax=ax)
    >>> ax.get_legend_handles_labels()[1]
    ['A or B', 'Yes or No', 'unexplained']
    """
    names = list(dict.fromkeys(frame["dataset"]))
    parts, others = [], cycle(OTHER_COLOURS)
    # Datasets need not know the same factors: one that only a later dataset knows comes after the first one's rest.
    for component in sorted(dict.fromkeys(frame["component"]), key="unexplained".__eq__):
        rows = frame[frame["component"] == component].set_index("dataset")["share"].reindex(names)
        colour = COMPONENT_COLOURS.get(component) or next(others)
        parts.append((COMPONENT_NAMES.get(component, component), colour, rows.fillna(0).to_numpy()))
    shares(ax, np.arange(len(names)), parts, height=0.68)
    zero_line(ax)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_title(title)
    return dataset_axis(ax, names, xlabel="share of the variance of steerability", labels=labels)


def total_share(frame: pd.DataFrame, *, ax: Axes, labels: bool = False) -> Axes:
    """What all factors together explain, with its interval.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, share, ci_low, ci_high.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    >>> frame = study.spurious_factors(n_resamples=20).explained["likes-rain"].to_frame().assign(dataset="likes-rain")
    >>> _, ax = figures.canvas()
    >>> ax = figures.total_share(frame[frame["component"] == "explained"], ax=ax)
    >>> ax.lines[0].get_xdata().round(2).tolist()  # the interval
    [0.73, 0.87]
    """
    dots = frame["share"].dropna()
    half = 0.04  # of a dot's width, which an end of the axis would cut
    ax.set_xlim(min([0.0, *(dots - half), *finite(frame["ci_low"])]), max([1.0, *(dots + half)]))
    intervals(ax, np.arange(len(frame)), frame["share"], frame["ci_low"], frame["ci_high"])
    zero_line(ax)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return dataset_axis(ax, frame["dataset"], xlabel="explained by all factors", labels=labels)


def effect_rows(frame: pd.DataFrame, *, ax: Axes, xlabel: str, labels: bool = True, pooled: str | None = None) -> Axes:
    """Effect of one factor on steerability in each dataset, the mean over datasets last.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, estimate, ci_low, ci_high; `pooled` names the row that is the mean over datasets.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> frame = study.spurious_factors(n_resamples=20).to_frame()
    >>> frame = frame.query("term == 'pos_is_a' and response == 'slope' and model == 'per-input'")
    >>> _, ax = figures.canvas()
    >>> ax = figures.effect_rows(frame, ax=ax, xlabel="A rather than B (nat per unit multiplier)")
    >>> [label.get_text() for label in ax.get_yticklabels()][:3]
    ['keeps-pets', 'likes-crowds', 'likes-noise']
    """
    own, places = (frame["dataset"] != pooled).to_numpy(), np.arange(len(frame), dtype=float)
    values = frame[["estimate", "ci_low", "ci_high"]].to_numpy(float)
    intervals(ax, places[own], *values[own].T)
    if not own.all():
        style = {"color": INK, "marker": "D", "size": 5.5, "label": "mean over datasets"}
        intervals(ax, places[~own], *values[~own].T, **style)
        ax.axhline(places[~own][0] - 0.5, color="#000000", linewidth=0.4)
    zero_line(ax)
    return dataset_axis(ax, frame["dataset"], xlabel=xlabel, labels=labels)


def before_and_after(
    frame: pd.DataFrame, *, ax: Axes, names: Sequence[str] = ("as trained", "debiased"), labels: bool = True
) -> Axes:
    """One number per dataset under two vectors, joined by a line.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, before, after, and optionally before_low, before_high, after_low, after_high.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> effects = study.debiased(n_resamples=20).effects.query("term == 'pos_is_a'")
    >>> frame = effects.pivot(index="dataset", columns="vector", values="estimate").reset_index()
    >>> _, ax = figures.canvas()
    >>> ax = figures.before_and_after(frame.rename(columns={"own": "before", "debiased": "after"}), ax=ax)
    >>> ax.get_legend_handles_labels()[1]
    ['as trained', 'debiased']
    """
    places = np.arange(len(frame), dtype=float)
    ax.hlines(places, frame["before"], frame["after"], color=WASH, linewidth=3, zorder=1.5)
    for side, name, shift in (("before", names[0], -0.14), ("after", names[1], 0.14)):
        none = pd.Series(np.nan, index=frame.index)
        limits = frame.get(f"{side}_low", none), frame.get(f"{side}_high", none)
        style = {"color": BLUE if side == "before" else GREEN, "marker": "o" if side == "before" else "D"}
        intervals(ax, places + shift, frame[side], *limits, label=name, size=3.8, **style)
    zero_line(ax)
    return dataset_axis(ax, frame["dataset"], labels=labels)


def _cell_style(cell: str, k: int) -> tuple[str, str, bool]:
    """Colour tells the word, Yes or No (never blue, which is A or B beside it); a filled mark is A, an open one B.

    Answers of neither letter have colours of their own, blue those of neither word.
    """
    letter, _, word = cell.partition(", ")
    words = {"Yes": (AMBER, "o"), "No": (PURPLE, "s"), "neither": (MUTED, "D")}
    if letter in ("A", "B") and word in words:
        return *words[word], letter == "A"
    if word:
        return *{"Yes": (GREEN, "^"), "No": (INK, "v")}.get(word, (BLUE, "P")), True
    return SERIES[k % len(SERIES)], MARKERS[k % len(MARKERS)], True
