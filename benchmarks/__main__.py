"""`make bench`: run every benchmark in a process of its own and put the table into the README.

python -m benchmarks            all of them
python -m benchmarks mixed      one
python -m benchmarks --table    only the table, from the results that are there
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.load import BUSY, busy_cores

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
NAMES = ("mixed", "bootstrap", "analysis", "engine")


def main(arguments: list[str]) -> int:
    """Run the named benchmarks (all without a name), then write the table."""
    chosen = [name for name in arguments if not name.startswith("-")] or list(NAMES)
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        print(f"no benchmark is called {unknown[0]}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = []
    if "--table" not in arguments:
        load = busy_cores()
        if load > BUSY:
            print(f"note: {load:.1f} cores are busy with other work; ratios are from interleaved runs, times are not")
        for name in chosen:
            print(f"\n== {name}", flush=True)
            done = subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}"], cwd=HERE.parent, check=False)
            failed += [name] if done.returncode else []
    write_table()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def write_table() -> None:
    """Replace what stands between the README's marks by what the results that are there say."""
    rows = [row for name in (*NAMES, "gpu") for row in rows_of(name)]
    table = "\n".join(["| what | measured | target |", "|---|---|---|", *rows]) if rows else "Run `make bench`."
    text = README.read_text(encoding="utf-8")
    for name, between in (("bench", table), ("gpu-cost", gpu_cost())):
        marks = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text = re.sub(marks, lambda m, between=between: f"{m[1]}{between}\n{m[2]}", text, flags=re.S)
    README.write_text(text, encoding="utf-8")


def gpu_cost() -> str:
    """What the README says of the paper's grid on a GPU: what was measured, or plainly that nothing was."""
    path = HERE / "results" / "gpu.json"
    if not path.is_file():
        return UNMEASURED
    r = json.loads(path.read_text(encoding="utf-8"))
    speeds = ", ".join(f"{k} {v:.0f}" for k, v in r["examples_per_second_by_mask"].items())
    return (
        f"About {60 * r['hours_for_the_papers_grid']:.0f} minutes for a model of 7B parameters on one {r['device']}, "
        "extrapolated from a sample of the\n"
        f"grid (`benchmarks/results/gpu.json`): {r['model_flop_utilisation']:.0%} of the card's 989 TFLOP/s, and "
        f"{r['grid_over_unsteered_pass']:.2f} times ONE unsteered pass.\n"
        "That is the engine's time; loading the model, a first look at every prompt (minutes of one CPU core) and the\n"
        "writing come on top. How trie rows are masked is measured by each build (here, inputs a second:\n"
        f"{speeds}). "
        "One model over several GPUs has never been run."
    )


def rows_of(name: str) -> list[str]:
    """Rows of the README's table from one benchmark's JSON; none where it has not been run."""
    path = HERE / "results" / f"{name}.json"
    if not path.is_file():
        return [NO_GPU] if name == "gpu" else []
    result = json.loads(path.read_text(encoding="utf-8"))
    return [f"| {' | '.join(row)} |" for row in ROWS[name](result)]


def _mixed(r: dict) -> list[tuple[str, ...]]:
    array, formula = r["ratio_to_closed_form"], r["ratio_to_fit_mixed"]
    what = f"{r['models']} mixed models of {r['inputs']} inputs x 7"
    rows = [(f"{what}, against statsmodels", _both(array["statsmodels"], formula["statsmodels"]), "1,000 times")]
    if "lme4" in array:
        rows.append((f"{what}, against lme4", _both(array["lme4"], formula["lme4"]), "100 times"))
    return rows


def _both(array: float, formula: float) -> str:
    return f"{array:,.0f} times faster on arrays, {formula:,.0f} through a formula"


def _bootstrap(r: dict) -> list[tuple[str, ...]]:
    what = f"gaps and ratios with BCa and studentised intervals, {r['cells']} cells, {r['resamples']:,} resamples"
    return [
        (f"{what}, against batched scipy", f"{r['speed_ratio_cpu']:.0f} times faster", "4 times"),
        ("its peak memory", f"{r['peak_resident_mb']:.0f} MB", "under 300 MB"),
    ]


def _analysis(r: dict) -> list[tuple[str, ...]]:
    growth = r["growth"]
    tenfold = growth["ratio_over_tenfold"] * growth["inputs"][1] / growth["inputs"][0]
    return [
        ("whole analysis of four paper-sized caches", f"{r['wall_s']:.0f} s", f"under {r['targets']['wall_s']:.0f} s"),
        ("its peak memory", f"{r['peak_resident_mb']:.0f} MB", f"under {r['targets']['peak_resident_mb']:.0f} MB"),
        ("cost of ten times the inputs", f"{tenfold:.1f} times", "at most 12 times"),
    ]


