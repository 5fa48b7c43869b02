"""What the results say, as tables: the few rows of the README, and all of them on the benchmarks' own page.

A row is (what, measured, target). A target that was not reached says so in its own cell.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
PAGE = HERE / "README.md"
NAMES = ("mixed", "bootstrap", "analysis", "engine")  # those of `make bench`; "gpu" is measured by itself

Row = tuple[str, str, str]

NODE_TARGET, FORTY_TARGET, SWEEP_TARGET, TENFOLD_TARGET = 1.15, 100.0, 150.0, 12.0
SPEED, GRID = "speedup_over_one_at_a_time", "grid_over_unsteered_pass"
NODE, DISTINCT = "node_over_token", "computed_over_distinct"
ONE_AT_A_TIME = "steering grid of forty datasets, against one forward pass at a time"
UNMEASURED = "No GPU has been at hand yet: `make bench-gpu` measures it and writes `benchmarks/results/gpu.json`."
NO_GPU = ("the paper's whole grid on one GPU (`make bench-gpu`)", "not measured: no GPU has been at hand", "15 min")
OLD = "(measured on an earlier version)"
EARLIER = (
    "The GPU figures are from before RMS norms took two kernels, rotary positions were applied in place and settings "
    "ran without a pause between them."
)


def write_tables() -> None:
    """Replace what stands between the marks of both pages by what the results that are there say."""
    for path, parts in pages().items():
        text = path.read_text(encoding="utf-8")
        for name, between in parts.items():
            marks = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
            text = re.sub(marks, lambda m, between=between: f"{m[1]}{between}\n{m[2]}", text, flags=re.S)
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, dict[str, str]]:
    """Each page, and what belongs between which of its marks."""
    found = {name: json.loads(path.read_text("utf-8")) for name in (*NAMES, "gpu") if (path := _result(name)).is_file()}
    gpu = found.get("gpu")
    return {
        README: {"gpu-cost": gpu_cost(gpu), "bench": as_table(highlights(found))},
        PAGE: {"bench": as_table(all_rows(found)), "gpu-notes": gpu_notes(gpu)},
    }


def as_table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| what | measured | target |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) if rows else "Run `make bench`."


def all_rows(found: dict[str, dict]) -> list[Row]:
    """Every figure of every result; what has not been run has no rows, except that the GPU says so."""
    rows = [row for name in NAMES if name in found for row in ROWS[name](found[name])]
    return [*rows, *(_gpu(found["gpu"]) if "gpu" in found else [NO_GPU])]


def highlights(found: dict[str, dict]) -> list[Row]:
    """The rows that a reader of the README wants."""
    rows: list[Row] = []
    if engine := found.get("engine"):
        scopes = [{"speed": speed} for speed in engine["forty_datasets"].values()]
        goal = _goal("100 times", _least(scopes, "speed") >= FORTY_TARGET)
        rows.append((ONE_AT_A_TIME, f"{_ends(scopes, 'speed', '.0f')} times faster", goal))
        if extras := engine.get("extras"):
            goal = _goal("150 times", _least(extras, "sweep_speedup") >= SWEEP_TARGET)
            rows.append((f"{_sweep(extras)}, likewise", f"{_ends(extras, 'sweep_speedup', '.0f')} times faster", goal))
    if mixed := found.get("mixed"):
        for peer, target in (("statsmodels", 1000.0), ("lme4", 100.0)):
            if peer in (ratio := mixed["ratio_to_fit_mixed"]):
                what = f"{mixed['models']} mixed models, formula to result, against {peer}"
                goal = _goal(f"{target:,.0f} times", ratio[peer] >= target)
                rows.append((what, f"{ratio[peer]:,.0f} times faster", goal))
    if analysis := found.get("analysis"):
        rows.append(_analysis(analysis)[0])
    if gpu := found.get("gpu"):
        earlier = "" if _current(gpu) else f" {OLD}"
        first, second = _gpu(gpu)[:2]
        rows += [(f"{first[0]}{earlier}", *first[1:]), second]
    else:
        rows.append(NO_GPU)
    return rows


def gpu_cost(r: dict | None) -> str:
    """What the README says of the paper's grid on a GPU: what was measured, or plainly that nothing was."""
    if r is None:
        return UNMEASURED
    earlier = "" if _current(r) else f" {OLD}"
    return _wrapped(
        f"About {60 * r['hours_for_the_papers_grid']:.0f} minutes for a model of {r['shape']} parameters on one "
        f"{r['device']}, extrapolated from a sample of the grid{earlier}. That is the engine's time; loading the "
        "model, a first look at every prompt (minutes of one CPU core) and writing come on top. One model over "
        "several GPUs has never been run."
    )


