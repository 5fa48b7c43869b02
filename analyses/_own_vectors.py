"""Vectors of a user's own: where each was evaluated, what it does there beside the base vector, and how long it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses._cache import ask, by_dataset, current_seed, lacking, plain_mean, vectors_of_kind
from analyses._claim import Claim, NotInCache
from analyses._means import mean_claim
from analyses._own import NO_VECTORS
from analyses._shares import FALLS, WRONG, share_claims
from analyses._words import listed, number
from steerstats import figures
from steerstats.errors import first_few, gathered
from steerstats.figures.variability import SLOPE
from steerstats.generalization import gap
from steerstats.generalization.gap import method_of_gaps
from steerstats.operators import ABLATE
from steerstats.resampling.seeds import generator
from steerstats.results import SLOPE_UNIT, Estimate
from steerstats.study import Study
from steerstats.study.results import DatasetSteerability, doubts
from steerstats.study.unit import StudyUnit

BASE = "base"
RESAMPLES = 2000
ALIKE = 0.01  # norms that differ by less, relative, count as equal
ABREAST = 3  # panels
SAME = "{vector} moves no input otherwise than the base vector does, to numerical error: their difference is rounding"


@dataclass(frozen=True)
class Cell:
    """One vector of the user's own in one setting.

    `own` is its steerability, `base` that of the base vector in the same setting (None where that was not evaluated),
    `difference` own minus base in each dataset, paired by input.
    """

    vector: str
    setting: str
    own: DatasetSteerability
    base: DatasetSteerability | None
    difference: dict[str, Estimate]

    @property
    def shift(self) -> str:
        """The vector and the setting as people read them."""
        return figures.nice_shift(self.vector, self.setting)


def own_cells(study: Study) -> tuple[list[Cell], list[str]]:
    """Every vector of the user's own in every setting that all datasets have it in, and what was left out and why.

    Raises
    ------
    NotInCache
        If there is none.
    """
    cells, absent = [], []
    vectors, units = vectors_of_kind(study, "imported"), list(study.units.values())
    if not vectors:
        raise lacking(study, NO_VECTORS)
    for vector in vectors:
        for setting in study.settings:
            lack = [unit.name for unit in units if not unit.has((vector, setting))]
            if not lack:
                cells.append(_cell(study, vector, setting))
            elif len(lack) < len(units) or setting == BASE:
                # Where nobody asked for it in another setting, nobody misses it there.
                where = f"{figures.nice_shift(vector, setting)} in {first_few(lack, 3)}"
                absent.append(f"{figures.nice_shift(vector, setting)}: {lacking(study, where)}")
    if not cells:
        raise NotInCache(f"no setting in which every dataset has {listed(vectors)}")
    return cells, absent


def _cell(study: Study, vector: str, setting: str) -> Cell:
    own, base, difference = ask(study, "steerability", shift=f"{vector}->{setting}"), None, {}
    units = [study.units[name] for name in own.results]
    if all(unit.has((BASE, setting)) for unit in units):
        base = ask(study, "steerability", shift=f"{BASE}->{setting}")
        for unit in units:
            both = [unit.slopes.at((train, setting)) for train in (vector, BASE)]
            rng = generator(current_seed(), "own vectors", vector, setting, unit.name)
            found = gap(*both, rng=rng, questions=unit.question, n_resamples=RESAMPLES)
            if np.abs(both[0] - both[1]).max() <= 2 * unit.slope_error:
                found = replace(found, warnings=(*found.warnings, SAME.format(vector=vector)))
            difference[unit.name] = found
    return Cell(vector, setting, own, base, difference)


def claims_of(cell: Cell) -> list[Claim]:
    """Mean steerability, at home the share of inputs steered the wrong way and the largest, difference to the base.

    The shares in other settings are in the table and the figure: five settings would have fifteen claims a vector.
    """
    key, names = f"own_vectors.{cell.vector}.{cell.setting}", list(cell.own.results)
    claims = [mean_claim(cell.own, f"{key}.mean", cell.shift)]
    if cell.setting == BASE:
        anti = rows_of(cell)[["dataset", "anti_steerable", "anti_low", "anti_high", "n"]]
        anti.columns = ["dataset", "estimate", "ci_low", "ci_high", "n"]
        share = plain_mean(anti["estimate"], "share of anti-steerable inputs", "share")
        worst = dict(anti.loc[anti["estimate"].idxmax()])
        how = cell.own[worst["dataset"]]["anti_steerable"].method
        text = f"{FALLS if cell.own.operator == ABLATE else WRONG} under {cell.shift}"
        claims += share_claims((f"{key}.anti", f"{key}.worst"), text, share, worst, how)
    base = figures.nice_shift(BASE, cell.setting)
    text, key = f"Steerability under {cell.shift} minus that under {base}", f"{key}.difference"
    if not cell.difference:
        return [*claims, Claim.absent(key, f"{text}:", f"not in this cache: built without {base}")]
    if len(names) == 1:
        return [*claims, Claim.of(key, f"{text}, in {names[0]}:", cell.difference[names[0]], "questions")]
    values = [cell.difference[name].estimate for name in names]
    mean = plain_mean(values, "difference", SLOPE_UNIT)
    return [*claims, Claim.over_datasets(key, text, mean)]


def method_of(cell: Cell) -> str:
    """How means, shares and differences were made: the summaries have medians and spreads too, which are not shown."""
    parts = cell.own.method.replace(f", {cell.own.shift}", "").split("; ")
    parts = [part for part in parts if not part.startswith(("median", "SD"))]
    if cell.difference:
        how = method_of_gaps(RESAMPLES)
        parts.append(f"differences: own minus base vector in the same setting, paired by input, {how}")
    return "; ".join(parts)


def rows_of(cell: Cell) -> pd.DataFrame:
    """One row a dataset: both vectors' means, their difference and the share of anti-steerable inputs, with limits."""
    rows = []
    for name, own in cell.own.results.items():
        row = {"dataset": name, "vector": cell.vector, "evaluated": cell.setting}
        row |= _limits("mean", "mean", own["mean"])
        row |= _limits("base_mean", "base", None if cell.base is None else cell.base[name]["mean"])
        row |= _limits("difference", "difference", cell.difference.get(name))
        row |= _limits("anti_steerable", "anti", own["anti_steerable"])
        rows.append(row | {"n": own["mean"].n})
    return pd.DataFrame(rows)


