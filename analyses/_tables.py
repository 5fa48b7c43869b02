"""LaTeX tables with booktabs rules, ready to \\input: numbers in columns that line up, everything else escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_integer_dtype

from analyses._words import heading, in_words, together
from steerstats.text import format_number

BOTH = "estimate [95%]"  # heading of an estimate with its limits in one column
Columns = tuple["str | tuple[str, str, str, str]", ...]  # a column's name, or (heading, estimate, low, high)
_EST = (BOTH, "estimate", "ci_low", "ci_high")
# The columns that a page of a paper has room for.
PAPER: dict[str, Columns] = {
    "per_input_steerability": ("dataset", "name", _EST, "n"),
    "own_vectors": (
        "dataset",
        "vector",
        "evaluated",
        ("mean [95%]", "mean", "mean_low", "mean_high"),
        ("base vector [95%]", "base_mean", "base_low", "base_high"),
        ("difference [95%]", "difference", "difference_low", "difference_high"),
        ("anti-steerable [95%]", "anti_steerable", "anti_low", "anti_high"),
        "n",
    ),
    "propensity_curves": ("dataset", "multiplier", _EST, "n"),
    "linearity": (
        "dataset",
        ("departure [95%]", "distance", "distance_low", "distance_high"),
        "nonlinear_share",
        "p_value",
        "n",
    ),
    "multiplier_range": ("dataset", "range", _EST, "correlation_with_whole", "share_other_sign", "n"),
    "answer_mass": ("dataset", "multiplier", _EST, "n"),
    "positive_option": ("dataset", "cell", "n", ("mean [95%]", "mean", "ci_low", "ci_high"), "sd"),
    "variance_explained": ("dataset", "split", "component", ("share [95%]", "share", "ci_low", "ci_high"), "n"),
    "spurious_effects": ("dataset", "term", _EST, "df", "p", "n"),
    "own_factors": ("dataset", "term", _EST, "df", "p", "n"),
    "debiased_vectors": ("dataset", _EST, "n"),
    "id_vs_ood": ("comparison", "target", _EST, "n"),
    "gap_parts": ("dataset", "shift", "component", _EST, "p_adjusted", "n"),
    "propensity_difference": ("definition", "kind", _EST, "n", "n_points"),
    "variance_id_ood": ("dataset", "shift", ("ratio [95%]", "ratio", "ci_low", "ci_high"), "n"),
    "vector_cosines": ("dataset", "vector_a", "vector_b", "cosine"),
    "cross_model": ("comparison", "target", _EST, "n"),
    "comparison": ("first", "second", "dataset", "shift", _EST, "p_adjusted", "n"),
    "split_leakage": (
        "dataset",
        ("clean [95%]", "x", "x_low", "x_high"),
        ("overlapping [95%]", "y", "y_low", "y_high"),
    ),
    "layer_sweep": ("layer", "dataset", _EST, "n"),
    "null_vectors": ("dataset", "kind", "mean", "null_abs_quantile", "p", "decision"),
    "vector_sampling_error": (
        "dataset",
        ("inputs [95%]", "estimate", "inner_low", "inner_high"),
        ("inputs and vector [95%]", "estimate", "outer_low", "outer_high"),
        "times_wider",
    ),
    "predictors": ("predictor", ("Spearman [95%]", "rho", "ci_low", "ci_high"), "p_family", "n_datasets"),
    "power": ("n_inputs", "n_datasets", "effect"),
}

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": r"$-$",
    "–": "--",
    "→": r"$\to$",
    "λ": r"$\lambda$",
    "²": r"$^2$",
    "′": r"$'$",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "τ": r"$\tau$",
    "ρ": r"$\rho$",
    "√": r"$\sqrt{}$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "∞": r"$\infty$",
    "÷": r"$\div$",
    "α": r"$\alpha$",
    "σ": r"$\sigma$",
}


def for_paper(frame: pd.DataFrame, script: str) -> pd.DataFrame:
    """The rows and columns of a script's table that a paper has room for, an estimate and its limits in one column."""
    if script == "spurious_effects":
        own = (frame["model"] == "per-input") & (frame["response"] == "slope")
        frame = frame[own & frame["term"].isin(["pos_is_a", "pos_is_yes"])]
    shown = {}
    for column in PAPER.get(script, tuple(frame.columns)):
        if isinstance(column, str):
            if column in frame:
                shown[heading(column)] = frame[column].to_numpy()
        elif set(column[1:]) <= set(frame.columns):
            shares = column[0].startswith("share")
            rows = frame[list(column[1:])].to_numpy(float)
            shown[column[0]] = [estimate_and_limits(row, "share" if shares else "1") for row in rows]
    return pd.DataFrame(shown)


def estimate_and_limits(values: Sequence[float], unit: str = "1") -> str:
    """ "0.180 [0.140, 0.210]", or the estimate alone."""
    if not np.isfinite(values[0]):
        return "--"
    value, low, high = together(values, unit)
    return f"{value} [{low}, {high}]" if np.isfinite(values[1]) or np.isfinite(values[2]) else value


def to_latex(frame: pd.DataFrame, *, caption: str, label: str, widths: Mapping[str, float] | None = None) -> str:
    """A frame as a `longtable` with booktabs rules, its header repeated on every page.

    Parameters
    ----------
    frame : DataFrame
        One table row a row, columns in order; the index is left out.
    caption, label : str
        Escaped here; the label gets the prefix `tab:`.
    widths : mapping of str to float, optional
        Columns of words that are set in lines, with their share of the text width.

    Returns
    -------
    str
        Needs `\\usepackage{booktabs,longtable}`.
    """
    numeric = [_numeric(frame[name]) for name in frame.columns]
    shapes = ["r" if one or str(name).endswith("]") else "l" for one, name in zip(numeric, frame.columns)]
    for name, width in (widths or {}).items():
        shapes[list(frame.columns).index(name)] = rf"p{{{width}\linewidth}}"
    shape = "".join(shapes)
    head = " & ".join(escape(str(name).replace("_", " ")) for name in frame.columns) + r" \\"
    lines = [
        "% needs \\usepackage{booktabs,longtable}",
        rf"\begin{{longtable}}{{{shape}}}",
        rf"\caption{{{escape(caption)}}}\label{{tab:{label}}}\\",
        r"\toprule",
        head,
        r"\midrule",
        r"\endfirsthead",
        r"\toprule",
        head,
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
    ]
    for row in frame.itertuples(index=False, name=None):
        lines.append(" & ".join(_cell(value) for value in row) + r" \\")
    return "\n".join([*lines, r"\end{longtable}"]) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX prints it, one character at a time, so that nothing in it is a command."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _numeric(column: pd.Series) -> bool:
    return (is_float_dtype(column) or is_integer_dtype(column)) and not is_bool_dtype(column)


def _cell(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return "--"
    if isinstance(value, (float, np.floating)):
        if np.isinf(value):
            return r"$\infty$" if value > 0 else r"$-\infty$"
        text = format_number(value)
        return text.replace("-", "$-$", 1) if text.startswith("-") else text
    if isinstance(value, (int, np.integer)):
        return str(value).replace("-", "$-$")
    text = " ".join(str(value).split())
    return text if text == "--" else escape(in_words(text))
