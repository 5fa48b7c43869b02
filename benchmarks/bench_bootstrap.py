"""Gaps and ratios of 40 datasets x 20 shifts, with BCa and studentised intervals, against scipy.stats.bootstrap.

Both sides compute the same outputs on the same data: for each of 800 cells of 500 inputs the mean gap and the
ratio of means, each with a BCa and a studentised interval from 10,000 resamples. scipy has no studentised method;
its side gets everything it can from one batched call per dataset: a vectorised statistic returns gap, ratio and both
standard errors of all 20 shifts on the same draws, BCa limits come with the call and the studentised ones from its
bootstrap distribution. scipy runs on a stated number of datasets and is scaled to all, because they take minutes.
One thread; CPU time and wall time are both recorded, and peak memory is that of a fresh process.

    python -m benchmarks.bench_bootstrap
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import scipy
from scipy import stats
from threadpoolctl import threadpool_limits

from steerstats.resampling import SumRatio, interval, resample

DATASETS, SHIFTS, INPUTS, RESAMPLES = 40, 20, 500, 10_000
SCIPY_DATASETS = 1
SCIPY_BATCH = 100
ROUNDS = 3
TARGET_SPEED, TARGET_MEMORY = 4.0, 300.0
RESULT = Path(__file__).parent / "results" / "bootstrap.json"


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """Slopes (datasets, shifts, inputs) and in-distribution slopes (datasets, inputs)."""
    rng = np.random.default_rng(20)
    reference = rng.normal(2.0, 1.0, (DATASETS, INPUTS))
    shifted = reference[:, None] * rng.uniform(0.3, 1.0, (DATASETS, SHIFTS, 1))
    return shifted + rng.normal(0, 0.5, shifted.shape), reference


def ours(shifted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Limits of shape (datasets, statistic, method, side, shifts)."""
    rng = np.random.default_rng(1)
    out = []
    for cells, base, child in zip(shifted, reference, rng.spawn(len(shifted))):
        pair = [SumRatio(base - cells, np.ones(INPUTS)), SumRatio(cells, base)]
        found = resample(pair, rng=child, n_resamples=RESAMPLES)
        out.append([[interval(each, method) for method in ("bca", "studentised")] for each in found])
    return np.array(out)


def statistics(cells: np.ndarray, base: np.ndarray, axis: int = -1) -> np.ndarray:
    """Gap, ratio and their standard errors, (4, ...)."""
    below, root = base.mean(axis=axis), np.sqrt(cells.shape[axis])
    gaps, ratio = base - cells, cells.mean(axis=axis) / below
    spread = np.std(cells - np.expand_dims(ratio, axis) * base, axis=axis, ddof=1)
    gap_se, ratio_se = gaps.std(axis=axis, ddof=1) / root, spread / root / np.abs(below)
    return np.stack([gaps.mean(axis=axis), ratio, gap_se, ratio_se])


def scipys(shifted: np.ndarray, reference: np.ndarray, datasets: int) -> np.ndarray:
    """The same limits for the first `datasets` datasets, in the same shape."""
    out = []
    for k in range(datasets):
        cells, base = shifted[k], np.broadcast_to(reference[k], shifted[k].shape)
        found = stats.bootstrap(
            (cells, base), statistics, paired=True, vectorized=True, method="BCa", axis=-1,
            n_resamples=RESAMPLES, batch=SCIPY_BATCH, rng=np.random.default_rng(k),
        )  # fmt: skip
        drawn, (gap, ratio, gap_se, ratio_se) = found.bootstrap_distribution, statistics(cells, base)
        rows = []
        for j, (estimate, se) in enumerate(((gap, gap_se), (ratio, ratio_se))):
            t = (drawn[j] - estimate[:, None]) / drawn[j + 2]
            low, high = np.quantile(t, [0.025, 0.975], axis=-1)
            bca = [found.confidence_interval.low[j], found.confidence_interval.high[j]]
            rows.append([bca, [estimate - se * high, estimate - se * low]])
        out.append(rows)
    return np.array(out)


