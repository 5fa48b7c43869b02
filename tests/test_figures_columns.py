"""Every mark of a figure is of its own column, in its own row, and the axes and the key say what it is."""

from __future__ import annotations

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from drawn import bars, corners, hairs, marks

from steerstats import figures
from steerstats.figures import parts, theme

NAMES = ["gamma", "alpha", "beta"]  # not in the order of the alphabet
ROWS = pd.DataFrame(
    {"dataset": NAMES, "estimate": [0.1, 0.3, 0.6], "ci_low": [0.05, 0.2, 0.5], "ci_high": [0.2, 0.4, 0.7]}
)
BARS = [(0.0, 0.05, 0.2), (1.0, 0.2, 0.4), (2.0, 0.5, 0.7)]


@pytest.fixture
def ax():
    with figures.style():
        yield figures.canvas(width=4, height=3)[1]


def segments(ax):
    return [hairs(one) for one in ax.collections if isinstance(one, mpl.collections.LineCollection)]


# --- limits and rows ------------------------------------------------------------------------------

ONE_SERIES = {
    "anti_share": figures.anti_share,
    "misfit_rows": lambda rows, ax: figures.misfit_rows(
        rows.set_axis(["dataset", "distance", "distance_low", "distance_high"], axis=1), ax=ax
    ),
    "total_share": lambda rows, ax: figures.total_share(rows.rename(columns={"estimate": "share"}), ax=ax),
    "effect_rows": lambda rows, ax: figures.effect_rows(rows, ax=ax, xlabel="x", pooled="beta"),
    "by_option": lambda rows, ax: figures.by_option(rows.rename(columns={"estimate": "mean"}).assign(cell="A"), ax=ax),
    "gap_rows": lambda rows, ax: figures.gap_rows(rows.assign(component="gap"), ax=ax),
    "spread_rows": lambda rows, ax: figures.spread_rows(rows.assign(shift="base->base"), ax=ax, xlabel="x"),
    "coefficient_rows": lambda rows, ax: figures.coefficient_rows(
        rows.rename(columns={"dataset": "label"}), ax=ax, xlabel="x"
    ),
    "paired_rows": lambda rows, ax: figures.paired_rows(rows.assign(band_low=-1.0, band_high=2.0), ax=ax, xlabel="x"),
}


@pytest.mark.parametrize("name", ONE_SERIES)
def test_each_rows_interval_has_its_own_limits(ax, name):
    ONE_SERIES[name](ROWS, ax=ax)
    assert sorted(bars(ax)) == BARS
    points = [line for line in ax.lines if line.get_linestyle() == "None"]
    drawn = sorted((y, x) for line in points for x, y in zip(line.get_xdata(), line.get_ydata()))
    assert drawn == [(0.0, 0.1), (1.0, 0.3), (2.0, 0.6)]


SEVERAL_SERIES = {
    "by_option": ("cell", ["A, Yes", "B, No"], figures.by_option),
    "gap_rows": ("component", ["gap", "transfer"], figures.gap_rows),
    "spread_rows": ("shift", ["base->base", "base->user_neg"], figures.spread_rows),
}


@pytest.mark.parametrize("name", SEVERAL_SERIES)
def test_a_row_that_lacks_a_series_leaves_the_others_in_their_rows(ax, name):
    column, (first, second), draw = SEVERAL_SERIES[name]
    rows = ROWS.assign(mean=ROWS["estimate"])
    frame = pd.concat([rows.assign(**{column: first}), rows[1:].assign(**{column: second})])
    draw(frame, ax=ax, **({"xlabel": "x"} if name == "spread_rows" else {}))
    places = [place for place, *_ in bars(ax)]
    assert [round(place) for place in places] == [0, 1, 2, 1, 2]
    assert len(set(places)) == 5, "beside each other, not on each other"
    assert [places[1] + places[3], places[2] + places[4]] == pytest.approx([2, 4]), "on either side of their row"


def test_one_number_under_two_vectors_has_the_limits_of_each_and_a_line_between(ax):
    frame = ROWS.rename(columns={"estimate": "before", "ci_low": "before_low", "ci_high": "before_high"})
    frame = frame.assign(after=[-0.1, -0.2, -0.3], after_low=[-0.4, -0.5, -0.6], after_high=[-0.01, -0.02, -0.03])
    figures.before_and_after(frame, ax=ax, names=("as trained", "debiased"))
    assert [bar[1:] for bar in bars(ax)] == [bar[1:] for bar in BARS] + [(-0.4, -0.01), (-0.5, -0.02), (-0.6, -0.03)]
    assert [x for x, _ in marks(ax, "as trained")] == [0.1, 0.3, 0.6]
    assert [x for x, _ in marks(ax, "debiased")] == [-0.1, -0.2, -0.3]
    places = [[y for _, y in marks(ax, name)] for name in ("as trained", "debiased")]
    assert all(k - 0.5 < one < k < other < k + 0.5 for k, (one, other) in enumerate(zip(*places))), "side by side"
    assert segments(ax)[0] == [((b, k), (a, k)) for k, (b, a) in enumerate(zip(frame["before"], frame["after"]))]


