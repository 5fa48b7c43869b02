"""What could be wrong with the numbers: null vectors, the vector's own error, lost answers, small studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from steerstats.errors import how_many
from steerstats.figures.parts import cloud, curve, dataset_axis, key, note, nothing
from steerstats.figures.theme import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    MARKERS,
    MUTED,
    RULE,
    SERIES,
    VERMILLION,
    light_grid,
    zero_line,
)
from steerstats.figures.variability import SLOPE
from steerstats.nulls import NAMES

MUCH = 0.9  # of the probability on the two answers
NULL_COLOURS = {"random": MUTED, "shuffled": AMBER}


def against_null(frame: pd.DataFrame, *, ax: Axes, labels: bool = True) -> Axes:
    """Mean steerability of each dataset's vector, before the range that null vectors reach.

    Parameters
    ----------
    frame : DataFrame
        One row per dataset and kind: dataset, kind, mean, null_abs_quantile.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> _, ax = figures.canvas()
    >>> ax = figures.against_null(study.nulls().to_frame(), ax=ax)
    >>> ax.get_legend_handles_labels()[1]
    ["the dataset's vector", 'random directions', 'label-shuffled vectors']
    """
    names = list(dict.fromkeys(frame["dataset"]))
    kinds = list(dict.fromkeys(frame["kind"]))
    height = 0.7 / max(len(kinds), 1)
    for k, kind in enumerate(kinds):
        rows = frame[frame["kind"] == kind].set_index("dataset").reindex(names)
        at = np.arange(len(names)) + (k - (len(kinds) - 1) / 2) * height
        reach = rows["null_abs_quantile"].to_numpy()
        style = {"height": height * 0.85, "color": NULL_COLOURS.get(kind, RULE), "alpha": 0.45, "linewidth": 0}
        ax.barh(at, 2 * reach, left=-reach, label=NAMES.get(kind, kind), zorder=1.8, **style)
    ax.use_sticky_edges = False  # the longest bar ends inside the axes
    own = frame.drop_duplicates("dataset").set_index("dataset").reindex(names)["mean"]
    ax.plot(own, np.arange(len(names)), "o", color=BLUE, markersize=4.6, label="the dataset's vector", zorder=3)
    zero_line(ax)
    return dataset_axis(ax, names, xlabel="mean " + SLOPE, labels=labels)


def null_share(frame: pd.DataFrame, *, ax: Axes, labels: bool = False) -> Axes:
    """Share of anti-steerable inputs, beside the range of that share over null vectors of one kind.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, anti_steerable, null_anti_steerable_low, _median, _high.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> _, ax = figures.canvas()
    >>> ax = figures.null_share(study.nulls().random.to_frame(), ax=ax)
    >>> ax.get_legend_handles_labels()[1]
    ['middle 95% of null shares', 'median null share', "the vector's share"]
    """
    places = np.arange(len(frame))
    ax.set_xlim(-0.03, 1.03)
    low, high = frame["null_anti_steerable_low"], frame["null_anti_steerable_high"]
    ax.hlines(places, low, high, color=MUTED, linewidth=4, alpha=0.45, zorder=1.8, label="middle 95% of null shares")
    ax.plot(
        frame["null_anti_steerable_median"], places, "|", color=INK, markersize=7, zorder=2.5, label="median null share"
    )
    ax.plot(
        frame["anti_steerable"], places, "s", color=VERMILLION, markersize=4.2, zorder=3, label="the vector's share"
    )
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return dataset_axis(ax, frame["dataset"], xlabel="anti-steerable inputs", labels=labels)


def two_intervals(frame: pd.DataFrame, *, ax: Axes, xlabel: str, names: tuple[str, str], labels: bool = True) -> Axes:
    """The same estimates with two intervals: without and with a source of error.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, estimate, inner_low, inner_high, outer_low, outer_high.
    names : (str, str)
        What the inner (thick) and the outer (thin) interval hold.

    Examples
    --------
    >>> import pandas as pd
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    >>> found = study.steerability()
    >>> mean, error = found["likes-rain"]["mean"], found.vector_error["likes-rain"]
    >>> limits = (mean.estimate, mean.ci_low, mean.ci_high, error.ci_low, error.ci_high)
    >>> names = ("estimate", "inner_low", "inner_high", "outer_low", "outer_high")
    >>> frame = pd.DataFrame([limits], columns=names).assign(dataset="likes-rain")
    >>> _, ax = figures.canvas()
    >>> ax = figures.two_intervals(frame, ax=ax, xlabel="mean", names=("inputs", "inputs and vector"))
    >>> ax.get_legend_handles_labels()[1]
    ['inputs and vector', 'inputs']
    """
    places = np.arange(len(frame))
    outer = {"color": MUTED, "linewidth": 1.0, "label": names[1]}
    ax.hlines(places, frame["outer_low"], frame["outer_high"], zorder=2, **outer)
    ax.hlines(places, frame["inner_low"], frame["inner_high"], color=BLUE, linewidth=3.4, zorder=2.2, label=names[0])
    ax.plot(frame["estimate"], places, "o", color=INK, markersize=3.4, zorder=3)
    zero_line(ax)
    return dataset_axis(ax, frame["dataset"], xlabel=xlabel, labels=labels)


def mass_curves(frame: pd.DataFrame, *, ax: Axes, collapsed: Sequence[str] = (), answers: str = "two answers") -> Axes:
    """Probability mass on the answers by multiplier, one line per dataset.

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, multiplier, estimate (0 to 1).
    collapsed : sequence of str
        Datasets that were flagged; drawn in the colour of warning and named.
    answers : str
        What the label of the axis calls them: "answers" where questions have several wrong ones.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> _, ax = figures.canvas()
    >>> frame = study.answer_mass().to_frame().rename(columns={"mean": "estimate"})
    >>> len(figures.mass_curves(frame, ax=ax).lines)  # one for each dataset
    14
    """
    for name, rows in frame.groupby("dataset", sort=False):
        bad = name in collapsed
        curve(ax, rows["multiplier"], rows["estimate"], color=VERMILLION if bad else BLUE, marker="")
        ax.lines[-1].set(alpha=0.9 if bad else 0.4, linewidth=1.3 if bad else 0.9)
    # Where nothing is lost, an axis from 0 is an empty box with one line at its lid; a cut one says that it is cut.
    cut = bool((frame["estimate"] >= MUCH).all())
    ax.set_ylim(*((MUCH, 1 + (1 - MUCH) / 40) if cut else (0, 1)))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("multiplier λ")
    ax.set_ylabel(f"probability on the {answers}" + f"\n(axis from {MUCH:.0%})" * cut)
    light_grid(ax, "y")
    if len(collapsed):
        note(ax, f"flagged: {len(collapsed)} of {frame['dataset'].nunique()}", corner="lower left")
    return ax


def foretelling(frame: pd.DataFrame, *, ax: Axes, xlabel: str, ylabel: str, remark: str = "") -> Axes:
    """A predictor against mean steerability, one point per dataset.

    Parameters
    ----------
    frame : DataFrame
        Columns x and y.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> rows = study.predictors(n_resamples=20, n_permutations=4).datasets
    >>> _, ax = figures.canvas()
    >>> rows = rows.rename(columns={"d_prime": "x", "slope": "y"})
    >>> ax = figures.foretelling(rows, ax=ax, xlabel="held-out d′", ylabel="mean steerability")
    >>> len(ax.collections[0].get_offsets())  # one dot for each dataset
    14
    """
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if nothing(ax, frame["x"], frame["y"], why="known in no dataset"):
        return ax
    cloud(ax, frame["x"], frame["y"])
    ax.axhline(0, color=MUTED, linewidth=0.6, zorder=1)
    if remark:
        ax.set_title(remark, fontsize=8, fontweight="normal", pad=4)
    return ax


def detectable_effect(
    frame: pd.DataFrame,
    *,
    ax: Axes,
    observed: float | None = None,
    current: int | None = None,
    banded: int | None = None,
    what: str = "gap",
) -> Axes:
    """Smallest detectable effect against the number of questions, one line per number of datasets.

    Parameters
    ----------
    frame : DataFrame
        Columns n_inputs, n_datasets, effect, and for a band effect_low and effect_high, as of a `PowerTable`.
    observed : float, optional
        The effect that was seen, as a level line.
    current : int, optional
        Questions per dataset of this cache, as a mark on the axis.
    banded : int, optional
        Number of datasets whose line gets its band (one, since the bands of neighbours overlap).
    what : str
        "gap", "mean" or "difference", for the words.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats import figures
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> _, ax = figures.canvas()
    >>> frame = study.power(n_inputs=[50, 500], n_datasets=[10, 40]).to_frame()
    >>> ax = figures.detectable_effect(frame, ax=ax, observed=0.1)
    >>> ax.get_legend_handles_labels()[1]
    ['10 datasets', '40 datasets', 'gap seen here']
    """
    for k, (count, rows) in enumerate(frame.groupby("n_datasets", sort=True)):
        limits = (rows["effect_low"], rows["effect_high"]) if count == banded else ()
        color, marker = SERIES[k % len(SERIES)], MARKERS[k % 9]
        curve(
            ax, rows["n_inputs"], rows["effect"], *limits, color=color, marker=marker, label=how_many(count, "dataset")
        )
    if observed is not None:
        ax.axhline(observed, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"{what} seen here")
    if current is not None:
        ax.axvline(current, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), label="questions per dataset here")
    ax.set_xscale("log")
    ticks = sorted(set(frame["n_inputs"]))
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(0, None)
    ax.set_xlabel("questions per dataset")
    ax.set_ylabel(f"smallest detectable {what}\n(nat per unit multiplier)")
    return light_grid(ax, "y")


def layer_profile(frame: pd.DataFrame, *, ax: Axes, chosen: int | None = None, lowest: bool = False) -> Axes:
    """Mean steerability by steered layer.

    Parameters
    ----------
    frame : DataFrame
        Columns layer, estimate, ci_low, ci_high; optionally dataset, for thin lines behind the mean;
        without it, the one dataset's means over inputs.
    chosen : int, optional
    lowest : bool
        The lowest is the best, because vectors are taken out (operator ablate); the drawing says so.

    Examples
    --------
    >>> import pandas as pd
    >>> from steerstats import figures
    >>> layers = {"layer": [8, 12, 16], "estimate": [0.2, 0.9, 0.4]}
    >>> limits = {"ci_low": [0.1, 0.7, 0.2], "ci_high": [0.3, 1.1, 0.6]}
    >>> _, ax = figures.canvas()
    >>> ax = figures.layer_profile(pd.DataFrame(layers | limits), ax=ax, chosen=12)
    >>> ax.get_legend_handles_labels()[1]
    ['mean over inputs', 'layer 12 is chosen']
    """
    own = frame[frame["dataset"].notna()].groupby("dataset", sort=False) if "dataset" in frame else ()
    for _, rows in own:
        ax.plot(rows["layer"], rows["estimate"], color=MUTED, alpha=0.4, linewidth=0.8, zorder=1.8)
    mean = frame[frame["dataset"].isna()] if "dataset" in frame else frame
    label = f"mean over {'datasets' if 'dataset' in frame else 'inputs'}"
    curve(ax, mean["layer"], mean["estimate"], mean["ci_low"], mean["ci_high"], label=label)
    zero_line(ax, "y")
    if chosen is not None:
        why = " (lowest: strongest removal)" if lowest else ""
        ax.axvline(chosen, color=GREEN, linewidth=1.2, label=f"layer {chosen} is chosen{why}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no layer 1.5
    ax.set_xlabel("steered layer (output of decoder block)")
    ax.set_ylabel("mean " + SLOPE)
    return key(ax)