def gpu_notes(r: dict | None) -> str:
    """What the benchmarks' page says beside the GPU's rows."""
    if r is None:
        return UNMEASURED
    masks = r["examples_per_second_by_mask"].items()  # a speed, or why a mask was out of the question
    speeds = ", ".join(f"{mask} {found if isinstance(found, str) else f'{found:.0f}'}" for mask, found in masks)
    return _wrapped(
        f"On one {r['device']} (torch {r['torch']}, transformers {r['transformers']}) the paper's grid costs "
        f"{r['grid_over_unsteered_pass']:.2f} times ONE unsteered pass over the same prompts, extrapolated from a "
        "sample of it. Each build chooses how to mask trie rows by measuring (here, inputs per second: "
        f"{speeds}).{'' if _current(r) else f' {EARLIER}'}"
    )


def _mixed(r: dict) -> list[Row]:
    array, formula = r["ratio_to_closed_form"], r["ratio_to_fit_mixed"]
    what = f"{r['models']} mixed models of {r['inputs']} inputs x 7"
    rows = []
    for peer, target in (("statsmodels", 1000.0), ("lme4", 100.0)):
        if peer in array:
            goal = _goal(f"{target:,.0f} times", min(array[peer], formula[peer]) >= target)
            both = f"{array[peer]:,.0f} times faster on arrays, {formula[peer]:,.0f} through a formula"
            rows.append((f"{what}, against {peer}", both, goal))
    return rows


def _bootstrap(r: dict) -> list[Row]:
    what = f"gaps and ratios with BCa and studentised intervals, {r['cells']} cells, {r['resamples']:,} resamples"
    speed, memory, targets = r["speed_ratio_cpu"], r["peak_resident_mb"], r["targets"]
    fast, small = targets["speed_ratio"], targets["peak_resident_mb"]
    return [
        (f"{what}, against batched scipy", f"{speed:.0f} times faster", _goal(f"{fast:.0f} times", speed >= fast)),
        ("its peak memory", f"{memory:.0f} MB", _goal(f"under {small:.0f} MB", memory < small)),
    ]


def _analysis(r: dict) -> list[Row]:
    growth, wall, memory = r["growth"], r["targets"]["wall_s"], r["targets"]["peak_resident_mb"]
    tenfold = growth["ratio_over_tenfold"] * growth["inputs"][1] / growth["inputs"][0]
    return [
        (
            "whole analysis of four paper-sized caches",
            f"{r['wall_s']:.0f} s",
            _goal(f"under {wall:.0f} s", r["wall_s"] < wall),
        ),
        (
            "its peak memory",
            f"{r['peak_resident_mb']:.0f} MB",
            _goal(f"under {memory:.0f} MB", r["peak_resident_mb"] < memory),
        ),
        (
            "cost of ten times the inputs",
            f"{tenfold:.1f} times",
            _goal(f"at most {TENFOLD_TARGET:.0f} times", tenfold <= TENFOLD_TARGET),
        ),
    ]


def _engine(r: dict) -> list[Row]:
    rows = []
    for scope in dict.fromkeys(row["scope"] for row in r["rows"]):
        cells = [row for row in r["rows"] if row["scope"] == scope]
        spread, forty = max(cell["spread"] for cell in cells), r["forty_datasets"][scope]
        rows += [
            (f"{ONE_AT_A_TIME}, scope {scope}", f"{forty:.0f} times", _goal("100 times", forty >= FORTY_TARGET)),
            (f"the same, each family by itself, {scope}", _span(cells, SPEED, ".0f"), "reported"),
            (f"the same grid against ONE unsteered pass, {scope}", _span(cells, GRID, ".2f"), "reported"),
            (
                f"time of a trie node against a token of that pass, {scope}",
                _span(cells, NODE, ".2f"),
                _goal(f"{NODE_TARGET}", max(cell[NODE] for cell in cells) <= NODE_TARGET),
            ),
            (f"tokens computed over distinct ones, {scope}", _span(cells, DISTINCT, ".2f"), "1.00 is the floor"),
            (f"scored triples per second, {scope}", _span(cells, "triples_per_second", ",.0f"), "reported"),
            (f"largest spread between rounds, {scope}", f"{spread:.0%}", "reported"),
        ]
    extras = r.get("extras", [])
    if extras:
        rows += [
            (
                f"the six-vector grid at each of {extras[0]['sweep_layers']} layers in turn, against the same",
                _span(extras, "sweep_of_six_speedup", ".0f"),
                _goal("150 times", _least(extras, "sweep_of_six_speedup") >= SWEEP_TARGET),
            ),
            (
                f"{_sweep(extras)}, against the same",
                _span(extras, "sweep_speedup", ".0f"),
                _goal("150 times", _least(extras, "sweep_speedup") >= SWEEP_TARGET),
            ),
            (
                "of that sweep: tokens of one forward pass at a time per distinct token (the most sharing can save)",
                _span(extras, "sweep_tokens_over_distinct", ".0f"),
                "reported",
            ),
            (
                "cost of the grid of one shift with 20 resampled and 20 random vectors, in grids without them",
                _span(extras, "controls_over_grid", ".2f"),
                "reported",
            ),
            (
                "cost of the paper's grid with these controls on one shift, in grids without them",
                _span(extras, "controls_over_papers_grid", ".2f"),
                "reported",
            ),
            ("largest spread between rounds, of these", f"{max(one['spread'] for one in extras):.0%}", "reported"),
        ]
    rows.append(("peak memory of the engine's benchmark", f"{r['peak_memory_mib']:,.0f} MB", "reported"))
    if r.get("loaded_machine"):
        rows.append(("(engine figures from a machine that was busy with other work)", "", ""))
    return rows