def test_two_intervals_of_one_estimate_are_thick_inside_and_thin_outside(ax):
    frame = ROWS.rename(columns={"ci_low": "inner_low", "ci_high": "inner_high"})
    frame = frame.assign(outer_low=[-1.0, -2.0, -3.0], outer_high=[1.0, 2.0, 3.0])
    figures.two_intervals(frame, ax=ax, xlabel="x", names=("inputs", "inputs and vector"))
    drawn = {one.get_label(): (hairs(one), one.get_linewidth()[0]) for one in ax.collections}
    assert drawn["inputs"] == ([((a, k), (b, k)) for k, a, b in BARS], 3.4)
    assert drawn["inputs and vector"] == ([((-k - 1.0, k), (k + 1.0, k)) for k in range(3)], 1.0)
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines), "nothing moved"


def test_the_band_for_all_at_once_is_a_hair_line_behind_each_interval(ax):
    figures.paired_rows(ROWS.assign(band_low=[-1.0, -2.0, -3.0], band_high=[1.0, 2.0, 3.0]), ax=ax, xlabel="x")
    assert segments(ax) == [[((-k - 1.0, k), (k + 1.0, k)) for k in range(3)]]
    assert ax.get_xlim()[0] < -3 < 3 < ax.get_xlim()[1]


def test_hair_lines_of_an_agreement_are_each_axis_own_limits(ax):
    frame = pd.DataFrame({"x": [0.1, 0.5], "x_low": [0.0, 0.4], "x_high": [0.2, 0.7],
                          "y": [0.3, 0.9], "y_low": [0.25, 0.8], "y_high": [0.35, 1.1]})  # fmt: skip
    figures.agreement(frame, ax=ax, xlabel="x", ylabel="y")
    assert segments(ax) == [
        [((0.0, 0.3), (0.2, 0.3)), ((0.4, 0.9), (0.7, 0.9))],
        [((0.1, 0.25), (0.1, 0.35)), ((0.5, 0.8), (0.5, 1.1))],
    ]
    (points,) = [one for one in ax.collections if isinstance(one, mpl.collections.PathCollection)]
    assert points.get_offsets().tolist() == [[0.1, 0.3], [0.5, 0.9]]


def test_a_share_whose_limit_lies_far_out_is_drawn_to_its_limit(ax):
    figures.anti_share(ROWS.assign(ci_high=[0.2, 0.4, 0.95]), ax=ax)
    assert ax.get_xlim()[1] > 0.95


# --- nulls ----------------------------------------------------------------------------------------


def test_the_range_of_each_kind_of_null_vectors_is_drawn_both_ways_from_zero(ax):
    frame = pd.DataFrame({"dataset": ["b", "a"] * 2, "kind": ["random"] * 2 + ["shuffled"] * 2,
                          "mean": [0.5, -0.7] * 2, "null_abs_quantile": [0.1, 0.2, 0.3, 0.4]})  # fmt: skip
    figures.against_null(frame, ax=ax)
    drawn = {
        box.get_label(): [(bar.get_x(), bar.get_x() + bar.get_width(), round(bar.get_y())) for bar in box]
        for box in ax.containers
    }
    assert drawn == {
        "random directions": [(-0.1, 0.1, 0), (-0.2, 0.2, 1)],
        "label-shuffled vectors": [(-0.3, 0.3, 0), (-0.4, 0.4, 1)],
    }
    edges = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for box in ax.containers for bar in box)
    assert all(below[1] < above[0] for below, above in pairwise(edges)), "none hides another"
    assert marks(ax, "the dataset's vector") == [(0.5, 0.0), (-0.7, 1.0)]
    _, other = figures.canvas()
    figures.against_null(frame.iloc[[2, 1, 0]], ax=other)  # "a" has random ones alone
    lacking = {box.get_label(): [round(bar.get_y()) for bar in box if bar.get_width() > 0] for box in other.containers}
    assert lacking == {"random directions": [0, 1], "label-shuffled vectors": [0]}


