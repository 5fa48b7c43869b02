"""The marks that all figures are made of: rows of datasets with intervals, dots of inputs, curves, scatters, tables.

Everything drawn is handed in; nothing is estimated here. Limits that are not finite are drawn as arrows to the edge
of the axes (an interval without end) or left out (no interval), never as if they were numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from steerstats.figures.theme import BLUE, DOT_BLUE, DOT_RED, INK, MUTED, RULE, WASH, light_grid, shorts
from steerstats.text import format_number

# Blue for above, vermillion for below. Near the palette's colours and not equal to them, so that a dark page, which
# exchanges those, leaves the cells and the letters on them as they are.
DIVERGING = LinearSegmentedColormap.from_list("steerstats", ["#a63a12", "#f2f2f2", "#1a5096"])
GOLDEN = 0.6180339887498949
TALL = 20  # datasets; a list of more does not fit a screen
PHONE = 4.7  # inches of a figure that a page on a phone shows before it is scrolled
KEY_LINE = 0.17  # inches that a line of a legend takes


def dataset_axis(
    ax: Axes, names: Sequence[str], *, xlabel: str | None = None, limit: int = 34, labels: bool = True
) -> Axes:
    """One row per dataset, the first on top; a tall list is read from above, so its scale stands there too."""
    ax.set_yticks(np.arange(len(names)), shorts(names, limit) if labels else [""] * len(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    if len(names) > TALL:
        ax.tick_params(axis="x", top=True, labeltop=True)
        ax.xaxis.set_label_position("top")
    if xlabel is not None:
        ax.set_xlabel(xlabel)
    return light_grid(ax, "x")


def finite(frame: pd.DataFrame) -> np.ndarray:
    """The finite numbers of some columns, between which an axis has its ends: limits may be infinite or missing."""
    values = frame.to_numpy(float)
    return values[np.isfinite(values)]


def intervals(
    ax: Axes,
    place: Sequence[float],
    estimate: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    color: str = BLUE,
    marker: str = "o",
    label: str | None = None,
    size: float = 4.2,
    filled: bool = True,
) -> Axes:
    """Points with their intervals, one row each.

    Parameters
    ----------
    place : sequence of float
        Of each row.
    estimate, low, high : sequence of float
        NaN limits draw no bar; infinite ones an arrow to the edge of the axes.
    label : str, optional
        For the legend.
    """
    place, estimate, low, high = (np.asarray(a, float) for a in (place, estimate, low, high))
    known = np.isfinite(low) | np.isfinite(high)
    line = {"color": color, "linewidth": 1.3, "solid_capstyle": "butt", "zorder": 2.5}
    edges = ax.get_xlim()
    for p, a, b in zip(place[known], low[known], high[known]):
        ends = [a if np.isfinite(a) else edges[0], b if np.isfinite(b) else edges[1]]
        ax.plot(ends, [p, p], **line)
        for end, limit, arrow in ((ends[0], a, "<"), (ends[1], b, ">")):
            if not np.isfinite(limit):
                ax.plot(end, p, marker=arrow, color=color, markersize=4, clip_on=False, zorder=2.6)
    style = {"marker": marker, "color": color, "markerfacecolor": color if filled else "none", "markersize": size}
    ax.plot(estimate, place, linestyle="none", label=label, zorder=3, **style)
    return ax


def dots(ax: Axes, row: float, values: np.ndarray) -> Axes:
    """Every input of one dataset as a dot in its row, anti-steerable ones in their own colour.

    Height within the row is only there to keep dots apart; it follows from the order of the inputs and not from a
    random number, so that the same data give the same picture. Dots are rasterised inside vector figures.
    """
    values = np.asarray(values, float)
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    height = row + 0.34 * (2 * ((order * GOLDEN) % 1) - 1)
    alpha = 0.55 if values.size > 200 else 0.95
    size = 2.2 if values.size > 200 else 4.5  # few dots can be large enough to see
    for side, color in ((values < 0, DOT_RED), (values >= 0, DOT_BLUE)):
        style = {"s": size, "color": color, "alpha": alpha, "linewidths": 0, "rasterized": True, "zorder": 2}
        ax.scatter(values[side], height[side], **style)
    return ax


def curve(
    ax: Axes,
    x: Sequence[float],
    y: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    *,
    color: str = BLUE,
    marker: str = "o",
    label: str | None = None,
) -> Axes:
    """A line with points and, where limits are given, its band."""
    if low is not None and high is not None:
        ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0, zorder=1.8)
    ax.plot(x, y, color=color, marker=marker, markersize=3.2, linestyle="-", linewidth=1.4, label=label, zorder=3)
    return ax


def diagonal(ax: Axes) -> Axes:
    """The line y = x over what both axes show, with both axes on one scale."""
    low = min(ax.get_xlim()[0], ax.get_ylim()[0])
    high = max(ax.get_xlim()[1], ax.get_ylim()[1])
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1, label="equal")
    ax.set_aspect("equal", adjustable="box")
    return ax


def cloud(
    ax: Axes,
    x: Sequence[float],
    y: Sequence[float],
    *,
    x_limits: tuple[Sequence[float], Sequence[float]] | None = None,
    y_limits: tuple[Sequence[float], Sequence[float]] | None = None,
    color: str = BLUE,
    marker: str = "o",
    label: str | None = None,
    size: float = 20.0,
    raster: bool = False,
) -> Axes:
    """A scatter of datasets (or inputs), with hair lines for the intervals on either axis."""
    hair = {"color": color, "linewidth": 0.7, "alpha": 0.45, "zorder": 2}
    if x_limits is not None:
        ax.hlines(y, *x_limits, **hair)
    if y_limits is not None:
        ax.vlines(x, *y_limits, **hair)
    sns.scatterplot(
        x=np.asarray(x, float), y=np.asarray(y, float), ax=ax, color=color, marker=marker, s=size, linewidth=0,
        alpha=0.9 if not raster else 0.4, label=label, legend=False, rasterized=raster, zorder=3,
    )  # fmt: skip
    return ax


def matrix(
    ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, reach: float | None = None
) -> Axes:
    """A table of numbers with coloured cells, from -`reach` to `reach`; cells without a number stay empty."""
    shown = np.asarray(values, float)
    reach = reach or np.nanmax(np.abs(shown))
    scale = Normalize(-reach, reach)
    digits = 2 if reach >= 0.1 else 3  # with two, weak vectors would all read 0.02 on cells of many colours
    ax.pcolormesh(np.ma.masked_invalid(shown), cmap=DIVERGING, norm=scale, edgecolor=RULE, linewidth=1.2)
    for (row, column), value in np.ndenumerate(shown):
        if np.isnan(value):
            continue
        # Black or white, whichever reads better on the cell; never the ink of the page, which a dark page exchanges.
        bright = np.array(DIVERGING(scale(value))[:3]) @ (0.2126, 0.7152, 0.0722) > 0.45
        style = {"color": "#101010" if bright else "#ffffff", "fontsize": 7.8, "ha": "center", "va": "center"}
        ax.text(column + 0.5, row + 0.5, format_number(value, digits).replace("-", "−"), **style)
    ax.set_xticks(np.arange(len(columns)) + 0.5, list(columns))
    ax.set_yticks(np.arange(len(rows)) + 0.5, list(rows))
    ax.set_ylim(len(rows), 0)
    ax.tick_params(axis="both", length=0, rotation=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def shares(
    ax: Axes,
    place: Sequence[float],
    parts: Sequence[tuple[str, str, Sequence[float]]],
    height: float,
    hatched: Sequence[str] = (),
) -> Axes:
    """Stacked horizontal bars from (label, colour, values); negative parts are stacked to the left of zero.

    Parts named in `hatched` are drawn pale, with an edge, to be told apart where colours repeat.
    """
    ahead, behind = np.zeros(len(place)), np.zeros(len(place))
    for label, color, values in parts:
        values = np.asarray(values, float)
        start = np.where(values >= 0, ahead, behind)
        style = {"facecolor": color, "edgecolor": RULE if color == WASH else color}
        style["linewidth"] = np.where(values == 0, 0, 0.5)  # a part that is not there has no edge either
        if label in hatched:
            style["alpha"] = 0.42
        ax.barh(place, values, left=start, height=height, label=label, **style)
        ahead += np.where(values >= 0, values, 0)
        behind += np.where(values < 0, values, 0)
    return ax


def nothing(ax: Axes, *values: Sequence[float], why: str) -> bool:
    """Whether none of the points has all of its numbers; the axes then say so in place of an empty frame.

    Parameters
    ----------
    *values : sequence of float
        One array for each number of a point.
    why : str
        What there is none of.
    """
    known = np.isfinite(np.column_stack([np.asarray(one, float) for one in values])).all(axis=1)
    if known.any():
        return False
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", fontsize=8.5, color=MUTED, wrap=True)
    ax.set_xticks([])
    ax.set_yticks([])
    return True


def note(ax: Axes, text: str, *, corner: str = "upper left") -> Axes:
    """A remark in a corner of the axes.

    Examples
    --------
    >>> from steerstats import figures
    >>> _, ax = figures.canvas()
    >>> figures.note(ax, "Spearman 0.89", corner="lower right").texts[0].get_ha()
    'right'
    """
    vertical, horizontal = corner.split()
    x, ha = (0.02, "left") if horizontal == "left" else (0.98, "right")
    y, va = (0.98, "top") if vertical == "upper" else (0.02, "bottom")
    ax.text(x, y, text, transform=ax.transAxes, ha=ha, va=va, fontsize=7.8, color=INK, zorder=4)
    return ax


def key(ax: Axes, *, columns: int = 1, place: str = "best", **more: object) -> Axes:
    """The legend, where there is something to tell apart.

    Examples
    --------
    >>> from steerstats import figures
    >>> _, ax = figures.canvas()
    >>> figures.key(ax).get_legend() is None  # nothing to tell apart
    True
    >>> _ = ax.plot([0, 1], label="mean over inputs")
    >>> [text.get_text() for text in figures.key(ax).get_legend().get_texts()]
    ['mean over inputs']
    """
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(handles, labels, ncols=columns, loc=place, **more)
    return ax


def key_outside(figure: Figure, *axes: Axes, columns: int = 3, title: str = "") -> Figure:
    """One legend above the whole figure, for what any of the axes tells apart; the layout makes room for it.

    It starts at the left and has as many of the `columns` as a phone shows: what comes first on the page is the key.
    The figure grows by the lines that this takes.

    Examples
    --------
    >>> from steerstats import figures
    >>> figure, axes = figures.canvas(1, 2)
    >>> for ax in axes:
    ...     _ = ax.plot([0, 1], label="the same in both")
    >>> [text.get_text() for text in figures.key_outside(figure, *axes).legends[0].get_texts()]
    ['the same in both']
    """
    entries: dict[str, object] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    if not entries:
        return figure
    shared = {"loc": "outside upper left", "alignment": "left", "title": title or None, "title_fontsize": 7.8}
    for abreast in range(min(columns, len(entries)), 0, -1):
        legend = figure.legend(list(entries.values()), list(entries), ncols=abreast, **shared)
        if abreast == 1 or legend.get_window_extent(figure.canvas.get_renderer()).width <= PHONE * figure.dpi:
            break
        legend.remove()
    lines = -(-len(entries) // abreast)
    figure.set_figheight(figure.get_figheight() + KEY_LINE * (lines - 1))
    return figure
