"""Figures are judged by their artists: what is drawn where, in which colour, and that nothing is drawn that is not."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from drawn import bars

from steerstats import figures
from steerstats.figures import bias, parts, theme

NAMES = ["alpha", "beta", "gamma"]
ROWS = pd.DataFrame(
    {"dataset": NAMES, "estimate": [0.1, 0.3, 0.6], "ci_low": [0.05, 0.2, 0.5], "ci_high": [0.2, 0.4, 0.7]}
)


@pytest.fixture
def ax():
    with figures.style():
        yield figures.canvas(width=4, height=3)[1]


# --- marks ----------------------------------------------------------------------------------------


def test_an_interval_is_drawn_where_it_is_and_nowhere_else(ax):
    parts.intervals(ax, [0, 1, 2], [0.1, 0.3, 0.6], [0.0, np.nan, 0.5], [0.2, np.nan, 0.7])
    assert bars(ax) == [(0.0, 0.0, 0.2), (2.0, 0.5, 0.7)]
    points = ax.lines[-1]
    assert list(points.get_xdata()) == [0.1, 0.3, 0.6], "an estimate without an interval is still a point"


@pytest.mark.parametrize(
    ("low", "high", "bar", "arrow"), [(-np.inf, 0.8, (0.0, -1.0, 0.8), "<"), (0.2, np.inf, (0.0, 0.2, 2.0), ">")]
)
def test_an_interval_without_end_runs_to_the_edge_with_an_arrow(ax, low, high, bar, arrow):
    ax.set_xlim(-1, 2)
    parts.intervals(ax, [0], [0.5], [low], [high])
    assert bars(ax) == [bar]
    arrows = {line.get_marker(): float(np.ravel(line.get_xdata())[0]) for line in ax.lines if line.get_marker() in "<>"}
    assert arrows == {arrow: -1.0 if arrow == "<" else 2.0}


def test_dots_split_at_zero_and_do_not_depend_on_a_random_state(ax):
    values = np.array([-0.5, 0.2, 1.0, -0.1, 0.0])
    np.random.seed(1)  # noqa: NPY002
    parts.dots(ax, 0, values)
    first = [np.array(c.get_offsets()) for c in ax.collections]
    np.random.seed(2)  # noqa: NPY002
    parts.dots(ax, 0, values)
    again = [np.array(c.get_offsets()) for c in ax.collections[2:]]
    assert [len(part) for part in first] == [2, 3], "below zero, and zero or above"
    assert (first[0][:, 0] < 0).all()
    assert (first[1][:, 0] >= 0).all()
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert all((np.abs(part[:, 1]) <= 0.34 + 1e-12).all() for part in first), "dots stay in their row"
    assert np.diff(np.sort(np.concatenate(first)[:, 1])).min() > 0.01, "none hides another"
    assert all(c.get_rasterized() for c in ax.collections)


def test_rows_of_datasets_read_from_the_top(ax):
    parts.dataset_axis(ax, NAMES)
    assert [t.get_text() for t in ax.get_yticklabels()] == NAMES
    assert ax.get_ylim() == (2.5, -0.5)


@pytest.mark.parametrize(("rows", "above"), [(parts.TALL, False), (parts.TALL + 1, True)])
def test_a_tall_list_has_its_scale_above_as_well(ax, rows, above):
    parts.dataset_axis(ax, [f"d{k}" for k in range(rows)])
    ax.set_xlabel("steerability")
    ax.figure.canvas.draw()
    assert [tick.label2.get_visible() for tick in ax.xaxis.get_major_ticks()] == [above] * len(ax.get_xticks())
    assert all(tick.label1.get_visible() for tick in ax.xaxis.get_major_ticks())
    assert bool(ax.xaxis.label.get_window_extent().y0 > ax.get_window_extent().y1) is above


@pytest.mark.parametrize(("words", "lines"), [("short", 1), ("what the prompt does to any vector", 3)])
def test_the_key_of_a_figure_is_above_it_and_no_wider_than_a_phone_shows(words, lines):
    with figures.style():
        figure, ax = figures.canvas(width=8.4, height=3)
        for k in range(3):
            ax.plot([0, 1], label=f"{words} {k}")
        figures.key_outside(figure, ax, columns=3)
        figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x1 <= parts.PHONE * figure.dpi * 1.02
    assert box.y0 >= ax.get_window_extent().y1
    assert figure.get_figheight() == pytest.approx(3 + parts.KEY_LINE * (lines - 1)), "the axes lose nothing to it"


def test_long_names_keep_both_ends():
    name = "willingness-to-use-social-engineering-to-achieve-its-goals"
    shown = theme.short(name, 34)
    assert len(shown) == 34
    head, tail = shown.split("…")
    assert name.startswith(head)
    assert name.endswith(tail)
    assert theme.short("short") == "short"


@pytest.mark.parametrize("limit", [20, 24, 34])
def test_long_names_that_differ_in_the_middle_are_not_cut_to_one_label(limit):
    names = [
        f"a-very-long-name-about-the-desire-to-{k:02d}-acquire-power-in-{j}-years-or-so"
        for k in range(20)
        for j in (1, 2)
    ]
    names += ["x" * 40, "x" * 50, "plain", "willingness-to-use-social-engineering-to-achieve-its-goals"]
    shown = theme.shorts(names, limit)
    assert len(set(shown)) == len(names)
    assert max(map(len, shown)) <= limit + 2
    assert shown[-2:] == ["plain", theme.short(names[-1], limit)], "what stood apart is cut as before"
    _, ax = figures.canvas()
    parts.dataset_axis(ax, names[:40])
    assert len({text.get_text() for text in ax.get_yticklabels()}) == 40


# --- figures --------------------------------------------------------------------------------------


def test_figure_1_draws_every_input_and_the_median(ax):
    slopes = {"a": np.array([-1.0, 0.5, 2.0]), "b": np.array([0.1, 0.2])}
    figures.per_input(slopes, {"a": 0.5, "b": 0.15}, ax=ax)
    assert sum(len(c.get_offsets()) for c in ax.collections) == 5
    medians = [line for line in ax.lines if line.get_linewidth() == 1.8]
    assert [line.get_xdata()[0] for line in medians] == [0.5, 0.15]
    assert "nat per unit multiplier" in ax.get_xlabel()


def test_anti_steerable_shares_are_in_per_cent_with_half_marked(ax):
    figures.anti_share(ROWS, ax=ax, labels=True)
    assert bars(ax) == [(0.0, 0.05, 0.2), (1.0, 0.2, 0.4), (2.0, 0.5, 0.7)]
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in ax.lines)
    assert {line.get_color() for line in ax.lines if line.get_marker() == "s"} == {theme.ANTI}
    assert ax.xaxis.get_major_formatter()(0.2, 0) == "20%"


@pytest.mark.parametrize(
    ("draw", "names"),
    [
        (figures.anti_share, ("estimate", "ci_low", "ci_high")),
        (figures.misfit_rows, ("distance", "distance_low", "distance_high")),
        (figures.total_share, ("share", "ci_low", "ci_high")),
    ],
)
@pytest.mark.parametrize("limits", [(-np.inf, np.inf), (np.nan, np.nan), (-0.1, 0.5)])
def test_an_axis_holds_points_whose_limits_are_infinite_missing_or_beside_them(ax, draw, names, limits):
    point = -0.4 if draw is figures.total_share else 2.4
    draw(pd.DataFrame([dict(zip(names, (point, *limits))) | {"dataset": "alpha"}]), ax=ax)
    low, high = ax.get_xlim()
    assert low < point < high


def test_agreement_marks_equality_on_one_scale(ax):
    frame = pd.DataFrame({"x": [0.0, 1.0], "y": [-0.5, 2.0]})
    figures.agreement(frame, ax=ax, xlabel="x", ylabel="y", remark="Spearman 0.5")
    assert ax.get_xlim() == ax.get_ylim()
    low, high = ax.get_xlim()
    assert low < -0.5 < 2 < high
    assert any(list(line.get_xdata()) == [low, high] and list(line.get_ydata()) == [low, high] for line in ax.lines)
    assert ax.get_title(loc="left") == "Spearman 0.5"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")


def test_gap_and_its_parts_share_a_row_and_differ_in_marker_and_colour(ax):
    frame = pd.DataFrame(
        [(n, c, e, e - 0.1, e + 0.1) for n in NAMES for c, e in (("gap", 0.5), ("prompt", 0.3), ("transfer", 0.2))],
        columns=["dataset", "component", "estimate", "ci_low", "ci_high"],
    )
    figures.gap_rows(frame, ax=ax)
    marks = [line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata()) == 3]
    assert len({line.get_marker() for line in marks}) == 3
    assert len({line.get_color() for line in marks}) == 3
    places = np.array([line.get_ydata() for line in marks])
    assert (np.abs(places - np.arange(3)) < 0.5).all()


def test_variance_shares_stack_to_their_sum_and_show_negative_ones_left_of_zero(ax):
    frame = pd.DataFrame(
        [("a", "pos_is_a", 0.4), ("a", "pos_is_yes", -0.1), ("a", "unexplained", 0.7)],
        columns=["dataset", "component", "share"],
    )
    figures.variance_shares(frame, ax=ax)
    edges = [sorted((p.get_x(), p.get_x() + p.get_width())) for p in ax.patches]
    assert np.allclose(edges, [(0.0, 0.4), (-0.1, 0.0), (0.4, 1.1)])


def test_dots_of_what_is_explained_are_not_cut_at_the_ends(ax):
    frame = pd.DataFrame({"dataset": ["a", "b"], "share": [-0.03, 0.99], "ci_low": [-0.034, 0.97], "ci_high": [0.1, 1]})
    figures.total_share(frame, ax=ax)
    ax.figure.draw_without_rendering()
    ends, dots = ax.get_window_extent(), ax.transData.transform([(share, 0) for share in frame["share"]])[:, 0]
    assert ends.x0 + 4 < dots.min()
    assert dots.max() < ends.x1 - 4


def test_what_is_unexplained_is_last_where_datasets_know_of_different_factors_and_nothing_has_no_edge(ax):
    rows = [("a", "pos_is_a", 0.4), ("a", "unexplained", 0.6), ("b", "pos_is_yes", 0.9), ("b", "unexplained", 0.1)]
    figures.variance_shares(pd.DataFrame(rows, columns=["dataset", "component", "share"]), ax=ax)
    assert ax.get_legend_handles_labels()[1] == ["A or B", "Yes or No", "unexplained"]
    assert [bar.get_linewidth() for bar in ax.patches if bar.get_width() == 0] == [0, 0]
    assert {bar.get_linewidth() for bar in ax.patches if bar.get_width()} == {0.5}


def test_a_kind_of_option_without_inputs_has_no_mark_and_six_kinds_are_told_apart(ax):
    cells = [f"{letter}, {word}" for letter in "AB" for word in ("Yes", "No", "neither")]
    frame = pd.DataFrame({"dataset": "a", "cell": cells, "mean": np.arange(6.0), "ci_low": -1.0, "ci_high": 1.0})
    frame.loc[2, ["mean", "ci_low", "ci_high"]] = np.nan
    figures.by_option(frame, ax=ax)
    labelled = {t: h for h, t in zip(*ax.get_legend_handles_labels())}
    drawn = {name: len(handle.get_xdata()) for name, handle in labelled.items()}
    assert drawn["A, neither"] == 0
    assert sum(drawn.values()) == 5
    looks = {(h.get_color(), h.get_marker(), h.get_markerfacecolor() == "none") for h in labelled.values()}
    assert len(looks) == 6


def test_answers_that_are_neither_letter_have_colours_of_their_own():
    lettered = [f"{letter}, {word}" for letter in "AB" for word in ("Yes", "No", "neither")]
    for others in (["neither, neither"], ["neither, Yes", "neither, No", "neither, neither"]):
        cells = [*lettered, *others]
        rows = pd.DataFrame({"dataset": "a", "cell": cells, "mean": 1.0, "ci_low": 0.0, "ci_high": 2.0, "n": 1})
        with figures.style():
            marks, bars = (figures.canvas()[1] for _ in range(2))
            figures.by_option(rows, ax=marks)
            figures.option_counts(rows, ax=bars)
        colours = {text: handle.get_color() for handle, text in zip(*marks.get_legend_handles_labels())}
        assert len({colours[name] for name in others} - {colours[name] for name in lettered}) == len(others)
        filled = {one.get_label(): mpl.colors.to_hex(one[0].get_facecolor()) for one in bars.containers}
        assert {name: filled[name] for name in others} == {name: colours[name] for name in others}


def test_a_colour_means_the_same_in_neighbouring_figures():
    cells = pd.DataFrame({"dataset": "a", "cell": [f"{a}, {b}" for a in "AB" for b in ("Yes", "No", "neither")]})
    shares = pd.DataFrame({"dataset": "a", "component": [*bias.COMPONENT_COLOURS, "length_difference", "topic"]})
    pooled = ROWS.replace("gamma", "mean")
    with figures.style():
        axes = [figures.canvas()[1] for _ in range(3)]
        figures.by_option(cells.assign(mean=1.0, ci_low=0.0, ci_high=2.0), ax=axes[0])
        figures.variance_shares(shares.assign(share=0.1), ax=axes[1])
        figures.effect_rows(pooled, ax=axes[2], xlabel="x", pooled="mean")
    kinds = {text: handle.get_color() for handle, text in zip(*axes[0].get_legend_handles_labels())}
    parts_of = {bars.get_label(): mpl.colors.to_hex(bars[0].get_facecolor()) for bars in axes[1].containers}
    assert kinds["A, Yes"] == kinds["B, Yes"] == parts_of["Yes or No"]
    assert parts_of["A or B"] not in kinds.values()
    assert len({parts_of[name] for name in ("option length", "topic", "A or B", "Yes or No", "their interaction")}) == 5
    drawn = {line.get_color() for line in axes[2].lines if line.get_marker() == "D"}
    assert drawn == {theme.INK}, "the mean over datasets"
    assert theme.VERMILLION not in {*kinds.values(), *parts_of.values(), *theme.SERIES}, "it says harm"


def test_self_pairs_are_marked_apart(ax):
    frame = pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [1.0, 0.5, 0.4], "self_pair": [True, False, False]})
    figures.propensity_and_relative(frame, ax=ax, xlabel="x", ylabel="y")
    assert sorted(len(c.get_offsets()) for c in ax.collections) == [1, 2]
    figures.propensity_and_relative(frame[1:], ax=ax, xlabel="x", ylabel="y")
    assert len(ax.collections) == 3, "without self-pairs nothing is marked"


def test_a_collapsed_dataset_is_drawn_in_the_colour_of_warning(ax):
    frame = pd.DataFrame(
        {"dataset": ["a", "a", "b", "b"], "multiplier": [0, 1, 0, 1], "estimate": [0.9, 0.8, 0.9, 0.3]}
    )
    figures.mass_curves(frame, ax=ax, collapsed=["b"])
    assert [line.get_color() for line in ax.lines] == [theme.BLUE, theme.VERMILLION]


@pytest.mark.parametrize(("least", "bottom"), [(0.97, 0.9), (0.89, 0.0)])
def test_an_axis_of_probability_is_cut_where_nothing_is_lost_and_says_so(ax, least, bottom):
    figures.mass_curves(pd.DataFrame({"dataset": "a", "multiplier": [0, 1], "estimate": [1.0, least]}), ax=ax)
    low, high = ax.get_ylim()
    assert low == bottom
    assert 1 <= high < 1.01
    assert ("axis from 90%" in ax.get_ylabel()) is (bottom > 0)


@pytest.mark.parametrize(("banded", "bands"), [(10, 1), (None, 0), (7, 0)])
def test_the_smallest_gap_has_the_band_of_one_number_of_datasets(ax, banded, bands):
    frame = pd.DataFrame({"n_inputs": [50, 500] * 2, "n_datasets": [10, 10, 40, 40], "effect": [0.4, 0.3, 0.2, 0.1]})
    frame = frame.assign(effect_low=frame["effect"] / 2, effect_high=frame["effect"] * 3)
    figures.detectable_effect(frame, ax=ax, banded=banded)
    assert len(ax.collections) == bands
    for band in ax.collections:
        corners = {tuple(row) for row in band.get_paths()[0].vertices.round(6)}
        assert {(50, 0.2), (500, 0.15), (50, 1.2), (500, 0.9)} <= corners


def test_the_band_over_inputs_is_labelled_as_what_it_is(ax):
    rows = pd.DataFrame({"multiplier": [-1.0, 0, 1], "estimate": [0.0, 1, 2], "ci_low": [-1.0, 0, 1],
                         "ci_high": [1.0, 2, 3], "low": -2.0, "high": 4.0})  # fmt: skip
    figures.propensity_curve(rows, ax=ax, band="middle 80% of inputs")
    assert "middle 80% of inputs" in ax.get_legend_handles_labels()[1]


# --- what a picture showed and no artist's test asked -----------------------------------------------


def test_every_column_of_small_multiples_has_its_multipliers_below():
    rows = [(f"d{k}", m, 0.1 * m, 0.1 * m - 1, 0.1 * m + 1) for k in range(6) for m in (-1.0, 0.0, 1.0)]
    frame = pd.DataFrame(rows, columns=["dataset", "multiplier", "estimate", "ci_low", "ci_high"])
    with figures.style():
        figure, axes = figures.canvas(2, 4, height=4, sharex=True)
        figures.propensity_curves(frame, axes.ravel())
        figure.canvas.draw()
    drawn = [ax for ax in axes.ravel() if ax.get_visible()]
    below = [any(label.get_visible() and label.get_text() for label in ax.get_xticklabels()) for ax in drawn]
    assert below == [False, False, True, True, True, True], "two columns end in the first row"
    assert [label.get_text() for label in drawn[-1].get_xticklabels()] == ["−1", "0", "1"]


def test_a_share_is_in_per_cent_and_never_below_zero(ax):
    frame = pd.DataFrame({"dataset": ["a", "a"], "range": [0.5, 1.0], "value": [0.0, 0.0]})
    figures.range_sensitivity(frame, ax=ax, value="value", ylabel="x", share=True)
    ax.figure.canvas.draw()
    assert all(label.get_text().endswith("%") for label in ax.get_yticklabels())
    assert [tick for tick in ax.get_yticks() if ax.get_ylim()[0] <= tick < 0] == []
    figures.range_sensitivity(frame.assign(value=[0.4, 0.0]), ax=ax, value="value", ylabel="x", share=True)
    assert ax.get_ylim()[1] > 0.4


def test_rounding_errors_make_no_axis(ax):
    frame = pd.DataFrame({"dataset": ["a", "a"], "range": [0.5, 1.0], "value": [0.3, 0.3 + 1e-9]})
    figures.range_sensitivity(frame, ax=ax, value="value", ylabel="x")
    assert ax.get_ylim()[1] - ax.get_ylim()[0] > 0.01
    with figures.style():
        other = figures.canvas()[1]
        figures.slope_and_misfit(pd.DataFrame({"slope": [0.1, 0.2], "rmse": [1e-9, 3e-9]}), ax=other)
        other.figure.canvas.draw()
    assert other.get_ylim() == (0, 0.001)
    for axis in (ax.yaxis, other.yaxis):
        assert axis.get_offset_text().get_text() == ""


@pytest.mark.parametrize(("low", "high"), [(0.7, 1.5), (0.97, 1.02), (0.6, 1.0)])
def test_an_axis_of_ratios_near_1_has_more_than_one_number(ax, low, high):
    frame = pd.DataFrame({"dataset": ["a", "b"], "shift": "base->base", "estimate": [low, high]})
    figures.spread_rows(frame.assign(ci_low=low, ci_high=high), ax=ax, xlabel="x", ratios=True)
    ax.figure.canvas.draw()
    left, right = ax.get_xlim()
    seen = [t.get_text() for t, at in zip(ax.get_xticklabels(), ax.get_xticks()) if left <= at <= right]
    assert "1" in seen
    assert len(seen) >= 3


def test_an_axis_of_ratios_far_from_1_holds_it_and_one_with_a_ratio_of_0_is_linear(ax):
    frame = pd.DataFrame({"dataset": ["a", "b"], "shift": "base->base", "estimate": [3.0, 20.0]})
    figures.spread_rows(frame.assign(ci_low=2.0, ci_high=30.0), ax=ax, xlabel="x", ratios=True)
    left, right = ax.get_xlim()
    assert left < 1 < 30 < right
    assert any(list(line.get_xdata()) == [1, 1] for line in ax.lines), "1 is marked"
    assert {2.0, 5.0, 10.0} <= set(ax.get_xticks())  # over few decades more than powers of ten
    _, other = figures.canvas()
    figures.spread_rows(frame.assign(estimate=0.0, ci_low=0.0, ci_high=1.0), ax=other, xlabel="x", ratios=True)
    assert (ax.get_xscale(), other.get_xscale()) == ("log", "linear")


def test_both_axes_of_an_agreement_have_the_same_ticks(ax):
    frame = pd.DataFrame({"x": [0.07, 0.13, 0.23], "y": [0.1, 0.23, 0.01]})
    figures.agreement(frame, ax=ax, xlabel="one", ylabel="other")
    ax.figure.canvas.draw()
    assert ax.get_xticks().tolist() == ax.get_yticks().tolist()


def test_scores_in_units_far_apart_have_a_scale_for_each_axis(ax):
    frame = pd.DataFrame({"x": [0.2, 0.5, 1.5], "y": [800.0, 2000.0, 5000.0]})
    figures.agreement(frame, ax=ax, xlabel="one", ylabel="other")
    assert ax.get_xlim()[1] < 2
    assert ax.get_aspect() == "auto"


def test_layers_are_whole_numbers(ax):
    layers = {"layer": [0, 1, 2, 3], "estimate": [0.0, 0.1, 0.2, 0.1]}
    figures.layer_profile(pd.DataFrame(layers | {"ci_low": [0.0] * 4, "ci_high": [0.3] * 4}), ax=ax, chosen=2)
    ax.figure.canvas.draw()
    assert all(tick == int(tick) for tick in ax.get_xticks())


def test_a_panel_of_which_nothing_is_known_says_so_in_place_of_an_empty_frame(ax):
    figures.foretelling(pd.DataFrame({"x": [np.nan, 1.0], "y": [1.0, np.nan]}), ax=ax, xlabel="x", ylabel="y")
    assert [text.get_text() for text in ax.texts] == ["known in no dataset"]
    assert not ax.get_xticks().size
    _, other = figures.canvas()
    figures.foretelling(pd.DataFrame({"x": [np.nan, 1.0], "y": [1.0, 2.0]}), ax=other, xlabel="x", ylabel="y")
    assert not other.texts