def test_the_vectors_share_stands_before_the_range_of_null_shares(ax):
    null = {"low": [0.3, 0.4], "median": [0.5, 0.6], "high": [0.7, 0.8]}
    frame = pd.DataFrame({f"null_anti_steerable_{name}": values for name, values in null.items()})
    frame = frame.assign(dataset=["b", "a"], anti_steerable=[0.1, 0.2])
    figures.null_share(frame, ax=ax)
    assert segments(ax) == [[((0.3, 0), (0.7, 0)), ((0.4, 1), (0.8, 1))]]
    assert marks(ax, "median null share") == [(0.5, 0.0), (0.6, 1.0)]
    assert marks(ax, "the vector's share") == [(0.1, 0.0), (0.2, 1.0)]


# --- inputs, curves and bands ---------------------------------------------------------------------


def test_inputs_below_zero_have_the_colour_of_harm(ax):
    parts.dots(ax, 0, np.array([-0.5, 0.2]))
    frame = pd.DataFrame({"slope": [-0.5, 0.2], "rmse": [0.1, 0.3]})
    figures.slope_and_misfit(frame, ax=ax)
    for collection in ax.collections:
        below = (collection.get_offsets()[:, 0] < 0).all()
        colour = mpl.colors.to_hex(collection.get_facecolor()[0])
        assert colour == (theme.DOT_RED if below else theme.DOT_BLUE)
        assert collection.get_label() in (f"_child{0 if below else 1}", "anti-steerable" if below else "steerable")


def test_a_propensity_curve_has_its_means_intervals_and_the_band_over_inputs(ax):
    rows = pd.DataFrame({"multiplier": [-1.0, 1.0], "estimate": [0.0, 1.0], "ci_low": [-0.1, 0.8],
                         "ci_high": [0.2, 1.3], "low": [-2.0, -3.0], "high": [4.0, 5.0]})  # fmt: skip
    figures.propensity_curve(rows, ax=ax, band="middle 80% of inputs")
    assert segments(ax) == [[((-1.0, -0.1), (-1.0, 0.2)), ((1.0, 0.8), (1.0, 1.3))]]
    band = next(one for one in ax.collections if one.get_label() == "middle 80% of inputs")
    assert {(-1.0, -2.0), (1.0, -3.0), (-1.0, 4.0), (1.0, 5.0)} <= corners(band)
    assert marks(ax, "mean over inputs") == [(-1.0, 0.0), (1.0, 1.0)]
    assert any(list(line.get_ydata()) == [0, 0] for line in ax.lines), "where the answers are even"


@pytest.mark.parametrize(("datasets", "bands"), [(5, 5), (6, 0)])
def test_a_few_datasets_have_bands_over_ranges_and_many_would_hide_each_other(ax, datasets, bands):
    rows = [(f"d{k}", width, k + width, k - width, k + 2 * width) for k in range(datasets) for width in (0.5, 1.0)]
    frame = pd.DataFrame(rows, columns=["dataset", "range", "value", "ci_low", "ci_high"])
    figures.range_sensitivity(frame, ax=ax, value="value", ylabel="x")
    assert len(ax.collections) == bands
    for k, band in enumerate(ax.collections):
        assert {(0.5, k - 0.5), (1.0, k - 1.0), (0.5, k + 1.0), (1.0, k + 2.0)} <= corners(band)


def test_the_profile_over_layers_is_the_mean_before_its_datasets(ax):
    frame = pd.DataFrame([("a", 1, 0.1), ("a", 2, 0.2), ("b", 1, 0.5), ("b", 2, 0.6), (None, 1, 0.3), (None, 2, 0.4)],
                         columns=["dataset", "layer", "estimate"])  # fmt: skip
    frame = frame.assign(ci_low=frame["estimate"] - 0.1, ci_high=frame["estimate"] + 0.2)
    figures.layer_profile(frame, ax=ax, chosen=2, lowest=True)
    assert marks(ax, "mean over datasets") == [(1.0, 0.3), (2.0, 0.4)]
    assert {(1.0, 0.2), (2.0, 0.3), (1.0, 0.5), (2.0, 0.6)} <= corners(ax.collections[0])
    thin = [list(line.get_ydata()) for line in ax.lines if line.get_linewidth() == 0.8 and len(line.get_xdata()) == 2]
    assert [0.1, 0.2] in thin
    assert [0.5, 0.6] in thin
    assert {x for x, _ in marks(ax, "layer 2 is chosen (lowest: strongest removal)")} == {2.0}
    other = figures.canvas()[1]
    figures.layer_profile(frame[:2].drop(columns="dataset"), ax=other)
    assert other.get_legend_handles_labels()[1] == ["mean over inputs"]


