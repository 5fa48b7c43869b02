"""Forty per-dataset mixed models of 500 inputs x 7 multipliers: steerstats, statsmodels and lme4, interleaved.

Each engine fits y ~ lam * (a + yes) + (1 + lam | input) by REML to the same simulated data, a tenth of them without
slope variance beyond what lack of fit explains. One round runs every engine once; the least time over rounds
counts. statsmodels is timed on a stated subset and scaled by the number of models. lme4 times itself inside R, after
reading the data; it is skipped with a notice where R or lme4 is absent. Targets (1,000 times statsmodels, 100
times lme4) are judged in the same run, for the formula and for the arrays, and stand in the JSON.

    python -m benchmarks.bench_mixed
"""

from __future__ import annotations

import csv
import json
import platform
import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from steerstats.mixed import closed_form, fit_mixed
from steerstats.mixed.sufficient import Level, fit_levels

RESULTS = Path(__file__).parent / "results" / "mixed.json"
FORMULA = "y ~ lam * (a + yes) + (1 + lam | input)"
TARGETS = {"statsmodels": 1000.0, "lme4": 100.0}  # times faster that both ways into the closed form have to be
LAM = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
R_SCRIPT = """
suppressMessages(library(lme4))
path <- commandArgs(TRUE)[1]
data <- split(read.csv(path), read.csv(path)$dataset)
data <- lapply(data, function(d) transform(d, input = factor(input)))
started <- proc.time()[["elapsed"]]
criteria <- sapply(data, function(d) suppressMessages(suppressWarnings(
  REMLcrit(lmer(y ~ lam * (a + yes) + (1 + lam | input), d)))))
cat(proc.time()[["elapsed"]] - started, as.character(packageVersion("lme4")),
    format(criteria[order(as.integer(names(data)))], digits = 15, trim = TRUE))
"""


