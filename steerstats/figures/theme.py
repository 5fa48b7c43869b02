"""How every figure looks: palette, type, axes, and saving that writes the same bytes twice.

Colours come in pairs, one for paper and one for a dark page. Figures are always drawn in the paper colours; a page
that shows the SVG inline exchanges each hex value for a CSS variable (`PALETTE` lists them), so one drawing serves
both. Nothing is told by colour alone: series also have markers, and both sides of zero also differ in place.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# name: (on paper, on a dark page). Contrast and colour-blind distances are held by tests/test_figures.py.
PALETTE: dict[str, tuple[str, str]] = {
    "blue": ("#174f96", "#9cc4f5"),
    "vermillion": ("#a8380f", "#e0582e"),
    "green": ("#1b9a7a", "#25d09a"),
    "purple": ("#c062c8", "#b36bd6"),
    "amber": ("#b58c1e", "#f5cf5a"),
    "ink": ("#1c2127", "#e8eaed"),
    "muted": ("#5d6670", "#a3abb5"),
    "rule": ("#c9ced4", "#414851"),
    "wash": ("#edeff2", "#23282f"),
}
BLUE, VERMILLION, GREEN, PURPLE, AMBER = (PALETTE[k][0] for k in ("blue", "vermillion", "green", "purple", "amber"))
INK, MUTED, RULE, WASH = (PALETTE[k][0] for k in ("ink", "muted", "rule", "wash"))
# Vermillion says harm (anti-steerable, a warning) and nothing else, so that no series has it.
SERIES = (BLUE, AMBER, GREEN, PURPLE, MUTED)
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")

ANTI = VERMILLION
# Dots are rasterised where there are thousands of them, and a picture cannot change with the theme: middling tones
# that hold on white and on near-black alike.
DOT_BLUE, DOT_RED = "#3f7fd0", "#d4582a"

SAVING = ("svg.hashsalt", "svg.fonttype", "pdf.fonttype", "pdf.compression", "text.parse_math")
WIDTH = 6.6  # inches; reads at full size in a text column and shrinks to a phone with letters still legible

RC: dict[str, object] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,  # an axis says its own numbers, never "1e-8 + 0.3"
    "axes.formatter.limits": (-4, 6),
    "axes.prop_cycle": mpl.cycler(color=SERIES),
    "figure.facecolor": "none",
    "figure.dpi": 100,
    "savefig.facecolor": "none",
    "savefig.bbox": None,
    "savefig.dpi": 220,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.8,
    "ytick.labelsize": 7.8,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.2,
    "legend.frameon": False,
    "legend.fontsize": 7.8,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.0,
    # Text stays text: it can be searched, read aloud, and takes the page's colours.
    "svg.fonttype": "none",
    "svg.hashsalt": "steerstats",
    "pdf.fonttype": 42,
    "pdf.compression": 9,
    "path.simplify": True,
    "text.usetex": False,
    "text.parse_math": False,  # dataset names are untrusted, and $ is a character like any other
}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this block to get the house style, whatever the user's matplotlibrc says.

    Examples
    --------
    >>> from steerstats import figures
    >>> with figures.style():
    ...     _, ax = figures.canvas()
    >>> ax.spines["top"].get_visible()
    False
    """
    with mpl.rc_context(), _any_letter():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