def _limits(name: str, prefix: str, one: Estimate | None) -> dict[str, float]:
    values = (np.nan,) * 3 if one is None else (one.estimate, one.ci_low, one.ci_high)
    return dict(zip((name, f"{prefix}_low", f"{prefix}_high"), values))


def table_of(cells: Sequence[Cell], study: Study) -> pd.DataFrame:
    """All rows, with norm and layers of the vector and of the base vector, as applied at multiplier 1."""
    order, found = list(cells[0].own.results), []
    rows = pd.concat([by_dataset(rows_of(cell), order) for cell in cells], ignore_index=True)
    for dataset, vector in zip(rows["dataset"], rows["vector"]):
        unit = study.units[dataset]
        (norm, layer), (base_norm, base_layer) = (_length(unit, name) for name in (vector, BASE))
        found.append({"norm": norm, "base_norm": base_norm, "layer": layer, "base_layer": base_layer})
    return rows.assign(**pd.DataFrame(found, index=rows.index))


def _length(unit: StudyUnit, name: str) -> tuple[float, str]:
    label, norm, layer = unit.vectors.get(name), np.nan, ""
    if label and "vector_norm" in unit.unit:
        norm = float(unit.unit.read("vector_norm", vector=label))
    if label and "vector_layer" in unit.unit:
        layer = "+".join(map(str, np.atleast_1d(unit.unit.read("vector_layer", vector=label))))
    return norm, layer