def _gpu(r: dict) -> list[Row]:
    where = f"the paper's whole grid on a {r['shape']} Llama with random weights, bfloat16, one {r['device']}"
    hours, used = r["targets"]["hours_for_the_papers_grid"], r["targets"]["model_flop_utilisation"]
    gains = [
        (what, f"{r[key]:.2f} times faster", "reported")
        for what, key in (
            ("with RMS norms in two kernels, against the model's own", "speedup_by_norms_in_two_kernels"),
            ("with rotary positions in place, against the model's own", "speedup_by_rope_in_place"),
            ("with settings run without a pause between them", "speedup_by_no_pause_between_settings"),
        )
        if key in r
    ]
    return [
        (
            where,
            f"{60 * r['hours_for_the_papers_grid']:.0f} min expected",
            _goal(f"{60 * hours:.0f} min", r["hours_for_the_papers_grid"] <= hours),
        ),
        (
            "share of that card's 989 TFLOP/s in use (MFU)",
            f"{r['model_flop_utilisation']:.0%}",
            _goal(f"{used:.0%}", r["model_flop_utilisation"] >= used),
        ),
        ("scored (input, vector, multiplier) triples per second", f"{r['triples_per_second']:,.0f}", "reported"),
        ("the grid against ONE unsteered pass", f"{r['grid_over_unsteered_pass']:.2f}", "reported"),
        (
            "time of a trie node against a token of that pass",
            f"{r['node_over_token']:.2f}",
            _goal(f"{NODE_TARGET}", r["node_over_token"] <= NODE_TARGET),
        ),
        ("tokens computed over distinct ones", f"{r['computed_over_distinct']:.2f}", "1.00 is the floor"),
        ("spread between its rounds", f"{r['spread_between_rounds']:.1%}", "reported"),
        ("peak memory of the GPU", f"{r['peak_memory_gib']:.1f} GiB", "reported"),
        ("largest bfloat16-to-float32 difference, nats", f"{r['bfloat16_largest_difference']:.3f}", "reported"),
        *gains,
    ]


ROWS = {"mixed": _mixed, "bootstrap": _bootstrap, "analysis": _analysis, "engine": _engine, "gpu": _gpu}


def _result(name: str) -> Path:
    return HERE / "results" / f"{name}.json"


def _current(gpu: dict) -> bool:
    """Whether the code that was measured has what `EARLIER` names."""
    return "speedup_by_rope_in_place" in gpu


def _goal(target: str, met: bool) -> str:
    return target if met else f"{target}, **missed**"


def _sweep(extras: list[dict]) -> str:
    return f"`steerstats sweep`: one vector at each of {extras[0]['sweep_layers']} layers"


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 118, break_on_hyphens=False, break_long_words=False))


def _least(cells: list[dict], key: str) -> float:
    return min(cell[key] for cell in cells)


def _ends(cells: list[dict], key: str, form: str) -> str:
    low, high = f"{_least(cells, key):{form}}", f"{max(cell[key] for cell in cells):{form}}"
    return low if low == high else f"{low}-{high}"


def _span(cells: list[dict], key: str, form: str) -> str:
    return f"{_ends(cells, key, form)} ({len(cells)} datasets)"