def test_the_gap_that_was_seen_and_the_study_as_it_is_are_lines(ax):
    frame = pd.DataFrame({"n_inputs": [50, 500], "n_datasets": [10, 10], "effect": [0.4, 0.3]})
    figures.detectable_effect(frame, ax=ax, observed=0.1, current=60)
    assert {y for _, y in marks(ax, "gap seen here")} == {0.1}
    assert {x for x, _ in marks(ax, "questions per dataset here")} == {60.0}
    assert (ax.get_xscale(), [tick.get_text() for tick in ax.get_xticklabels()]) == ("log", ["50", "500"])
    assert ax.get_ylim()[0] == 0


def test_flagged_datasets_are_counted_among_datasets(ax):
    frame = pd.DataFrame(
        {"dataset": ["a", "a", "b", "b"], "multiplier": [0, 1, 0, 1], "estimate": [0.9, 0.8, 0.9, 0.3]}
    )
    figures.mass_curves(frame, ax=ax, collapsed=["b"])
    assert [(text.get_text(), text.get_position()[1] < 0.5) for text in ax.texts] == [("flagged: 1 of 2", True)]


# --- bars and tables ------------------------------------------------------------------------------


def test_counts_and_shares_stand_in_the_rows_of_their_datasets(ax):
    counts = [("b", "A, Yes", 3), ("b", "B, Yes", 5), ("a", "A, Yes", 7)]
    figures.option_counts(pd.DataFrame(counts, columns=["dataset", "cell", "n"]), ax=ax)
    drawn = {box.get_label(): [bar.get_width() for bar in box] for box in ax.containers}
    assert drawn == {"A, Yes": [3, 7], "B, Yes": [5, 0]}
    pale = {box.get_label(): box[0].get_alpha() for box in ax.containers}
    assert pale == {"A, Yes": None, "B, Yes": 0.42}, "colours tell the word alone"
    shares = [("b", "pos_is_a", 0.3), ("a", "pos_is_yes", 0.2), ("b", "unexplained", 0.7), ("a", "unexplained", 0.8)]
    other = figures.canvas()[1]
    figures.variance_shares(pd.DataFrame(shares, columns=["dataset", "component", "share"]), ax=other)
    drawn = {box.get_label(): [bar.get_width() for bar in box] for box in other.containers}
    assert drawn == {"A or B": [0.3, 0.0], "Yes or No": [0.0, 0.2], "unexplained": [0.7, 0.8]}