@contextmanager
def _any_letter() -> Iterator[None]:
    """No warning for each letter that the font lacks: an SVG has it as text, and a PDF's box is seen by itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield


def canvas(rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = 3.4, **layout: object) -> tuple:
    """A figure without pyplot (no global state, safe in worker processes) and its axes.

    Parameters
    ----------
    rows, columns : int
        Panels.
    width, height : float
        Inches.
    **layout
        Passed to `Figure.subplots` (`sharex`, `sharey`, `width_ratios`, `height_ratios`).

    Returns
    -------
    (Figure, Axes or ndarray of Axes)
        As `Figure.subplots` squeezes them.

    Examples
    --------
    >>> from steerstats import figures
    >>> figure, axes = figures.canvas(1, 2, width=6.0, height=3.0)
    >>> len(axes), figure.get_size_inches().tolist()
    (2, [6.0, 3.0])
    """
    ratios = {key: layout.pop(key) for key in ("width_ratios", "height_ratios") if key in layout}
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05, wspace=0.04, hspace=0.06)
    axes = figure.subplots(rows, columns, gridspec_kw=ratios or None, **layout)
    return figure, axes


def save(figure: Figure, stem: str | Path) -> tuple[Path, Path]:
    """Write `stem.svg` and `stem.pdf`; the same figure gives the same bytes (no date, fixed hash salt).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from steerstats import figures
    >>> figure, _ = figures.canvas()
    >>> [path.name for path in figures.save(figure, pathlib.Path(tempfile.mkdtemp(), "slopes"))]
    ['slopes.svg', 'slopes.pdf']
    """
    stem = Path(stem)
    targets = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".pdf")
    with mpl.rc_context({key: RC[key] for key in SAVING}), _any_letter():
        targets[0].write_text(svg_text(figure), encoding="utf-8", newline="\n")
        figure.set_layout_engine("none")  # the layout stands; finding it a second time costs as much as drawing
        buffer = io.BytesIO()
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "ModDate": None, "Producer": None})
        targets[1].write_bytes(buffer.getvalue())
    return targets


def svg_text(figure: Figure) -> str:
    """The figure as SVG source, with trailing blanks stripped and no date in it.

    Examples
    --------
    >>> from steerstats import figures
    >>> first, second = (figures.svg_text(figures.canvas()[0]) for _ in range(2))
    >>> first == second  # not a byte, nor a date, differs
    True
    """
    buffer = io.StringIO()
    with mpl.rc_context({key: RC[key] for key in SAVING}), _any_letter():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "steerstats"})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def light_grid(ax: Axes, axis: str = "x") -> Axes:
    """Hair lines along one axis, and no spine where the labels already make the edge."""
    ax.grid(True, axis=axis)
    if axis == "x":
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
    return ax


def zero_line(ax: Axes, axis: str = "x") -> Axes:
    """The line that separates steering from anti-steering."""
    draw = ax.axvline if axis == "x" else ax.axhline
    draw(0.0, color=INK, linewidth=0.8, zorder=1.5)
    return ax


def short(name: str, limit: int = 34) -> str:
    """A dataset's name for an axis: cut in the middle, so that both the family and the ending stay.

    Examples
    --------
    >>> from steerstats import figures
    >>> figures.short("willingness-to-make-acausal-trades", 20)
    'willingness-…-trades'
    """
    if len(name) <= limit:
        return name
    head = (limit - 1) * 2 // 3
    return f"{name[:head]}…{name[-(limit - 1 - head) :]}"


def shorts(names: Sequence[str], limit: int = 34) -> list[str]:
    """Names that stand beside each other, each as `short` cuts it; where that makes two alike, cut before they differ.

    Examples
    --------
    >>> from steerstats import figures
    >>> figures.shorts([f"wants-power-over-{whose}-own-future" for whose in ("their", "its")], 20)
    ['wants…their-ow…uture', 'wants…its-own-future']
    """
    cut = {name: short(name, limit) for name in names}
    for shown in [text for text, count in Counter(cut.values()).items() if count > 1]:
        alike = [name for name, text in cut.items() if text == shown]
        differ = (k for k, letters in enumerate(zip(*alike)) if len(set(letters)) > 1)
        same, head = next(differ, min(map(len, alike))), limit // 4
        room = limit - head - 1
        rests = shorts([name[same:] for name in alike], room) if room > 8 else [name[same:] for name in alike]
        cut |= {name: f"{name[:head]}…{rest}" for name, rest in zip(alike, rests)}
    return [cut[name] for name in names]


def nice_setting(name: str) -> str:
    """`user_neg` as people say it: "user (negative)", which no number beside it turns into a minus.

    Examples
    --------
    >>> from steerstats import figures
    >>> figures.nice_setting("user_neg")
    'user (negative)'
    """
    return {
        "base": "base",
        "sys_pos": "system (positive)",
        "sys_neg": "system (negative)",
        "user_pos": "user (positive)",
        "user_neg": "user (negative)",
        "mean": "mean vector",
    }.get(name, name)


def nice_shift(train: str, evaluation: str) -> str:
    """`base -> user_neg` as an axis label.

    Examples
    --------
    >>> from steerstats import figures
    >>> figures.nice_shift("base", "user_neg")
    'base → user (negative)'
    """
    return f"{nice_setting(train)} → {nice_setting(evaluation)}"
