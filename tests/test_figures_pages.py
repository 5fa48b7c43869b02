"""Figures on pages: colours that everyone tells apart, the same bytes every time, and drawings inside HTML."""

from __future__ import annotations

import itertools
import re
import warnings

import matplotlib as mpl
import numpy as np
import pytest

from reports.embed import inline_svg
from reports.render import _style
from steerstats import figures
from steerstats.figures import parts, theme

# --- the palette ----------------------------------------------------------------------------------

COLOURS = ("blue", "vermillion", "green", "purple", "amber")
MARKS = (*COLOURS, "muted", "ink")  # what marks are drawn in
# Machado, Oliveira and Fernandes (2009, doi:10.1109/TVCG.2009.113), severity 1, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    x = np.array(to_xyz) @ rgb / np.array([0.95047, 1, 1.08883])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    light, dark = sorted((float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("dark", [0, 1])
def test_colours_stay_apart_for_colour_blind_readers(blindness, dark):
    seen = {c: lab(np.clip(np.array(BLINDNESS[blindness]) @ linear(theme.PALETTE[c][dark]), 0, 1)) for c in MARKS}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 15, (one, other)


@pytest.mark.parametrize(("page", "dark"), [("#ffffff", 0), ("#14171b", 1)])
def test_marks_and_text_stand_out_on_both_pages(page, dark):
    for colour in COLOURS:
        assert contrast(theme.PALETTE[colour][dark], page) >= 3, colour
    for text in ("ink", "muted"):
        assert contrast(theme.PALETTE[text][dark], page) >= 4.5, text
    for dot in (theme.DOT_BLUE, theme.DOT_RED):
        assert contrast(dot, page) >= 3, dot


@pytest.mark.parametrize("dot", [theme.DOT_BLUE, theme.DOT_RED])
def test_dots_lit_up_on_a_dark_page_have_the_colour_of_their_key(dot):
    by = float(re.search(r"brightness\(([\d.]+)\)", _style())[1])
    rgb = np.array([int(dot[i : i + 2], 16) for i in (1, 3, 5)])
    lit = "#" + "".join(f"{v:02x}" for v in np.minimum(255, np.round(by * rgb)).astype(int))
    assert np.linalg.norm(lab(linear(lit)) - lab(linear(dot))) < 12


def test_palette_colours_do_not_repeat_and_can_be_exchanged_for_variables():
    paper = [pair[0] for pair in theme.PALETTE.values()]
    assert len(set(paper)) == len(paper)
    assert not {theme.DOT_BLUE, theme.DOT_RED} & set(paper), "a rasterised colour cannot follow the theme"


def test_numbers_on_coloured_cells_can_be_read_and_do_not_follow_the_theme():
    _, ax = figures.canvas(width=4, height=3)
    values = np.array([[1.0, -1.0], [0.05, np.nan]])
    parts.matrix(ax, values, ["a", "b"], ["c", "d"])
    assert [t.get_text() for t in ax.texts] == ["1.00", "−1.00", "0.05"]
    faces = [face for face, v in zip(ax.collections[0].get_facecolors(), values.ravel()) if not np.isnan(v)]
    for text, face in zip(ax.texts, faces):
        colour = mpl.colors.to_hex(text.get_color())
        assert contrast(colour, mpl.colors.to_hex(face)) > 3
        assert colour not in {pair[0] for pair in theme.PALETTE.values()}


def test_numbers_on_cells_are_never_minus_zero_and_have_few_digits_where_they_are_large():
    _, ax = figures.canvas(width=4, height=3)
    parts.matrix(ax, np.array([[-0.001, -80998.83]]), ["a"], ["c", "d"])
    assert [t.get_text() for t in ax.texts] == ["0.00", "−80999"]


# --- files ----------------------------------------------------------------------------------------


def draw(name: str = "alpha"):
    with figures.style():
        figure, ax = figures.canvas(width=4, height=2)
        figures.per_input({name: np.linspace(-1, 2, 50)}, {name: 0.5}, ax=ax)
    return figure


def test_the_same_figure_is_the_same_bytes_and_carries_no_date(tmp_path):
    first, again = figures.save(draw(), tmp_path / "a"), figures.save(draw(), tmp_path / "b")
    for one, other in zip(first, again):
        assert one.read_bytes() == other.read_bytes()
    assert b"CreationDate" not in first[1].read_bytes()
    assert not re.search(rb"<dc:date|20\d\d-\d\d-\d\dT", first[0].read_bytes())


def test_style_leaves_the_users_matplotlib_as_it_was():
    before = dict(mpl.rcParams)
    with mpl.rc_context({"axes.facecolor": "red", "savefig.bbox": "tight", "lines.marker": "s"}):
        with figures.style():
            assert mpl.rcParams["axes.facecolor"] == "none"
            assert mpl.rcParams["lines.marker"] == "None", "nor does what ours does not mention come through"
        assert mpl.rcParams["axes.facecolor"] == "red"
    assert dict(mpl.rcParams) == before


def test_letters_that_the_font_lacks_are_text_of_an_svg_without_a_warning_for_each(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing, _ = figures.save(draw("诚实"), tmp_path / "a")
        figures.svg_text(draw("诚实"))
    assert ">诚实<" in drawing.read_text("utf-8")


def test_a_dataset_name_is_text_whatever_is_in_it():
    svg = figures.svg_text(draw('a $\\frac{1}{2}$ <b> & "c"'))
    shown = inline_svg(svg, "f", "t <i>", 'd "q"')
    assert "a $\\frac{1}{2}$ &lt;b&gt; &amp;" in shown  # matplotlib repeats every text in a comment, which is gone here
    assert "<b>" not in shown
    assert "<i>" not in shown


def test_an_inline_figure_follows_the_theme_and_keeps_its_words():
    with figures.style():
        figure, ax = figures.canvas(width=4, height=2)
        ax.plot([0, 1], [0, 1], color=theme.BLUE)
        ax.set_title("0.12345 stays #174f96")
    svg = figures.svg_text(figure)
    shown = inline_svg(svg, "one", "title", "words")
    assert "0.12345 stays #174f96" in shown, "text between tags is not touched"
    assert "var(--blue)" in shown
    drawn = re.sub(r">[^<]*<", "><", shown)
    assert not [pair[0] for pair in theme.PALETTE.values() if pair[0] in drawn], "a palette colour was left"
    assert 'aria-labelledby="one-title one-desc"' in shown
    ids = re.findall(r' id="([^"]+)"', shown)
    assert ids
    assert all(one.startswith("one-") for one in ids)
    other = inline_svg(svg, "two", "title", "words")
    assert not set(ids) & set(re.findall(r' id="([^"]+)"', other))
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', shown)
    assert {a or b for a, b in used} <= set(ids)


def test_what_is_no_figure_is_refused():
    with pytest.raises(ValueError, match="no <svg>"):
        inline_svg("<p>hello</p>", "x", "t", "d")