def test_cells_of_a_table_are_where_their_names_cross_blue_above_zero_and_vermillion_below(ax):
    figures.transfer_table(np.array([[1.0, -1.0], [0.0, 0.5]]), ["base", "mean"], ["base", "user_neg"], ax=ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["base", "user\n(negative)"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["base", "mean vector"]
    assert {text.get_text(): text.get_position() for text in ax.texts} == {
        "1.00": (0.5, 0.5), "−1.00": (1.5, 0.5), "0.00": (0.5, 1.5), "0.50": (1.5, 1.5)
    }  # fmt: skip
    assert ax.get_ylim() == (2, 0), "the first row on top"
    ax.figure.canvas.draw()
    best, worst, none, _ = ax.collections[0].get_facecolors()
    assert best[2] > best[0]
    assert worst[0] > worst[2]
    assert none[0] == pytest.approx(none[2], abs=0.01)
    assert {text.get_text(): text.get_color() for text in ax.texts}["0.00"] == "#101010"
    assert {text.get_color() for text in ax.texts if text.get_text().endswith("1.00")} == {"#ffffff"}


@pytest.mark.parametrize(("size", "told"), [(1.0, ["0.25", "−0.18"]), (0.1, ["0.025", "−0.018"])])
def test_cells_of_weak_vectors_have_the_digits_that_tell_them_apart(size, told):
    _, ax = figures.canvas()
    figures.transfer_table(size * np.array([[0.251, -0.179]]), ["base"], ["base", "user_neg"], ax=ax)
    assert [text.get_text() for text in ax.texts] == told


def test_colours_of_cosines_are_of_one_scale_however_alike_vectors_are(ax):
    figures.cosine_table(np.array([[0.2, 0.1], [0.1, 0.2]]), ["base", "sys_neg"], ax=ax)
    assert (ax.collections[0].norm.vmin, ax.collections[0].norm.vmax) == (-1.0, 1.0)


# --- words ----------------------------------------------------------------------------------------


def test_axes_say_what_they_show():
    rows = ROWS.rename(columns={"estimate": "share"})
    cells = ROWS.assign(cell="A", n=1, component="gap")
    table = (np.eye(2), ["base", "mean"], ["base", "mean"])
    drawn = {
        "explained by all factors": lambda ax: figures.total_share(rows, ax=ax),
        "share of the variance of steerability": lambda ax: figures.variance_shares(
            rows.assign(component="unexplained"), ax=ax
        ),
        "inputs": lambda ax: figures.option_counts(cells, ax=ax),
        "loss of steerability (nat per unit multiplier)": lambda ax: figures.gap_rows(cells, ax=ax),
        "evaluated in": lambda ax: figures.transfer_table(*table, ax=ax),
        "departure of the mean curve from a line\n(in SDs over inputs)": lambda ax: figures.misfit_rows(
            ROWS.set_axis(["dataset", "distance", "distance_low", "distance_high"], axis=1), ax=ax
        ),
        "widest multiplier used, |λ| ≤": lambda ax: figures.range_sensitivity(
            ROWS.assign(range=1.0), ax=ax, value="estimate", ylabel="x"
        ),
        "steered layer (output of decoder block)": lambda ax: figures.layer_profile(
            ROWS.drop(columns="dataset").assign(layer=[1, 2, 3]), ax=ax
        ),
    }
    for label, draw in drawn.items():
        _, ax = figures.canvas()
        draw(ax)
        assert ax.get_xlabel() == label
    gaps = pd.DataFrame({"n_inputs": [50, 500], "n_datasets": [10, 10], "effect": [0.4, 0.3]})
    drawn = {
        "vector trained in": lambda ax: figures.transfer_table(*table, ax=ax),
        "RMSE about the line (nat)": lambda ax: figures.slope_and_misfit(
            pd.DataFrame({"slope": [-1.0, 1.0], "rmse": [0.1, 0.2]}), ax=ax
        ),
        "smallest detectable gap\n(nat per unit multiplier)": lambda ax: figures.detectable_effect(gaps, ax=ax),
    }
    for label, draw in drawn.items():
        _, ax = figures.canvas()
        draw(ax)
        assert ax.get_ylabel() == label
    points = pd.DataFrame({"x": [1.0, 2.0], "y": [-1.0, 3.0], "self_pair": False})
    for draw in (figures.agreement, figures.foretelling, figures.propensity_and_relative):
        ax = draw(points, ax=figures.canvas()[1], xlabel="this", ylabel="that")
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("this", "that")


def test_correlations_have_the_whole_axis_that_they_can_lie_on(ax):
    rows = pd.DataFrame({"label": ["a"], "estimate": [-0.9], "ci_low": [-0.95], "ci_high": [-0.8]})
    assert figures.coefficient_rows(rows, ax=ax, xlabel="x").get_xlim() == (-1, 1)


def test_filled_marks_are_a_and_open_ones_b(ax):
    cells = ["A, Yes", "A, No", "B, Yes", "B, No"]
    figures.by_option(pd.DataFrame({"dataset": "a", "cell": cells, "mean": 1.0, "ci_low": 0.0, "ci_high": 2.0}), ax=ax)
    drawn = {text: handle.get_markerfacecolor() for handle, text in zip(*ax.get_legend_handles_labels())}
    assert [name for name, face in drawn.items() if face == "none"] == ["B, Yes", "B, No"]


def test_nothing_lost_is_a_line_at_1_beside_another_setting(ax):
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0.5, 0.4], "self_pair": False})
    figures.propensity_and_relative(frame, ax=ax, xlabel="x", ylabel="y")
    assert [list(line.get_ydata()) for line in ax.lines] == [[1, 1], [0, 0]]


def test_zero_is_marked_where_inputs_part_at_it(ax):
    figures.per_input({"a": np.array([-1.0, 0.5])}, {"a": 0.4}, ax=ax)
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)


def test_a_shift_is_told_from_where_the_vector_was_made_to_where_it_is_used(ax):
    assert figures.nice_shift("sys_neg", "user_pos") == "system (negative) → user (positive)"
    assert figures.nice_shift("my-vector", "base") == "my-vector → base"
    figures.spread_rows(ROWS.assign(shift="base->sys_pos"), ax=ax, xlabel="x")
    assert ax.get_legend_handles_labels()[1] == ["base → system (positive)"]


def test_a_remark_stands_above_a_predictor(ax):
    frame = pd.DataFrame({"x": [0.1, 0.2], "y": [0.3, 0.1]})
    figures.foretelling(frame, ax=ax, xlabel="x", ylabel="y", remark="Spearman 0.5")
    assert ax.get_title(loc="left") == "Spearman 0.5"
