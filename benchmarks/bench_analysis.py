"""A whole analysis at the paper's size: 4 models x 40 datasets x 30 (train, eval) pairs x 500 inputs x 7 multipliers.

    python -m benchmarks.bench_analysis

Every question that a report asks is asked of every cache (in-process, one BLAS thread a process, models in turn), the
caches being simulated first and not timed. Wall time, CPU time and peak memory are those of a process of its own.
Growth is checked on a tenth of the datasets, with the paper's inputs and with ten times as many.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESULT = Path(__file__).parent / "results" / "analysis.json"
MODELS, DATASETS, INPUTS, TENFOLD = 4, 40, 500, 10
TARGET_S, TARGET_MB = 60.0, 2048.0


def analyse(paths: list[str]) -> dict[str, float]:
    """Ask every cache every question; seconds by question."""
    import steerstats

    seconds: dict[str, float] = {}
    studies = [steerstats.open_cache(path) for path in paths]
    questions = (
        ("steerability", lambda study: study.steerability()),
        ("spurious factors", lambda study: study.spurious_factors()),
        ("generalization", lambda study: study.generalization()),
        ("figure 7", lambda study: study.propensity_shift()),
        ("linearity", lambda study: study.linearity()),
        ("multiplier range", lambda study: study.multiplier_range()),
        ("cross model", lambda study: study.cross_model(studies[0])),
    )
    for study in studies:
        for name, question in questions:
            begin = time.perf_counter()
            question(study)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin
    return seconds


def measured(paths: list[str]) -> dict[str, object]:
    """`analyse` in a process of its own, with its wall and CPU time and its peak resident memory."""
    command = [sys.executable, "-m", "benchmarks.bench_analysis", "--analyse", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_caches(folder: Path, count: int, datasets: int, inputs: int) -> list[str]:
    """Simulated caches without activations; slopes that make no estimator's life easy."""
    from steerstats.simulate import SimulationTruth, simulate_cache

    truth = SimulationTruth(
        datasets=datasets, n_inputs=inputs, n_pairs=2, logits=False, activations=False, a_slope=0.8, yes_slope=0.3,
        transfer_cost=0.2, curvature_sd=0.1, wiggle_sd=0.05,
    )  # fmt: skip
    paths = [folder / f"{datasets}-{inputs}-model-{k}" for k in range(count)]
    for k, path in enumerate(paths):
        simulate_cache(path, truth, seed=0, model=f"model-{k}")
    return [str(path) for path in paths]


def main() -> None:
    """Measure, print, write the JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paper = measured(write_caches(folder, MODELS, DATASETS, INPUTS))
        few = write_caches(folder, 1, DATASETS // TENFOLD, INPUTS)
        many = write_caches(folder, 1, DATASETS // TENFOLD, INPUTS * TENFOLD)
        rounds = [(measured(few), measured(many)) for _ in range(2)]
    small = min(one["questions_s"] for one, _ in rounds)
    large = min(one["questions_s"] for _, one in rounds)
    result = {
        "what": f"{MODELS} models x {DATASETS} datasets x 30 pairs x {INPUTS} inputs x 7 multipliers, all questions",
        **paper,
        "growth": {
            "inputs": [INPUTS, INPUTS * TENFOLD],
            "datasets": DATASETS // TENFOLD,
            "seconds": [small, large],
            "ratio_over_tenfold": large / small / TENFOLD,
            "peak_resident_mb": max(one["peak_resident_mb"] for _, one in rounds),
        },
        "targets": {"wall_s": TARGET_S, "peak_resident_mb": TARGET_MB, "ratio_over_tenfold_at_most": 1.2},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "machine": platform.machine(),
    }
    met = paper["wall_s"] <= TARGET_S and paper["peak_resident_mb"] <= TARGET_MB
    ratio = result["growth"]["ratio_over_tenfold"]
    result["targets_met"] = bool(met and ratio <= 1.2)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for question, seconds in paper["seconds_by_question"].items():
        print(f"{question:24}{seconds:8.1f} s")
    print(f"{'all, import included':24}{paper['wall_s']:8.1f} s, peak {paper['peak_resident_mb']:.0f} MB")
    print(f"ten times the inputs cost {ratio * TENFOLD:.1f} times as much; targets met: {result['targets_met']}")


if __name__ == "__main__":
    if "--analyse" in sys.argv:
        begin = time.perf_counter()
        by_question = analyse(sys.argv[2:])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(
            json.dumps(
                {
                    "wall_s": time.perf_counter() - begin,
                    "cpu_s": usage.ru_utime + usage.ru_stime,
                    "questions_s": sum(by_question.values()),
                    "peak_resident_mb": usage.ru_maxrss / 1024,
                    "seconds_by_question": by_question,
                }
            )
        )
    else:
        main()