def _engine(r: dict) -> list[tuple[str, ...]]:
    rows = []
    for scope in dict.fromkeys(row["scope"] for row in r["rows"]):
        cells = [row for row in r["rows"] if row["scope"] == scope]
        spread = max(cell["spread"] for cell in cells)
        rows += [
            (
                f"six-vector grid, forty datasets by family, against one forward at a time, {scope}",
                f"{r['forty_datasets'][scope]:.0f}",
                "100 times",
            ),
            (f"the same, each family by itself, {scope}", _span(cells, SPEED, ".0f"), "reported"),
            (f"the same grid against ONE unsteered pass, {scope}", _span(cells, GRID, ".2f"), "reported"),
            (f"time of a trie node against a token of that pass, {scope}", _span(cells, NODE, ".2f"), "1.15"),
            (f"tokens computed over distinct ones, {scope}", _span(cells, DISTINCT, ".2f"), "1.00 is the floor"),
            (f"scored triples per second, {scope}", _span(cells, "triples_per_second", ",.0f"), "reported"),
            (f"largest spread between rounds, {scope}", f"{spread:.0%}", "reported"),
        ]
    extras = r.get("extras", [])
    if extras:
        rows += [
            (
                "the six-vector grid at each of 8 layers in turn, against one forward at a time",
                _span(extras, "sweep_of_six_speedup", ".0f"),
                "150 times",
            ),
            (
                "`steerstats sweep`: one vector at each of 8 layers, likewise",
                _span(extras, "sweep_speedup", ".0f"),
                "150 times",
            ),
            (
                "of that sweep: tokens of one forward at a time per distinct token (all that sharing can save)",
                _span(extras, "sweep_tokens_over_distinct", ".0f"),
                "reported",
            ),
            (
                "the grid of one shift with 20 resampled and 20 random vectors more, in grids without",
                _span(extras, "controls_over_grid", ".2f"),
                "reported",
            ),
            (
                "the paper's grid with these controls on one shift, in grids without",
                _span(extras, "controls_over_papers_grid", ".2f"),
                "reported",
            ),
            ("largest spread between rounds, of these", f"{max(one['spread'] for one in extras):.0%}", "reported"),
        ]
    rows.append(("peak memory of the engine's benchmark", f"{r['peak_memory_mib']:,.0f} MB", "reported"))
    if r.get("loaded_machine"):
        rows.append(("(engine figures from a machine that was busy with other work)", "", ""))
    return rows


def _gpu(r: dict) -> list[tuple[str, ...]]:
    where = f"random {r['shape']} Llama, bfloat16, {r['device']}"
    gains = [
        ("(GPU figures of the code before RMS norms took two kernels and settings followed without a pause)", "", "")
    ]
    if "speedup_by_no_pause_between_settings" in r:
        gains = [
            (what, f"{r[key]:.2f} times faster", "reported")
            for what, key in (
                ("with RMS norms in two kernels, against the model's own", "speedup_by_norms_in_two_kernels"),
                ("with settings that follow without a pause", "speedup_by_no_pause_between_settings"),
            )
        ]
    return [
        (f"{where}: the paper's whole grid", f"{60 * r['hours_for_the_papers_grid']:.0f} min expected", "15 min"),
        ("its model FLOP utilisation", f"{r['model_flop_utilisation']:.0%} of 989 TFLOP/s", "45%"),
        ("scored (input, vector, multiplier) triples per second", f"{r['triples_per_second']:,.0f}", "reported"),
        ("the grid against ONE unsteered pass", f"{r['grid_over_unsteered_pass']:.2f}", "reported"),
        ("time of a trie node against a token of that pass", f"{r['node_over_token']:.2f}", "1.15"),
        ("tokens computed over distinct ones", f"{r['computed_over_distinct']:.2f}", "1.00 is the floor"),
        ("spread between its rounds", f"{r['spread_between_rounds']:.1%}", "reported"),
        ("peak memory of the GPU", f"{r['peak_memory_gib']:.1f} GiB", "reported"),
        ("largest bfloat16-to-float32 difference, nats", f"{r['bfloat16_largest_difference']:.3f}", "reported"),
        *gains,
    ]


NO_GPU = "| the paper's whole grid on one GPU (`make bench-gpu`) | not measured: no GPU has been at hand | 15 min |"
UNMEASURED = "No GPU has been at hand yet: `make bench-gpu` measures it and writes `benchmarks/results/gpu.json`."
SPEED, GRID = "speedup_over_one_at_a_time", "grid_over_unsteered_pass"
NODE, DISTINCT = "node_over_token", "computed_over_distinct"
ROWS = {"mixed": _mixed, "bootstrap": _bootstrap, "analysis": _analysis, "engine": _engine, "gpu": _gpu}


def _span(cells: list[dict], key: str, form: str) -> str:
    low, high = min(cell[key] for cell in cells), max(cell[key] for cell in cells)
    spread = f"{low:{form}}-{high:{form}}" if f"{low:{form}}" != f"{high:{form}}" else f"{low:{form}}"
    return f"{spread} ({len(cells)} datasets)"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