def simulate(n_datasets: int, n_inputs: int, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Propensities (n_inputs, 7) with their factors, one dictionary per dataset."""
    out = []
    for d in range(n_datasets):
        W = np.column_stack([np.ones(n_inputs), rng.integers(0, 2, (n_inputs, 2))])
        sd = np.array([1.0, 0.0 if d % 10 == 0 else rng.uniform(0.1, 1.0)])
        effects = W @ rng.normal(size=(3, 2)) + rng.normal(size=(n_inputs, 2)) * sd
        Y = effects[:, :1] + effects[:, 1:] * LAM + rng.normal(size=(n_inputs, 7)) * rng.uniform(0.2, 0.8)
        out.append({"Y": Y, "W": W})
    return out


def long_frame(data: dict[str, np.ndarray], dataset: int) -> pd.DataFrame:
    """The same numbers with one row per observation."""
    n = len(data["Y"])
    return pd.DataFrame(
        {
            "dataset": dataset,
            "input": np.repeat([f"i{k}" for k in range(n)], 7),
            "lam": np.tile(LAM, n),
            "a": np.repeat(data["W"][:, 1], 7),
            "yes": np.repeat(data["W"][:, 2], 7),
            "y": data["Y"].ravel(),
        }
    )


def run(n_datasets: int = 40, n_inputs: int = 500, rounds: int = 3, statsmodels_fits: int = 2, seed: int = 0) -> dict:
    """Time the engines side by side.

    Parameters
    ----------
    n_datasets, n_inputs : int
        Models, and inputs in each.
    rounds : int
        Interleaved repetitions; the least time of each engine is reported.
    statsmodels_fits : int
        Models that statsmodels fits per round; its time is scaled to all of them.
    seed : int

    Returns
    -------
    dict
        Seconds for all models and ratios by engine, worst difference of the criteria, and how it was measured.
    """
    data = simulate(n_datasets, n_inputs, np.random.default_rng(seed))
    frames = [long_frame(item, d) for d, item in enumerate(data)]
    Z = np.column_stack([np.ones(7), LAM])
    seconds: dict[str, list[float]] = {}
    criteria: dict[str, np.ndarray] = {}
    notices = []
    r_ready = _has_lme4()
    if not r_ready:
        notices.append("lme4 skipped: Rscript with the package lme4 is not installed")

    with tempfile.TemporaryDirectory() as folder:
        table, script = Path(folder) / "data.csv", Path(folder) / "fit.R"
        if r_ready:
            pd.concat(frames).to_csv(table, index=False)
            script.write_text(R_SCRIPT)
        for _ in range(rounds):
            started = time.perf_counter()
            arrays = [closed_form(item["Y"], Z, item["W"]) for item in data]
            seconds.setdefault("closed_form", []).append(time.perf_counter() - started)
            criteria["closed_form"] = np.array([fit.criterion for fit in arrays])

            started = time.perf_counter()
            fits = [fit_mixed(FORMULA, frame) for frame in frames]
            seconds.setdefault("fit_mixed", []).append(time.perf_counter() - started)
            criteria["fit_mixed"] = np.array([fit.criterion for fit in fits])

            # Spread over the datasets, so that models on the boundary are among them.
            chosen = np.linspace(0, n_datasets - 1, statsmodels_fits).astype(int)
            started = time.perf_counter()
            values = [_statsmodels(frames[d]) for d in chosen]
            scaled = (time.perf_counter() - started) * n_datasets / len(chosen)
            seconds.setdefault("statsmodels", []).append(scaled)
            criteria["statsmodels"] = np.full(n_datasets, np.nan)
            criteria["statsmodels"][chosen] = values

            if r_ready:
                elapsed, version, criteria["lme4"] = _lme4(script, table)
                seconds.setdefault("lme4", []).append(elapsed)
    best = {name: min(times) for name, times in seconds.items()}
    if r_ready:
        notices.append(f"lme4 {version}, default optimiser, timed inside R after reading")
    notices.append(f"statsmodels timed on {len(chosen)} of {n_datasets} models per round and scaled")
    reference = criteria["closed_form"]
    return {
        "models": n_datasets,
        "inputs": n_inputs,
        "rounds": rounds,
        "seconds": best,
        "ratio_to_closed_form": {name: value / best["closed_form"] for name, value in best.items()},
        "ratio_to_fit_mixed": {name: value / best["fit_mixed"] for name, value in best.items()},
        "criterion_above_closed_form": {
            name: [float(np.nanmin(values - reference)), float(np.nanmax(values - reference))]
            for name, values in criteria.items()
        },
        "nested_140000_rows_seconds": _nested(data, rounds),
        "targets": judge(best),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}",
        "notices": notices,
    }


def judge(seconds: dict[str, float]) -> list[dict]:
    """One entry per way in and peer: the ratio, the target and whether it is met (None where the peer did not run).

    Parameters
    ----------
    seconds : dict
        Least seconds for all models by engine.
    """
    found = []
    for ours in ("fit_mixed", "closed_form"):
        for peer, target in TARGETS.items():
            ratio = seconds[peer] / seconds[ours] if peer in seconds else None
            met = None if ratio is None else ratio >= target
            found.append({"ours": ours, "peer": peer, "target": target, "ratio": ratio, "met": met})
    return found


def verdict(entry: dict) -> str:
    """One line of `judge` in words."""
    if entry["ratio"] is None:
        return f"{entry['ours']}: {entry['target']:,.0f}x {entry['peer']}: not measured, {entry['peer']} did not run"
    word = "met" if entry["met"] else "NOT MET"
    return f"{entry['ours']}: {entry['target']:,.0f}x {entry['peer']}: {word}, {entry['ratio']:,.0f}x"


def _nested(data: list[dict[str, np.ndarray]], rounds: int) -> float:
    """Least seconds of the pooled model of all datasets, by sufficient statistics, from cross-products to fit."""
    D, n = len(data), len(data[0]["Y"])
    W = np.concatenate([item["W"] for item in data])
    X = np.einsum("ip,mq->imqp", W, np.column_stack([np.ones(7), LAM])).reshape(D * n * 7, -1)
    y = np.concatenate([item["Y"].ravel() for item in data])
    outer = Level(X, np.repeat(np.arange(D), n * 7), np.zeros(X.shape[1], dtype=int))
    inner = Level(X[:, [0, 3]], np.repeat(np.arange(D * n), 7), np.zeros(2, dtype=int))
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        fit_levels(y, X, [outer, inner])
        times.append(time.perf_counter() - started)
    return min(times)


def _statsmodels(frame: pd.DataFrame) -> float:
    """REML criterion of statsmodels' MixedLM through its own formula interface."""
    import statsmodels.formula.api as smf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = smf.mixedlm("y ~ lam * (a + yes)", frame, groups="input", re_formula="~lam")
        return -2 * model.fit(reml=True).llf


def _has_lme4() -> bool:
    if shutil.which("Rscript") is None:
        return False
    probe = subprocess.run(["Rscript", "-e", "library(lme4)"], capture_output=True, check=False)
    return probe.returncode == 0


def _lme4(script: Path, table: Path) -> tuple[float, str, np.ndarray]:
    """Seconds, version and REML criteria of lme4 on all datasets."""
    done = subprocess.run(["Rscript", str(script), str(table)], capture_output=True, text=True, check=True)
    (words,) = csv.reader([done.stdout.strip()], delimiter=" ")
    return float(words[0]), words[1], np.array(words[2:], dtype=float)


def main() -> None:
    """Run, print the table, and write the JSON."""
    result = run()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['models']} models of {result['inputs']} x 7, least of {result['rounds']} interleaved rounds")
    print(f"{'engine':12s} {'seconds':>10s} {'x closed_form':>14s} {'x fit_mixed':>12s}   criterion above ours")
    for name, value in result["seconds"].items():
        low, high = result["criterion_above_closed_form"][name]
        print(
            f"{name:12s} {value:10.4f} {result['ratio_to_closed_form'][name]:14.1f} "
            f"{result['ratio_to_fit_mixed'][name]:12.1f}   {low:.1e} to {high:.1e}"
        )
    print(f"nested model of 140,000 rows, sufficient statistics: {result['nested_140000_rows_seconds']:.2f} s")
    for entry in result["targets"]:
        print(verdict(entry))
    for notice in result["notices"]:
        print(notice)


if __name__ == "__main__":
    main()
