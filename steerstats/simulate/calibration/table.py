"""How often intervals cover and tests err, measured by simulation with known truth through the public estimators.

The committed `calibration.csv` is `calibration_table(seed=0)` with every cell's own number of simulations, written by

    calibration_table(jobs=2).to_csv(TABLE, index=False)

and nothing in it is edited by hand: where a method fails, the table says so. A cell draws from a stream of its own
name, so that a few cells give the same rows as the whole table does.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from steerstats.errors import InputError, check_count
from steerstats.resampling.seeds import generator
from steerstats.simulate.calibration import datasets, designs, few, inputs, models, ranks, sizes, skewed, tests, unequal

if TYPE_CHECKING:
    from rich.progress import Progress

TABLE = Path(__file__).with_name("calibration.csv")
COLUMNS = ("quantity", "setting", "method", "target", "measured", "mc_se", "n_simulations")
PARTS = (inputs, datasets, models, tests, designs, few, unequal, skewed, ranks, sizes)
CELLS = {name: cell for part in PARTS for name, cell in part.CELLS.items()}


def calibration_table(
    seed: int = 0,
    *,
    n_simulations: int | None = None,
    cells: Sequence[str] | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Measure coverage and error rates under known truths.

    Parameters
    ----------
    seed : int
    n_simulations : int, optional
        Simulated studies of every cell, at least 1. Default: each cell's own number, which keeps the Monte-Carlo
        error near .01 or below and the whole table to about an hour on one core.
    cells : sequence of str, optional
        Names from `CELLS`; all by default. The rows come in the order of `CELLS`, whatever the order asked for.
    jobs : int
        Processes; every cell draws from its own stream, so that the rows do not depend on it.
    progress : rich.progress.Progress, optional
        Shows one step for each cell.

    Returns
    -------
    DataFrame
        One row per quantity, setting and method: `target` is the nominal rate (0.95 of an interval, 0.05 of a test,
        an upper bound for a false discovery rate), `measured` the rate found, `mc_se` its Monte-Carlo standard error
        and `n_simulations` the studies behind it. Rates are rounded to four digits.

    Raises
    ------
    InputError
        If a cell is unknown, or `n_simulations` is below 1.

    Examples
    --------
    >>> table = calibration_table(cells=["sd, normal, n = 50"], n_simulations=200)
    >>> bool(0.85 < table["measured"][0] <= 1)
    True
    """
    chosen = list(CELLS) if cells is None else list(cells)
    unknown = [name for name in chosen if name not in CELLS]
    if unknown:
        raise InputError(f"cell {unknown[0]!r} is unknown; the cells are {'; '.join(CELLS)}")
    if n_simulations is not None:
        check_count("n_simulations", n_simulations)
    check_count("seed", seed, at_least=0)
    jobs = check_count("jobs", jobs)
    task = None if progress is None else progress.add_task("calibrating", total=len(chosen))
    names = [name for name in CELLS if name in chosen]
    # Fresh processes: a forked one would inherit locks of threads that numerical libraries hold.
    pool = ProcessPoolExecutor(jobs, get_context("spawn")) if jobs > 1 else nullcontext()
    rows = []
    with pool:
        every = [names, [seed] * len(names), [n_simulations] * len(names)]
        for name, found in zip(names, (pool.map if jobs > 1 else map)(_rows, *every)):
            rows += found
            if progress is not None:
                progress.update(task, advance=1, description=f"calibrated: {name}")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(name: str, seed: int, n_simulations: int | None) -> list[tuple]:
    cell = CELLS[name]
    n = cell.n_simulations if n_simulations is None else n_simulations
    rows = []
    for outcome in cell.simulate(generator(seed, "calibrate", name), n):
        values = np.asarray(outcome.values)
        measured, error = round(float(values.mean()), 4), round(_monte_carlo_error(values), 4)
        rows.append((outcome.quantity, cell.setting, outcome.method, outcome.target, measured, error, n))
    return rows


def _monte_carlo_error(values: np.ndarray) -> float:
    """Standard error of a rate; one imagined hit and miss keep it above zero where all studies agree."""
    n = len(values)
    if values.dtype == bool:
        share = (values.sum() + 1) / (n + 2)
        return float(np.sqrt(share * (1 - share) / n))
    return float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