def length_notes(rows: pd.DataFrame, study: Study) -> list[str]:
    """Where a vector's length or layer is not the base vector's: a slope is per unit of a vector, whatever its length.

    Under operator ablate a direction is taken out and its length does nothing.
    """
    lengths, layers = [], []
    for vector, own in rows.groupby("vector", sort=False):
        if ((own["norm"] / own["base_norm"] - 1).abs() > ALIKE).any() and ABLATE not in study.operators:
            lengths.append(f"{vector} has the norm {_from_to(own['norm'])}")
            against = _from_to(own["base_norm"])
        apart = own[(own["layer"] != own["base_layer"]) & (own["base_layer"] != "")]
        if len(apart):
            steered = [listed(list(apart[column].unique())) for column in ("layer", "base_layer")]
            layers.append(f"{vector} steers layer {steered[0]}, the base vector layer {steered[1]}")
    notes = [f"{listed(layers)}: a difference to the base vector is one of layers too"] if layers else []
    if lengths:
        notes.insert(
            0,
            f"{listed(lengths)}, the base vector {against}: slopes are per unit multiplier, so that a longer vector "
            'moves more for its length alone. With files_rescale = "base" in the spec, vectors of your own are brought '
            "to the base vector's norm",
        )
    return notes


def _from_to(values: pd.Series) -> str:
    low, high = number(values.min()), number(values.max())
    return low if low == high else f"{low} to {high}"


def cell_warnings(cells: Sequence[Cell]) -> list[str]:
    """Warnings of all cells, each once; with the vector and setting where it is not of all."""
    said = ((cell.shift, text) for cell in cells for text in (*cell.own.warnings, *doubts(cell.difference, {})))
    return [text if len(own) == len(cells) else f"{listed(own)}: {text}" for text, own in gathered(said).items()]


def panels(cells: Sequence[Cell]) -> Figure:
    """One vector beside the base vector in each setting, and the share of inputs that it steers the wrong way."""
    frames, order = [rows_of(cell) for cell in cells], list(cells[0].own.results)
    down, abreast = -(-(len(cells) + 1) // ABREAST), min(len(cells) + 1, ABREAST)
    size = {"width": 8.4, "height": down * (1.5 + 0.26 * len(order))}
    figure, axes = figures.canvas(down, abreast, squeeze=False, **size)
    names = {"base_mean": "before", "base_low": "before_low", "base_high": "before_high"}
    names |= {"mean": "after", "mean_low": "after_low", "mean_high": "after_high"}
    for k, (ax, cell, frame) in enumerate(zip(axes.flat, cells, frames)):
        rows = by_dataset(frame, order).rename(columns=names)
        figures.before_and_after(rows, ax=ax, names=("base vector", cell.vector), labels=k % abreast == 0)
        ax.set_title(f"evaluated in {figures.nice_setting(cell.setting)}", fontsize=8.5)
        ax.set_xlabel(SLOPE.replace(" (", "\n("))
    settings = axes.flat[: len(cells)]  # on one scale, so that settings can be compared
    low, high = (pick(limits) for pick, limits in zip((min, max), zip(*(ax.get_xlim() for ax in settings))))
    for ax in settings:
        ax.set_xlim(low, high)
    last = axes.flat[len(cells)]
    names = {"anti_steerable": "estimate", "anti_low": "ci_low", "anti_high": "ci_high"}
    rows = by_dataset(frames[0], order).rename(columns=names)
    figures.anti_share(rows, ax=last, labels=len(cells) % abreast == 0)
    last.set_title(f"{cells[0].vector} in {figures.nice_setting(cells[0].setting)}", fontsize=8.5)
    for ax in axes.flat[len(cells) + 1 :]:
        ax.remove()
    return figures.key_outside(figure, axes[0, 0], columns=2, title="mean steerability under")