def timed(work, *args) -> tuple[float, float, np.ndarray]:
    wall, cpu = time.perf_counter(), time.process_time()
    value = work(*args)
    return time.perf_counter() - wall, time.process_time() - cpu, value


def memory() -> dict:
    """Peak resident memory and peak traced allocation of `ours`, each in a process of its own."""
    out = {}
    for kind in ("resident", "traced"):
        command = [sys.executable, "-m", "benchmarks.bench_bootstrap", f"--memory-{kind}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=RESULT.parents[2])
        out |= json.loads(done.stdout)
    return out


def main() -> None:
    shifted, reference = make_data()
    runs = {"steerstats": [], "scipy": []}
    for _ in range(ROUNDS):  # interleaved, so that a busy machine burdens both
        runs["scipy"].append(timed(scipys, shifted, reference, SCIPY_DATASETS))
        runs["steerstats"].append(timed(ours, shifted, reference))
    mine, theirs = runs["steerstats"][0][2], runs["scipy"][0][2]
    # Different draws: limits may differ by Monte Carlo error only, here in units of each interval's width.
    width = theirs[..., 1, :] - theirs[..., 0, :]
    apart = float(np.max(np.abs(mine[:SCIPY_DATASETS] - theirs) / width[..., None, :]))
    scale = DATASETS / SCIPY_DATASETS
    wall = {"steerstats": min(r[0] for r in runs["steerstats"]), "scipy": min(r[0] for r in runs["scipy"]) * scale}
    cpu = {"steerstats": min(r[1] for r in runs["steerstats"]), "scipy": min(r[1] for r in runs["scipy"]) * scale}
    result = {
        "cells": f"{DATASETS} x {SHIFTS}",
        "inputs": INPUTS,
        "resamples": RESAMPLES,
        "outputs": "mean gap and ratio per cell, each with BCa and studentised limits",
        "rounds": ROUNDS,
        "steerstats_wall_s": wall["steerstats"],
        "steerstats_cpu_s": cpu["steerstats"],
        "scipy_wall_s_scaled": wall["scipy"],
        "scipy_cpu_s_scaled": cpu["scipy"],
        "scipy_datasets_measured": SCIPY_DATASETS,
        "scipy_batch": SCIPY_BATCH,
        "speed_ratio_wall": wall["scipy"] / wall["steerstats"],
        "speed_ratio_cpu": cpu["scipy"] / cpu["steerstats"],
        "largest_difference_in_interval_widths": apart,
        **memory(),
        "targets": {"speed_ratio": TARGET_SPEED, "peak_resident_mb": TARGET_MEMORY},
        "machine": f"{os.cpu_count()} cores, one thread, {platform.machine()}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
    }
    met = result["speed_ratio_cpu"] >= TARGET_SPEED and result["peak_resident_mb"] <= TARGET_MEMORY and apart < 0.1
    result["targets_met"] = bool(met)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'':24}{'wall s':>10}{'CPU s':>10}")
    print(f"{'steerstats':24}{wall['steerstats']:>10.2f}{cpu['steerstats']:>10.2f}")
    print(f"{f'scipy (x {scale:g}, scaled)':24}{wall['scipy']:>10.1f}{cpu['scipy']:>10.1f}")
    print(f"{'ratio':24}{result['speed_ratio_wall']:>10.1f}{result['speed_ratio_cpu']:>10.1f}")
    print(f"peak memory: {result['peak_resident_mb']:.0f} MB resident, {result['peak_traced_mb']:.0f} MB allocated")
    print(f"limits differ by at most {apart:.3f} of the interval's width; targets met: {met}")


if __name__ == "__main__":
    with threadpool_limits(1):
        if "--memory-resident" in sys.argv:
            ours(*make_data())
            print(json.dumps({"peak_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        elif "--memory-traced" in sys.argv:
            tracemalloc.start()
            ours(*make_data())
            print(json.dumps({"peak_traced_mb": tracemalloc.get_traced_memory()[1] / 2**20}))
        else:
            main()
