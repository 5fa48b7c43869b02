"""The folded page of one dataset: its curves, its numbers, and the inputs at both ends, as they stand in the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from analyses._cache import mean_curves, order_by_median
from analyses._effects import ONE
from analyses._words import number, percent, together
from reports.embed import inline_svg
from reports.operators import ends
from reports.tables import cells
from steerstats import figures
from steerstats.errors import SteerstatsError, how_many
from steerstats.operators import ABLATE
from steerstats.study import Study

SHOWN = 3  # inputs at either end
LONGEST = 1600  # characters of an input; the rest is counted
NAMES = {
    "mean": "mean steerability",
    "mean, vector error included": "mean steerability, the vector's error in the interval",
    "median": "median steerability",
    "sd": "SD over inputs",
    "anti_steerable": "anti-steerable inputs",
    "within_error": "inputs within numerical error of zero",
    "published_nonpositive": "slope ≤ 0, as published",
}
ORDER = {name: k for k, name in enumerate(NAMES)}
TOLD = ("text", "positive", "option_positive", "row")  # of an input


def dataset_pages(study: Study, results: Path, prefix: str = "", *, brief: bool = False) -> list[dict[str, Any]]:
    """One page for each dataset, highest median first.

    Parameters
    ----------
    study : Study
    results : path
        Folder with the tables that the scripts wrote for this cache.
    prefix : str
        Of the anchors.
    brief : bool
        Without the curve and with one input at each end: for caches that stand beside a first one, whose pages would
        otherwise make a book of the report.
    """
    if study.kind == "sweep" or not all(unit.has(("base", "base")) for unit in study.units.values()):
        return []  # the sections say what is not there
    curves = mean_curves(study)
    tables = {name: _read(results / f"{name}.parquet") for name in ("per_input_steerability", "gap_parts")}
    explained = _read(results / "variance_explained.parquet")
    least, most = ends(study)
    wrong = "{} with a slope below 0" if ABLATE in study.operators else "{} anti-steerable"
    parts = [("median steerability", "median {}"), ("anti-steerable inputs", wrong)]
    pages = []
    for k, name in enumerate(_ordered(study)):
        numbers = _numbers(name, tables, explained)
        own = {row[0]: row for row in numbers}
        line = ", ".join(words.format(own[row][1]) for row, words in parts if row in own)
        pages.append(
            {
                "id": f"{prefix}dataset-{k + 1}",
                "name": name,
                "line": line,
                "least": least,
                "most": most,
                "svg": "" if brief else _figure(curves[curves["dataset"] == name], name, f"{prefix}d{k + 1}"),
                "figure_label": f"Propensity curve of {name}",
                "caption": _caption(len(study.units[name].inputs)),
                "table": cells(
                    pd.DataFrame(numbers, columns=["quantity", "estimate", "95% interval", "n"]),
                    f"Numbers of {name}, base → base unless said; steerability in nats per unit multiplier",
                ),
                **_inputs_at_ends(study, name, 1 if brief else SHOWN),
            }
        )
    return pages


def _ordered(study: Study) -> list[str]:
    try:
        return order_by_median(study)
    except SteerstatsError:  # no summary of these data; the sections say why
        return list(study.datasets)


def _figure(curve: pd.DataFrame, name: str, prefix: str) -> Markup:
    with figures.style():
        figure, ax = figures.canvas(width=4.0, height=2.5)
        figures.propensity_curve(curve, ax=ax, band="middle 80% of inputs")
        ax.set_xlabel("multiplier λ")
        ax.set_ylabel("propensity (nat)")
        svg = figures.svg_text(figure)
    sides = curve.iloc[[0, -1]]
    words = " to ".join(f"{number(e)} at λ = {number(m)}" for e, m in zip(sides["estimate"], sides["multiplier"]))
    return Markup(inline_svg(svg, prefix, f"Propensity curve of {name}", f"Mean propensity runs from {words}."))


def _caption(n: int) -> str:
    shown = (
        "bars: 95% t intervals over questions; grey: the middle 80% of inputs" if n > 1 else "one input, no interval"
    )
    return f"Mean propensity (nat) at each multiplier; {shown}. n = {how_many(n, 'input')}."


def _numbers(name: str, tables: dict[str, pd.DataFrame], explained: pd.DataFrame) -> list[tuple[str, ...]]:
    rows = []
    frame = tables["per_input_steerability"]
    own = frame[frame["dataset"] == name].to_dict("records") if len(frame) else []
    for row in sorted(own, key=lambda row: ORDER.get(row["name"], len(ORDER))):
        if row["name"] in NAMES:
            form = number if row["name"].startswith(("mean", "median", "sd")) else percent
            rows.append((NAMES[row["name"]], *_shown(row, "estimate", form)))
    if len(explained):
        mine = (explained["dataset"] == name) & (explained["split"] == "shapley_adjusted_r2")
        alone = [words for factor, (_, words) in ONE.items() if (mine & (explained["component"] == factor)).any()]
        words = f"variance that {alone[0] if len(alone) == 1 else 'A/B and Yes/No explain'}"
        for row in explained[mine & (explained["component"] == "explained")].to_dict("records"):
            rows.append((words, *_shown(row, "share", percent)))
    gaps = tables["gap_parts"]
    if len(gaps):
        for row in gaps[(gaps["dataset"] == name) & (gaps["component"] == "gap")].to_dict("records"):
            rows.append(
                (f"lost under {figures.nice_shift(*row['shift'].split('->'))}", *_shown(row, "estimate", number))
            )
    return rows


def _shown(row: dict[str, Any], key: str, form: Any) -> tuple[str, str, str]:
    known = np.isfinite(row["ci_low"]) or np.isfinite(row["ci_high"])
    value, low, high = together([row[key], row["ci_low"], row["ci_high"]], "share" if form is percent else "1")
    return value, f"{low} to {high}" if known else "none", str(int(row["n"]))


def _inputs_at_ends(study: Study, name: str, most: int) -> dict[str, list[dict[str, str]]]:
    unit = study.units[name]
    slopes = unit.slopes.at("base->base")
    order = np.argsort(slopes, kind="stable")
    few = min(most, max(1, len(order) // 2))
    shown = {"worst": order[:few], "best": order[::-1][: min(few, len(order) - few)]}  # one input is at one end only
    arrays = {name: unit.unit.read(f"input_{name}")[unit.kept] for name in TOLD if f"input_{name}" in unit.unit}
    return {key: [_input(unit.inputs[k], arrays, k, float(slopes[k])) for k in shown[key]] for key in shown}


def _input(identity: str, arrays: dict[str, np.ndarray], k: int, slope: float) -> dict[str, str]:
    body, answer, option = (str(arrays[name][k]) if name in arrays else "" for name in TOLD[:3])
    answer, option = answer.strip(), option.strip()
    if len(body) > LONGEST:
        body = f"{body[:LONGEST]}… ({len(body) - LONGEST} more characters)"
    parts = [f"steerability {number(slope)}"]
    if answer:
        parts.append(f"behaviour shown by {answer}{f' {option}' if option and option != answer else ''}"[:160])
    if "row" in arrays:
        parts.append(f"row {int(arrays['row'][k])} of the source")
    return {"line": " · ".join(parts), "text": body or f"{identity} (no text in this cache)"}


def _read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame()
